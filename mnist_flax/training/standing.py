"""Where a run stands: what the host knows without asking the device."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_flax.core.state import TrainState
from mnist_flax.core.task import Consequence, Task
from mnist_flax.errors import UserError
from mnist_flax.workdir.rows import METRICS_FILE, is_evaluation, read_rows


@dataclass
class Standing:
    """A run between two chunks of steps.

    Attributes:
      step: that the state is at.
      window_open: whether there were steps since the last row.
      epoch_open: whether there were steps since the last epoch row.
      saved_step: of the newest save.
      evaluation: the metrics of this step's state; None where it was not evaluated.
      best: the value of task.best in the best save; None where there is none.
      improved: whether this step's evaluation is the best, and not saved yet.
      row_step: the last row's, or the first of this process.
      row_seconds: spent in steps since then.
      steps_per_second: of the last chunk.
      no_rate_told: whether the rows say already which rates they lack.
    """

    step: int
    window_open: bool
    epoch_open: bool
    saved_step: int | None
    evaluation: Mapping[str, float] | None
    best: float | None
    improved: bool = False
    row_step: int = 0
    row_seconds: float = 0.0
    steps_per_second: float = 1.0
    no_rate_told: bool = False


def stands(
    workdir: Path,
    saved: Mapping[str, Any] | None,
    state: TrainState,
    task: Task,
    best: Mapping[str, float] | None,
) -> Standing:
    """Returns where a run stands when it is opened.

    Args:
      workdir: its rows say whether the saved step was evaluated.
      saved: metadata of the save that it goes on from.
      state: of that save, or the first.
      task: names the metric that chooses.
      best: the metrics of the best save, if there is one.
    """
    step = saved["step"] if saved else 0
    evaluation = evaluation_of(workdir, step, task) if saved else None
    best_value = best.get(task.best) if best else None
    improved = evaluation is not None and improves(task, evaluation, best_value)
    return Standing(
        step=step,
        window_open=int(state.window["count"]) > 0,
        epoch_open=int(state.epoch["count"]) > 0,
        saved_step=step if saved else None,
        evaluation=evaluation,
        best=evaluation[task.best] if evaluation and improved else best_value,
        improved=improved,
        row_step=step,
        no_rate_told=any(
            row.get("event") == "no_rate" and row["step"] <= step for row in read_rows(workdir)
        ),
    )


def consequence(task: Task, at: Standing, state: TrainState) -> Consequence:
    """Returns what the evaluation of this step means for the next; nothing if there was none."""
    if at.evaluation is None:
        return Consequence(state.opt_state)
    return task.after_evaluation(state.opt_state, at.evaluation)


def improves(task: Task, evaluation: Mapping[str, float], best: float | None) -> bool:
    """Says whether an evaluation beats the best so far; never where no metric chooses."""
    if not task.best:
        return False
    value = evaluation[task.best]
    if best is None:
        return True
    return value > best if task.metrics[task.best].larger_is_better else value < best


def evaluation_of(workdir: Path, step: int, task: Task) -> dict[str, float] | None:
    """Returns the metrics in a step's evaluation row; None if the step was not evaluated yet.

    The file knows better than the save: a save made by a signal in the middle of an evaluation is
    not written again when a later process completes that evaluation.
    """
    rows = [r for r in read_rows(workdir) if is_evaluation(r) and r["step"] == step]
    if not rows:
        return None
    numbers = {name: value for name, value in rows[-1].items() if type(value) in (int, float)}
    if task.best in task.measured and task.best not in numbers:
        return None  # nothing measured it then: it is evaluated again
    if task.best and task.best not in numbers:
        raise UserError(
            f"{workdir / METRICS_FILE}: the evaluation of step {step} has no {task.best}. "
            "Mend or remove its line."
        )
    return {name: numbers[name] for name in task.metrics if name in numbers}
