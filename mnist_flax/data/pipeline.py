"""Pure JAX: the order of an epoch, and batches gathered from data that lie on the device."""

import flax.struct
import jax
import jax.numpy as jnp

from mnist_flax.data import augment


class Batch(flax.struct.PyTreeNode):
    """One batch.

    Attributes:
      images: uint8 [B, H, W, C].
      labels: int32 [B].
      mask: bool [B], False where an image only fills up the last batch; None: all count.
    """

    images: jax.Array
    labels: jax.Array
    mask: jax.Array | None = None


def epoch_order(key: jax.Array, num_examples: int, shuffle: bool) -> jax.Array:
    """Returns the order in which an epoch visits the examples: int32 [num_examples].

    The key is one of (seed, epoch). A permutation sorts, which takes about as long as a training
    step: once an epoch, never in the step.
    """
    if not shuffle:
        return jnp.arange(num_examples, dtype=jnp.int32)
    return jax.random.permutation(key, num_examples).astype(jnp.int32)


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
      order: int32 [N], from epoch_order; of the extended set [6 N], where example p·N + i is part
        p of image i (see augment.extend).
      index: int32 [], below len(order) // batch_size.
      batch_size: static.
      extended: static; whether the order is that of the extended set.
    """
    picks = jax.lax.dynamic_slice_in_dim(order, index * batch_size, batch_size)
    if not extended:
        return Batch(images[picks], labels[picks])
    parts, picks = picks // len(labels), picks % len(labels)
    return Batch(augment.extend(images[picks], parts), labels[picks])


def take_eval_batch(
    images: jax.Array, labels: jax.Array, index: jax.Array, batch_size: int
) -> Batch:
    """Takes the index-th batch in file order; the last one repeats the last image, masked."""
    picks = index * batch_size + jnp.arange(batch_size)
    mask = picks < len(labels)
    picks = jnp.minimum(picks, len(labels) - 1)
    return Batch(images[picks], labels[picks], mask)
