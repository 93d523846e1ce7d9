"""The network of tiny.py as a module of flax.nnx, and the recipe with it. Not a test itself."""

from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict
from tiny import get_config as tiny


class Net(nnx.Module):
    """TinyNet of tiny.py, as nnx has it."""

    def __init__(
        self, num_classes: int = 10, features: int = 4, dtype: Any = None, *, rngs: nnx.Rngs
    ):
        self.conv = nnx.Conv(1, features, (3, 3), dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(features, momentum=0.9, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.heads = nnx.List([nnx.Linear(9 * features, num_classes, dtype=dtype, rngs=rngs)])

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.conv(images)))
        x = self.dropout(nnx.max_pool(x, (3, 3), strides=(2, 2)))
        return self.heads[0](x.reshape(len(x), -1))


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = tiny()
    config.model = ConfigDict({"name": "tiny_nnx:Net"})
    return config
