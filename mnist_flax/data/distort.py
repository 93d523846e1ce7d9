"""Augmentations that bend images, or hide a part of them."""

import jax
import jax.numpy as jnp

from mnist_flax.data.augment import look_up_at
from mnist_flax.errors import UsageError

_LEAST_AREA, _MOST_ASPECT = 0.02, 1 / 0.3  # of what is erased, as in its paper


def elastic_distortion(
    key: jax.Array, images: jax.Array, *, alpha: float = 34.0, sigma: float = 4.0
) -> jax.Array:
    """Moves each pixel by a smooth random field (Simard, Steinkraus and Platt, 2003).

    "Best practices for convolutional neural networks applied to visual document analysis": both
    components of a pixel's move are uniform in [-1, 1], smoothed by a Gaussian, and multiplied.

    Args:
      key: of this step.
      images: uint8 [B, H, W, C].
      alpha: what the smoothed field is multiplied by; with the defaults a pixel moves by 1.4
        pixels in each direction (root mean square), less at the border.
      sigma: of the Gaussian, in pixels.
    """
    for name, value in (("alpha", alpha), ("sigma", sigma)):
        if not 0 <= value < 1000 or (name == "sigma" and value < 0.1):
            raise UsageError(
                f"config.augment.elastic_distortion.{name}={value}: from "
                f"{0.1 if name == 'sigma' else 0} to 1,000."
            )
    count, height, width, _ = images.shape
    field = jax.random.uniform(key, (count, 2, height, width), minval=-1.0)
    down, right = _gaussian(height, sigma), _gaussian(width, sigma)
    field = alpha * jnp.einsum("hi,bnij,wj->bnhw", down, field, right)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"))
    return look_up_at(images, grid + field)


def _gaussian(length: int, sigma: float) -> jax.Array:
    """Smooths a line as a matrix, float32 [length, length]; zeros lie beyond its ends."""
    far = jnp.arange(-length, length + 1)
    weights = jnp.exp(-(far.astype(jnp.float32) ** 2) / (2 * sigma**2))
    distance = jnp.arange(length)[:, None] - jnp.arange(length)
    return (weights / weights.sum())[distance + length]


def random_erasing(
    key: jax.Array, images: jax.Array, *, share: float = 0.5, max_area: float = 0.33
) -> jax.Array:
    """Fills a rectangle of some images with noise (Zhong et al., arXiv 1708.04896).

    Its sides are to each other as 0.3 to 1 at most, either way; where one would be longer than the
    image, it is as long.

    Args:
      key: of this step.
      images: uint8 [B, H, W, C].
      share: of the images that this is done to.
      max_area: the largest part of an image that is hidden; the smallest is 0.02.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"config.augment.random_erasing.share={share}: from 0 to 1.")
    if not _LEAST_AREA <= max_area <= 1:
        raise UsageError(
            f"config.augment.random_erasing.max_area={max_area}: from {_LEAST_AREA} to 1."
        )
    share_key, area_key, aspect_key, place_key, noise_key = jax.random.split(key, 5)
    count, height, width, _ = images.shape
    area = jax.random.uniform(area_key, (count,), minval=_LEAST_AREA, maxval=max_area)
    limit = jnp.log(_MOST_ASPECT)
    aspect = jnp.exp(jax.random.uniform(aspect_key, (count,), minval=-limit, maxval=limit))
    sides = jnp.stack([jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)], -1)
    lengths = jnp.array([height, width], jnp.float32)
    sides = jnp.clip(jnp.round(sides * lengths), 1, lengths)
    low = jnp.floor(jax.random.uniform(place_key, (count, 2)) * (lengths - sides + 1))
    hidden = [
        (low[:, n, None] <= place) & (place < (low + sides)[:, n, None])
        for n, place in enumerate((jnp.arange(height), jnp.arange(width)))
    ]
    chosen = jax.random.uniform(share_key, (count,)) < share
    mask = chosen[:, None, None] & hidden[0][:, :, None] & hidden[1][:, None, :]
    noise = jax.random.randint(noise_key, images.shape, 0, 256).astype(jnp.uint8)
    return jnp.where(mask[..., None], noise, images)
