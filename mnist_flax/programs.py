"""A run's compiled programs: the pure steps in their loop, jitted in one visible place."""

import dataclasses
import functools
import time
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax import cpu
from mnist_flax.data import pipeline
from mnist_flax.data.augment import EXTENDED_PARTS, create_augment
from mnist_flax.data.dataset import Dataset
from mnist_flax.data.pipeline import Batch
from mnist_flax.metrics import Metrics
from mnist_flax.state import TrainState, rng_key
from mnist_flax.steps import apply_train, eval_step, predict_step, train_step


class LastBatch(flax.struct.PyTreeNode):
    """A step's batch, seen once more after its update, in training mode.

    Attributes:
      metrics: its sums.
      labels: int32 [B].
      probabilities: float32 [B, K].
    """

    metrics: Metrics
    labels: jax.Array
    probabilities: jax.Array


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


def compile_programs(
    config: ConfigDict,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    dataset: Dataset,
) -> Programs:
    """Puts the data on the device once, as uint8, and compiles: the one visible place of jit."""
    train_data = jax.device_put((dataset.train.images, dataset.train.labels))
    eval_data = jax.device_put((dataset.eval.images, dataset.eval.labels))
    order_fn = make_epoch_order(config, num_train_examples(config, dataset))
    draw_batch = make_draw_batch(config)
    chunk_fn = make_train_chunk(model, optimizer, config.seed, draw_batch)
    last_batch = jax.jit(make_last_batch(model, config.seed, draw_batch))
    eval_fn = make_eval_batch(model, config.batch_size)

    started = time.perf_counter()
    zero = jnp.int32(0)
    epoch_order = jax.jit(order_fn).lower(zero).compile()
    train_chunk = (
        jax.jit(chunk_fn, donate_argnames="state")
        .lower(state, *train_data, epoch_order(zero), zero)
        .compile()
    )
    eval_batch = jax.jit(eval_fn).lower(state, *eval_data, zero).compile()
    return Programs(
        epoch_order=functools.lru_cache(1)(lambda epoch: epoch_order(jnp.int32(epoch))),
        train_chunk=lambda state, order, count: train_chunk(state, *train_data, order, count),
        last_batch=lambda state, order: last_batch(state, *train_data, order),
        eval_batch=lambda state, index: eval_batch(state, *eval_data, index),
        all_finite=jax.jit(all_finite),
        seconds=time.perf_counter() - started,
    )


def num_train_examples(config: ConfigDict, dataset: Dataset) -> int:
    """Returns how many images an epoch draws from, those of the extended set included."""
    return len(dataset.train.labels) * (EXTENDED_PARTS if config.data.extended else 1)


def make_epoch_order(config: ConfigDict, num_examples: int) -> Callable[[jax.Array], jax.Array]:
    """Returns epoch_order(epoch) -> int32 [N], a function of (seed, epoch)."""

    def epoch_order(epoch: jax.Array) -> jax.Array:
        key = rng_key(config.seed, "shuffle", epoch)
        return pipeline.epoch_order(key, num_examples, config.data.shuffle)

    return epoch_order


def all_finite(state: TrainState) -> jax.Array:
    """Says whether no parameter, running statistic or open sum is NaN or infinite: bool []."""
    leaves = jax.tree.leaves((state.params, state.batch_stats, state.window, state.epoch))
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def make_draw_batch(config: ConfigDict) -> Callable[..., Batch]:
    """Returns draw_batch(images, labels, order, step) -> the Batch of that step, augmented."""
    batch_size, extended = config.batch_size, config.data.extended
    augment = create_augment(config.augment)

    def draw_batch(
        images: jax.Array, labels: jax.Array, order: jax.Array, step: jax.Array
    ) -> Batch:
        index = step % (len(order) // batch_size)
        batch = pipeline.take_batch(images, labels, order, index, batch_size, extended=extended)
        key = rng_key(config.seed, "augment", step)
        return batch.replace(images=augment(key, batch.images))

    return draw_batch


def make_train_chunk(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    seed: int,
    draw_batch: Callable[..., Batch],
) -> Callable[..., TrainState]:
    """Returns train_chunk(state, images, labels, order, count) -> state, `count` steps later.

    `count` may be traced, so that ONE program serves chunks of every length, with the same bits
    however an epoch is cut.
    """
    step_fn = functools.partial(train_step, model=model, optimizer=optimizer)

    def train_chunk(
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        order: jax.Array,
        count: jax.Array,
    ) -> TrainState:
        def body(_index: jax.Array, state: TrainState) -> TrainState:
            batch = draw_batch(images, labels, order, state.step)
            state, _metrics = step_fn(state, batch, rng_key(seed, "dropout", state.step))
            return state

        return jax.lax.fori_loop(0, count, body, state)

    return train_chunk


def make_last_batch(
    model: nn.Module, seed: int, draw_batch: Callable[..., Batch]
) -> Callable[..., LastBatch]:
    """Returns last_batch(state, images, labels, order) -> LastBatch of the step before `state`."""

    def last_batch(
        state: TrainState, images: jax.Array, labels: jax.Array, order: jax.Array
    ) -> LastBatch:
        step = state.step - 1
        batch = draw_batch(images, labels, order, step)
        key = rng_key(seed, "dropout", step)
        logits, _ = apply_train(model, state.params, state.batch_stats, batch.images, key)
        metrics = Metrics.from_logits(logits, batch.labels)
        return LastBatch(metrics, batch.labels, nn.softmax(logits))

    return last_batch


def make_eval_batch(model: nn.Module, batch_size: int) -> Callable[..., tuple[Metrics, jax.Array]]:
    """Returns eval_batch(state, images, labels, index) -> eval_step's of the index-th batch."""

    def eval_batch(
        state: TrainState, images: jax.Array, labels: jax.Array, index: jax.Array
    ) -> tuple[Metrics, jax.Array]:
        batch = pipeline.take_eval_batch(images, labels, index, batch_size)
        return eval_step(state, batch, model=model)

    return eval_batch


def make_predict_batch(model: nn.Module) -> Callable[..., dict[str, jax.Array]]:
    """Returns predict_batch(state, images) -> {'classes', 'probabilities'}."""
    return functools.partial(predict_step, model=model)


def slow_layers(model: nn.Module, state: TrainState, image_shape: tuple[int, ...]) -> list[str]:
    """Returns the convolutions that cpu.py cannot make fast inside the loop; none elsewhere."""
    if jax.default_backend() != "cpu":
        return []
    images = jax.ShapeDtypeStruct((1, *image_shape), "uint8")
    forward = functools.partial(apply_train, model)
    return cpu.slow_convolutions(
        forward, state.params, state.batch_stats, images, rng_key(0, "dropout", 0)
    )
