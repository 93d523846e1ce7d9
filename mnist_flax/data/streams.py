"""Sources of images that do not lie in memory: blocks of batches, the next one made meanwhile.

A block is a function of (seed, epoch, its place in the epoch): nothing of it is carried or saved,
and a run goes on from whichever step. With several processes each decodes its rows of a batch.
"""

import concurrent.futures
import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mnist_flax.data.augment import create_batch_augment, extend
from mnist_flax.data.batch import Batch
from mnist_flax.data.dataset import Dataset, Split
from mnist_flax.data.placement import Placement
from mnist_flax.data.sources import Source, epoch_orders, num_examples
from mnist_flax.data.streamed_images import BLOCK_BYTES
from mnist_flax.keys import rng_key

_MOST_STEPS = 200  # of a block
_HELD = 3  # blocks: that in use, the next one, and the one before, which is looked at again


class Block(flax.struct.PyTreeNode):
    """A feed: the batches of some steps in a row, all of one form; what is beyond them is zero.

    Attributes:
      images: uint8 [M, B, H, W, C].
      labels: int32 [M, B].
      index: int32 [M, B], as Batch has it.
      first: int32 [], the step of its first batch.
    """

    images: jax.Array
    labels: jax.Array
    index: jax.Array
    first: jax.Array


def train_source(config: ConfigDict, dataset: Dataset, placement: Placement) -> Source:
    """Returns the training split as a stream: the batches of sources.train_source, bit for bit.

    Args:
      config: that reads also num_steps and num_epochs: nothing is decoded beyond the run's end.
      dataset: its train split is streamed, and has at least one batch.
      placement: of the run.

    Raises:
      UsageError: the devices cannot have equal parts of a batch.
    """
    split, batch_size = dataset.train, config.batch_size
    steps_per_epoch = num_examples(config, dataset) // batch_size
    augment = create_batch_augment(config.augment, len(dataset.class_names))
    order, count = epoch_orders(config, dataset), len(split.labels)

    def picks(first: int, stop: int) -> np.ndarray:
        epoch, place = divmod(first, steps_per_epoch)
        start, end = place * batch_size, (place + stop - first) * batch_size
        return np.asarray(order(epoch))[start:end].reshape(-1, batch_size)

    def draw(feed: Block, step: jax.Array) -> Batch:
        images, labels, index = _batch_at(feed, step)
        if config.data.extended:
            images = extend(images, index // count)
        key = rng_key(config.seed, "augment", step)
        return placement.shard(augment(key, placement.shard(Batch(images, labels, index))))

    last = config.num_steps or (config.num_epochs or 0) * steps_per_epoch or None
    blocks = _Blocks(split, batch_size, steps_per_epoch, picks, last, placement)
    return Source(steps_per_epoch, blocks.most_steps, blocks.feed, draw)


def eval_source(split: Split, batch_size: int, placement: Placement) -> Source:
    """Returns a split in its own order as a stream, the last batch filled up and masked.

    Raises:
      UsageError: as train_source does.
    """
    count = len(split.labels)
    steps = -(-count // batch_size)

    def picks(first: int, stop: int) -> np.ndarray:
        places = np.arange(first * batch_size, stop * batch_size, dtype=np.int32)
        return np.minimum(places, count - 1).reshape(-1, batch_size)

    def draw(feed: Block, step: jax.Array) -> Batch:
        images, labels, index = _batch_at(feed, step)
        mask = step * batch_size + jnp.arange(batch_size) < count
        return placement.shard(Batch(images, labels, index, mask))

    blocks = _Blocks(split, batch_size, steps, picks, steps, placement)
    return Source(steps, blocks.most_steps, blocks.feed, draw)


def _batch_at(feed: Block, step: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    images, labels, index = (
        jax.lax.dynamic_index_in_dim(leaf, step - feed.first, keepdims=False)
        for leaf in (feed.images, feed.labels, feed.index)
    )
    return images, labels, index


class _Blocks:
    """The blocks of a split; each is made in a thread, and handed out as often as it is asked for.

    The blocks of an epoch begin at its first step; the last one may have fewer steps.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        steps_per_epoch: int,
        picks: Callable[[int, int], np.ndarray],
        end: int | None,
        placement: Placement,
    ):
        """Decodes nothing yet.

        Args:
          split: that is streamed.
          batch_size: B.
          steps_per_epoch: how many batches.
          picks: (first, stop) -> int32 [stop - first, B], the examples of these steps of one epoch,
            by their index.
          end: no block from this step on is made unasked; None: there is always one to come.
          placement: of the run.
        """
        decodes = "with config.data.stream=true each device decodes an equal part of a batch"
        placement.require_equal_parts(batch_size, decodes)
        batch_bytes = batch_size * int(np.prod(split.images.shape[1:]))
        most = min(_MOST_STEPS, steps_per_epoch)
        self._length = max(1, min(most, BLOCK_BYTES // batch_bytes))
        self._split, self._picks, self._placement = split, picks, placement
        self._steps_per_epoch, self._end = steps_per_epoch, end
        self._part = batch_size // placement.processes
        self._held: dict[int, concurrent.futures.Future[Block]] = {}  # by first step, newest last
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="stream")

    def most_steps(self, step: int) -> int:
        """Returns how many steps there are from this one to the end of its block."""
        place = step % self._steps_per_epoch
        return min(self._length - place % self._length, self._steps_per_epoch - place)

    def feed(self, step: int, count: int) -> Block:
        """Returns the block of a step, and has the next one made meanwhile."""
        del count  # a block serves all its steps
        first = step - step % self._steps_per_epoch % self._length
        block, after = self._begun(first), first + self.most_steps(first)
        if self._end is None or after < self._end:
            self._begun(after)
        for old in list(self._held)[:-_HELD]:
            del self._held[old]
        return block.result()

    def _begun(self, first: int) -> concurrent.futures.Future[Block]:
        made = self._held.pop(first, None) or self._pool.submit(self._made, first)
        self._held[first] = made
        return made

    def _made(self, first: int) -> Block:
        """Decodes a block, and puts it on the devices."""
        process = jax.process_index() if self._placement.processes > 1 else 0
        rows = slice(process * self._part, (process + 1) * self._part)
        picked = self._picks(first, first + self.most_steps(first))[:, rows]
        form, steps = (self._length, self._part), len(picked)
        places = picked % len(self._split.labels)  # of the extended set, each image six times
        # In the order of the files, and what comes again is decoded once.
        once, where = np.unique(places, return_inverse=True)
        decoded, shape = self._split.images[once], self._split.images.shape[1:]
        images = np.zeros((*form, *shape), np.uint8)
        filled = images[:steps].reshape(-1, *shape)
        np.take(decoded, where.reshape(-1), axis=0, out=filled, mode="clip")
        labels, index = np.zeros(form, np.int32), np.zeros(form, np.int32)
        labels[:steps], index[:steps] = self._split.labels[places], picked
        put = functools.partial(self._placement.from_parts, axis=1)
        first_step = self._placement.replicate(np.int32(first))
        return Block(put(images), put(labels), put(index), first_step)
