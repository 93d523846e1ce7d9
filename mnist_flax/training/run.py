"""train(config, workdir): gather, open, compile, loop."""

import contextlib
import functools
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from mnist_flax.core.settings import require_jax
from mnist_flax.core.state import TrainState
from mnist_flax.cpu import half_precision
from mnist_flax.data.placement import Placement
from mnist_flax.models import summary
from mnist_flax.show.console import Console
from mnist_flax.show.notebook import find_console
from mnist_flax.training.compilation import Compiler, Programs
from mnist_flax.training.finetune import InitFrom, refuse_init_from
from mnist_flax.training.gather import Plan, check
from mnist_flax.training.interrupts import Interrupts
from mnist_flax.training.loop import run_loop
from mnist_flax.training.opening import Opened, opened
from mnist_flax.training.processes import (
    gather_everywhere,
    in_all,
    lost_processes_told,
    taken_everywhere,
)
from mnist_flax.training.telling import Run
from mnist_flax.training.timetable import Window
from mnist_flax.workdir.environment import environment
from mnist_flax.workdir.saves import load_library


def train(
    config: ConfigDict,
    workdir: Path | str,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    init_from: InitFrom | tuple[Any, ...] | None = None,
    profile: tuple[int, int] | None = None,
    data: Any = None,
) -> TrainState:
    """Trains until the config's last step, or goes on with the run that the workdir holds.

    Whether it was interrupted or not, the same config, data, machine and versions give the same
    bits in the state and the same rows, times aside.

    Args:
      config: from a recipe in configs/, after overrides.
      workdir: is created; the package's folder workdir/ says what a run keeps there.
      should_stop: asked after every chunk and every batch of an evaluation, but not while drawings
        are judged. Once it says True, the state is saved and returned.
      init_from: (workdir of another run, 'latest', 'best' or a step), and more, see InitFrom: a
        run that starts takes its parameters from there, as far as they fit. One that goes on does
        not look at it.
      profile: (first, last): the steps after `first`, up to `last`, are traced by JAX's profiler
        into the workdir; see profile.py. Neither bits nor rows depend on it. Of several processes
        the first one is traced.
      data: what is trained and evaluated on, in the place of what the config names: (images,
        labels, eval_images, eval_labels), images uint8 [N, H, W] or [N, H, W, C] with C = 1 or 3,
        labels whole numbers [N]; or (train, eval), two data sets of another library. See
        data/handed_in.py. A run that goes on needs the same ones.

    Returns:
      The state at the last step reached.

    Raises:
      UsageError: a wrong config: every fault of it at once; or one that does not fit the data; or
        a window that this start does not run.
      UserError: the data, the workdir or its checkpoints do not allow the run, or it diverged.
      KeyboardInterrupt: Ctrl-C, or a notebook's stop button, asked for a stop: the state is saved
        as when should_stop says True. A second one leaves at once, as does one before the first
        step: what was saved before stands.
    """
    require_jax()
    check(config, data is not None)
    workdir = Path(workdir)
    placement = Placement.over(jax.devices())
    with contextlib.ExitStack() as stack:
        stack.enter_context(lost_processes_told(placement))
        console = stack.enter_context(find_console(workdir, silent=not placement.writes))
        config, taken = taken_everywhere(config, workdir, placement, console)
        plan = gather_everywhere(config, workdir, placement, console, data)
        plan = replace(plan, taken=taken) if taken else plan
        if window := placement.agree(profile):
            plan = replace(plan, times=replace(plan.times, window=Window(*window)))
            plan.times.require_window(0)
        source = InitFrom(*init_from) if init_from else None
        refuse_init_from(plan.task, config.task.name, source)
        compiler = Compiler(plan)

        def open_folder() -> Opened | None:
            if not placement.writes:
                return None
            return stack.enter_context(opened(plan, workdir, console, source, compiler))

        at_hand = in_all(plan, placement.together(open_folder), console, compiler)
        if at_hand.finished:
            return at_hand.state
        programs = _compiled(plan, at_hand, console, compiler)
        if plan.times.window and placement.writes:
            from mnist_flax.training.profile import profiled

            traced = profiled(programs, plan.times.window, workdir, console.say)
            programs = stack.enter_context(traced)
        # While the first steps are computed, which leaves Python to others.
        threading.Thread(target=load_library, name="imports").start()
        state, interrupted = _looped(plan, programs, at_hand, console, should_stop)
        if interrupted:
            raise KeyboardInterrupt(
                f"{workdir}: step {int(state.step):,} is saved; the same call goes on from there."
            )
        return state


def _looped(
    plan: Plan,
    programs: Programs,
    at_hand: Opened,
    console: Console,
    should_stop: Callable[[], bool],
) -> tuple[TrainState, bool]:
    """Runs the steps; returns the last state, and whether Ctrl-C was pressed, in any process."""
    placement = plan.placement
    with Interrupts(console.interrupted) as interrupts:
        stop = functools.partial(_any_stops, placement, should_stop, interrupts.requested)
        run = Run(plan, programs, at_hand.checkpoints, at_hand.writer, console, stop)
        state = run_loop(run, at_hand.standing, at_hand.state)
    return state, placement.any(interrupts.requested())


def _any_stops(placement: Placement, *asked: Callable[[], bool]) -> bool:
    return placement.any(any(asks() for asks in asked))


def _compiled(plan: Plan, at_hand: Opened, console: Console, compiler: Compiler) -> Programs:
    """Waits for a run's programs; says what network it is, how they were made, and what is slow."""
    if plan.task.model is not None:
        columns = shutil.get_terminal_size((100, 24)).columns
        console.say(summary(plan.task.model, plan.spec.image_shape, columns))
    if told := half_precision.told(plan.config.compute_dtype):
        at_hand.writer.event(at_hand.standing.step, "bfloat16", told)
    programs = compiler.programs()
    for layer in programs.slow_layers:
        message = f"Slow in XLA's loops, so each step is called from Python: {layer}."
        at_hand.writer.event(at_hand.standing.step, "slow_layer", message)
    device = environment(devices=plan.placement.devices)["device"]
    console.say(f"Compiled in {programs.seconds:.1f} s for {device}.")
    return programs
