"""Makes any model train fast on CPU, by rewriting its jaxpr before it is differentiated.

The trap: on CPU a convolution's gradients are 5-200 times slower inside `lax.scan`, `fori_loop` or
`while_loop`. Autodiff writes them as convolutions with permuted dimensions, and the XLA pass that
brings those into the order of the fast kernels (ConvCanonicalization) visits only the entry
computation, never a loop's body (jax issue 12868). The gradient of `nn.max_pool` is slow anywhere.

The fix: `rewrite(fn)` evaluates fn's equations as they are, but with gradients of our own: of a
convolution, two *forward* convolutions in canonical order (images NHWC, kernels HWIO); of a
max-pool, a maximum of strided slices; of a bias, a sum image by image. Values are bit-identical,
gradients to float32 rounding, tied maxima included: the first one of a window gets its whole
gradient, as in autodiff.

Measured with jax 0.10.1 on 2 cores, median of 5, interleaved: a step of the tutorial's network (two
5×5 convolutions, batch 100) in a `fori_loop` takes 1,255 ms plain and 61 ms rewritten, where a
plain matrix product reached 169 GFLOP/s; the step's 8.2 GFLOP hence ran at 80 % of that rate.

No forward-mode derivatives (`jax.jvp`, `jax.hessian`) go through the replaced equations. On a GPU
or TPU plain autodiff is right: see `for_backend`, and `lowered_for` where none is at hand.
"""

import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params, primitives

from mnist_flax.cpu import broadcasting, convolution, pooling
from mnist_flax.cpu.target import lowered_for as lowered_for
from mnist_flax.cpu.target import target as target


def rewrite(fn: Callable) -> Callable:
    """Returns a function with fn's signature and values, and gradients that are fast on CPU.

    fn is pure and takes pytrees of arrays, of any structure (None and typed keys included); what
    is static (`train=True`) it closes over. Each call traces it anew: call it inside `jit`.

        logits, updates = cpu.rewrite(lambda params, x: model.apply(...))(params, x)
    """

    @functools.wraps(fn)
    def rewritten(*args: Any, **kwargs: Any) -> Any:
        closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*args, **kwargs)
        if (noted := _noted.get()) is not None:
            noted.append(list(_left_alone(closed.jaxpr, scope="", hidden_in="")))
        outputs = _evaluate(closed, jax.tree.leaves((args, kwargs)))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return rewritten


def for_backend(fn: Callable) -> Callable:
    """Returns a function that is `rewrite(fn)` where it is traced for a CPU, and fn elsewhere.

    Which of them is seen when it is called; see target.py.
    """
    rewritten = rewrite(fn)

    @functools.wraps(fn)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        return (rewritten if target() == "cpu" else fn)(*args, **kwargs)

    return chosen


def unoptimized() -> dict[str, str | bool]:
    """Returns `compiler_options` for a program that runs once, in milliseconds.

    On a CPU it is compiled without LLVM's optimizations, which would take seconds for some; what
    sums nothing gives the same bits without them.
    """
    return {"xla_backend_optimization_level": "0"} if target() == "cpu" else {}


def slow_in_loop(step: Callable, *args: Any) -> list[str]:
    """Describes each convolution of a whole step, gradients included, that a CPU's loop makes slow.

    These are what `rewrite` leaves alone of what the step gives it; and in a step that gives it
    nothing, every convolution in an order that only autodiff writes. A line reads
    'convolution 3x3, 8 to 16 channels, in CNN/Conv_1: inside scan'.

    Args:
      step: a function that differentiates, as a task's update does.
      args: arrays or `jax.ShapeDtypeStruct`s; nothing is computed.
    """
    noted: list[list[str]] = []
    token = _noted.set(noted)
    try:
        # A function of its own: JAX keeps the traces of those that it knows.
        jaxpr = jax.make_jaxpr(lambda *args: step(*args))(*args).jaxpr
    finally:
        _noted.reset(token)
    if noted:
        return list(dict.fromkeys(line for lines in noted for line in lines))
    return list(_left_alone(jaxpr, scope="", hidden_in="", obstacle=convolution.not_canonical))


