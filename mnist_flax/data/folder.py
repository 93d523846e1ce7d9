"""A user's own pictures, in class folders (see class_folders.py): files to arrays, and back.

Pillow is imported where it is used.
"""

import contextlib
import functools
import importlib.metadata
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mnist_flax.data import class_folders, picture_files
from mnist_flax.data.dataset import LARGEST, Raw, Split
from mnist_flax.data.decoding import PictureError, opened, quiet
from mnist_flax.data.records import key_of_files
from mnist_flax.data.scaling import scaled_note, sized
from mnist_flax.data.streamed_images import StreamedImages
from mnist_flax.errors import UserError

_ON_A_CANVAS = 100  # pictures that are decoded side by side


def read_directory(
    directory: Path, *, side: int | None = None, uncut: bool = False, stream: bool = False
) -> Raw | None:
    """Reads the pictures in class folders: uint8 [N, H, W, C]. See class_folders.find for them.

    All have one size and are all grey (C = 1) or all colour (C = 3), see picture_files.pixels.

    Args:
      directory: that holds train/, or with `uncut` the class folders themselves.
      side: scales every picture to side × side pixels; None refuses different sizes.
      uncut: whether to look for class folders without train/.
      stream: whether they are to be decoded when they are asked for; then only the first is.

    Returns:
      None where there are no such folders.

    Raises:
      UserError: a file is no picture, or another than the others; it is named.
    """
    found = class_folders.find_uncut(directory) if uncut else class_folders.find(directory)
    if found is None:
        return None
    files = [path for pictures in found.splits.values() for path, _ in pictures]
    with quiet():
        records = FileRecords(files, _first(found.splits["train"]), side)
    if not stream:
        _refuse_too_large(found, records.shape)
    splits, start = {}, 0
    for split, pictures in found.splits.items():
        numbers = np.arange(start, start := start + len(pictures))
        labels = np.array([label for _, label in pictures], np.int32)
        if stream:
            splits[split] = Split(StreamedImages(records, numbers), labels)
            continue
        images = np.empty((len(pictures), *records.shape), np.uint8)
        with quiet():
            for image, number in zip(images, numbers.tolist(), strict=True):
                image[:] = records.picture(number)
        splits[split] = Split(images, labels)
    notes = (*found.notes, *records.notes())
    return Raw(splits, found.class_names, f"picture folders in {directory}", notes)


def _first(pictures: list[tuple[Path, int]]) -> Path:
    """Returns the picture that says what all are: the first that is grey, or colour, for sure."""
    for path, _ in pictures:
        with (
            path.open("rb") as file,
            contextlib.suppress(PictureError),
            opened(file, formats=picture_files.FORMATS) as image,
        ):
            if not picture_files.has_grey_palette(image):
                return path
    return pictures[0][0]


def _refuse_too_large(found: class_folders.Found, shape: tuple[int, int, int]) -> None:
    for pictures in found.splits.values():
        if len(pictures) * int(np.prod(shape)) > LARGEST:
            got = f"{len(pictures):,} pictures of {_describe(shape)}"
            raise UserError(
                f"{pictures[0][0].parent.parent}: {got} unpack into more than {LARGEST:,} bytes. "
                "Scale them down, or have them streamed with config.data.stream=true."
            )


