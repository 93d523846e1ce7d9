"""A run that ends, or learns slower, once evaluations are no better: early stopping and plateaus.

What is counted is part of the state, so that a run that was interrupted counts on: an evaluation is
counted when the run goes on from it, and no save holds that of its own step. It stands with the
optimizer's state, as {'optimizer': …, 'patience': …}: an average of the variables leaves it alone.
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mnist_flax.core.sums import Sums
from mnist_flax.core.task import Consequence, OptState, Rate, Task, Variables
from mnist_flax.core.update import UPDATE_NORM
from mnist_flax.data.batch import Batch
from mnist_flax.errors import UsageError


class Patience(flax.struct.PyTreeNode):
    """What evaluations have said so far.

    Attributes:
      best: float32 [], the best value so far of the metric that chooses; infinite before any.
      waited: int32 [], evaluations since then.
      flat: int32 [], evaluations since then or since the factor fell.
      factor: float32 [], of what a step changes.
    """

    best: jax.Array
    waited: jax.Array
    flat: jax.Array
    factor: jax.Array


def with_patience(task: Task, stop_after: int, slow_after: int, slow_factor: float) -> Task:
    """Returns a task whose run ends, or learns slower, after evaluations that were no better.

    Better is what is larger or smaller than the best one, by task.best. What a step changes of the
    parameters is multiplied by the factor, which is the same as a learning rate multiplied by it;
    with a factor of 1 no bit is another.

    Args:
      task: any that has a `best`.
      stop_after: so many evaluations in a row that were no better end the run; 0: none do.
      slow_after: so many multiply the factor by slow_factor; 0: none do.
      slow_factor: in (0, 1).

    Raises:
      UsageError: no metric chooses.
    """
    if not task.best:
        field = "early_stopping_patience" if stop_after else "plateau_patience"
        raise UsageError(
            f"config.{field}={stop_after or slow_after}: no metric says which evaluation of this "
            "task is better. Leave it out."
        )
    larger = task.metrics[task.best].larger_is_better

    def init_opt(variables: Variables) -> OptState:
        return {"optimizer": task.init_opt(variables), "patience": _nothing_yet(larger)}

    def update(
        variables: Variables, opt_state: OptState, batch: Batch, step: jax.Array, key: jax.Array
    ) -> tuple[Variables, OptState, Sums]:
        after, inner, sums = task.update(variables, opt_state["optimizer"], batch, step, key)
        factor = opt_state["patience"].factor

        def slowed(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(factor == 1, new, old + factor.astype(new.dtype) * (new - old))

        if slow_after:
            params = jax.tree.map(slowed, after["params"], variables["params"])
            after = {**after, "params": params}
            if UPDATE_NORM in sums:
                sums = {**sums, UPDATE_NORM: factor * sums[UPDATE_NORM]}
        return after, {"optimizer": inner, "patience": opt_state["patience"]}, sums

    def after_evaluation(opt_state: OptState, means: Mapping[str, float]) -> Consequence:
        kept = _counted(jax.device_get(opt_state["patience"]), np.float32(means[task.best]), larger)
        best = f"{task.best.replace('_', ' ')} {kept.best:{task.metrics[task.best].format}}"
        ends = bool(stop_after and kept.waited >= stop_after)
        told = {}
        if ends:
            told["early_stop"] = (
                f"No better than {best} for {_evaluations(int(kept.waited))}: the run ends here, "
                f"by config.early_stopping_patience={stop_after}."
            )
        elif slow_after and kept.flat >= slow_after:
            kept = kept.replace(flat=np.int32(0), factor=kept.factor * np.float32(slow_factor))
            told["plateau"] = (
                f"No better than {best} for {_evaluations(slow_after)}: the learning rate is "
                f"{kept.factor:g} times the schedule's from here on."
            )
        kept = jax.tree.map(jnp.asarray, kept)
        return Consequence({**opt_state, "patience": kept}, told, ends)

    return task._replace(
        init_opt=init_opt,
        update=update,
        rates={name: _of_inner(name, rate) for name, rate in task.rates.items()},
        after_evaluation=after_evaluation,
    )


def _nothing_yet(larger: bool) -> Patience:
    worst, zero = jnp.float32(-jnp.inf if larger else jnp.inf), jnp.int32(0)
    return Patience(best=worst, waited=zero, flat=zero, factor=jnp.float32(1))


def _counted(kept: Patience, value: np.float32, larger: bool) -> Patience:
    """Counts an evaluation, whose value is compared as it is kept: in float32."""
    if value > kept.best if larger else value < kept.best:
        return kept.replace(best=value, waited=np.int32(0), flat=np.int32(0))
    return kept.replace(waited=kept.waited + np.int32(1), flat=kept.flat + np.int32(1))


def _of_inner(name: str, rate: Rate) -> Rate:
    """A rate of the optimizer within; a learning rate is multiplied by the factor."""

    def asked(variables: Variables, opt_state: Any, step: int) -> float | None:
        value = rate(variables, opt_state["optimizer"], step)
        if value is None or not name.endswith("learning_rate"):
            return value
        return value * float(opt_state["patience"].factor)

    return asked


def _evaluations(count: int) -> str:
    return "an evaluation" if count == 1 else f"{count} evaluations"
