"""The network of "Convolutional Neural Networks (CNN)": three convolutions and no bias at all."""

import functools
from typing import Any

import jax
from flax import linen as nn

from mnist_flax.models.blocks import check_rate, conv_pool, flatten, initializer


class ThreeConv(nn.Module):
    """Three convolutions of 3×3, each with ReLU, 2×2 max-pooling and dropout; two dense layers.

    28×28×1 → 28×28×32 → 14×14×32 → 14×14×64 → 7×7×64 → 7×7×128 → 4×4×128 → 2,048 → 625 → 10:
    1,378,698 parameters.

    Attributes:
      num_classes: number of logits.
      conv_dropout_rate: the share that is dropped after each pooling (not kept).
      dropout_rate: the share of the 625 units that is dropped (not kept).
      use_bias: whether the layers have biases; the tutorial's have none.
      kernel_init: a name of blocks.INITIALIZERS.
      init_stddev: standard deviation of 'normal'.
      dtype: that the layers compute in; None for that of their parameters, float32.
    """

    num_classes: int = 10
    conv_dropout_rate: float = 0.2
    dropout_rate: float = 0.5
    use_bias: bool = False
    kernel_init: str = "normal"
    init_stddev: float = 0.01
    dtype: Any = None

    def __post_init__(self) -> None:
        """Raises UsageError for values that no network can have."""
        initializer(self.kernel_init, self.init_stddev, "config.model.kernel_init")
        check_rate(self.conv_dropout_rate, "conv_dropout_rate")
        check_rate(self.dropout_rate, "dropout_rate")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images float32 [B, H, W, C] in [0, 1] to logits float32 [B, num_classes]."""
        init = initializer(self.kernel_init, self.init_stddev, "config.model.kernel_init")
        conv = functools.partial(
            nn.Conv, kernel_size=(3, 3), kernel_init=init, use_bias=self.use_bias, dtype=self.dtype
        )
        dense = functools.partial(
            nn.Dense, kernel_init=init, use_bias=self.use_bias, dtype=self.dtype
        )
        x = images
        for number, features in enumerate((32, 64, 128), start=1):
            x = conv_pool(conv(features, name=f"conv{number}"), x)
            dropout = nn.Dropout(self.conv_dropout_rate, name=f"dropout{number}")
            x = dropout(x, deterministic=not train)
        x = nn.relu(dense(625, name="dense1")(flatten(x)))
        x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout4")(x)
        return dense(self.num_classes, name="logits")(x)
