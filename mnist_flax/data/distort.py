"""Augmentations that move an image's pixels, or hide some of them."""

import jax
import jax.numpy as jnp

from mnist_flax.errors import UsageError

_LEAST_AREA, _MOST_ASPECT = 0.02, 1 / 0.3  # of what is erased, as in its paper


def random_shift(key: jax.Array, images: jax.Array, *, max_pixels: int) -> jax.Array:
    """Shifts each image by whole pixels, up to max_pixels along each axis; zeros come in."""
    if not 0 <= max_pixels < min(images.shape[1:3]):
        raise UsageError(
            f"config.augment.random_shift.max_pixels={max_pixels}: at least 0, and less than the "
            f"image's {min(images.shape[1:3])}."
        )
    batch, height, width, channels = images.shape
    edge = (max_pixels, max_pixels)
    padded = jnp.pad(images, ((0, 0), edge, edge, (0, 0)))
    corners = jax.random.randint(key, (batch, 2), 0, 2 * max_pixels + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (*corner, 0), (height, width, channels))

    return jax.vmap(cut)(padded, corners)


def random_rotation(key: jax.Array, images: jax.Array, *, max_degrees: float) -> jax.Array:
    """Turns each image about its centre, by up to max_degrees to either side, bilinearly."""
    if not 0 <= max_degrees <= 180:
        raise UsageError(
            f"config.augment.random_rotation.max_degrees={max_degrees}: from 0 to 180."
        )
    limit = jnp.deg2rad(jnp.float32(max_degrees))
    return rotate(images, jax.random.uniform(key, (len(images),), minval=-limit, maxval=limit))


def rotate(images: jax.Array, angles: jax.Array) -> jax.Array:
    """Turns each image about its centre by its angle, bilinearly; zeros come in.

    Args:
      images: uint8 [B, H, W, C].
      angles: float32 [B], in radians; a positive one turns counter-clockwise as the image is seen.
    """
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return _warp(images, jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2))


def random_scaling(key: jax.Array, images: jax.Array, *, max_factor: float) -> jax.Array:
    """Enlarges each image about its centre by 1 / max_factor to max_factor, bilinearly.

    The logarithm of the factor is uniform: half of the images shrink.
    """
    if not 1 <= max_factor <= 10:
        raise UsageError(f"config.augment.random_scaling.max_factor={max_factor}: from 1 to 10.")
    limit = jnp.log(jnp.float32(max_factor))
    factors = jnp.exp(jax.random.uniform(key, (len(images),), minval=-limit, maxval=limit))
    return _warp(images, jnp.eye(2) / factors[:, None, None])


def _warp(images: jax.Array, matrices: jax.Array) -> jax.Array:
    """Looks up each pixel of the result at matrix @ its place, both seen from the centre.

    Args:
      images: uint8 [B, H, W, C].
      matrices: float32 [B, 2, 2], on (row, column).

    Returns:
      uint8 [B, H, W, C].
    """
    height, width = images.shape[1:3]
    centre = jnp.array([height - 1, width - 1], jnp.float32) / 2
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), -1)
    places = jnp.einsum("bij,hwj->bihw", matrices, grid - centre) + centre[:, None, None]
    return look_up_at(images, places)


def look_up_at(images: jax.Array, places: jax.Array) -> jax.Array:
    """Makes each pixel of what the image has at a place: uint8 [B, H, W, C].

    Args:
      images: uint8 [B, H, W, C].
      places: float32 [B, 2, H, W], row and column; between four pixels it is interpolated, and
        zero outside.
    """

    def look_up(channel: jax.Array, place: jax.Array) -> jax.Array:
        return jax.scipy.ndimage.map_coordinates(channel, list(place), order=1)

    over_channels = jax.vmap(look_up, in_axes=(-1, None), out_axes=-1)
    warped = jax.vmap(over_channels)(images.astype(jnp.float32), places)
    return jnp.round(warped).astype(jnp.uint8)


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
