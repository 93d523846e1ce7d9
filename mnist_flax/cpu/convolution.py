"""A convolution whose gradients are fast inside a loop on CPU: canonical convolutions themselves.

Canonical: images NHWC, kernels HWIO, whatever the number of spatial axes. The measured gains are
of jax 0.10.1 on 2 cores, medians of 5, inside a `fori_loop`.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import JaxprEqn

from mnist_flax.cpu import half_precision

# The kernel's gradient adds up its batch in blocks of so many images and bytes: the blocks stay in
# the cache, and 3×3 convolutions of 32 to 64 channels take 11 ms instead of 16, the tutorial's
# second one 11 instead of 15, its first 2.9 instead of 7.6. Blocks of fewer bytes gain nothing, and
# each is compiled: of more than _MOST_BLOCKS that would take long.
_BLOCK_IMAGES = 8
_BLOCK_BYTES = 600_000
_MOST_BLOCKS = 32
# XLA leaves convolutions from one channel to a slow kernel unless they go to some 20: to 12 takes
# 2.8 ms, to 24 of which 12 are kept 0.9. Channels of zeros are added and cut off again.
_FEW_OUTPUTS = 24


def arrays(eqn: JaxprEqn) -> tuple[Any, ...]:
    """Returns what goes in and comes out, as abstract arrays with shape and dtype."""
    return tuple(atom.aval for atom in [*eqn.invars, *eqn.outvars])


def obstacle(eqn: JaxprEqn) -> str:
    """Says why this convolution cannot be replaced, or ''."""
    x, w, y = arrays(eqn)
    one_type = x.dtype == w.dtype == y.dtype and jnp.issubdtype(x.dtype, jnp.floating)
    obstacles = {
        "grouped over the batch": eqn.params["batch_group_count"] > 1,
        "not of one float type": not one_type,
        "empty result": 0 in y.shape,
        "result with its own sharding": eqn.params.get("out_sharding") is not None,
    }
    return ", ".join(reason for reason, applies in obstacles.items() if applies)


def not_canonical(eqn: JaxprEqn) -> str:
    """Says that XLA will not reorder this convolution inside a loop, or ''."""
    lhs, rhs, out = eqn.params["dimension_numbers"]
    last = len(lhs) - 1
    images, kernel = (0, last, *range(1, last)), (last, last - 1, *range(last - 1))
    if (tuple(lhs), tuple(rhs), tuple(out)) == (images, kernel, images):
        return ""
    return "not in canonical order; put mnist_flax.cpu.for_backend around what is differentiated"


def describe(eqn: JaxprEqn) -> str:
    """Returns 'convolution 3x3, 8 to 16 channels'."""
    (x, w, _), (lhs, rhs, _) = arrays(eqn), eqn.params["dimension_numbers"]
    size = "x".join(str(w.shape[axis]) for axis in rhs[2:])
    return f"convolution {size}, {x.shape[lhs[1]]} to {w.shape[rhs[0]]} channels"


def replacement(eqn: JaxprEqn) -> Callable[[Array, Array], Array]:
    """Returns the same convolution with gradients of its own; with axes in any order."""
    lhs, rhs, out = eqn.params["dimension_numbers"]
    last = len(lhs) - 1
    canonical = (0, last, *range(1, last)), (last, last - 1, *range(last - 1))
    numbers = lax.ConvDimensionNumbers(canonical[0], canonical[1], canonical[0])
    convolve = _convolution({**eqn.params, "dimension_numbers": numbers}, eqn.primitive.bind)

    def reordered(x: Array, w: Array) -> Array:
        x = jnp.transpose(x, (lhs[0], *lhs[2:], lhs[1]))
        w = jnp.transpose(w, (*rhs[2:], rhs[1], rhs[0]))
        back = [(out[0], *out[2:], out[1]).index(axis) for axis in range(len(out))]
        return jnp.transpose(convolve(x, w), back)

    return reordered


def _convolution(p: dict[str, Any], bind: Callable[..., Array]) -> Callable[[Array, Array], Array]:
    """The canonical convolution of these parameters, with gradients of our own."""

    def forward(x: Array, w: Array) -> Array:
        outputs = w.shape[-1]
        # A single output has a kernel of its own, which rounds otherwise.
        few = x.shape[-1] == 1 and 1 < outputs < _FEW_OUTPUTS
        if not few or p["feature_group_count"] > 1:
            return bind(x, w, **p)
        edges = [(0, 0)] * (w.ndim - 1) + [(0, _FEW_OUTPUTS - outputs)]
        return bind(x, jnp.pad(w, edges), **p)[..., :outputs]

    def backward(residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
        x, w = residuals
        for_input, for_kernel = _gradient_paddings(p, x, w, dy)
        dw = _kernel_gradient(p, x, dy, for_kernel)
        if w.shape[-2] == 1 and p["feature_group_count"] > 1:
            # Depthwise: XLA's generic loop beats its fast kernels here (2 ms against 37).
            return *jax.linear_transpose(lambda x: bind(x, w, **p), x)(dy), dw
        return _input_gradient(p, w, dy, for_input), dw

    convolve = jax.custom_vjp(forward)
    convolve.defvjp(lambda x, w: (forward(x, w), (x, w)), backward)
    return convolve


def _input_gradient(p: dict[str, Any], w: Array, dy: Array, padding: list) -> Array:
    """Convolves dy [N,H',W',O] with the kernel [h,w,I/G,O] turned around: gives [N,H,W,I]."""
    groups, spatial = p["feature_group_count"], range(w.ndim - 2)
    w = jnp.flip(w, spatial).reshape(*w.shape[:-1], groups, -1)  # [h,w,I/G,G,O/G]
    w = jnp.swapaxes(w, -3, -1)  # [h,w,O/G,G,I/G]
    w = w.reshape(*w.shape[:-2], -1)
    # Strides and the image's dilation change places; below, strides and the kernel's.
    return _like(p)(dy, w, p["lhs_dilation"], padding, p["window_strides"], p["rhs_dilation"])


def _kernel_gradient(p: dict[str, Any], x: Array, dy: Array, padding: list) -> Array:
    """Adds up the gradients [h,w,I/G,O] of blocks of images."""
    images = len(x)
    if _by_fast_kernels(p, x):
        return _gradient_of_a_volume(p, padding, x, dy)
    image_bytes = (x.nbytes + dy.nbytes) // images
    size = max(_BLOCK_IMAGES, -(-images // _MOST_BLOCKS), -(-_BLOCK_BYTES // image_bytes))
    if x.dtype != jnp.float32:
        size = images  # a sum of rounded blocks would lose what few bits there are
    starts = range(0, images, size)
    block = _exchanged_gradient if max(p["lhs_dilation"]) > 1 else _block_gradient
    gradient = functools.partial(block, p, padding)
    return functools.reduce(
        operator.add, [gradient(x[i : i + size], dy[i : i + size]) for i in starts]
    )


def _block_gradient(p: dict[str, Any], padding: list, x: Array, dy: Array) -> Array:
    """Convolves x [N,H,W,I] with dy [N,H',W',O], the batch as their channels: gives [h,w,I/G,O]."""
    x = x.reshape(*x.shape[:-1], p["feature_group_count"], -1)  # [N,H,W,G,I/G]
    x = jnp.moveaxis(x, (-1, 0), (0, -1))  # [I/G,H,W,G,N]
    x = x.reshape(*x.shape[:-2], -1)
    dy = jnp.moveaxis(dy, 0, -2)  # [H',W',N,O]
    dw = _like(p)(x, dy, p["rhs_dilation"], padding, p["lhs_dilation"], p["window_strides"])
    return jnp.moveaxis(dw, 0, -2)


def _by_fast_kernels(p: dict[str, Any], x: Array) -> bool:
    """Says whether it is a plain convolution in bfloat16 where half_precision.py has kernels."""
    plain = p["feature_group_count"] == 1 and max(p["lhs_dilation"]) == 1
    plain = plain and x.ndim in (3, 4) and x.shape[-1] > 1
    return plain and x.dtype == jnp.bfloat16 and bool(half_precision.options("bfloat16"))


def _gradient_of_a_volume(p: dict[str, Any], padding: list, x: Array, dy: Array) -> Array:
    """Gives the same from one convolution with the input's channels as one more spatial axis.

    oneDNN multiplies rows of its last spatial axis: of a kernel's gradient these are 3 to 5 long,
    of the channels some tens. 5×5 of 14×14, 32 to 64 channels, at batch 100 takes 3.0 ms with jax
    0.12 where _block_gradient takes 5.4, and a step of that network 22 instead of 24.
    """
    last = x.ndim
    volume = jnp.moveaxis(x, 0, -1)[None]  # [1,H,W,I,N]
    kernel = jnp.expand_dims(jnp.moveaxis(dy, 0, -2), -3)  # [H',W',1,N,O]
    places = (0, last, *range(1, last))
    numbers = lax.ConvDimensionNumbers(places, (last, last - 1, *range(last - 1)), places)
    return lax.conv_general_dilated(
        volume,
        kernel,
        window_strides=(*p["rhs_dilation"], 1),
        padding=[*padding, (0, 0)],
        rhs_dilation=(*p["window_strides"], 1),
        dimension_numbers=numbers,
        precision=p["precision"],
    )[0]


def _exchanged_gradient(p: dict[str, Any], padding: list, x: Array, dy: Array) -> Array:
    """Gives the same with the roles exchanged: convolves dy with x, and turns what comes around.

    Of a transposed convolution, whose image has gaps of zeros: as a kernel it has gaps that are
    stepped over. 5×5/2 of 14×14, 64 to 32 channels, at batch 50 takes 9.7 ms, both gradients
    together, where the sum over the zeros took 249.
    """
    groups, spatial = p["feature_group_count"], range(1, x.ndim - 1)
    edges = []
    for axis, (low, high) in enumerate(padding):
        image = (x.shape[axis + 1] - 1) * p["lhs_dilation"][axis] + 1
        reached = (dy.shape[axis + 1] - 1) * p["window_strides"][axis] + 1
        kernel = low + image + high - reached  # from its first value to its last
        edges.append((kernel - low, kernel - high))
    dy = dy.reshape(*dy.shape[:-1], groups, -1)  # [N,H',W',G,O/G]
    dy = jnp.moveaxis(dy, (-1, 0), (0, -1))  # [O/G,H',W',G,N]
    dy = dy.reshape(*dy.shape[:-2], -1)
    x = jnp.moveaxis(x, 0, -2)  # [H,W,N,I]
    dw = _like(p)(dy, x, p["rhs_dilation"], edges, p["window_strides"], p["lhs_dilation"])
    dw = jnp.flip(dw, spatial).reshape(*dw.shape[:-1], groups, -1)  # [O/G,h,w,G,I/G]
    dw = jnp.moveaxis(dw, (0, -1), (-1, -3))  # [h,w,I/G,G,O/G]
    return dw.reshape(*dw.shape[:-2], -1)


def _like(p: dict[str, Any]) -> Callable[..., Array]:
    shared = ("dimension_numbers", "feature_group_count", "precision")
    return functools.partial(lax.conv_general_dilated, **{name: p[name] for name in shared})


def _gradient_paddings(p: dict[str, Any], x: Array, w: Array, dy: Array) -> tuple[list, list]:
    """The paddings of the input's and of the kernel's gradient, per spatial axis."""
    for_input, for_kernel = [], []
    for axis, (low, high) in enumerate(p["padding"]):
        image = (x.shape[axis + 1] - 1) * p["lhs_dilation"][axis] + 1
        kernel = (w.shape[axis] - 1) * p["rhs_dilation"][axis] + 1
        reached = (dy.shape[axis + 1] - 1) * p["window_strides"][axis] + kernel
        unused = low + image + high - reached  # last rows, which no stride reaches
        for_input.append((kernel - 1 - low, kernel - 1 - high + unused))
        for_kernel.append((low, high - unused))
    return for_input, for_kernel
