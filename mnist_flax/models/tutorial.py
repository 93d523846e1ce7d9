"""The network of TensorFlow's "A Guide to TF Layers" and of the posts that followed it."""

import functools
from typing import Any

import jax
from flax import linen as nn

from mnist_flax.models.blocks import check_rate, conv_pool, flatten, initializer


class Tutorial(nn.Module):
    """Two convolutions of 5×5, each with ReLU and 2×2 max-pooling, and two dense layers.

    28×28×1 → 28×28×32 → 14×14×32 → 14×14×64 → 7×7×64 → 3,136 → 1,024 → 10: 3,274,634 parameters.

    Attributes:
      num_classes: number of logits.
      dropout_rate: the share of the 1,024 units that is dropped in training (not kept).
      kernel_init: a name of blocks.INITIALIZERS. The published log fits the fan-in uniform start,
        ±sqrt(3 / fan_in), that tf.layers had before TensorFlow 1.2: at step 101 it gives losses of
        2.17 where Glorot gives 2.29 and the tutorial prints 2.13.
      bias_init: likewise, for the biases.
      init_stddev: standard deviation of 'normal', for both.
      dtype: that the layers compute in; None for that of their parameters, float32.
    """

    num_classes: int = 10
    dropout_rate: float = 0.4
    kernel_init: str = "lecun_uniform"
    bias_init: str = "zeros"
    init_stddev: float = 0.01
    dtype: Any = None

    def __post_init__(self) -> None:
        """Raises UsageError for values that no network can have."""
        initializer(self.kernel_init, self.init_stddev, "config.model.kernel_init")
        initializer(self.bias_init, self.init_stddev, "config.model.bias_init")
        check_rate(self.dropout_rate, "dropout_rate")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images float32 [B, H, W, C] in [0, 1] to logits float32 [B, num_classes]."""
        kernel = initializer(self.kernel_init, self.init_stddev, "config.model.kernel_init")
        bias = initializer(self.bias_init, self.init_stddev, "config.model.bias_init")
        conv = functools.partial(
            nn.Conv, kernel_size=(5, 5), kernel_init=kernel, bias_init=bias, dtype=self.dtype
        )
        pool = functools.partial(conv_pool, padding="VALID")
        dense = functools.partial(nn.Dense, kernel_init=kernel, bias_init=bias, dtype=self.dtype)
        x = pool(conv(32, name="conv1"), images)
        x = pool(conv(64, name="conv2"), x)
        x = nn.relu(dense(1024, name="dense1")(flatten(x)))
        x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x)
        return dense(self.num_classes, name="logits")(x)
