"""Makes any model train fast on CPU, by rewriting its jaxpr before it is differentiated.

The trap: on CPU a convolution's gradients are 5-200 times slower inside `lax.scan`, `fori_loop` or
`while_loop`. Autodiff writes them as convolutions with permuted dimensions, and the XLA pass that
brings those into the order of the fast kernels (ConvCanonicalization) visits only the entry
computation, never a loop's body (jax issue 12868). The gradient of `nn.max_pool` is slow anywhere.

The fix: `rewrite(fn)` evaluates fn's equations as they are, but with gradients of our own: of a
convolution, two *forward* convolutions in canonical order (images NHWC, kernels HWIO); of a
max-pool, a maximum of strided slices. Values are equal to the bit, gradients to float32 rounding,
tied maxima included: the first one of a window gets its whole gradient, as in autodiff.

Measured with jax 0.10.1 on 2 cores, median of 5, interleaved: a step of the tutorial's network (two
5×5 convolutions, batch 100) in a `fori_loop` takes 1,255 ms plain and 61 ms rewritten, where a
plain matrix product reached 169 GFLOP/s; the step's 8.2 GFLOP hence ran at 80 % of that rate.

No forward-mode derivatives (`jax.jvp`, `jax.hessian`) go through the replaced equations. On a GPU
or TPU plain autodiff is right: see `for_backend`.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params, primitives


def rewrite(fn: Callable) -> Callable:
    """Returns a function with fn's signature and values, and gradients that are fast on CPU.

    fn is pure and takes pytrees of arrays, of any structure (None and typed keys included); what
    is static (`train=True`) it closes over. Each call traces it anew: call it inside `jit`.

        logits, updates = cpu.rewrite(lambda params, x: model.apply(...))(params, x)
    """

    @functools.wraps(fn)
    def rewritten(*args: Any, **kwargs: Any) -> Any:
        closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*args, **kwargs)
        outputs = _evaluate(closed, jax.tree.leaves((args, kwargs)))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return rewritten


def for_backend(fn: Callable, backend: str | None = None) -> Callable:
    """Returns `rewrite(fn)` for "cpu" and fn itself for others; by default for JAX's own."""
    return rewrite(fn) if (backend or jax.default_backend()) == "cpu" else fn


def slow_convolutions(fn: Callable, *args: Any) -> list[str]:
    """Describes each convolution of fn that `rewrite` leaves alone: slow in a loop on CPU.

    Args are arrays or `jax.ShapeDtypeStruct`s; nothing is computed. A line reads
    'convolution 3x3, 8 to 16 channels, in CNN/Conv_1: inside scan'.
    """
    return list(_left_alone(jax.make_jaxpr(fn)(*args).jaxpr, scope="", hidden_in=""))


