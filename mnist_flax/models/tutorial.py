"""The network of TensorFlow's "A Guide to TF Layers" and of the posts that followed it."""

import jax
from flax import linen as nn

from mnist_flax import registry
from mnist_flax.errors import UsageError

INITIALIZERS = {
    name: f"flax.linen.initializers:{name}"
    for name in (
        "lecun_uniform",
        "lecun_normal",
        "glorot_uniform",
        "glorot_normal",
        "he_uniform",
        "he_normal",
    )
}


class Tutorial(nn.Module):
    """Two convolutions of 5×5, each with ReLU and 2×2 max-pooling, and two dense layers.

    28×28×1 → 28×28×32 → 14×14×32 → 14×14×64 → 7×7×64 → 3,136 → 1,024 → 10: 3,274,634 parameters.

    Attributes:
      num_classes: number of logits.
      dropout_rate: the share of the 1,024 units that is dropped in training (not kept).
      kernel_init: a name of INITIALIZERS. The published log fits the fan-in uniform start,
        ±sqrt(3 / fan_in), that tf.layers had before TensorFlow 1.2: at step 101 it gives losses of
        2.17 where Glorot gives 2.29 and the tutorial prints 2.13.
    """

    num_classes: int = 10
    dropout_rate: float = 0.4
    kernel_init: str = "lecun_uniform"

    def __post_init__(self) -> None:
        """Raises UsageError for values that no network can have."""
        _initializer(self.kernel_init)
        if not 0 <= self.dropout_rate < 1:
            raise UsageError(
                f"config.model.dropout_rate={self.dropout_rate}: the share that is dropped, "
                "at least 0 and below 1."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images float32 [B, H, W, C] in [0, 1] to logits float32 [B, num_classes]."""
        init = _initializer(self.kernel_init)
        x = nn.relu(nn.Conv(32, (5, 5), padding="SAME", kernel_init=init, name="conv1")(images))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Conv(64, (5, 5), padding="SAME", kernel_init=init, name="conv2")(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(1024, kernel_init=init, name="dense1")(x))
        x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x)
        return nn.Dense(self.num_classes, kernel_init=init, name="logits")(x)


def _initializer(name: str) -> nn.initializers.Initializer:
    return registry.resolve(name, INITIALIZERS, "config.model.kernel_init")()
