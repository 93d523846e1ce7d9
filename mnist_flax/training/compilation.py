"""A run's compiled programs. (The order of an epoch is compiled by its source.)"""

import concurrent.futures
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp

from mnist_flax import cpu
from mnist_flax.core.chunk import (
    Evaluated,
    LastBatch,
    all_finite,
    make_eval_chunk,
    make_eval_one,
    make_last_batch,
    make_train_chunk,
    make_train_one,
    nothing_evaluated,
)
from mnist_flax.core.state import TrainState, create_state
from mnist_flax.core.task import Variables
from mnist_flax.cpu import half_precision
from mnist_flax.data.sources import Feed, Source
from mnist_flax.data.streamed_images import StreamedImages
from mnist_flax.training.gather import Plan

_CHOOSING = ""  # among the names of splits, that of the one which chooses


@dataclass(frozen=True)
class Programs:
    """The compiled programs of a run; core/chunk.py says what they compute.

    Attributes:
      train_chunk: (state, feed, count) -> the state after `count` steps, all of them in this feed,
        and whether nothing in it is NaN or infinite. The state is donated: the caller's old one is
        gone.
      last_batch: (state, feed) -> LastBatch, of the step that led to this state. Compiled when it
        is first called.
      eval_chunk: (so_far, variables, feed, first, count) -> Evaluated, with `count` batches of the
        evaluation's source added, from the first-th on. What it is added to is donated.
      extra_chunks: likewise, of the sources that are evaluated as well, by their splits' names.
      slow_layers: those for whose sake the steps of a chunk, and the batches of an evaluation, are
        called from Python, one by one.
      seconds: how long compilation took.
      step: what XLA made of train_chunk, or of one step where these are called from Python.
    """

    train_chunk: Callable[[TrainState, Feed, jax.Array], tuple[TrainState, jax.Array]]
    last_batch: Callable[[TrainState, Feed], LastBatch]
    eval_chunk: Callable[[Evaluated, Variables, Feed, jax.Array, jax.Array], Evaluated]
    extra_chunks: Mapping[str, Callable[..., Evaluated]]
    slow_layers: tuple[str, ...]
    seconds: float
    step: jax.stages.Compiled


def init_state(plan: Plan) -> TrainState:
    """Returns the state before the first step: `create_state` as one program.

    On a CPU LLVM's optimizations are left out: they would take 2 to 5 seconds of a run's start for
    a program that runs once, in milliseconds, and gives the same bits without them.
    """
    start = functools.partial(create_state, plan.task, plan.tried.form.window, plan.config.seed)
    return cast(TrainState, jax.jit(start, compiler_options=cpu.unoptimized())())


class Compiler:
    """Compiles a run's programs in threads of its own, while its folder is opened."""

    def __init__(self, plan: Plan):
        """Does nothing yet: a run that is finished needs no programs."""
        self._plan = plan
        self._finish: Callable[[], Programs] | None = None

    def start(self, step: int) -> None:
        """Traces and begins to compile, for a run whose next step is this one."""
        self._finish = start_compiling(self._plan, step)

    def programs(self) -> Programs:
        """Waits for them."""
        assert self._finish is not None  # opened() has started it
        return self._finish()


def start_compiling(plan: Plan, step: int) -> Callable[[], Programs]:
    """Begins to compile what the loop calls; returns what waits for it.

    Traced here, since what JAX is set to in a `with` holds for its thread alone; compiled in
    threads, since XLA leaves Python's lock to others. The evaluation's program may still be
    compiled while the first steps run.

    Args:
      plan: its task and sources.
      step: that the run goes on from.
    """
    started, zero = time.perf_counter(), jnp.int32(0)
    placement, in_python = plan.placement, bool(plan.tried.slow_layers)
    form = placement.form(plan.tried.form)
    task, source, seed = plan.task, plan.source, plan.config.seed
    options = half_precision.options(plan.config.compute_dtype)
    whole = placement.everywhere  # what comes out, on every device
    jit = functools.partial(jax.jit, compiler_options=options, out_shardings=whole)
    pool = concurrent.futures.ThreadPoolExecutor()
    feed = pool.submit(source.feed, step, 1)  # compiles what orders an epoch
    make_train = make_train_one if in_python else make_train_chunk
    make_eval = make_eval_one if in_python else make_eval_chunk
    counts = () if in_python else (zero,)

    def lower_evaluation(batches: Source) -> jax.stages.Lowered:
        evaluate = jit(make_eval(task, batches.draw), donate_argnames="so_far")
        so_far = placement.form(nothing_evaluated(task, form.variables, batches))
        with placement.around():
            return evaluate.lower(so_far, form.variables, batches.feed(0, 1), zero, *counts)

    sources, shared = {_CHOOSING: plan.eval_source, **plan.extra_sources}, _shared_programs(plan)
    lowered = {name: lower_evaluation(sources[name]) for name in dict.fromkeys(shared.values())}
    train = jit(make_train(task, source.draw, seed), donate_argnames="state")
    with placement.around():
        train_lowered = train.lower(form, feed.result(), *counts)
    training = pool.submit(train_lowered.compile)

    def after_training(lowered: jax.stages.Lowered) -> Callable[..., Evaluated]:
        training.exception()  # waits: the first steps come before the first evaluation
        return cast(Callable[..., Evaluated], lowered.compile())

    evaluations = {name: pool.submit(after_training, each) for name, each in lowered.items()}
    pool.shutdown(wait=False)

    def evaluating(name: str) -> Callable[..., Evaluated]:
        def eval_chunk(*args: Any) -> Evaluated:
            return evaluations[shared[name]].result()(*args)

        return _evaluate_in_python(eval_chunk) if in_python else eval_chunk

    look = jit(make_last_batch(task, source.draw, seed))

    def last_batch(state: TrainState, feed: Feed) -> LastBatch:
        with placement.around():
            return cast(LastBatch, look(state, feed))

    def finish() -> Programs:
        train_chunk = training.result()
        return Programs(
            train_chunk=_train_in_python(train_chunk) if in_python else train_chunk,
            last_batch=last_batch,
            eval_chunk=evaluating(_CHOOSING),
            extra_chunks={name: evaluating(name) for name in plan.extra_sources},
            slow_layers=plan.tried.slow_layers,
            seconds=time.perf_counter() - started,
            step=train_chunk,
        )

    return finish


def _shared_programs(plan: Plan) -> dict[str, str]:
    """Returns, for each split that is evaluated, the first one that has the same program.

    So have all that are of one size and lie in memory; what is streamed has its own.
    """
    extra = {name: extra.split.images for name, extra in plan.dataset.extra.items()}
    first: dict[tuple[int, ...], str] = {}
    return {
        name: name if isinstance(images, StreamedImages) else first.setdefault(images.shape, name)
        for name, images in {_CHOOSING: plan.dataset.choosing.images, **extra}.items()
    }


def _train_in_python(train_one: Callable[..., TrainState]) -> Callable[..., Any]:
    finite = jax.jit(all_finite)

    def train_chunk(
        state: TrainState, feed: Feed, count: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        for _ in range(int(count)):
            state = train_one(state, feed)
        return state, finite(state)

    return train_chunk


def _evaluate_in_python(eval_one: Callable[..., Evaluated]) -> Callable[..., Evaluated]:
    def eval_chunk(
        so_far: Evaluated, variables: Variables, feed: Feed, first: jax.Array, count: jax.Array
    ) -> Evaluated:
        for index in range(int(first), int(first) + int(count)):
            so_far = eval_one(so_far, variables, feed, jnp.int32(index))
        return so_far

    return eval_chunk
