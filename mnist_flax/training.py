"""train(config, workdir): the run as a sequence of effects around pure, jitted chunks of steps."""

import contextlib
import dataclasses
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mnist_flax import data, resume
from mnist_flax.checkpoint import Checkpoints
from mnist_flax.config import validate
from mnist_flax.data.dataset import Dataset
from mnist_flax.environment import environment
from mnist_flax.errors import UserError
from mnist_flax.evaluation import evaluate
from mnist_flax.metrics import Metrics
from mnist_flax.models import check_model, create_model, summary
from mnist_flax.optim import create_optimizer, create_schedule
from mnist_flax.state import TrainState, create_state
from mnist_flax.steps import Programs, compile_programs, slow_layers
from mnist_flax.timetable import Timetable
from mnist_flax.workdir import locked
from mnist_flax.writers import Console, Writer

# Where nothing is due, a chunk is cut all the same, so that a stop is seen and the bar moves.
_CHUNK_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class _Run:
    """What stays the same from the first step to the last."""

    config: ConfigDict
    dataset: Dataset
    times: Timetable
    learning_rate: optax.Schedule
    checkpoints: Checkpoints
    writer: Writer
    console: Console
    should_stop: Callable[[], bool]


@dataclasses.dataclass
class _Standing:
    """Where a run stands: what the host knows without asking the device."""

    step: int
    window_open: bool  # whether there were steps since the last row
    saved_step: int | None  # of the newest save
    evaluated: bool  # whether the state of `step` was
    accuracy: float | None  # of the last evaluation
    best_accuracy: float | None
    improved: bool = False  # the last evaluation was the best, and is not saved yet
    row_step: int = 0  # the last row's, or the first of this process
    row_seconds: float = 0.0  # spent in steps since then
    steps_per_second: float = 1.0


def train(
    config: ConfigDict, workdir: Path, *, should_stop: Callable[[], bool] = lambda: False
) -> TrainState:
    """Trains until the config's last step, or goes on with the run that the workdir holds.

    Whether it was interrupted or not, the same config, data, machine and versions give the same
    bits in the state and the same rows, times aside.

    Args:
      config: from a recipe in configs/, after overrides.
      workdir: is created; workdir.py says what it holds.
      should_stop: asked after every chunk and every batch of an evaluation. Once it says True, the
        state is saved and returned.

    Returns:
      The state at the last step reached.

    Raises:
      UsageError: a wrong config; every fault at once.
      UserError: the data, the workdir or its checkpoints do not allow the run, or it diverged.
    """
    check(config)
    workdir = Path(workdir)
    with contextlib.ExitStack() as stack:
        console = stack.enter_context(Console())
        dataset = data.load(config.data, report=console.say)
        times = Timetable.from_config(config, len(dataset.train.labels))
        image_shape = dataset.train.images.shape[1:]
        model = create_model(config.model, len(dataset.class_names))
        check_model(model, image_shape, len(dataset.class_names))
        learning_rate = create_schedule(
            config.schedule, config.optimizer.learning_rate, times.total_steps
        )
        optimizer = create_optimizer(config.optimizer, learning_rate)
        stack.enter_context(locked(workdir))
        state = jax.jit(lambda: create_state(model, optimizer, image_shape, config.seed))()

        checkpoints = Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints)
        stack.enter_context(contextlib.closing(checkpoints))
        saved = resume.newest_save(checkpoints, config, dataset, workdir)
        if saved is not None:
            state = checkpoints.restore(saved["step"], state)
        at = _standing(workdir, saved, state, checkpoints.best_accuracy())
        if at.evaluated and not at.improved and at.step >= times.total_steps:
            message = f"The run in {workdir} is finished: it stands at step {at.step:,}."
            console.say("\n".join([*dataset.notes, message]))
            return state

        writer = Writer(workdir, console, dataset.name)
        resume.open_run(config, workdir, writer, dataset, saved)
        console.say(summary(model, image_shape, shutil.get_terminal_size((100, 24)).columns))
        for layer in slow_layers(model, state, image_shape):
            writer.event(at.step, "slow_layer", f"Slow to train on a CPU: {layer}.")
        programs = compile_programs(config, model, optimizer, state, dataset)
        console.say(f"Compiled in {programs.seconds:.1f} s for {environment()['device']}.")
        run = _Run(config, dataset, times, learning_rate, checkpoints, writer, console, should_stop)
        return _loop(run, at, state, programs)


def check(config: ConfigDict) -> None:
    """Raises UsageError with every fault of a config, before any data is loaded."""
    steps = config.num_steps or 1_000_000  # the real number of an epoch's steps needs the data
    validate(
        config,
        others=(
            lambda: create_model(config.model, num_classes=10),
            lambda: create_schedule(config.schedule, config.optimizer.learning_rate, steps),
            lambda: create_optimizer(config.optimizer, optax.constant_schedule(0.0)),
            lambda: data.check(config.data),
        ),
    )


