"""The pure steps in their loop, batches drawn: what compilation.py compiles."""

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax.core.metrics import Metrics
from mnist_flax.core.state import TrainState
from mnist_flax.data import pipeline
from mnist_flax.data.augment import EXTENDED_PARTS, create_augment
from mnist_flax.data.dataset import Dataset
from mnist_flax.data.pipeline import Batch
from mnist_flax.keys import rng_key
from mnist_flax.tasks.classification import apply_train, eval_step, predict_step, train_step


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


def make_train_one(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    seed: int,
    draw_batch: Callable[..., Batch],
    label_smoothing: float = 0.0,
) -> Callable[..., TrainState]:
    """Returns train_one(state, images, labels, order) -> state, a step later."""
    step_fn = functools.partial(
        train_step, model=model, optimizer=optimizer, label_smoothing=label_smoothing
    )

    def train_one(
        state: TrainState, images: jax.Array, labels: jax.Array, order: jax.Array
    ) -> TrainState:
        batch = draw_batch(images, labels, order, state.step)
        key = rng_key(seed, "dropout", state.step)
        return step_fn(state, batch, key)[0]

    return train_one


def make_train_chunk(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    seed: int,
    draw_batch: Callable[..., Batch],
    label_smoothing: float = 0.0,
) -> Callable[..., TrainState]:
    """Returns train_chunk(state, images, labels, order, count) -> state, `count` steps later.

    `count` may be traced, so that ONE program serves chunks of every length, with the same bits
    however an epoch is cut.
    """
    train_one = make_train_one(model, optimizer, seed, draw_batch, label_smoothing)

    def train_chunk(
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        order: jax.Array,
        count: jax.Array,
    ) -> TrainState:
        def body(_index: jax.Array, state: TrainState) -> TrainState:
            return train_one(state, images, labels, order)

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