# What each call of `rewrite` has left alone, while slow_in_loop() traces.
_noted: ContextVar[list[list[str]] | None] = ContextVar("noted", default=None)


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
    if fast := _replacement(eqn):
        return [fast(*args)]
    if _worth_entering(eqn):
        return _evaluate_inside(eqn, args)
    # get_bind_params gives custom_jvp and custom_vjp calls back the rules that they came with.
    outputs = eqn.primitive.bind(*args, **eqn.primitive.get_bind_params(eqn.params))
    return outputs if eqn.primitive.multiple_results else [outputs]


def _replacement(eqn: JaxprEqn) -> Callable | None:
    if eqn.primitive is primitives.conv_general_dilated_p and not convolution.obstacle(eqn):
        return convolution.replacement(eqn)
    if eqn.primitive is primitives.reduce_window_max_p and pooling.is_plain(eqn):
        return pooling.replacement(eqn)
    if broadcasting.is_plain(eqn):
        return broadcasting.replacement(eqn)
    return None


def _evaluate_inside(eqn: JaxprEqn, args: list[Any]) -> list[Any]:
    """A call is written out in place; a loop, a branch and a remat stay what they are."""
    bodies, p = _bodies(eqn), eqn.params
    if eqn.primitive is primitives.scan_p:
        return primitives.scan_p.bind(*args, **{**p, "jaxpr": _rewritten(bodies[0])})
    if eqn.primitive is primitives.cond_p:
        branches = tuple(map(_rewritten, bodies))
        return primitives.cond_p.bind(*args, **{**p, "branches": branches})
    if eqn.primitive is primitives.remat_p:
        body = functools.partial(_evaluate, bodies[0])
        return jax.checkpoint(body, prevent_cse=p["prevent_cse"], policy=p["policy"])(args)
    return _evaluate(bodies[0], args)


def _rewritten(closed: ClosedJaxpr) -> ClosedJaxpr:
    return jax.make_jaxpr(lambda *args: _evaluate(closed, list(args)))(*closed.in_avals)


def _bodies(eqn: JaxprEqn) -> list[ClosedJaxpr]:
    """What an equation computes its result with; none if its derivative is not that of a body."""
    p, closed = eqn.params, functools.partial(ClosedJaxpr, consts=[])
    bodies: dict[Any, Callable[[], list[ClosedJaxpr]]] = {
        primitives.jit_p: lambda: [p["jaxpr"]],
        primitives.call_p: lambda: [closed(p["call_jaxpr"])],
        primitives.closed_call_p: lambda: [p["call_jaxpr"]],
        primitives.remat_p: lambda: [closed(p["jaxpr"])],
        primitives.scan_p: lambda: [p["jaxpr"]],
        primitives.cond_p: lambda: list(p["branches"]),
    }
    return bodies.get(eqn.primitive, list)()


def _worth_entering(eqn: JaxprEqn) -> bool:
    return any(_replacement(e) or _worth_entering(e) for body in _bodies(eqn) for e in body.eqns)


def _left_alone(
    jaxpr: Jaxpr,
    scope: str,
    hidden_in: str,
    obstacle: Callable[[JaxprEqn], str] = convolution.obstacle,
) -> Iterator[str]:
    for eqn in jaxpr.eqns:
        name = "/".join(filter(None, [scope, str(eqn.source_info.name_stack)]))
        if eqn.primitive is primitives.conv_general_dilated_p:
            reason = f"inside {hidden_in}" if hidden_in else obstacle(eqn)
            if reason:
                yield f"{convolution.describe(eqn)}, in {name or 'no named layer'}: {reason}"
        inner = hidden_in or ("" if _bodies(eqn) else eqn.primitive.name)
        for body in jaxprs_in_params(eqn.params):
            yield from _left_alone(body, name, inner, obstacle)
