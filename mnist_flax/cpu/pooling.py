"""A max-pool whose gradient is fast on CPU: looked up by each value, not scattered by each window.

The measured gains are of jax 0.10.1 on 2 cores, medians of 7, inside a `fori_loop`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import JaxprEqn

from mnist_flax.cpu.convolution import arrays

_NOWHERE, _OUTSIDE = -1, -2  # no places in a window, and never equal


def is_plain(eqn: JaxprEqn) -> bool:
    """Says whether this max-pool can be replaced: floats, and nothing dilated."""
    x, y = arrays(eqn)
    undilated = {*eqn.params["base_dilation"], *eqn.params["window_dilation"]} == {1}
    return undilated and 0 not in y.shape and jnp.issubdtype(x.dtype, jnp.floating)


def replacement(eqn: JaxprEqn) -> Callable[[Array], Array]:
    """Returns the same max-pool with a gradient of its own."""
    forward = functools.partial(eqn.primitive.bind, **eqn.params)
    gradient = functools.partial(_gradient, eqn.params)
    pool = jax.custom_vjp(forward)
    pool.defvjp(lambda x: (forward(x), x), lambda x, dy: (gradient(x, dy),))
    return pool


def _gradient(p: dict[str, Any], x: Array, dy: Array) -> Array:
    """Adds up, for each value of x, the gradients of the windows whose maximum it is.

    With strides s, the values s·i, s·i + 1, … s·i + s - 1 lie in the windows i, i - 1, and so on,
    in as many as a window has strides. All values ask their window i at once, then their window
    i - 1: elementwise work on arrays [i, rest, …], which is x's own order. 3×3/2 of 28×28×12 at
    batch 128 takes 0.7 ms where the gradient of a maximum of strided slices takes 3.7, and 2×2/2 of
    28×28×32 takes 1.3 instead of 2.8.
    """
    window, strides = np.array(p["window_dimensions"]), np.array(p["window_strides"])
    low, shape = np.array(p["padding"])[:, 0], x.shape
    x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), [(*edges, 0) for edges in p["padding"]])
    blocks, reach = -(-np.array(x.shape) // strides), -(-window // strides)
    # Room for the windows before the first, and for blocks at the end that begin no window.
    room = _edges(reach - 1, blocks - dy.shape)
    place = lax.pad(_place_of_maximum(x, dy.shape, window, strides), np.int32(_NOWHERE), room)
    dy = lax.pad(dy, jnp.array(0, dy.dtype), room)
    # Without the barrier XLA looks for the maxima again at each value: 17 ms instead of 0.7.
    place, dy = lax.optimization_barrier((place, dy))

    def from_window(back: np.ndarray) -> Array:
        starts, axes = reach - 1 - back, tuple(range(1, 2 * x.ndim, 2))
        asked = (lax.slice(array, starts, starts + blocks) for array in (place, dy))
        their_place, gradient = (jnp.expand_dims(array, axes) for array in asked)
        return jnp.where(their_place == _places(window, strides, back), gradient, 0)

    dx = functools.reduce(jnp.add, map(from_window, map(np.array, np.ndindex(*reach))))
    dx = dx.reshape(blocks * strides)
    return lax.pad(dx, jnp.array(0, dx.dtype), _edges(-low, low + shape - dx.shape))


def _edges(low: np.ndarray, high: np.ndarray) -> list[tuple[int, int, int]]:
    return [(*edges, 0) for edges in zip(low.tolist(), high.tolist(), strict=True)]


def _place_of_maximum(
    x: Array, shape: tuple[int, ...], window: np.ndarray, strides: np.ndarray
) -> Array:
    """Where in its window each maximum is, counted row by row: int32 `shape`; the first of ties."""
    largest, place = None, jnp.zeros(shape, jnp.int32)
    for n, start in enumerate(np.ndindex(*window)):
        last = np.array(start) + (np.array(shape) - 1) * strides
        value = lax.slice(x, start, last + 1, strides.tolist())
        if largest is None:
            largest = value
            continue
        larger = value > largest
        largest, place = jnp.where(larger, value, largest), jnp.where(larger, n, place)
    return place


def _places(window: np.ndarray, strides: np.ndarray, back: np.ndarray) -> np.ndarray:
    """The places that a block's values have in the window `back` blocks before: [1, s, 1, s, …]."""
    axes = tuple(range(0, 2 * len(window), 2))
    offsets = np.moveaxis(np.indices(strides.tolist()), 0, -1) + strides * back
    places = np.ravel_multi_index(np.moveaxis(offsets, -1, 0), window, mode="clip")
    return np.expand_dims(np.where((offsets < window).all(-1), places, _OUTSIDE), axes)
