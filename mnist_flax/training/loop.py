"""The loop: chunks of steps, and between them the rows, evaluations and saves that are due."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mnist_flax.core.chunk import Evaluated
from mnist_flax.core.evaluation import Evaluation, evaluate
from mnist_flax.core.state import TrainState
from mnist_flax.core.sums import empty, means
from mnist_flax.data.sources import Source
from mnist_flax.training.processes import require_one_state
from mnist_flax.training.standing import Standing, consequence, improves
from mnist_flax.training.telling import (
    Run,
    diverged,
    last_batch,
    last_rates,
    observe,
    require_steps,
    write_extra,
)
from mnist_flax.workdir.metadata import metadata_of

# Where nothing is due, a chunk is cut all the same, so that a stop is seen and the bar moves.
_CHUNK_SECONDS = 1.0


def run_loop(run: Run, at: Standing, state: TrainState) -> TrainState:
    """Rows, evaluation, save, chunk: in this order, so that a row is on disk before its save."""
    times = run.plan.times
    run.console.start(at.step, times.total_steps, run.plan.task)
    while True:
        if times.row_due(at.step) and at.window_open:
            state = _write_row(run, at, state)
        if times.epoch_due(at.step) and at.epoch_open:
            state = _write_epoch(run, at, state)
        if times.eval_due(at.step) and at.evaluation is None:
            _evaluate(run, at, state)
        after = consequence(run.plan.task, at, state)
        over = at.step >= times.total_steps or after.ends
        if over and at.window_open:  # its evaluation ended it before its row was due
            state = _write_row(run, at, state)
        ending = over or run.should_stop()
        due = at.step != at.saved_step and (ending or times.save_due(at.step))
        if at.improved or due:
            _save(run, at, state, due)
        if ending:
            break
        state = _run_chunk(run, at, state.replace(opt_state=after.opt_state))
    done = at.evaluation is not None and over
    event = "finished" if done else "stopped"
    observe(run, at, state, "ended", {})
    run.writer.event(at.step, event, f"{event.capitalize()} at step {at.step:,}, which is saved.")
    for note in run.plan.dataset.notes:
        run.console.say(note)
    return state


def _run_chunk(run: Run, at: Standing, state: TrainState) -> TrainState:
    """Runs steps up to the next event, or for about a second."""
    source = run.plan.source
    longest = min(source.most_steps(at.step), max(1, int(at.steps_per_second * _CHUNK_SECONDS)))
    # By this process's clock, which must not decide how many steps the others run.
    count = run.plan.placement.agree(min(run.plan.times.next_event(at.step) - at.step, longest))
    feed = source.feed(at.step, count)
    started = time.perf_counter()
    state, finite = run.programs.train_chunk(state, feed, jnp.int32(count))
    jax.block_until_ready(state.step)
    seconds = time.perf_counter() - started
    at.step, at.window_open, at.epoch_open, at.evaluation = at.step + count, True, True, None
    at.row_seconds += seconds
    at.steps_per_second = count / seconds
    # Here, so that no row, evaluation or save ever sees such a state.
    if not finite:
        raise diverged(run, at, state, at.step - count + 1)
    run.console.advance(at.step, at.steps_per_second)
    return state


def _write_row(run: Run, at: Standing, state: TrainState) -> TrainState:
    """Closes the window: writes its means and returns the state with an empty one."""
    task = run.plan.task
    require_steps(run, at, state, state.window, at.row_step)
    rates = last_rates(run, at, state)
    # No time was spent if all steps of the window were an earlier process's.
    rate = (at.step - at.row_step) / at.row_seconds if at.row_seconds else 0.0
    row = {
        **means(state.window, task.metrics),
        **rates,
        "steps_per_second": rate,
        "images_per_second": rate * run.plan.config.batch_size,
    }
    run.writer.row(at.step, "train", **row)
    observe(run, at, state, "train", row)
    at.row_step, at.row_seconds, at.window_open = at.step, 0.0, False
    return state.replace(window=empty(state.window))


def _write_epoch(run: Run, at: Standing, state: TrainState) -> TrainState:
    """Closes the epoch: writes its means and its sum, and how its last batch does after it."""
    sums, names = state.epoch, run.plan.task.metrics
    require_steps(run, at, state, sums, at.step - run.plan.times.steps_per_epoch)
    last = means(last_batch(run, at, state).sums, names)
    row: dict[str, Any] = {"epoch": at.step // run.plan.times.steps_per_epoch, **means(sums, names)}
    if "loss" in sums:  # of the batches' means, as the tutorials have it; all batches are full
        row["loss_sum"] = float(sums["loss"]) / run.plan.config.batch_size
    row |= {f"last_batch_{name}": value for name, value in last.items()}
    line = run.console.format({"step": at.step, "split": "epoch", **row})
    # Of few images an epoch is short, and its lines would stand between all others.
    often = run.plan.times.steps_per_epoch < run.plan.times.log_every
    (run.writer.record if often else run.writer.event)(at.step, "epoch", line, **row)
    observe(run, at, state, "epoch", row)
    at.epoch_open = False
    return state.replace(epoch=empty(sums))


def _evaluate(run: Run, at: Standing, state: TrainState) -> None:
    """Evaluates the state of this step, unless a stop cuts it short: then nothing is written of it.

    The row that counts is the last one: where it stands, those of the extra splits do (see
    workdir/rows.py).
    """
    plan = run.plan
    result = _result(run, state, run.programs.eval_chunk, plan.eval_source)
    if result is None:
        return
    if not all(map(math.isfinite, result.means.values())):
        raise diverged(run, at, state)
    besides = {}
    for name, source in plan.extra_sources.items():
        extra = _result(run, state, run.programs.extra_chunks[name], source)
        if extra is None:
            return
        besides[name] = extra
    for name, extra in besides.items():
        write_extra(run, at, name, extra)
    row = result.row()
    observe(run, at, state, "evaluated", row, result.outputs)
    run.writer.row(at.step, plan.dataset.chooses, **row)
    observe(run, at, state, "eval", row, result.outputs)
    at.evaluation = result.means
    if improves(plan.task, at.evaluation, at.best):
        at.improved, at.best = True, at.evaluation[plan.task.best]
    if at.step < plan.times.total_steps:
        for event, message in consequence(plan.task, at, state).told.items():
            run.writer.event(at.step, event, message)


def _result(
    run: Run, state: TrainState, eval_chunk: Callable[..., Evaluated], source: Source
) -> Evaluation | None:
    plan = run.plan
    return evaluate(
        eval_chunk,
        state.variables,
        source,
        plan.task,
        run.should_stop,
        plan.measure,
        plan.placement.agree,
    )


def _save(run: Run, at: Standing, state: TrainState, due: bool) -> None:
    """Saves the state of this step: as the best if its evaluation was, among the latest if due."""
    plan = run.plan
    require_one_state(plan.placement, state)

    def write() -> None:
        if run.checkpoints is None:  # the first process writes
            return
        rows, devices = run.writer.rows, plan.placement.devices
        metadata = metadata_of(at.step, at.evaluation, plan.config, plan.dataset, rows, devices)
        if due:
            run.checkpoints.save(state, metadata, best=False)
        if due and at.improved:
            run.checkpoints.copy_to_best(at.step, state)
        elif at.improved:
            run.checkpoints.save(state, metadata, best=True)

    plan.placement.together(write)
    if at.saved_step is None:  # so that the rows tell of it when the saves are lost
        run.writer.event(at.step, "saved", f"First save: step {at.step:,}.")
    at.saved_step, at.improved = at.step, False
    run.writer.saved(at.step)
    observe(run, at, state, "saved", {})
