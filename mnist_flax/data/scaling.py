"""Pictures scaled to squares of one size, by Pillow, which is imported where it is used."""

import functools
import math
from dataclasses import replace

import numpy as np

from mnist_flax.data.dataset import LARGEST, Raw, Split
from mnist_flax.data.streamed_images import mapped
from mnist_flax.errors import UserError


def sized(image: np.ndarray, side: int | None) -> np.ndarray:
    """Scales a picture, uint8 [H, W, C], to side × side, if that is asked for and not its size."""
    return image if side is None or image.shape[:2] == (side, side) else resized(image, side)


def scaled_note(shapes: set[tuple[int, ...]], side: int) -> str:
    """Says that pictures of these shapes, (H, W), are scaled."""
    (*others, last) = (f"{width}x{height}" for height, width in sorted(shapes))
    sizes = f"{others[0]} to {last} ({len(shapes):,} sizes)" if others else last
    return (
        f"Pictures of {sizes} are scaled to {side}x{side}, whatever their proportions "
        "(config.data.resize, LANCZOS)."
    )


def scaled(raw: Raw, side: int) -> Raw:
    """Returns data whose pictures are scaled to side × side, and says so; as it is if they are."""
    shapes = {split.images.shape[1:3] for split in raw.splits.values()} - {(side, side)}
    if not shapes:
        return raw
    splits = {}
    for name, split in raw.splits.items():
        shape = (side, side, split.images.shape[-1])
        if isinstance(split.images, np.ndarray) and len(split.images) * math.prod(shape) > LARGEST:
            raise UserError(
                f"config.data.resize={side}: {len(split.images):,} pictures of that size take more "
                f"than {LARGEST:,} bytes. Make it smaller."
            )
        resize = functools.partial(_all_resized, side=side)
        images = mapped(split.images, resize, shape, f"scaled to {side}")
        splits[name] = Split(images, split.labels)
    return replace(raw, splits=splits, notes=(*raw.notes, scaled_note(shapes, side)))


def _all_resized(images: np.ndarray, side: int) -> np.ndarray:
    scaled = np.empty((len(images), side, side, images.shape[-1]), np.uint8)
    for index, image in enumerate(images):
        scaled[index] = resized(image, side)
    return scaled


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """Returns a picture, uint8 [H, W, C] with C = 1 or 3, as [side, side, C]; LANCZOS."""
    from PIL import Image

    array = image[..., 0] if image.shape[-1] == 1 else image
    scaled = Image.fromarray(array).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(scaled).reshape(side, side, image.shape[-1])
