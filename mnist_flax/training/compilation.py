"""A run's compiled programs: the one visible place of jit."""

import concurrent.futures
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax import cpu
from mnist_flax.core.metrics import Metrics
from mnist_flax.core.state import TrainState, create_state
from mnist_flax.data.dataset import Dataset
from mnist_flax.keys import rng_key
from mnist_flax.tasks.classification import apply_train
from mnist_flax.tasks.programs import (
    LastBatch,
    all_finite,
    make_draw_batch,
    make_epoch_order,
    make_eval_batch,
    make_last_batch,
    make_train_chunk,
    make_train_one,
    num_train_examples,
)


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled programs of a run, with its data on the device.

    Attributes:
      epoch_order: (epoch) -> int32 [N], the order of that epoch; the last one is kept.
      train_chunk: (state, order, count) -> state after `count` steps of one epoch. The state is
        donated: the caller's old one is gone.
      last_batch: (state, order) -> LastBatch, of the step that led to this state. Compiled when it
        is first called.
      eval_batch: (state, index) -> Metrics and classes int32 [B] of the index-th batch of the
        evaluation split.
      all_finite: (state) -> whether no parameter, statistic or open sum is NaN or infinite.
      seconds: how long compilation took.
    """

    epoch_order: Callable[[int], jax.Array]
    train_chunk: Callable[[TrainState, jax.Array, jax.Array], TrainState]
    last_batch: Callable[[TrainState, jax.Array], LastBatch]
    eval_batch: Callable[[TrainState, jax.Array], tuple[Metrics, jax.Array]]
    all_finite: Callable[[TrainState], jax.Array]
    seconds: float


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
) -> TrainState:
    """Runs `create_state` as one program.

    On a CPU LLVM's optimizations are left out: they would take 2 to 5 seconds of a run's start for
    a program that runs once, in milliseconds, and gives the same bits without them.
    """
    lowered = jax.jit(lambda: create_state(model, optimizer, image_shape, seed)).lower()
    options: dict[str, str | bool] = {}
    if jax.default_backend() == "cpu":
        options["xla_backend_optimization_level"] = "0"
    return cast(TrainState, lowered.compile(compiler_options=options)())


def compile_programs(
    config: ConfigDict,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    dataset: Dataset,
    *,
    in_python: bool = False,
) -> Programs:
    """Puts the data on the device once, as uint8, and compiles.

    Args:
      config: batch_size, seed, label_smoothing, data and augment are read.
      model: a linen module.
      optimizer: its state is in `state`.
      state: for its shapes.
      dataset: is put on the device.
      in_python: whether the steps of a chunk are called one by one, see `slow_layers`.
    """
    train_data = jax.device_put((dataset.train.images, dataset.train.labels))
    eval_data = jax.device_put((dataset.eval.images, dataset.eval.labels))
    num_examples = num_train_examples(config, dataset)
    draw_batch = make_draw_batch(config)
    make_chunk = make_train_one if in_python else make_train_chunk
    chunk_fn = make_chunk(model, optimizer, config.seed, draw_batch, config.label_smoothing)
    last_batch = jax.jit(make_last_batch(model, config.seed, draw_batch))
    eval_fn = make_eval_batch(model, config.batch_size)

    started = time.perf_counter()
    zero, order = jnp.int32(0), jax.ShapeDtypeStruct((num_examples,), jnp.int32)
    chunk_args = (state, *train_data, order) if in_python else (state, *train_data, order, zero)
    epoch_order, train_chunk, eval_batch, is_finite = _compile(
        jax.jit(make_epoch_order(config, num_examples)).lower(zero),
        jax.jit(chunk_fn, donate_argnames="state").lower(*chunk_args),
        jax.jit(eval_fn).lower(state, *eval_data, zero),
        jax.jit(all_finite).lower(state),
    )

    def train_in_python(state: TrainState, order: jax.Array, count: jax.Array) -> TrainState:
        for _ in range(int(count)):
            state = train_chunk(state, *train_data, order)
        return state

    def train_in_loop(state: TrainState, order: jax.Array, count: jax.Array) -> TrainState:
        return cast(TrainState, train_chunk(state, *train_data, order, count))

    return Programs(
        epoch_order=functools.lru_cache(1)(lambda epoch: epoch_order(jnp.int32(epoch))),
        train_chunk=train_in_python if in_python else train_in_loop,
        last_batch=lambda state, order: last_batch(state, *train_data, order),
        eval_batch=lambda state, index: eval_batch(state, *eval_data, index),
        all_finite=is_finite,
        seconds=time.perf_counter() - started,
    )


def _compile(*lowered: jax.stages.Lowered) -> list[jax.stages.Compiled]:
    """Compiles side by side: XLA leaves Python's lock to others meanwhile."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(lambda program: program.compile(), lowered))


def slow_layers(model: nn.Module, state: TrainState, image_shape: tuple[int, ...]) -> list[str]:
    """Returns the convolutions that cpu/ cannot make fast inside a loop on CPU, a line each.

    With one of them, a step called from Python is up to 100 times faster than one in a loop: XLA
    itself makes its gradient fast there.
    """
    if jax.default_backend() != "cpu":
        return []
    images = jax.ShapeDtypeStruct((1, *image_shape), "uint8")
    forward = functools.partial(apply_train, model)
    return cpu.slow_convolutions(
        forward, state.params, state.batch_stats, images, rng_key(0, "dropout", 0)
    )


def keep_compiled_programs() -> Path | None:
    """Has JAX keep what it compiles for an accelerator, so that the next start is shorter.

    Returns the folder; None where nothing is changed: JAX_COMPILATION_CACHE_DIR names one already,
    or the device is a CPU. There the variable alone decides, for up to jax 0.10.1 every program
    read back comes with false alarms about the processor (jax issue 38445).
    """
    if jax.default_backend() == "cpu" or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "mnist_flax" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder
