"""What a start would find in a workdir, looked at without changing anything in it."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from mnist_flax.errors import UserError
from mnist_flax.training.compilation import init_state
from mnist_flax.training.finetune import InitFrom, init_from
from mnist_flax.training.finished import finished_told
from mnist_flax.training.gather import Plan
from mnist_flax.training.lost_saves import refuse_lost_saves
from mnist_flax.training.opening import is_finished, refuse_other_measure
from mnist_flax.training.resume import changes_told, close_what_was_told, newest_whole
from mnist_flax.training.standing import stands
from mnist_flax.training.taken import start
from mnist_flax.workdir.checkpoints import Checkpoints
from mnist_flax.workdir.environment import environment
from mnist_flax.workdir.lock import require_free
from mnist_flax.workdir.rows import read_rows
from mnist_flax.workdir.saves import saved_steps


@dataclass(frozen=True)
class Outlook:
    """What a start would do.

    Attributes:
      step: that it goes on from; 0 for a new run.
      finished: whether there is nothing left to do.
      told: what is said of it, a line each.
    """

    step: int
    finished: bool
    told: tuple[str, ...]


def look_at(plan: Plan, workdir: Path, source: InitFrom | None) -> Outlook:
    """Returns what training would do in a folder, which need not be there.

    Args:
      plan: of the run.
      workdir: is only read; another process may train in it.
      source: as train() takes it.

    Raises:
      UserError: as train() would.
    """
    saved = saved_steps(workdir / "checkpoints")
    try:
        require_free(workdir)
    except UserError as error:
        newest = f" Its newest save is that of step {saved[-1]:,}." if saved else ""
        raise UserError(f"{error}{newest}") from error
    refuse_lost_saves(workdir, plan.task.best)
    if saved:
        return _saved(plan, workdir, source)
    told = [f"Workdir: {workdir}, where a run would start."]
    if read_rows(workdir):
        told = [f"Workdir: {workdir}. Nothing of the run there was saved: it would start again."]
    state = init_state(plan) if source or plan.taken else None
    if state and plan.taken:
        start(state, plan.taken, plan.dataset)
        told += plan.taken.told.values()
    if state and source:
        told.append(init_from(state, source, plan.task.fixed)[1])
    return Outlook(0, False, tuple(told))


def _saved(plan: Plan, workdir: Path, source: InitFrom | None) -> Outlook:
    directory = workdir / "checkpoints"
    checkpoints = Checkpoints(directory, read_only=True, to_train=True)
    with contextlib.closing(checkpoints):
        found = newest_whole(checkpoints, plan.config, plan.dataset, workdir, plan.tried.form)
        best = checkpoints.best_evaluation()
    assert found is not None  # there is a save; whatever is wrong with it was raised
    saved, state, damaged = found
    step = saved["step"]
    state = close_what_was_told(state, step, read_rows(workdir))
    at = stands(workdir, saved, state, plan.task, best)
    if is_finished(plan, at, state):
        return Outlook(step, True, (finished_told(plan, workdir, step),))
    refuse_other_measure(workdir, plan.measure)
    here = environment(plan.config.compute_dtype, plan.placement.devices)
    told = [f"{error.path} is damaged: it would be moved aside." for error in damaged]
    told.append(
        f"Workdir: {workdir}, whose run would go on from step {step:,}.{changes_told(saved, here)}"
    )
    if source:
        told.append(f"init_from={source.path} is left: the run goes on from its own save.")
    return Outlook(step, False, tuple(told))
