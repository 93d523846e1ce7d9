"""Sums over examples, divided once: a mean that is exact for any batch size."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# {'count': int32 [], 'loss': float32 [], …}: open sums over so many examples.
Sums = dict[str, jax.Array]


class Metric(NamedTuple):
    """How a mean over examples is shown.

    Attributes:
      format: as Python's format() takes it: '.4f'.
      larger_is_better: whether more of it is better, as of an accuracy.
      summed: whether it is no mean but the sum itself, as a number of steps is.
      bounds: the least and the largest value that it can have, (0, 1) of a share; None: not known.
    """

    format: str = ".4f"
    larger_is_better: bool = False
    summed: bool = False
    bounds: tuple[float, float] | None = None


def empty(like: Mapping[str, Any]) -> Sums:
    """Returns sums over nothing, of these names and types; merging with it changes nothing."""
    return {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in like.items()}


def merge(one: Sums, other: Sums) -> Sums:
    """Returns the sums over both."""
    return jax.tree.map(jnp.add, one, other)


def means(sums: Sums, metrics: Mapping[str, Metric] | None = None) -> dict[str, float]:
    """Divides on the host, waiting for the device: the mean of each sum over its examples.

    Args:
      sums: over so many examples; means over none are left out.
      metrics: come first, in this order; the others follow. Those that are `summed` stay sums.
    """
    metrics = metrics or {}
    values = {name: leaf.item() for name, leaf in jax.device_get(sums).items()}
    count = values.pop("count")
    named = dict.fromkeys([*(name for name in metrics if name in values), *values])
    whole = {name for name in named if name in metrics and metrics[name].summed}
    return {
        name: values[name] if name in whole else values[name] / count
        for name in named
        if count or name in whole
    }