def _evaluate(closed: ClosedJaxpr, args: list[Any]) -> list[Any]:
    """`jax.core.eval_jaxpr`, with the equations that we can do better replaced."""
    inputs = [*closed.jaxpr.constvars, *closed.jaxpr.invars]
    env: dict[Any, Any] = dict(zip(inputs, [*closed.consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    for eqn in closed.eqns:
        # The scope keeps the layers' names in profiles and in the compiled program.
        with eqn.ctx.manager, jax.named_scope(str(eqn.source_info.name_stack)):
            outputs = _evaluate_equation(eqn, [read(atom) for atom in eqn.invars])
        env.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _evaluate_equation(eqn: JaxprEqn, args: list[Any]) -> list[Any]:
    if replacement := _replacement(eqn):
        return [replacement(*args)]
    if (body := _called(eqn)) and _worth_entering(body):
        return _evaluate(body, args)
    # get_bind_params gives custom_jvp and custom_vjp calls back the rules that they came with.
    outputs = eqn.primitive.bind(*args, **eqn.primitive.get_bind_params(eqn.params))
    return outputs if eqn.primitive.multiple_results else [outputs]


def _replacement(eqn: JaxprEqn) -> Callable | None:
    if eqn.primitive is primitives.conv_general_dilated_p and not _obstacle(eqn):
        return _convolution(eqn)
    if eqn.primitive is primitives.reduce_window_max_p and _is_plain_max_pool(eqn):
        return _max_pool(eqn)
    return None


def _called(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The body of a plain call, which can be written out in place. Loops and remat are not."""
    if eqn.primitive is primitives.call_p:
        return ClosedJaxpr(eqn.params["call_jaxpr"], [])
    names = {primitives.jit_p: "jaxpr", primitives.closed_call_p: "call_jaxpr"}
    return eqn.params[names[eqn.primitive]] if eqn.primitive in names else None


def _worth_entering(closed: ClosedJaxpr) -> bool:
    bodies = filter(None, map(_called, closed.eqns))
    return any(map(_replacement, closed.eqns)) or any(map(_worth_entering, bodies))


def _left_alone(jaxpr: Jaxpr, scope: str, hidden_in: str) -> Iterator[str]:
    for eqn in jaxpr.eqns:
        name = "/".join(filter(None, [scope, str(eqn.source_info.name_stack)]))
        if eqn.primitive is primitives.conv_general_dilated_p:
            reason = f"inside {hidden_in}" if hidden_in else _obstacle(eqn)
            if reason:
                yield f"{_describe(eqn)}, in {name or 'no named layer'}: {reason}"
        inner = hidden_in or ("" if _called(eqn) else eqn.primitive.name)
        for body in jaxprs_in_params(eqn.params):
            yield from _left_alone(body, name, inner)


def _describe(eqn: JaxprEqn) -> str:
    (x, w, _), (lhs, rhs, _) = _arrays(eqn), eqn.params["dimension_numbers"]
    size = "x".join(str(w.shape[axis]) for axis in rhs[2:])
    return f"convolution {size}, {x.shape[lhs[1]]} to {w.shape[rhs[0]]} channels"


def _arrays(eqn: JaxprEqn) -> tuple[Any, ...]:
    """What goes in and comes out, as abstract arrays with shape and dtype."""
    return tuple(atom.aval for atom in [*eqn.invars, *eqn.outvars])


def _obstacle(eqn: JaxprEqn) -> str:
    """Why this convolution cannot be replaced, or ''."""
    p, (x, w, y) = eqn.params, _arrays(eqn)
    last, spatial = x.ndim - 1, range(1, x.ndim - 1)
    images, kernels = (0, last, *spatial), (last, last - 1, *range(last - 1))
    one_type = x.dtype == w.dtype == y.dtype and jnp.issubdtype(x.dtype, jnp.floating)
    obstacles = {
        "channels not last": tuple(p["dimension_numbers"]) != (images, kernels, images),
        "grouped over the batch": p["batch_group_count"] > 1,
        "not of one float type": not one_type,
        "empty result": 0 in y.shape,
        "result with its own sharding": p.get("out_sharding") is not None,
    }
    return ", ".join(reason for reason, applies in obstacles.items() if applies)


def _convolution(eqn: JaxprEqn) -> Callable[[Array, Array], Array]:
    """The same convolution, with gradients that are canonical convolutions themselves."""
    forward = functools.partial(eqn.primitive.bind, **eqn.params)

    def backward(residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
        x, w = residuals
        for_input, for_kernel = _gradient_paddings(eqn.params, x, w, dy)
        dw = _kernel_gradient(eqn.params, x, dy, for_kernel)
        if w.shape[-2] == 1 and eqn.params["feature_group_count"] > 1:
            # Depthwise: XLA's generic loop beats its fast kernels here (2 ms against 37).
            return *jax.linear_transpose(lambda x: forward(x, w), x)(dy), dw
        return _input_gradient(eqn.params, w, dy, for_input), dw

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
    """Convolves x [N,H,W,I] with dy [N,H',W',O], the batch as their channels: gives [h,w,I/G,O]."""
    x = x.reshape(*x.shape[:-1], p["feature_group_count"], -1)  # [N,H,W,G,I/G]
    x = jnp.moveaxis(x, (-1, 0), (0, -1))  # [I/G,H,W,G,N]
    x = x.reshape(*x.shape[:-2], -1)
    dy = jnp.moveaxis(dy, 0, -2)  # [H',W',N,O]
    dw = _like(p)(x, dy, p["rhs_dilation"], padding, p["lhs_dilation"], p["window_strides"])
    return jnp.moveaxis(dw, 0, -2)


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


def _is_plain_max_pool(eqn: JaxprEqn) -> bool:
    p, (x, y) = eqn.params, _arrays(eqn)
    undilated = {*p["base_dilation"], *p["window_dilation"]} == {1}
    return undilated and 0 not in y.shape and jnp.issubdtype(x.dtype, jnp.floating)


def _max_pool(eqn: JaxprEqn) -> Callable[[Array], Array]:
    """The same max-pool, with the gradient of a maximum of strided slices, axis by axis."""
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
