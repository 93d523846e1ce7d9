"""What a run says apart from its rows: what it consists of, its observers, why it ends."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mnist_flax.core.chunk import LastBatch
from mnist_flax.core.evaluation import Evaluation
from mnist_flax.core.rates import known_rates
from mnist_flax.core.state import TrainState
from mnist_flax.core.sums import Sums
from mnist_flax.errors import UsageError, UserError, where_it_failed
from mnist_flax.show.console import Console
from mnist_flax.show.observers import Context
from mnist_flax.show.writer import Writer
from mnist_flax.training.compilation import Programs
from mnist_flax.training.gather import Plan
from mnist_flax.training.standing import Standing
from mnist_flax.workdir.checkpoints import Checkpoints


@dataclass(frozen=True)
class Run:
    """What stays the same from the first step to the last."""

    plan: Plan
    programs: Programs
    checkpoints: Checkpoints | None
    writer: Writer
    console: Console
    should_stop: Callable[[], bool]


def observe(
    run: Run,
    at: Standing,
    state: TrainState,
    event: str,
    row: Mapping[str, Any],
    outputs: Mapping[str, Any] | None = None,
) -> None:
    """Calls the observers, one after another."""
    plan = run.plan
    context = Context(
        config=plan.config,
        task=plan.task,
        spec=plan.spec,
        steps_per_epoch=plan.times.steps_per_epoch,
        state=state,
        outputs=outputs or {},
        last_batch=functools.partial(last_batch, run, at, state),
        say=functools.partial(run.writer.event, at.step),
        draw=run.writer.drawing(at.step, plan.dataset.chooses),
        keep=functools.partial(run.writer.keep, at.step, plan.dataset.chooses),
    )
    for observer in plan.observers:
        observer(event, at.step, row, context)


def last_batch(run: Run, at: Standing, state: TrainState) -> LastBatch:
    """Returns the batch of the step before this state, seen once more."""
    return run.programs.last_batch(state, run.plan.source.feed(at.step - 1, 1))


def last_rates(run: Run, at: Standing, state: TrainState) -> dict[str, float]:
    """Returns the rates of the last update; says once in a run which of them are not known."""
    config, rates = run.plan.config, run.plan.task.rates
    step = max(at.step - 1, 0)
    try:
        known, unknown = known_rates(rates, state.variables, state.opt_state, step)
    except UserError:
        raise
    except Exception as error:  # whatever a user's own function raises
        raise UsageError(
            f"config.task.name={config.task.name!r}: its rates fail: "
            f"{where_it_failed(error, __file__)}"
        ) from error
    if unknown and not at.no_rate_told:
        named = ", ".join(name.replace("_", " ") for name in unknown)
        message = (
            f"Rows have no {named}: what config.optimizer.name={config.optimizer.name!r} uses "
            "cannot be told from its state."
        )
        run.writer.event(at.step, "no_rate", message, rates=unknown)
        at.no_rate_told = True
    return known


def write_extra(run: Run, at: Standing, name: str, result: Evaluation) -> None:
    """Writes the row of an extra split; what is not finite, as JSON has no number for, is said.

    A run does not end by it: its state and the evaluation that counts are as they should be.
    """
    row = result.row()
    lost = [metric for metric, value in row.items() if not math.isfinite(value)]
    if lost:
        told = ", ".join(f"{metric} is {row[metric]}" for metric in lost)
        run.writer.event(at.step, "not_finite", f"Of {name}, {told}: its row goes without.")
    known = {metric: value for metric, value in row.items() if metric not in lost}
    run.writer.row(at.step, name, run.plan.dataset.extra[name].name, **known)


def require_steps(run: Run, at: Standing, state: TrainState, sums: Sums, since: int) -> None:
    """Ends the run where every step that its sums are over was a bad one, and skipped."""
    if not int(sums["count"]):
        raise diverged(run, at, state, since + 1)


def diverged(run: Run, at: Standing, state: TrainState, first: int | None = None) -> UserError:
    """Writes that a run diverged into its rows, and returns what ends it.

    Args:
      run: that.
      at: the step that it was noticed at.
      state: of this step.
      first: of the steps in one of which it did; None: it was seen in the evaluation.
    """
    where = (
        f"within steps {first} to {at.step}" if first else f"in the evaluation of step {at.step}"
    )
    rates = last_rates(run, at, state)
    told = "".join(f", at {name.replace('_', ' ')} {rate:g}" for name, rate in rates.items())
    saved = "none" if at.saved_step is None else f"step {at.saved_step}"
    advice = ""
    if "learning_rate" in rates:
        advice = f" and, say, config.optimizer.learning_rate={rates['learning_rate'] / 10:g}"
    message = f"The run diverged: NaN or infinity {where}{told}. Last good save: {saved}."
    span = {"first_step": first or at.step, "last_step": at.step}
    run.writer.record(at.step, "diverged", message, **span, **rates)
    return UserError(f"{message} Start afresh with another workdir{advice}")
