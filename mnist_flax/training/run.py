"""train(config, workdir): the run as a sequence of effects around pure, jitted chunks of steps."""

import contextlib
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax import data
from mnist_flax.config import flatten
from mnist_flax.config.validation import validate
from mnist_flax.core.optimizers import check_optimizer, create_optimizer, create_schedule
from mnist_flax.core.state import TrainState, create_state
from mnist_flax.data.augment import check_augment, create_augment
from mnist_flax.data.dataset import Dataset
from mnist_flax.models import create_model, summary
from mnist_flax.show.console import Console
from mnist_flax.show.writer import Writer
from mnist_flax.tasks.classification import check_model
from mnist_flax.tasks.programs import num_train_examples
from mnist_flax.training import finetune, resume
from mnist_flax.training.compilation import Programs, compile_programs, init_state, slow_layers
from mnist_flax.training.loop import Run, Standing, run_loop
from mnist_flax.training.timetable import Timetable
from mnist_flax.workdir.checkpoints import Checkpoints
from mnist_flax.workdir.environment import environment
from mnist_flax.workdir.lock import locked
from mnist_flax.workdir.rows import read_rows


def train(
    config: ConfigDict,
    workdir: Path,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    init_from: tuple[Path, str] | None = None,
) -> TrainState:
    """Trains until the config's last step, or goes on with the run that the workdir holds.

    Whether it was interrupted or not, the same config, data, machine and versions give the same
    bits in the state and the same rows, times aside.

    Args:
      config: from a recipe in configs/, after overrides.
      workdir: is created; workdir.py says what it holds.
      should_stop: asked after every chunk and every batch of an evaluation. Once it says True, the
        state is saved and returned.
      init_from: (workdir of another run, 'latest', 'best' or a step): a run that starts takes its
        parameters from there, as far as they fit. One that goes on does not look at it.

    Returns:
      The state at the last step reached.

    Raises:
      UsageError: a wrong config; every fault at once.
      UserError: the data, the workdir or its checkpoints do not allow the run, or it diverged.
    """
    check(config)
    if config.tensorboard:  # only then, and before anything else: it may not be installed
        from mnist_flax.show.tensorboard import EventFile
    workdir = Path(workdir)
    with contextlib.ExitStack() as stack:
        console = stack.enter_context(Console())
        dataset = data.load(config.data, report=console.say)
        times = Timetable.from_config(config, num_train_examples(config, dataset))
        image_shape = dataset.train.images.shape[1:]
        model = create_model(config.model, len(dataset.class_names))
        check_model(model, image_shape, len(dataset.class_names))
        check_augment(config.augment, image_shape)
        learning_rate, optimizer = _optimizer(config, model, image_shape, times.total_steps)
        stack.enter_context(locked(workdir))
        checkpoints = Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints)
        stack.enter_context(contextlib.closing(checkpoints))
        like = jax.eval_shape(lambda: create_state(model, optimizer, image_shape, config.seed))
        restored = resume.restore_newest(checkpoints, config, dataset, workdir, like)
        saved, state = restored or (None, init_state(model, optimizer, image_shape, config.seed))
        taken = ""
        if init_from and saved is None:
            state, taken = finetune.init_from(state, *init_from)
        at = _standing(workdir, saved, state, checkpoints.best_accuracy())
        if at.evaluated and not at.improved and at.step >= times.total_steps:
            message = f"The run in {workdir} is finished: it stands at step {at.step:,}."
            if config.tensorboard and not (workdir / "tensorboard").exists():
                message += " Event files for TensorBoard take one more step."
            console.say("\n".join([*dataset.notes, message]))
            return state

        writer = Writer(workdir, console, dataset.name)
        resume.open_run(config, workdir, writer, dataset, saved)
        if config.tensorboard:
            tell = functools.partial(writer.event, at.step, "damaged_event_file")
            event_file = EventFile(
                workdir / "tensorboard", read_rows(workdir), flatten(config), tell
            )
            writer.event_file = stack.enter_context(contextlib.closing(event_file))
        if taken:
            writer.event(at.step, "init_from", taken)
        elif init_from:
            console.say(f"--init_from={init_from[0]} is left: the run goes on from its own save.")
        console.say(summary(model, image_shape, shutil.get_terminal_size((100, 24)).columns))
        programs = _compile(config, model, optimizer, state, dataset, writer)
        console.say(f"Compiled in {programs.seconds:.1f} s for {environment()['device']}.")
        run = Run(
            config=config,
            dataset=dataset,
            model=model,
            times=times,
            learning_rate=learning_rate,
            programs=programs,
            checkpoints=checkpoints,
            writer=writer,
            console=console,
            should_stop=should_stop,
        )
        return run_loop(run, at, state)


def check(config: ConfigDict) -> None:
    """Raises UsageError with every fault of a config, before any data is loaded."""
    # A million steps stand for those of epochs, whose number needs the data.
    validate(
        config,
        others=(
            lambda c: create_model(c.model, num_classes=10),
            lambda c: create_schedule(c.schedule, c.optimizer.learning_rate, c.num_steps or 10**6),
            lambda c: create_optimizer(c.optimizer, optax.constant_schedule(0.0)),
            lambda c: create_augment(c.augment),
            lambda c: data.check(c.data),
        ),
    )


def _optimizer(
    config: ConfigDict, model: nn.Module, image_shape: tuple[int, int, int], total_steps: int
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """Returns the learning rate and the optimizer, tried on the model's parameters."""
    learning_rate = create_schedule(config.schedule, config.optimizer.learning_rate, total_steps)
    optimizer = create_optimizer(config.optimizer, learning_rate, config.clip_by_global_norm)
    params = jax.eval_shape(
        lambda: create_state(model, optax.identity(), image_shape, config.seed).params
    )
    check_optimizer(optimizer, params, config.optimizer.name)
    return learning_rate, optimizer


def _compile(
    config: ConfigDict,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    dataset: Dataset,
    writer: Writer,
) -> Programs:
    """Compiles the programs; announces each layer for whose sake steps are called from Python."""
    slow = slow_layers(model, state, dataset.train.images.shape[1:])
    for layer in slow:
        message = f"Slow in XLA's loops, so each step is called from Python: {layer}."
        writer.event(int(state.step), "slow_layer", message)
    return compile_programs(config, model, optimizer, state, dataset, in_python=bool(slow))


def _standing(
    workdir: Path, saved: dict[str, Any] | None, state: TrainState, best_accuracy: float | None
) -> Standing:
    step = saved["step"] if saved else 0
    accuracy = resume.evaluated_accuracy(workdir, step) if saved else None
    improved = accuracy is not None and (best_accuracy is None or accuracy > best_accuracy)
    return Standing(
        step=step,
        window_open=bool(state.window.count > 0),
        epoch_open=bool(state.epoch.count > 0),
        saved_step=step if saved else None,
        evaluated=accuracy is not None,
        accuracy=accuracy,
        best_accuracy=accuracy if improved else best_accuracy,
        improved=improved,
        row_step=step,
    )
