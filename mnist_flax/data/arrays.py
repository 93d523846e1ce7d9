"""What all readers of files make of the arrays that they find. Pure NumPy."""

import math
from dataclasses import replace

import numpy as np

from mnist_flax.data.dataset import CLASS_NAMES, Raw, Split
from mnist_flax.data.streamed_images import mapped
from mnist_flax.errors import UserError

EVERY = 5  # of the pictures of a class one is for testing, where a source has no test


def as_pictures(array: np.ndarray, where: object) -> tuple[np.ndarray, str]:
    """Returns pictures as [N, H, W, C], and a note where that took an assumption.

    Args:
      array: [N, H·W] of square grey pictures, [N, H, W], or [N, H, W, C] with C = 1 or 3.
      where: the file, for messages.

    Raises:
      UserError: another shape.
    """
    shape = list(array.shape)
    if array.ndim == 3:
        return array[..., np.newaxis], ""
    if array.ndim == 2:
        side = math.isqrt(shape[1])
        if side * side == shape[1]:
            note = f"{where}: rows of {shape[1]} are taken for grey pictures of {side}x{side}."
            return array.reshape(-1, side, side, 1), note
        raise UserError(f"{where} has rows of {shape[1]}: want square pictures. Give their shape.")
    if array.ndim != 4:
        raise UserError(
            f"{where} has {array.ndim} dimensions {shape}, but images have 3, or 2, or 4. "
            "Put images there."
        )
    if shape[3] not in (1, 3):
        raise UserError(
            f"{where} has the shape {shape}: want [N, H, W, C] with C = 1 (grey) or 3 (colour)."
        )
    return array, ""


def class_names_of(name: str, splits: dict[str, Split]) -> tuple[str, ...]:
    """Returns the class names of a dataset that brings none: known ones, or numbers."""
    highest = max(int(split.labels.max()) for split in splits.values())
    return CLASS_NAMES.get(name) or tuple(str(label) for label in range(highest + 1))


def tested(count: int) -> np.ndarray:
    """Returns which of the pictures of a class are for testing: bool [count].

    Every fifth; of two to four the last; a single one is trained on. A rule, not a random draw: it
    is a function of the order alone.
    """
    mask = np.arange(count) % EVERY == EVERY - 1
    if 1 < count < EVERY:
        mask[-1] = True
    return mask


def cut(split: Split) -> dict[str, Split]:
    """Cuts a split into train and test: of each class as `tested` says, in the order they lie."""
    mask = np.zeros(len(split.labels), bool)
    for label in np.unique(split.labels):
        places = np.flatnonzero(split.labels == label)
        mask[places] = tested(len(places))
    return {
        name: Split(split.images[chosen], split.labels[chosen])
        for name, chosen in (("train", ~mask), ("test", mask))
    }


def turned_upright(raw: Raw) -> Raw:
    """Exchanges the rows and the columns of all pictures, and says so."""
    splits = {}
    for name, split in raw.splits.items():
        height, width, channels = split.images.shape[1:]
        shape = width, height, channels
        images = mapped(split.images, _turned_upright, shape, "turned upright")
        splits[name] = Split(images, split.labels)
    note = "Rows and columns of all pictures are exchanged (config.data.transpose)."
    return replace(raw, splits=splits, notes=(*raw.notes, note))


def _turned_upright(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 2, 1, 3))
