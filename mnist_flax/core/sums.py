"""Sums over examples, divided once: a mean that is exact for any batch size."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

# {'count': int32 [], 'loss': float32 [], …}: open sums over so many examples.
Sums = dict[str, jax.Array]


def empty(like: Mapping[str, Any]) -> Sums:
    """Returns sums over nothing, of these names and types; merging with it changes nothing."""
    return {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in like.items()}


def merge(one: Sums, other: Sums) -> Sums:
    """Returns the sums over both."""
    return jax.tree.map(jnp.add, one, other)


def means(sums: Sums, names: Iterable[str] = ()) -> dict[str, float]:
    """Divides on the host, waiting for the device: the mean of each sum over its examples.

    Args:
      sums: over at least one example.
      names: come first, in this order; the others follow.
    """
    values = {name: leaf.item() for name, leaf in jax.device_get(sums).items()}
    count = values.pop("count")
    first = [name for name in names if name in values]
    return {name: values[name] / count for name in dict.fromkeys([*first, *values])}
