"""A source feeds steps: pure JAX where it draws, and nothing of it is carried or saved.

A training batch is a function of (seed, step), one of an evaluation of its number alone. What stays
on the device, and what is brought there for the next steps, is the source's own affair: no program
and no loop knows whether the data lie there as a whole.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mnist_flax import cpu
from mnist_flax.data.augment import EXTENDED_PARTS, create_batch_augment, extend
from mnist_flax.data.batch import Batch
from mnist_flax.data.dataset import Dataset, Split
from mnist_flax.data.placement import ONE_DEVICE, Placement
from mnist_flax.keys import rng_key

Feed = Any  # a pytree of arrays, of one form for a whole run


class Source(NamedTuple):
    """Where batches come from.

    Attributes:
      steps_per_epoch: how many batches.
      most_steps: step -> the most that one feed serves from this step on, at most to the end of the
        epoch: a chunk of steps is never longer.
      feed: (step, count) -> what the batches of steps step, …, step + count - 1 are drawn from, on
        the device. count is at most most_steps(step). Called from Python.
      draw: (feed, step) -> Batch. Pure, inside jit. A training step is counted from the run's
        start, one of an evaluation is the number of the batch.
    """

    steps_per_epoch: int
    most_steps: Callable[[int], int]
    feed: Callable[[int, int], Feed]
    draw: Callable[[Feed, jax.Array], Batch]


def num_examples(config: ConfigDict, dataset: Dataset) -> int:
    """Returns how many images an epoch draws from, those of the extended set included."""
    return len(dataset.train.labels) * (EXTENDED_PARTS if config.data.extended else 1)


def train_source(config: ConfigDict, dataset: Dataset, placement: Placement = ONE_DEVICE) -> Source:
    """Returns the training split, all of it on each device, drawn in a new order each epoch.

    Args:
      config: seed, batch_size, data.shuffle, data.balance, data.extended and augment are read.
      dataset: its train split has at least one batch.
      placement: the devices that share each batch.
    """
    total, batch_size = num_examples(config, dataset), config.batch_size
    extended = config.data.extended
    steps_per_epoch = total // batch_size
    augment = create_batch_augment(config.augment, len(dataset.class_names))
    order_of_epoch = epoch_orders(config, dataset)

    @functools.cache
    def on_device() -> tuple[jax.Array, jax.Array]:
        return placement.replicate((dataset.train.images, dataset.train.labels))

    @functools.lru_cache(1)
    def order_on_device(epoch: int) -> jax.Array:
        return placement.replicate(order_of_epoch(epoch))

    def feed(step: int, count: int) -> Feed:
        del count  # an epoch's order serves all its steps
        return *on_device(), order_on_device(step // steps_per_epoch)

    def draw(feed: Feed, step: jax.Array) -> Batch:
        images, labels, order = feed
        place = step % steps_per_epoch
        batch = take_batch(images, labels, order, place, batch_size, extended=extended)
        key = rng_key(config.seed, "augment", step)
        # The keys are those of the whole batch, so that no number depends on the devices.
        return placement.shard(augment(key, placement.shard(batch)))

    return Source(steps_per_epoch, steps_left(steps_per_epoch), feed, draw)


def eval_source(split: Split, batch_size: int, placement: Placement = ONE_DEVICE) -> Source:
    """Returns a split in its own order, all of it on each device, the last batch filled up."""
    steps = -(-len(split.labels) // batch_size)

    @functools.cache
    def on_device() -> tuple[jax.Array, jax.Array]:
        return placement.replicate((split.images, split.labels))

    def draw(feed: Feed, step: jax.Array) -> Batch:
        images, labels = feed
        return placement.shard(take_eval_batch(images, labels, step, batch_size))

    return Source(steps, steps_left(steps), lambda step, count: on_device(), draw)


def steps_left(steps_per_epoch: int) -> Callable[[int], int]:
    """Returns step -> how many steps there are from this one to the end of its epoch."""
    return lambda step: steps_per_epoch - step % steps_per_epoch


def epoch_orders(config: ConfigDict, dataset: Dataset) -> Callable[[int], jax.Array]:
    """Returns epoch -> the order in which it visits the examples; those of two epochs are kept.

    Args:
      config: seed, data.shuffle, data.balance and data.extended are read.
      dataset: of its train split the labels are looked at.
    """
    total, labels = num_examples(config, dataset), dataset.train.labels

    # A sort takes as long without LLVM's optimizations, and a third as long to compile.
    @functools.partial(jax.jit, compiler_options=cpu.unoptimized())
    def epoch_order(epoch: jax.Array) -> jax.Array:
        order = order_of(rng_key(config.seed, "shuffle", epoch), total, config.data.shuffle)
        if not config.data.balance:
            return order
        return balanced(order, np.tile(labels, total // len(labels)))

    @functools.lru_cache(2)
    def order(epoch: int) -> jax.Array:
        return epoch_order(jnp.int32(epoch))

    return order


def order_of(key: jax.Array, num_examples: int, shuffle: bool) -> jax.Array:
    """Returns the order in which an epoch visits the examples: int32 [num_examples].

    The key is that of (seed, 'shuffle', epoch). A permutation sorts, which takes about as long as a
    training step: once an epoch, never in the step.
    """
    if not shuffle:
        return jnp.arange(num_examples, dtype=jnp.int32)
    return jax.random.permutation(key, num_examples).astype(jnp.int32)


def balanced(order: jax.Array, labels: np.ndarray) -> jax.Array:
    """Returns an order of as many examples in which the classes take turns: int32 [N].

    Of each class the examples come in the order given, and again from the first where they are too
    few; of a frequent class the last ones are left out. A class without any has no turn.

    Args:
      order: int32 [N], a permutation.
      labels: int [N], of the examples; known before it is traced.
    """
    counts = np.bincount(labels)
    present = np.flatnonzero(counts)
    # Each class's examples, one class after another, in the order given.
    grouped = order[jnp.argsort(jnp.asarray(labels)[order], stable=True)]
    starts = jnp.asarray((np.cumsum(counts) - counts)[present])
    place = jnp.arange(len(labels))
    turn, which = place // len(present), place % len(present)
    return grouped[starts[which] + turn % jnp.asarray(counts[present])[which]]


def take_batch(
    images: jax.Array,
    labels: jax.Array,
    order: jax.Array,
    index: jax.Array,
    batch_size: int,
    *,
    extended: bool = False,
) -> Batch:
    """Gathers the index-th full batch of an epoch.

    Args:
      images: uint8 [N, H, W, C], all of them.
      labels: int32 [N].
      order: int32 [N], from order_of; of the extended set [6 N], where example p·N + i is part
        p of image i (see augment.extend).
      index: int32 [], below len(order) // batch_size.
      batch_size: static.
      extended: static; whether the order is that of the extended set.
    """
    picks = jax.lax.dynamic_slice_in_dim(order, index * batch_size, batch_size)
    if not extended:
        return Batch(images[picks], labels[picks], picks)
    parts, places = picks // len(labels), picks % len(labels)
    return Batch(extend(images[places], parts), labels[places], picks)


def take_eval_batch(
    images: jax.Array, labels: jax.Array, index: jax.Array, batch_size: int
) -> Batch:
    """Takes the index-th batch in file order; the last one repeats the last image, masked."""
    picks = index * batch_size + jnp.arange(batch_size)
    mask = picks < len(labels)
    picks = jnp.minimum(picks, len(labels) - 1)
    return Batch(images[picks], labels[picks], picks, mask)
