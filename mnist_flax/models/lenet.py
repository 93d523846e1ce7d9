"""The small network of "Convolutional Neural Net in Tensorflow", plain and with batch-norm."""

import functools
from typing import Any

import jax
from flax import linen as nn

from mnist_flax.models.blocks import check_rate, conv_pool, flatten, initializer


class LeNet(nn.Module):
    """Two convolutions of 3×3, each with 3×3/2 max-pooling, and three dense layers.

    28×28×1 → 28×28×12 → 13×13×12 → 13×13×16 → 6×6×16 → 576 → 256 → 100 → 10: 176,286 parameters,
    and 56 more with batch_norm. Nothing lies between a convolution and its pooling: the maximum is
    the only thing in the first half of the network that is not linear.

    Attributes:
      num_classes: number of logits.
      batch_norm: whether each pooling is followed by one, with TensorFlow's epsilon of 1e-3 and a
        momentum of 0.9.
      dropout_rate: the share of the 576 values that is dropped before the dense layers.
      first_dropout: whether as much is dropped after the first pooling, too. The tutorial computes
        that and never uses it.
      relu_logits: whether the last layer has a ReLU as the others do, as the tutorial's has. A
        class whose logit is negative for every image gets no gradient of its own; it comes back
        only if the layers below happen to change in its favour.
      kernel_init: a name of blocks.INITIALIZERS.
      init_stddev: standard deviation of 'normal'.
      dtype: that the layers compute in; None for that of their parameters, float32.
    """

    num_classes: int = 10
    batch_norm: bool = False
    dropout_rate: float = 0.0
    first_dropout: bool = False
    relu_logits: bool = True
    kernel_init: str = "glorot_uniform"
    init_stddev: float = 0.01
    dtype: Any = None

    def __post_init__(self) -> None:
        """Raises UsageError for values that no network can have."""
        initializer(self.kernel_init, self.init_stddev, "config.model.kernel_init")
        check_rate(self.dropout_rate, "dropout_rate")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images float32 [B, H, W, C] in [0, 1] to logits float32 [B, num_classes]."""
        init = initializer(self.kernel_init, self.init_stddev, "config.model.kernel_init")
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), kernel_init=init, dtype=self.dtype)
        pool = functools.partial(conv_pool, window=3, padding="VALID", activation=None)
        dense = functools.partial(nn.Dense, kernel_init=init, dtype=self.dtype)

        x = self._normed(pool(conv(12, name="conv1"), images), train, "norm1")
        if self.first_dropout:
            x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout1")(x)
        x = self._normed(pool(conv(16, name="conv2"), x), train, "norm2")
        x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout2")(x)
        x = nn.relu(dense(256, name="dense1")(flatten(x)))
        x = nn.relu(dense(100, name="dense2")(x))
        logits = dense(self.num_classes, name="logits")(x)
        return nn.relu(logits) if self.relu_logits else logits

    def _normed(self, x: jax.Array, train: bool, name: str) -> jax.Array:
        if not self.batch_norm:
            return x
        norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-3, dtype=self.dtype)
        return norm(use_running_average=not train, name=name)(x)
