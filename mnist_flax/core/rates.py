"""Which learning rate an optimizer used: found in its state, where it keeps the count.

The step of a run is not the step of a schedule: `optax.MultiSteps` makes one update of several
steps, `optax.apply_if_finite` leaves some out. What a schedule is called with is a count in the
optimizer's state; which one is told by the optimizer's equations.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Jaxpr, Literal, jaxprs_in_params

from mnist_flax import cpu
from mnist_flax.core.task import OptState, Rate, Variables

Build = Callable[[optax.Schedule], optax.GradientTransformation]
_MARK = "what a learning rate depends on"


def used_rate(build: Build, schedule: optax.Schedule) -> Rate:
    """Returns rate(variables, opt_state, step) -> the learning rate of the last update, or None.

    It is the schedule's value; factors that an optimizer puts to it are not in it. Where no update
    was made yet, as in the first steps of `optax.MultiSteps`, it is that of the first. An optimizer
    that never calls the schedule is asked for hyperparameters called 'learning_rate', as
    `optax.inject_hyperparams` keeps them. It is None where this is not enough: two rates that
    differ, or a schedule of the optimizer's own next to ours.

    Args:
      build: makes the optimizer of variables['params'] with a schedule for its learning rate.
      schedule: count -> learning rate.
    """

    value_at = _in_one_program(schedule)

    @functools.lru_cache(maxsize=1)
    def counts_of(treedef: Any, forms: tuple) -> list[int | None]:
        leaves = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in forms]
        return _counts(build, schedule, *jax.tree.unflatten(treedef, leaves))

    def rate(variables: Variables, opt_state: OptState, step: int) -> float | None:
        del step  # the optimizer's own count is what matters
        leaves, treedef = jax.tree.flatten((variables["params"], opt_state))
        counts = counts_of(treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        return _rate(value_at, opt_state, counts)

    return rate


def known_rates(
    rates: Mapping[str, Rate], variables: Variables, opt_state: OptState, step: int
) -> tuple[dict[str, float], list[str]]:
    """Asks a task's rates after an update; returns those that are known, and the others' names."""
    values = {name: rate(variables, opt_state, step) for name, rate in rates.items()}
    known = {name: float(value) for name, value in values.items() if value is not None}
    return known, [name for name in values if name not in known]


def _in_one_program(schedule: optax.Schedule) -> Callable[[int], float]:
    """Returns count -> learning rate; called by itself, a schedule compiles each of its operations.

    With a one-cycle schedule of optax that made the first row of a run wait for a second.
    """
    fixed: list[Any] = []

    def traced(count: jax.Array) -> Any:
        value = schedule(count)
        if not isinstance(value, jax.core.Tracer):
            fixed.append(value)  # as it is: 0.001 is not float32's
        return value

    @functools.cache
    def program() -> Callable[[jax.Array], Any]:
        return jax.jit(traced, compiler_options=cpu.unoptimized())

    def value_at(count: int) -> float:
        value = program()(jnp.int32(count))
        return float(fixed[0] if fixed else value)

    return value_at


def _rate(
    value_at: Callable[[int], float], opt_state: OptState, counts: list[int | None]
) -> float | None:
    leaves, treedef = jax.tree.flatten(opt_state)
    numbered = jax.tree.unflatten(treedef, range(len(leaves)))
    if None in counts or _scheduled(numbered) - set(counts):
        return None
    # A count goes up with every update.
    rates = {value_at(max(int(leaves[place]) - 1, 0)) for place in counts if place is not None}
    kept = [value for _, value in optax.tree.get_all_with_path(opt_state, "learning_rate")]
    kept = [v for v in kept if getattr(v, "ndim", 1) == 0 and jnp.issubdtype(v.dtype, jnp.floating)]
    found = next(iter(rates)) if rates else float(kept[0]) if kept else None
    if found is None or len(rates) > 1:
        return None
    # Kept in the parameters' type, and computed in another program.
    alike = (math.isclose(v, found, rel_tol=4 * float(jnp.finfo(v.dtype).eps)) for v in kept)
    return found if all(alike) else None


def _scheduled(numbered: Any) -> set[int]:
    """Returns the places of the counts of `optax.scale_by_schedule`, in a state of places."""
    kind = optax.ScaleByScheduleState
    states = jax.tree.leaves(numbered, is_leaf=lambda node: isinstance(node, kind))
    return {state.count for state in states if isinstance(state, kind)}


def _counts(
    build: Build, schedule: optax.Schedule, params: Any, opt_state: Any
) -> list[int | None]:
    """Returns the places, among the state's leaves, of what an update calls the schedule with.

    None stands for what is no leaf of it. Traced, not run, and apart from the run's own program.
    """
    marked = build(lambda count: schedule(checkpoint_name(count, _MARK)))
    jaxpr = jax.make_jaxpr(marked.update)(params, opt_state, params).jaxpr
    first = len(jax.tree.leaves(params))
    places = range(len(jax.tree.leaves(opt_state)))
    origins = dict(zip(jaxpr.invars[first : first + len(places)], places, strict=True))
    return list(_marked(jaxpr, origins))


def _marked(jaxpr: Jaxpr, origins: dict[Any, int]) -> Iterator[int | None]:
    """Walks through equations, those of branches and inner functions included."""
    for eqn in jaxpr.eqns:
        given = [None if isinstance(atom, Literal) else origins.get(atom) for atom in eqn.invars]
        if eqn.primitive.name == "name" and eqn.params["name"] == _MARK:
            yield given[0]
        elif eqn.primitive.name == "convert_element_type" and given[0] is not None:
            origins[eqn.outvars[0]] = given[0]
        loops = eqn.primitive.name in ("while", "scan")  # in which a value is not what was given
        for inner in jaxprs_in_params(eqn.params):
            # A branch is not given what chooses it.
            taken = [] if loops else given[len(given) - len(inner.invars) :]
            pairs = zip(inner.invars, taken, strict=False)
            yield from _marked(inner, {var: place for var, place in pairs if place is not None})
