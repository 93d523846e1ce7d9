"""What the layers of a network make of images: their feature maps."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mnist_flax.core.task import Variables
from mnist_flax.data.augment import normalize


def feature_maps(model: nn.Module, variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
    """Returns what each layer gives for these images, as far as it is a map.

    Works for any linen module. Dense layers give no maps, and neither do pooling and activations
    that are functions rather than modules, nor layers inside `nn.scan`.

    Args:
      model: a linen module, run at rest: running statistics and no dropout.
      variables: its parameters and running statistics.
      images: uint8 [B, H, W, C].

    Returns:
      {'conv1': float32 [B, h, w, c], …}, whatever the layers compute in, in the order of the calls,
      which jax.jit keeps because it is an OrderedDict. A layer inside another is 'block/conv1'; the
      second call of the same layer is 'conv1#2'. What layers keep with
      `self.sow('intermediates', name, …)` is included. Where a network looks at several views of an
      image, the maps are of the first.
    """

    def maps_of(image: jax.Array) -> OrderedDict[str, jax.Array]:
        _, kept = model.apply(
            variables,
            normalize(image[None]),
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        return OrderedDict(
            (name, values[0].astype(jnp.float32))
            for name, values in _named(kept["intermediates"])
            if getattr(values, "ndim", 0) == 4
        )

    # One by one: a network that looks at several views of an image has them side by side.
    return jax.vmap(maps_of)(images)


def _named(collection: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in collection.items():
        layer = path if name == "__call__" else f"{path}/{name}".lstrip("/")
        if isinstance(inner, Mapping):
            yield from _named(inner, layer)
        else:  # a tuple, with what each call gave
            for call, values in enumerate(inner, start=1):
                yield (layer if call == 1 else f"{layer}#{call}"), values
