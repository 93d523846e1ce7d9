"""A network's equations as jax2onnx is given them: each as it is, or what stands for it.

It is given equations, not layers. Of layers it has versions of its own, whose `nn.max_pool` knows
neither positional arguments nor explicit padding, which it silently takes for none (0.13 to 0.17).
Equations it converts one by one, and well, but for four: a max-pool becomes one over four
dimensions, which onnxruntime refuses, padding fails on any number of images, `stack` it does not
know, and of a transposed convolution it forgets the gaps between the pixels (0.13). So these go
through its `nn.max_pool`, `jnp.pad` and `jnp.stack`, and the gaps are put in beforehand. And a
softmax, nine equations, goes through its `nn.softmax`: one node in the file, where readers look for
it.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, primitives

_SOFTMAX = nn.softmax  # JAX's own; while jax2onnx traces, the name stands for its version


def evaluate(closed: ClosedJaxpr, args: list[Any]) -> list[Any]:
    """Evaluates equation by equation, for jax2onnx to see each, or what stands for it."""
    inputs = [*closed.jaxpr.constvars, *closed.jaxpr.invars]
    env: dict[Any, Any] = dict(zip(inputs, [*closed.consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    for place, eqn in enumerate(closed.eqns):
        values = [read(atom) for atom in eqn.invars]
        if not any(isinstance(value, jax.core.Tracer) for value in values):
            with jax.ensure_compile_time_eval():  # of weights alone: no work for the file
                outputs = _bind(eqn, values)
        elif eqn.primitive is primitives.jit_p:
            outputs = evaluate(eqn.params["jaxpr"], values)
        elif eqn.primitive is primitives.reduce_window_max_p and _pools_images(eqn):
            outputs = [_max_pool(eqn, values[0])]
        elif eqn.primitive is primitives.pad_p and _pads_plainly(eqn):
            widths = [(low, high) for low, high, _ in eqn.params["padding_config"]]
            outputs = [jnp.pad(values[0], widths, constant_values=np.asarray(values[1]).item())]
        elif eqn.primitive is primitives.conv_general_dilated_p and _is_transposed(eqn):
            outputs = [_transposed(eqn, *values)]
        elif eqn.primitive.name == "stack":  # not among primitives
            outputs = [jnp.stack(values, eqn.params["axis"])]
        elif (logits := _ends_softmax(closed.eqns[: place + 1])) is not None:
            outputs = [nn.softmax(read(logits))]  # nothing needs the equations before it now
        else:
            outputs = _bind(eqn, values)
        env.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _bind(eqn: JaxprEqn, values: list[Any]) -> list[Any]:
    outputs = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return outputs if eqn.primitive.multiple_results else [outputs]


def _ends_softmax(eqns: Sequence[JaxprEqn]) -> Any:
    """Returns what a softmax is taken of, if the last of these are its equations; else None."""
    if eqns[-1].primitive is not primitives.div_p:
        return None
    aval: Any = eqns[-1].outvars[0].aval
    softmax = jax.make_jaxpr(_SOFTMAX)(jax.ShapeDtypeStruct(aval.shape, aval.dtype)).eqns
    last = eqns[-len(softmax) :]
    return last[0].invars[0] if _alike(last, softmax) else None


def _alike(some: Sequence[JaxprEqn], others: Sequence[JaxprEqn]) -> bool:
    """Whether two runs of equations compute the same, whatever their variables are called."""
    partners: dict[Any, Any] = {}  # of the variables of both

    def match(one: Any, other: Any) -> bool:
        if isinstance(one, Literal) or isinstance(other, Literal):
            both = isinstance(one, Literal) and isinstance(other, Literal)
            return both and bool(one.val == other.val)
        paired = partners.setdefault(one, other) is other
        return paired and partners.setdefault(other, one) is one

    return len(some) == len(others) and all(
        one.primitive is other.primitive
        and one.params == other.params
        and all(map(match, one.invars, other.invars))
        and all(map(match, one.outvars, other.outvars))
        for one, other in zip(some, others, strict=True)
    )


def _is_transposed(eqn: JaxprEqn) -> bool:
    return max(eqn.params["lhs_dilation"]) > 1


def _transposed(eqn: JaxprEqn, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution whose input has gaps between its pixels: of that input, with zeros in them."""
    p: Any = eqn.params
    for axis, step in zip(p["dimension_numbers"].lhs_spec[2:], p["lhs_dilation"], strict=True):
        shape, length = x.shape, x.shape[axis]
        kept = np.eye(1, step, dtype=x.dtype).reshape(step, *[1] * (x.ndim - axis - 1))
        x = (jnp.expand_dims(x, axis + 1) * kept).reshape(
            *shape[:axis], step * length, *shape[axis + 1 :]
        )
        x = jax.lax.slice_in_dim(x, 0, step * (length - 1) + 1, axis=axis)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        p["window_strides"],
        p["padding"],
        rhs_dilation=p["rhs_dilation"],
        dimension_numbers=p["dimension_numbers"],
        feature_group_count=p["feature_group_count"],
    )


def _pads_plainly(eqn: JaxprEqn) -> bool:
    """Whether nothing is put between elements, and nothing cut off."""
    return all(
        low >= 0 and high >= 0 and not inner for low, high, inner in eqn.params["padding_config"]
    )


def _pools_images(eqn: JaxprEqn) -> bool:
    """Whether the windows of a pooling extend in the rows and columns of [..., H, W, C] alone."""
    p = eqn.params
    sizes, strides = p["window_dimensions"], p["window_strides"]
    others = [*zip(sizes[:-3], strides[:-3], strict=True), (sizes[-1], strides[-1])]
    dilated = {*p["base_dilation"], *p["window_dilation"]} != {1}
    return len(sizes) >= 4 and all(pair == (1, 1) for pair in others) and not dilated


def _max_pool(eqn: JaxprEqn, images: jax.Array) -> jax.Array:
    p: Any = eqn.params
    shape = images.shape
    images = jax.lax.collapse(images, 0, images.ndim - 3)  # [batch, 1, H, W, C] under a vmap
    pads = [(0, 0), *p["padding"][-3:]]
    if any(map(any, pads)):
        images = jnp.pad(images, pads, constant_values=-jnp.inf)
    pooled = nn.max_pool(
        images, window_shape=p["window_dimensions"][-3:-1], strides=p["window_strides"][-3:-1]
    )
    return pooled.reshape(*shape[:-3], *pooled.shape[1:])