class FileRecords:
    """Picture files of one size as records.

    Attributes:
      shape: (H, W, C) of each.
    """

    def __init__(self, files: Sequence[Path], first: Path, side: int | None):
        """Reads the picture that says what all are.

        Args:
          files: by number.
          first: the one that says whether all are grey or colour, and of what size.
          side: scales every picture to side × side pixels; None refuses different sizes.
        """
        self._files = list(map(str, files))  # a fifth of what as many Path objects take
        self._first, self._side = first, side
        self.shape: tuple[int, int, int] = sized(picture_files.read(first).pixels, side).shape
        self._sizes: set[tuple[int, ...]] = set()
        self._deep = np.zeros(len(files), bool)

    @functools.cached_property
    def key(self) -> str:
        """See records.Records."""
        listing = []
        for name in self._files:
            told = os.stat(name)  # noqa: PTH116 - a Path for each takes longer than the call
            listing.append((os.path.abspath(name), told.st_size, told.st_mtime_ns))  # noqa: PTH100
        pillow = importlib.metadata.version("pillow")
        return key_of_files(listing, "picture files", self.shape, self._side, pillow)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """Decodes pictures: uint8 [n, H, W, C]."""
        return np.stack([self.picture(number) for number in numbers])

    def picture(self, number: int) -> np.ndarray:
        """Decodes one: uint8 [H, W, C]. Raises UserError where it is none, or unlike the first."""
        path = Path(self._files[number])
        picture = picture_files.read(path)
        self._sizes.add(picture.pixels.shape[:2])
        self._deep[number] = picture.deep
        image = sized(picture.pixels, self._side)
        if picture.grey_palette and image.shape[:2] == self.shape[:2]:
            image = np.broadcast_to(image, self.shape)
        if image.shape != self.shape:
            got, want = _describe(image.shape), _describe(self.shape)
            alike = "/".join(self._first.parts[-3:])
            todo = "Make all alike"
            if image.shape[:2] != self.shape[:2]:
                todo += ", or have them scaled to one size, as with config.data.resize=28"
            raise UserError(f"{path} is {got}, but {alike} is {want}. {todo}.")
        return image

    def notes(self) -> tuple[str, ...]:
        """Says which of the pictures read so far had 16 bits, and which were scaled."""
        notes: tuple[str, ...] = ()
        if count := int(self._deep.sum()):
            notes += (
                f"{self._files[self._deep.argmax()]}: pictures of 16 bits ({count:,} of them) are "
                "read as 8 bits, divided by 257.",
            )
        if self._side is not None and (scaled := self._sizes - {(self._side, self._side)}):
            notes += (scaled_note(scaled, self._side),)
        return notes


def _describe(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'colour'}"


def decode(
    data: Sequence[bytes],
    images: np.ndarray,
    numbers: Sequence[int] | None = None,
    *,
    hushed: Callable[[], contextlib.AbstractContextManager[None]] = quiet,
) -> None:
    """Decodes PNG or JPEG pictures, as they lie in a record file, into images uint8 [N, H, W, C].

    Such files have checksums of their own. An error names a picture by its place in `numbers`, the
    one it has in its file; default: as they are counted here. `hushed` is as decoding.opened takes
    it. Raises PictureError, a ValueError, for other bytes, and for pictures of another size or
    number of channels.
    """
    numbers = range(len(data)) if numbers is None else numbers
    for start in range(0, len(data), _ON_A_CANVAS):
        block = slice(start, start + _ON_A_CANVAS)
        _decode_block(data[block], images[block], numbers[block], hushed)


def _decode_block(
    data: Sequence[bytes],
    images: np.ndarray,
    numbers: Sequence[int],
    hushed: Callable[[], contextlib.AbstractContextManager[None]],
) -> None:
    """Decodes a few pictures on one canvas: an array of its own for each takes a fifth longer."""
    from PIL import Image

    height, width, channels = shape = images.shape[1:]
    plain = "L" if channels == 1 else "RGB", (width, height)
    canvas, others = Image.new(plain[0], (width, height * len(data))), []
    for index, one in enumerate(data):
        # Most pictures are what they should be; `opened` takes half as long again, and reports
        # the others what is wrong with them.
        with contextlib.suppress(Exception):
            image = Image.open(io.BytesIO(one), formats=("PNG", "JPEG"))
            if (image.mode, image.size) == plain and "transparency" not in image.info:
                canvas.paste(image, (0, height * index))
                continue
        others.append(index)
    images[:] = np.asarray(canvas).reshape(images.shape)
    for index in others:
        try:
            with opened(io.BytesIO(data[index]), verify=False, hushed=hushed) as image:
                picture = picture_files.pixels(image)
        except PictureError as error:
            raise PictureError(f"picture {numbers[index]}: {error}") from error
        if picture.shape != shape:  # NumPy would stretch a grey picture over three channels
            raise PictureError(
                f"picture {numbers[index]} is {list(picture.shape)}, not {list(shape)}"
            )
        images[index] = picture


def encode(image: np.ndarray) -> bytes:
    """Returns a picture, uint8 [H, W, C] with C = 1 or 3, as the bytes of a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()