def _loop(run: _Run, at: _Standing, state: TrainState, programs: Programs) -> TrainState:
    """Row, evaluation, save, chunk: in this order, so that a row is on disk before its save."""
    run.console.start(at.step, run.times.total_steps)
    while True:
        if run.times.row_due(at.step) and at.window_open:
            state = _write_row(run, at, state)
        if run.times.eval_due(at.step) and not at.evaluated:
            _evaluate(run, at, state, programs)
        ending = at.step >= run.times.total_steps or run.should_stop()
        due = at.step != at.saved_step and (ending or run.times.save_due(at.step))
        if at.improved or due:
            _save(run, at, state, programs, due)
        if ending:
            break
        state = _run_chunk(run, at, state, programs)
    event = "finished" if at.evaluated and at.step >= run.times.total_steps else "stopped"
    run.writer.event(at.step, event, f"{event.capitalize()} at step {at.step:,}, which is saved.")
    for note in run.dataset.notes:
        run.console.say(note)
    return state


def _run_chunk(run: _Run, at: _Standing, state: TrainState, programs: Programs) -> TrainState:
    """Runs steps up to the next event, or for about a second."""
    longest = max(1, int(at.steps_per_second * _CHUNK_SECONDS))
    count = min(run.times.next_event(at.step) - at.step, longest)
    order = programs.epoch_order(at.step // run.times.steps_per_epoch)
    started = time.perf_counter()
    state = programs.train_chunk(state, order, jnp.int32(count))
    jax.block_until_ready(state.step)
    seconds = time.perf_counter() - started
    at.step, at.window_open, at.evaluated = at.step + count, True, False
    at.row_seconds += seconds
    at.steps_per_second = count / seconds
    run.console.advance(at.step, at.steps_per_second)
    return state


def _write_row(run: _Run, at: _Standing, state: TrainState) -> TrainState:
    """Closes the window: writes its means and returns the state with an empty one."""
    means = state.window.compute()
    _stop_unless(math.isfinite(means["loss"]), run, at)
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
    at.row_step, at.row_seconds, at.window_open = at.step, 0.0, False
    return state.replace(window=Metrics.empty())


def _evaluate(run: _Run, at: _Standing, state: TrainState, programs: Programs) -> None:
    """Evaluates the state of this step, unless a stop cuts it short."""
    num_examples = len(run.dataset.eval.labels)
    result = evaluate(
        programs.eval_batch, state, num_examples, run.config.batch_size, run.should_stop
    )
    if result is None:
        return
    _stop_unless(math.isfinite(result.loss), run, at)
    run.writer.row(at.step, "eval", **dataclasses.asdict(result))
    at.evaluated, at.accuracy = True, result.accuracy
    if at.best_accuracy is None or result.accuracy > at.best_accuracy:
        at.improved, at.best_accuracy = True, result.accuracy


def _save(run: _Run, at: _Standing, state: TrainState, programs: Programs, due: bool) -> None:
    """Saves the state of this step: as the best if its evaluation was, among the latest if due."""
    _stop_unless(bool(programs.all_finite(state)), run, at)
    metadata = {
        "step": at.step,
        "accuracy": at.accuracy if at.evaluated else None,
        "config": run.config.to_dict(),
        "dataset": resume.describe(run.dataset),
        "environment": environment(),
    }
    if at.improved:
        run.checkpoints.save(state, metadata, best=True)
    if due:
        run.checkpoints.save(state, metadata, best=False)
    at.saved_step, at.improved = at.step, False


def _stop_unless(finite: bool, run: _Run, at: _Standing) -> None:
    """Raises UserError on numbers that are none, before they are written or saved."""
    if finite:
        return
    rate = float(run.learning_rate(max(at.step - 1, 0)))
    saved = "none" if at.saved_step is None else f"step {at.saved_step}"
    raise UserError(
        f"The run diverged: NaN or infinity within steps {at.row_step + 1} to {at.step}, at "
        f"learning rate {rate:g}. Last good save: {saved}. Start afresh with another --workdir "
        f"and, say, --config.optimizer.learning_rate={rate / 10:g}"
    )


def _standing(
    workdir: Path, saved: dict[str, Any] | None, state: TrainState, best_accuracy: float | None
) -> _Standing:
    step = saved["step"] if saved else 0
    accuracy = resume.evaluated_accuracy(workdir, step) if saved else None
    improved = accuracy is not None and (best_accuracy is None or accuracy > best_accuracy)
    return _Standing(
        step=step,
        window_open=bool(state.window.count > 0),
        saved_step=step if saved else None,
        evaluated=accuracy is not None,
        accuracy=accuracy,
        best_accuracy=accuracy if improved else best_accuracy,
        improved=improved,
        row_step=step,
    )
