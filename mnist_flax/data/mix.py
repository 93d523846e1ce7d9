"""Augmentations that mix images, and their labels by the same shares."""

import jax
import jax.numpy as jnp

from mnist_flax.data.batch import Batch
from mnist_flax.errors import UsageError


def mixup(key: jax.Array, batch: Batch, *, alpha: float = 0.2, share: float = 1.0) -> Batch:
    """Adds to each image another one of the batch, faintly (Zhang et al., arXiv 1710.09412).

    Args:
      key: of this step.
      batch: with soft_labels float32 [B, K].
      alpha: of the Beta(alpha, alpha) that an image's own part is drawn from; where that is less
        than half, the two parts change places, so that `labels` stay those of the larger part.
      share: of the images that this is done to.
    """
    _check("mixup", alpha, share)
    part_key, share_key, partner_key = jax.random.split(key, 3)
    part = _parts(part_key, share_key, len(batch.images), alpha, share)
    partner = jax.random.permutation(partner_key, len(batch.images))
    weight, images = part[:, None, None, None], batch.images.astype(jnp.float32)
    mixed = jnp.rint(weight * images + (1 - weight) * images[partner]).astype(jnp.uint8)
    return _relabelled(batch.replace(images=mixed), part, partner)


def cutmix(key: jax.Array, batch: Batch, *, alpha: float = 1.0, share: float = 1.0) -> Batch:
    """Puts a rectangle of another image of the batch into each (Yun et al., arXiv 1905.04899).

    The rectangle has the image's proportions and its centre anywhere; what lies outside the image
    is cut off. A label's share is that of the pixels.

    Args:
      key: of this step.
      batch: with soft_labels float32 [B, K].
      alpha: of the Beta(alpha, alpha) that the image's own part is drawn from, before the cut; it
        is at least half, as in mixup().
      share: of the images that this is done to.
    """
    _check("cutmix", alpha, share)
    part_key, share_key, partner_key, place_key = jax.random.split(key, 4)
    count, height, width, _ = batch.images.shape
    part = _parts(part_key, share_key, count, alpha, share)
    partner = jax.random.permutation(partner_key, count)
    sides = jnp.array([height, width], jnp.float32)
    centre = jax.random.uniform(place_key, (count, 2)) * sides
    half = jnp.sqrt(1 - part)[:, None] * sides / 2
    low, high = jnp.round(centre - half), jnp.round(centre + half)
    inside = _within(low[:, 0], high[:, 0], height)[:, :, None]
    inside &= _within(low[:, 1], high[:, 1], width)[:, None, :]
    images = jnp.where(inside[..., None], batch.images[partner], batch.images)
    return _relabelled(batch.replace(images=images), 1 - inside.mean((1, 2)), partner)


def _parts(
    part_key: jax.Array, share_key: jax.Array, count: int, alpha: float, share: float
) -> jax.Array:
    """Each image's own part, float32 [B], from a half to 1."""
    part = jax.random.beta(part_key, alpha, alpha, (count,))
    mixed = jax.random.uniform(share_key, (count,)) < share
    return jnp.where(mixed, jnp.maximum(part, 1 - part), 1.0)


def _within(low: jax.Array, high: jax.Array, length: int) -> jax.Array:
    places = jnp.arange(length)
    return (low[:, None] <= places) & (places < high[:, None])


def _relabelled(batch: Batch, part: jax.Array, partner: jax.Array) -> Batch:
    soft = batch.soft_labels
    assert soft is not None  # create_batch_augment gives them
    return batch.replace(soft_labels=part[:, None] * soft + (1 - part)[:, None] * soft[partner])


def _check(name: str, alpha: float, share: float) -> None:
    if not 0 < alpha < float("inf"):
        raise UsageError(f"config.augment.{name}.alpha={alpha}: must be positive and finite.")
    if not 0 <= share <= 1:
        raise UsageError(f"config.augment.{name}.share={share}: from 0 to 1.")
