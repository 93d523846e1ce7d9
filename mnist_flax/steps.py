"""The pure steps, undecorated; and, at the end of the file, where they are looped and jitted."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax import cpu
from mnist_flax.data import pipeline
from mnist_flax.data.augment import normalize
from mnist_flax.data.dataset import Dataset
from mnist_flax.data.pipeline import Batch
from mnist_flax.metrics import Metrics
from mnist_flax.state import PyTree, TrainState, rng_key


def apply_train(
    model: nn.Module, params: PyTree, batch_stats: PyTree, images: jax.Array, key: jax.Array
) -> tuple[jax.Array, PyTree]:
    """The model in training: images uint8 [B, H, W, C] -> logits [B, K], new batch statistics."""
    logits, updates = model.apply(
        {"params": params, "batch_stats": batch_stats},
        normalize(images),
        train=True,
        rngs={"dropout": key},
        mutable=["batch_stats"],
    )
    return logits, updates.get("batch_stats", {})


def loss_fn(
    model: nn.Module, params: PyTree, batch_stats: PyTree, batch: Batch, key: jax.Array
) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
    """Mean softmax cross-entropy of a batch; beside it the new batch statistics and the sums."""

    def forward(params: PyTree, images: jax.Array) -> tuple[jax.Array, PyTree]:
        return apply_train(model, params, batch_stats, images, key)

    logits, batch_stats = cpu.for_backend(forward)(params, batch.images)
    metrics = Metrics.from_logits(logits, batch.labels)
    return metrics.loss_sum / metrics.count, (batch_stats, metrics)


def train_step(
    state: TrainState,
    batch: Batch,
    dropout_key: jax.Array,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Metrics]:
    """One update. The metrics are those of the batch before it, with dropout on."""
    grads, (batch_stats, metrics) = jax.grad(loss_fn, argnums=1, has_aux=True)(
        model, state.params, state.batch_stats, batch, dropout_key
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        window=state.window.merge(metrics),
    )
    return state, metrics


def apply_eval(model: nn.Module, state: TrainState, images: jax.Array) -> jax.Array:
    """The model at rest, running statistics and no dropout: uint8 [B, H, W, C] -> logits [B, K]."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return cast(jax.Array, model.apply(variables, normalize(images)))


def eval_step(state: TrainState, batch: Batch, *, model: nn.Module) -> Metrics:
    """Sums over the examples of a batch that its mask lets pass."""
    return Metrics.from_logits(apply_eval(model, state, batch.images), batch.labels, batch.mask)


def predict_step(state: TrainState, images: jax.Array, *, model: nn.Module) -> dict[str, jax.Array]:
    """Returns {'classes': int32 [B], 'probabilities': float32 [B, K]} for images uint8 [B, …]."""
    logits = apply_eval(model, state, images)
    return {"classes": logits.argmax(-1).astype(jnp.int32), "probabilities": nn.softmax(logits)}


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled programs of a run, with its data on the device.

    Attributes:
      epoch_order: (epoch) -> int32 [N], the order of that epoch; the last one is kept.
      train_chunk: (state, order, count) -> state after `count` steps of one epoch. The state is
        donated: the caller's old one is gone.
      eval_batch: (state, index) -> Metrics of the index-th batch of the evaluation split.
      all_finite: (state) -> whether no parameter, statistic or open sum is NaN or infinite.
      seconds: how long compilation took.
    """

    epoch_order: Callable[[int], jax.Array]
    train_chunk: Callable[[TrainState, jax.Array, jax.Array], TrainState]
    eval_batch: Callable[[TrainState, jax.Array], Metrics]
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
    order_fn = make_epoch_order(config, len(dataset.train.labels))
    chunk_fn = make_train_chunk(model, optimizer, config.seed, config.batch_size)
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
        eval_batch=lambda state, index: eval_batch(state, *eval_data, index),
        all_finite=jax.jit(all_finite),
        seconds=time.perf_counter() - started,
    )


def make_epoch_order(config: ConfigDict, num_examples: int) -> Callable[[jax.Array], jax.Array]:
    """Returns epoch_order(epoch) -> int32 [N], a function of (seed, epoch)."""

    def epoch_order(epoch: jax.Array) -> jax.Array:
        key = rng_key(config.seed, "shuffle", epoch)
        return pipeline.epoch_order(key, num_examples, config.data.shuffle)

    return epoch_order


def all_finite(state: TrainState) -> jax.Array:
    """Says whether no parameter, running statistic or open sum is NaN or infinite: bool []."""
    leaves = jax.tree.leaves((state.params, state.batch_stats, state.window))
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def make_train_chunk(
    model: nn.Module, optimizer: optax.GradientTransformation, seed: int, batch_size: int
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
        steps_per_epoch = len(order) // batch_size

        def body(_index: jax.Array, state: TrainState) -> TrainState:
            index = state.step % steps_per_epoch
            batch = pipeline.take_batch(images, labels, order, index, batch_size)
            state, _metrics = step_fn(state, batch, rng_key(seed, "dropout", state.step))
            return state

        return jax.lax.fori_loop(0, count, body, state)

    return train_chunk


def make_eval_batch(model: nn.Module, batch_size: int) -> Callable[..., Metrics]:
    """Returns eval_batch(state, images, labels, index) -> Metrics of the index-th batch."""

    def eval_batch(
        state: TrainState, images: jax.Array, labels: jax.Array, index: jax.Array
    ) -> Metrics:
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
