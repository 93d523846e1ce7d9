"""Images that are decoded when they are asked for, next to arrays of images. NumPy."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mnist_flax.data import grain_reader
from mnist_flax.data.records import Mapped, Records

BLOCK_BYTES = 32 * 2**20  # of images that are looked at, or on their way, at once


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Some records, in an order; as an array uint8 [N, H, W, C] to whoever takes parts of it.

    Attributes:
      records: that they are of.
      numbers: int64 [N], of these records.
      digests: uint64 [N], as image_digests gives them; None where they are not known yet.
    """

    records: Records
    numbers: np.ndarray
    digests: np.ndarray | None = None

    dtype = np.dtype(np.uint8)
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return (len(self.numbers), *self.records.shape)

    @property
    def size(self) -> int:
        """How many pixels."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, places: Any) -> np.ndarray:
        """Decodes: an int gives uint8 [H, W, C], a slice or a list of n places [n, H, W, C]."""
        numbers = self.numbers[places]
        images = grain_reader.read(self.records, np.atleast_1d(numbers))
        return images if np.ndim(numbers) else images[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Decodes all of them, which then lie in memory: for a function of the user's own."""
        return np.asarray(self[:], dtype)

    def taken(self, places: slice | np.ndarray) -> "StreamedImages":
        """Returns some of them; nothing is decoded."""
        digests = None if self.digests is None else self.digests[places]
        return replace(self, numbers=self.numbers[places], digests=digests)


Images = np.ndarray | StreamedImages  # uint8 [N, H, W, C]


def taken(images: Images, places: slice | np.ndarray) -> Images:
    """Returns some images: of an array, a view where `places` is a slice."""
    return images.taken(places) if isinstance(images, StreamedImages) else images[places]


def joined(parts: Sequence[Images]) -> Images:
    """Returns images one after another; those that are streamed are of the same records."""
    streamed = [part for part in parts if isinstance(part, StreamedImages)]
    if not streamed:
        return np.concatenate([np.asarray(part) for part in parts])
    assert len({part.records.key for part in streamed}) == 1
    return StreamedImages(streamed[0].records, np.concatenate([part.numbers for part in streamed]))


def mapped(
    images: Images,
    function: Callable[[np.ndarray], np.ndarray],
    shape: tuple[int, int, int],
    told: str,
) -> Images:
    """Returns what a function makes of images, now or whenever they are decoded; see Mapped."""
    if not isinstance(images, StreamedImages):
        return function(images)
    return StreamedImages(Mapped(images.records, function, shape, told), images.numbers)


def blocks(images: Images) -> Iterator[tuple[int, np.ndarray]]:
    """Yields all images in order, at most BLOCK_BYTES at once: (first, uint8 [n, H, W, C])."""
    count = max(1, BLOCK_BYTES // int(np.prod(images.shape[1:])))
    for first in range(0, len(images), count):
        yield first, images[first : first + count]


def same_images(one: Images, other: Images) -> bool:
    """Says whether two have the same images in the same order."""
    return one.shape == other.shape and all(
        np.array_equal(block, other_block)
        for (_, block), (_, other_block) in zip(blocks(one), blocks(other), strict=True)
    )


def image_digests(images: Images) -> np.ndarray:
    """Returns a digest of each image's pixels: uint64 [N]."""
    if isinstance(images, StreamedImages) and images.digests is not None:
        return images.digests
    return np.concatenate([np.empty(0, "<u8"), *(_digests(block) for _, block in blocks(images))])


def _digests(images: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    made = b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows)
    return np.frombuffer(made, "<u8")
