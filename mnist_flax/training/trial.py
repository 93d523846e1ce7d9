"""A few steps and batches of a run, computed and timed, of which nothing is kept."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mnist_flax.core.chunk import nothing_evaluated
from mnist_flax.training.compilation import Compiler, Programs, init_state
from mnist_flax.training.gather import Plan

_CHUNKS = 5
_CHUNK_SECONDS = 0.2  # of each, so that what a chunk costs besides is small
_MOST_SECONDS = 10.0  # no further chunk begins after so long


class Timed(NamedTuple):
    """What some chunks took.

    Attributes:
      seconds: of a step, or of a batch, in each chunk.
      length: steps, or batches, in the first of them.
    """

    seconds: tuple[float, ...]
    length: int

    @property
    def median(self) -> float:
        """Of the chunks."""
        return statistics.median(self.seconds)


class Memory(NamedTuple):
    """What XLA plans for a step, in bytes, on each device.

    Attributes:
      held: what goes in and what comes out: the state, and the data that lie on the device.
      temporary: what it needs while it computes.
    """

    held: int
    temporary: int


class Trial(NamedTuple):
    """What was seen of the programs of a run.

    Attributes:
      compile_seconds: until the first step could be computed.
      steps: timed, each with the data that it is fed; None where nothing is trained.
      batches: of an evaluation, likewise.
      finite: whether nothing became NaN or infinite.
      memory: None where the backend does not say.
      slow_layers: as Programs has them.
    """

    compile_seconds: float
    steps: Timed | None
    batches: Timed
    finite: bool
    memory: Memory | None
    slow_layers: tuple[str, ...]


def try_out(plan: Plan) -> Trial:
    """Compiles a run's programs and times the first steps of a new run, and an evaluation's."""
    compiler = Compiler(plan)
    compiler.start(step=0)
    state = plan.placement.replicate(init_state(plan))
    programs = compiler.programs()
    batches = _time_batches(plan, programs, state.variables)  # waits for its program, too
    steps, finite = None, True
    if plan.task.trains:
        steps, finite = _time_steps(plan, programs, state)
    return Trial(
        compile_seconds=programs.seconds,
        steps=steps,
        batches=batches,
        finite=finite,
        memory=_memory(programs.step),
        slow_layers=programs.slow_layers,
    )


def _time_steps(plan: Plan, programs: Programs, state: Any) -> tuple[Timed, bool]:
    source, total = plan.source, plan.times.total_steps
    at, finite = 0, jnp.bool_(True)

    def run(count: int) -> int:
        nonlocal state, at, finite
        count = min(count, source.most_steps(at), total - at)
        feed = source.feed(at, count)
        state, finite = programs.train_chunk(state, feed, jnp.int32(count))
        jax.block_until_ready((state, finite))
        at += count
        return count

    return _timed(run, lambda: at < total), bool(finite)


def _time_batches(plan: Plan, programs: Programs, variables: Any) -> Timed:
    source = plan.eval_source
    so_far = nothing_evaluated(plan.task, variables, source)

    def run(count: int) -> int:
        nonlocal so_far
        count = min(count, source.most_steps(0))
        feed = source.feed(0, count)
        so_far = programs.eval_chunk(so_far, variables, feed, jnp.int32(0), jnp.int32(count))
        jax.block_until_ready(so_far)
        return count

    return _timed(run, lambda: True)


def _timed(run: Callable[[int], int], more: Callable[[], bool]) -> Timed:
    """Times chunks of about _CHUNK_SECONDS, after two of a single step to warm up.

    Where there are no more steps than these, it is these that count.

    Args:
      run: (so many) -> how many it has computed: at least one, at most as many.
      more: whether there are any left.
    """
    chunks: list[tuple[float, int]] = []
    spent, length = 0.0, 1
    while more() and len(chunks) < 2 + _CHUNKS and (len(chunks) < 3 or spent < _MOST_SECONDS):
        started = time.perf_counter()
        done = run(length)
        seconds = time.perf_counter() - started
        chunks.append((seconds / done, done))
        spent += seconds
        if len(chunks) == 2:
            length = max(1, int(_CHUNK_SECONDS / seconds))
    counted = chunks[2:] or chunks[-1:]
    return Timed(tuple(seconds for seconds, _ in counted), counted[0][1])


def _memory(step: jax.stages.Compiled) -> Memory | None:
    found = step.memory_analysis()
    if found is None:
        return None
    # What comes out in the place of what went in, the state's, counts once.
    out = found.output_size_in_bytes - found.alias_size_in_bytes
    return Memory(found.argument_size_in_bytes + out, found.temp_size_in_bytes)
