"""A run's compiled programs. (The order of an epoch is compiled by its source.)"""

import concurrent.futures
import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp

from mnist_flax.core.chunk import (
    LastBatch,
    all_finite,
    make_eval_batch,
    make_last_batch,
    make_train_chunk,
    make_train_one,
)
from mnist_flax.core.settings import require_jax
from mnist_flax.core.state import TrainState, create_state
from mnist_flax.core.sums import Sums
from mnist_flax.core.task import Variables
from mnist_flax.data.sources import Feed
from mnist_flax.training.gather import Plan


@dataclass(frozen=True)
class Programs:
    """The compiled programs of a run.

    Attributes:
      train_chunk: (state, feed, count) -> state after `count` steps, all of them in this feed. The
        state is donated: the caller's old one is gone.
      last_batch: (state, feed) -> LastBatch, of the step that led to this state. Compiled when it
        is first called.
      eval_batch: (variables, feed, index) -> sums and outputs of the index-th batch of the
        evaluation's source.
      all_finite: (state) -> whether nothing in it is NaN or infinite; see core/chunk.py.
      slow_layers: those for whose sake the steps of a chunk are called from Python, one by one.
      seconds: how long compilation took.
    """

    train_chunk: Callable[[TrainState, Feed, jax.Array], TrainState]
    last_batch: Callable[[TrainState, Feed], LastBatch]
    eval_batch: Callable[[Variables, Feed, jax.Array], tuple[Sums, dict[str, Any]]]
    all_finite: Callable[[TrainState], jax.Array]
    slow_layers: tuple[str, ...]
    seconds: float


def init_state(plan: Plan) -> TrainState:
    """Returns the state before the first step: `create_state` as one program.

    On a CPU LLVM's optimizations are left out: they would take 2 to 5 seconds of a run's start for
    a program that runs once, in milliseconds, and gives the same bits without them.
    """
    start = functools.partial(create_state, plan.task, plan.tried.form.window, plan.config.seed)
    lowered = jax.jit(start).lower()
    options: dict[str, str | bool] = {}
    if jax.default_backend() == "cpu":
        options["xla_backend_optimization_level"] = "0"
    return cast(TrainState, lowered.compile(compiler_options=options)())


def compile_programs(plan: Plan, state: TrainState) -> Programs:
    """Compiles what the loop calls.

    Args:
      plan: its task and sources.
      state: for its shapes and its step.
    """
    slow, task = plan.tried.slow_layers, plan.task
    source, seed = plan.source, plan.config.seed
    eval_fn = make_eval_batch(task, plan.eval_source.draw)
    started, zero = time.perf_counter(), jnp.int32(0)
    # Side by side: XLA leaves Python's lock to others meanwhile.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(source.feed, int(state.step), 1)  # compiles what orders an epoch
        eval_feed = plan.eval_source.feed(0, 1)
        evaluation = jax.jit(eval_fn).lower(state.variables, eval_feed, zero)
        eval_batch = pool.submit(evaluation.compile)
        is_finite = pool.submit(jax.jit(all_finite).lower(state).compile)
        if slow:
            one = jax.jit(make_train_one(task, source.draw, seed), donate_argnames="state")
            train_one = one.lower(state, first.result()).compile()
        else:
            chunk = jax.jit(make_train_chunk(task, source.draw, seed), donate_argnames="state")
            train_chunk = chunk.lower(state, first.result(), zero).compile()

    def train_in_python(state: TrainState, feed: Feed, count: jax.Array) -> TrainState:
        for _ in range(int(count)):
            state = train_one(state, feed)
        return state

    return Programs(
        train_chunk=train_in_python if slow else train_chunk,
        last_batch=jax.jit(make_last_batch(task, source.draw, seed)),
        eval_batch=eval_batch.result(),
        all_finite=is_finite.result(),
        slow_layers=slow,
        seconds=time.perf_counter() - started,
    )


def keep_compiled_programs() -> Path | None:
    """Has JAX keep what it compiles for an accelerator, so that the next start is shorter.

    Returns the folder; None where nothing is changed: JAX_COMPILATION_CACHE_DIR names one already,
    or the device is a CPU. There the variable alone decides, for up to jax 0.10.1 every program
    read back comes with false alarms about the processor (jax issue 38445).

    Raises:
      UserError: JAX has no device, or is set so that no run can work.
    """
    require_jax()
    if jax.default_backend() == "cpu" or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "mnist_flax" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder
