"""A max-pool whose gradient is fast on CPU: that of a maximum of strided slices."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import JaxprEqn

from mnist_flax.cpu.convolution import arrays


def is_plain(eqn: JaxprEqn) -> bool:
    """Says whether this max-pool can be replaced: floats, and nothing dilated."""
    x, y = arrays(eqn)
    undilated = {*eqn.params["base_dilation"], *eqn.params["window_dilation"]} == {1}
    return undilated and 0 not in y.shape and jnp.issubdtype(x.dtype, jnp.floating)


def replacement(eqn: JaxprEqn) -> Callable[[Array], Array]:
    """Returns the same max-pool with the gradient of a maximum of strided slices, axis by axis."""
    forward = functools.partial(eqn.primitive.bind, **eqn.params)
    window, strides = eqn.params["window_dimensions"], eqn.params["window_strides"]

    def by_axis(x: Array) -> Array:
        edges = [(low, high, 0) for low, high in eqn.params["padding"]]
        x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), edges)
        # The last axis first: the tie that wins is then the first one row by row, as in autodiff.
        for axis in reversed(range(x.ndim)):
            starts, last = range(window[axis]), x.shape[axis] - window[axis]
            slices = [lax.slice_in_dim(x, i, last + i + 1, strides[axis], axis) for i in starts]
            x = _maximum(slices) if len(slices) > 1 else slices[0]
        return x

    pool = jax.custom_vjp(forward)
    pool.defvjp(lambda x: (forward(x), x), lambda x, dy: jax.vjp(by_axis, x)[1](dy))
    return pool


@jax.custom_vjp
def _maximum(arrays: list[Array]) -> Array:
    """The largest, element by element. Of equal ones the first gets the whole gradient."""
    return functools.reduce(jnp.maximum, arrays)


def _maximum_backward(residuals: tuple[list[Array], Array], dy: Array) -> tuple[list[Array]]:
    arrays, largest = residuals
    gradients, taken = [], jnp.zeros(dy.shape, bool)
    for array in arrays:
        # A NaN equals nothing and gets no gradient; the loss is NaN already.
        first = (array == largest) & ~taken
        taken |= first
        gradients.append(jnp.where(first, dy, 0))
    return (gradients,)


_maximum.defvjp(lambda arrays: (y := _maximum(arrays), (arrays, y)), _maximum_backward)
