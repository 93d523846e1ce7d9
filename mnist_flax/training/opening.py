"""A run's folder is opened: locked, its newest save restored or a start made, its files written."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import FrozenConfigDict

from mnist_flax.config import OF_EXTRA_SPLITS, flatten
from mnist_flax.core.evaluation import Measure
from mnist_flax.core.state import TrainState
from mnist_flax.errors import UsageError, UserError
from mnist_flax.show.console import Console
from mnist_flax.show.writer import Writer
from mnist_flax.show.writers import Context, Writers
from mnist_flax.training import finetune, lost_saves, resume, taken
from mnist_flax.training.compilation import Compiler, init_state
from mnist_flax.training.finished import finished_told
from mnist_flax.training.gather import Plan
from mnist_flax.training.standing import Standing, consequence, stands
from mnist_flax.workdir.checkpoints import Checkpoints
from mnist_flax.workdir.known_images import (
    CHOSEN_ON_FILE,
    Known,
    count_known,
    keep_chosen,
    keep_known,
)
from mnist_flax.workdir.lock import locked
from mnist_flax.workdir.rows import read_rows


@dataclass(frozen=True)
class Opened:
    """A run's folder, held by this process, or by the first of several.

    Attributes:
      state: that the run goes on from, or starts with.
      standing: where that is.
      checkpoints: the run's saves; None in a process that only computes.
      writer: of its rows.
      finished: whether there is nothing left to do.
    """

    state: TrainState
    standing: Standing
    checkpoints: Checkpoints | None
    writer: Writer
    finished: bool


@contextlib.contextmanager
def opened(
    plan: Plan,
    workdir: Path,
    console: Console,
    init_from: finetune.InitFrom | None,
    compiler: Compiler,
) -> Iterator[Opened]:
    """Opens the folder of a run; a finished run's is left as it is.

    Args:
      plan: what the run is to be.
      workdir: is created.
      console: hears what is found.
      init_from: as train() takes it.
      compiler: of the plan; it is started as soon as it is known that steps are to come.

    Raises:
      UserError: the folder is another's or another run's, damaged, or cannot be written.
    """
    config, task = plan.config, plan.task
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(workdir))
        lost_saves.refuse_lost_saves(workdir, task.best)
        checkpoints = Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints)
        stack.enter_context(contextlib.closing(checkpoints))
        restored = resume.restore_newest(
            checkpoints, config, plan.dataset, workdir, plan.tried.form
        )
        if restored is None:
            compiler.start(step=0)
        saved, state = restored or (None, init_state(plan))
        if saved is None and plan.taken:
            state = taken.start(state, plan.taken, plan.dataset)
        if saved:
            state = resume.close_what_was_told(state, saved["step"], read_rows(workdir))
        fitted = ""
        if init_from and saved is None:
            state, fitted = finetune.init_from(state, init_from, task.fixed)
        at = stands(workdir, saved, state, task, checkpoints.best_evaluation())
        writer = Writer(workdir, console, plan.dataset.name)
        finished = is_finished(plan, at, state)
        if finished and plan.times.window:
            raise UsageError(
                f"profile={plan.times.window}: the run in {workdir} is finished, at step "
                f"{at.step:,}: no step is left, and nothing is profiled. Leave it out, train "
                "longer, or name another workdir."
            )
        plan.times.require_window(at.step)
        if finished:
            console.say("\n".join([*plan.dataset.notes, finished_told(plan, workdir, at.step)]))
            yield Opened(state, at, checkpoints, writer, finished=True)
            return
        if saved:
            refuse_other_measure(workdir, plan.measure)
            compiler.start(at.step)
        devices = plan.placement.devices
        resume.open_run(config, workdir, writer, plan.dataset, saved, devices)
        _say_measure(workdir, plan.measure, writer, at.step)
        if plan.task.best and not (workdir / CHOSEN_ON_FILE).exists():
            keep_chosen(workdir, plan.dataset.choosing.images)
        if saved is None:
            before = [init_from.path] if init_from and init_from.path.is_dir() else []
            before += plan.taken.workdirs if plan.taken else ()
            keep_known(workdir, plan.dataset.train.images, *before)
        _say_known_images(plan, workdir, writer, at.step, start=saved is None)
        if config.tensorboard:
            stack.enter_context(_event_file(plan, workdir, writer, at.step))
        if plan.writers:
            stack.enter_context(_writers(plan, workdir, writer, console, at))
        if saved is None and plan.taken:
            for name, line in plan.taken.told.items():
                writer.event(at.step, "taken", line, digest=plan.taken.digests[name])
        if fitted:
            writer.event(at.step, "init_from", fitted)
        elif init_from:
            console.say(f"init_from={init_from.path} is left: the run goes on from its own save.")
        yield Opened(state, at, checkpoints, writer, finished=False)


def is_finished(plan: Plan, at: Standing, state: TrainState) -> bool:
    """Says whether there is nothing left to do, not even an evaluation or a save."""
    over = at.step >= plan.times.total_steps or consequence(plan.task, at, state).ends
    return over and at.evaluation is not None and not at.improved


def _say_known_images(plan: Plan, workdir: Path, writer: Writer, step: int, start: bool) -> None:
    """Says how many of the images that a run is evaluated on it is trained on all the same.

    Copies are such images: config.data.select_split is refused where it names the same ones. Of
    select this is said at the start, of extra splits, which may be added, with every start.
    """
    dataset, asked = plan.dataset, {}
    if start and dataset.select is not None:
        told = "what they choose is chosen for what it knows"
        asked["config.data.select_split"] = (dataset.select, told)
    for name, extra in dataset.extra.items():
        told = "their figures look better than the network is"
        asked[f"config.{OF_EXTRA_SPLITS}{name}"] = (extra.split, told)
    for field, (split, told) in asked.items():
        known = count_known(workdir, split.images, chosen=False)
        if known.trained_on:
            message = (
                f"{field}: {_share(known)} also among the images to train on (found by their "
                f"digests): {told}."
            )
            writer.event(step, "known_images", message)


def _share(known: Known) -> str:
    """Returns 'all 37 images are' or '9 of 37 images are', of those that are trained on."""
    if known.trained_on == known.images:
        return f"all {known.images:,} images are" if known.images > 1 else "its one image is"
    return f"{known.trained_on:,} of {known.images:,} images {_is(known.trained_on)}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _measured_with(workdir: Path) -> dict[str, Any]:
    """Returns the newest of the rows that say what evaluations are measured with; {} for none."""
    rows = _measured(workdir)
    return rows[-1] if rows else {}


def _measured(workdir: Path) -> list[dict[str, Any]]:
    return [row for row in read_rows(workdir) if row.get("event") == "measure"]


def refuse_other_measure(workdir: Path, measure: Measure) -> None:
    """Raises UserError if another judge than this one has chosen so far."""
    known = [row["digest"] for row in _measured(workdir) if row.get("digest")]
    was = known[-1] if known else ""
    if was and measure.digest and was != measure.digest:
        raise UserError(
            f"workdir={workdir}: its evaluations were measured with another network, SHA-256 "
            f"{was[:16]}…, now {measure.digest[:16]}…: their numbers cannot be compared. Put "
            f"that one back, or start afresh with workdir={workdir}-new"
        )


def _say_measure(workdir: Path, measure: Measure, writer: Writer, step: int) -> None:
    """Says what evaluations are measured with, once in a run and whenever it is another thing."""
    if measure.told and _measured_with(workdir).get("message") != measure.told:
        writer.event(step, "measure", measure.told, digest=measure.digest)


@contextlib.contextmanager
def _event_file(plan: Plan, workdir: Path, writer: Writer, step: int) -> Iterator[None]:
    """Has the writer's rows go to TensorBoard, too."""
    from mnist_flax.show.tensorboard import EventFile

    tell = functools.partial(writer.event, step, "damaged_event_file")
    rows, hparams = read_rows(workdir), flatten(plan.config)
    metrics = [f"{plan.dataset.chooses}/{name}" for name in plan.task.metrics]
    event_file = EventFile(workdir / "tensorboard", rows, hparams, metrics, tell)
    writer.event_file = event_file
    with contextlib.closing(event_file):
        yield


@contextlib.contextmanager
def _writers(
    plan: Plan, workdir: Path, writer: Writer, console: Console, at: Standing
) -> Iterator[None]:
    """Has config.writers told of what is written, from here to the end."""
    context = Context(
        config=FrozenConfigDict(plan.config),
        spec=plan.spec,
        steps_per_epoch=plan.times.steps_per_epoch,
        workdir=workdir,
        rows=functools.partial(read_rows, workdir),
        memory={},
    )
    named = tuple(zip(plan.config.writers, plan.writers, strict=True))
    on_fault = plan.config.on_writer_fault
    writer.writers = Writers(named, context, on_fault, writer.record, console.say)
    with writer.writers.told_of_errors(lambda: at.step):
        writer.writers.tell("started", at.step, {})
        yield
