"""The loop: chunks of steps, and between them the rows, evaluations and saves that are due."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax.core.evaluation import Evaluation, evaluate
from mnist_flax.core.metrics import Metrics
from mnist_flax.core.state import TrainState
from mnist_flax.data.dataset import Dataset
from mnist_flax.errors import UserError
from mnist_flax.show.console import Console, format_row
from mnist_flax.show.diagnosis import flat_loss, lost_classes
from mnist_flax.show.drawings import draw_evaluation
from mnist_flax.show.writer import Writer
from mnist_flax.training import resume
from mnist_flax.training.compilation import Programs
from mnist_flax.training.timetable import Timetable
from mnist_flax.use.filters import first_filters
from mnist_flax.workdir.checkpoints import Checkpoints
from mnist_flax.workdir.environment import environment

# Where nothing is due, a chunk is cut all the same, so that a stop is seen and the bar moves.
_CHUNK_SECONDS = 1.0
_SHOWN_PREDICTIONS = 20  # as many as the tutorial shows beside their labels


@dataclass(frozen=True)
class Run:
    """What stays the same from the first step to the last."""

    config: ConfigDict
    dataset: Dataset
    model: nn.Module
    times: Timetable
    learning_rate: optax.Schedule
    programs: Programs
    checkpoints: Checkpoints
    writer: Writer
    console: Console
    should_stop: Callable[[], bool]


@dataclass
class Standing:
    """Where a run stands: what the host knows without asking the device."""

    step: int
    window_open: bool  # whether there were steps since the last row
    epoch_open: bool  # whether there were steps since the last epoch row
    saved_step: int | None  # of the newest save
    evaluated: bool  # whether the state of `step` was
    accuracy: float | None  # of the last evaluation
    best_accuracy: float | None
    improved: bool = False  # the last evaluation was the best, and is not saved yet
    row_step: int = 0  # the last row's, or the first of this process
    row_seconds: float = 0.0  # spent in steps since then
    steps_per_second: float = 1.0


def run_loop(run: Run, at: Standing, state: TrainState) -> TrainState:
    """Rows, evaluation, save, chunk: in this order, so that a row is on disk before its save."""
    run.console.start(at.step, run.times.total_steps)
    while True:
        if run.times.row_due(at.step) and at.window_open:
            state = _write_row(run, at, state)
        if run.times.epoch_due(at.step) and at.epoch_open:
            state = _write_epoch(run, at, state)
        if run.times.eval_due(at.step) and not at.evaluated:
            _evaluate(run, at, state)
        ending = at.step >= run.times.total_steps or run.should_stop()
        due = at.step != at.saved_step and (ending or run.times.save_due(at.step))
        if at.improved or due:
            _save(run, at, state, due)
        if ending:
            break
        state = _run_chunk(run, at, state)
    event = "finished" if at.evaluated and at.step >= run.times.total_steps else "stopped"
    run.writer.event(at.step, event, f"{event.capitalize()} at step {at.step:,}, which is saved.")
    for note in run.dataset.notes:
        run.console.say(note)
    return state


def _run_chunk(run: Run, at: Standing, state: TrainState) -> TrainState:
    """Runs steps up to the next event, or for about a second."""
    longest = max(1, int(at.steps_per_second * _CHUNK_SECONDS))
    count = min(run.times.next_event(at.step) - at.step, longest)
    order = run.programs.epoch_order(at.step // run.times.steps_per_epoch)
    started = time.perf_counter()
    state = run.programs.train_chunk(state, order, jnp.int32(count))
    jax.block_until_ready(state.step)
    seconds = time.perf_counter() - started
    at.step, at.window_open, at.epoch_open, at.evaluated = at.step + count, True, True, False
    at.row_seconds += seconds
    at.steps_per_second = count / seconds
    # Here, so that no row, evaluation or save ever sees such a state.
    if not run.programs.all_finite(state):
        raise _diverged(run, at, f"within steps {at.step - count + 1} to {at.step}")
    run.console.advance(at.step, at.steps_per_second)
    return state


def _write_row(run: Run, at: Standing, state: TrainState) -> TrainState:
    """Closes the window: writes its means and returns the state with an empty one."""
    means = state.window.compute()
    # No time was spent if all steps of the window were an earlier process's.
    rate = (at.step - at.row_step) / at.row_seconds if at.row_seconds else 0.0
    run.writer.row(
        at.step,
        "train",
        **means,
        learning_rate=float(run.learning_rate(at.step - 1)),
        steps_per_second=rate,
        images_per_second=rate * run.config.batch_size,
    )
    if run.config.log_probabilities:
        _write_probabilities(run, at, state)
    at.row_step, at.row_seconds, at.window_open = at.step, 0.0, False
    return state.replace(window=Metrics.empty())


def _write_probabilities(run: Run, at: Standing, state: TrainState) -> None:
    order = run.programs.epoch_order((at.step - 1) // run.times.steps_per_epoch)
    last = jax.device_get(run.programs.last_batch(state, order))
    shown = np.array2string(last.probabilities, precision=3, suppress_small=True, threshold=60)
    run.writer.event(
        at.step,
        "probabilities",
        f"Probabilities of the last batch, {list(last.probabilities.shape)}:\n{shown}",
        probabilities=np.round(last.probabilities.astype(float), 6).tolist(),
        labels=last.labels.tolist(),
    )


def _write_epoch(run: Run, at: Standing, state: TrainState) -> TrainState:
    """Closes the epoch: writes its means and its sum, and how its last batch does after it."""
    means = state.epoch.compute()
    epoch = at.step // run.times.steps_per_epoch
    last = run.programs.last_batch(state, run.programs.epoch_order(epoch - 1)).metrics.compute()
    values = {
        "epoch": epoch,
        **means,
        # Of the batches' means, as the tutorials have it; all batches are full.
        "loss_sum": float(state.epoch.loss_sum) / run.config.batch_size,
        "last_batch_accuracy": last["accuracy"],
    }
    line = format_row({"step": at.step, "split": "epoch", **values}, run.times.total_steps)
    run.writer.event(at.step, "epoch", line, **values)
    flat = flat_loss(means["loss"], last["loss"], len(run.dataset.class_names))
    if epoch == 1 and flat:
        run.writer.event(at.step, "flat_loss", flat)
    at.epoch_open = False
    return state.replace(epoch=Metrics.empty())


def _evaluate(run: Run, at: Standing, state: TrainState) -> None:
    """Evaluates the state of this step, unless a stop cuts it short."""
    num_examples = len(run.dataset.eval.labels)
    result = evaluate(
        run.programs.eval_batch, state, num_examples, run.config.batch_size, run.should_stop
    )
    if result is None:
        return
    if not math.isfinite(result.loss):
        raise _diverged(run, at, f"in the evaluation of step {at.step}")
    if run.writer.event_file is not None:
        filters = first_filters(run.model, state, run.dataset.eval.images.shape[1:])
        labels, num_classes = run.dataset.eval.labels, len(run.dataset.class_names)
        drawn = draw_evaluation(labels, result.classes, num_classes, filters)
        run.writer.event_file.images(at.step, "eval", drawn)
    run.writer.row(at.step, "eval", **result.row())
    lost = lost_classes(result.classes, run.dataset.eval.labels, run.dataset.class_names)
    if at.step >= run.times.steps_per_epoch and lost:
        run.writer.event(at.step, "lost_classes", lost)
    if at.step >= run.times.total_steps:
        _write_predictions(run, at, result)
    at.evaluated, at.accuracy = True, result.accuracy
    if at.best_accuracy is None or result.accuracy > at.best_accuracy:
        at.improved, at.best_accuracy = True, result.accuracy


def _write_predictions(run: Run, at: Standing, result: Evaluation) -> None:
    names = run.dataset.class_names
    classes = result.classes[:_SHOWN_PREDICTIONS].tolist()
    labels = run.dataset.eval.labels[:_SHOWN_PREDICTIONS].tolist()
    run.writer.event(
        at.step,
        "predictions",
        f"First {len(labels)} predictions: {' '.join(names[i] for i in classes)}\n"
        f"     and their labels: {' '.join(names[i] for i in labels)}",
        classes=classes,
        labels=labels,
    )


def _save(run: Run, at: Standing, state: TrainState, due: bool) -> None:
    """Saves the state of this step: as the best if its evaluation was, among the latest if due."""
    metadata = {
        "step": at.step,
        "accuracy": at.accuracy if at.evaluated else None,
        "config": run.config.to_dict(),
        "dataset": resume.describe(run.dataset),
        "environment": environment(),
        "rows": run.writer.rows,
    }
    if due:
        run.checkpoints.save(state, metadata, best=False)
    if due and at.improved:
        run.checkpoints.copy_to_best(at.step)
    elif at.improved:
        run.checkpoints.save(state, metadata, best=True)
    at.saved_step, at.improved = at.step, False


def _diverged(run: Run, at: Standing, where: str) -> UserError:
    rate = float(run.learning_rate(max(at.step - 1, 0)))
    saved = "none" if at.saved_step is None else f"step {at.saved_step}"
    return UserError(
        f"The run diverged: NaN or infinity {where}, at learning rate {rate:g}. Last good save: "
        f"{saved}. Start afresh with another --workdir and, say, "
        f"--config.optimizer.learning_rate={rate / 10:g}"
    )
