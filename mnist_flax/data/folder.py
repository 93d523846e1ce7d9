"""A user's own pictures, in class folders (see class_folders.py): files to arrays, and back.

The only importer of Pillow among the sources, where it is used.
"""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mnist_flax.data import class_folders
from mnist_flax.data.dataset import LARGEST, Raw, Split
from mnist_flax.data.pictures import FORMATS, PictureError, opened
from mnist_flax.data.scaling import scaled_note, sized
from mnist_flax.errors import UserError

if TYPE_CHECKING:
    from PIL import Image, ImageFile

_FORMATS = (*FORMATS, "WEBP")
_ON_A_CANVAS = 100  # pictures that are decoded side by side


class Picture(NamedTuple):
    """A picture out of a file.

    Attributes:
      pixels: uint8 [H, W, C], C = 1 for grey.
      grey_palette: whether it is grey by its palette alone: it may stand among colour, too.
      deep: whether it had 16 bits a pixel.
    """

    pixels: np.ndarray
    grey_palette: bool = False
    deep: bool = False


def read_directory(directory: Path, *, side: int | None = None, uncut: bool = False) -> Raw | None:
    """Reads the pictures in class folders: uint8 [N, H, W, C]. See class_folders.find for them.

    All have one size and are all grey (C = 1) or all colour (C = 3), see `pixels`.

    Args:
      directory: that holds train/, or with `uncut` the class folders themselves.
      side: scales every picture to side × side pixels; None refuses different sizes.
      uncut: whether to look for class folders without train/.

    Returns:
      None where there are no such folders.

    Raises:
      UserError: a file is no picture, or another than the others; it is named.
    """
    found = class_folders.find_uncut(directory) if uncut else class_folders.find(directory)
    if found is None:
        return None
    first, splits, notes = _first(found.splits["train"]), {}, found.notes
    shapes: set[tuple[int, ...]] = set()
    deep: list[Path] = []
    for split, pictures in found.splits.items():
        splits[split] = _read(pictures, first, side, shapes, deep)
    if deep:
        notes += (
            f"{deep[0]}: pictures of 16 bits ({len(deep):,} of them) are read as 8 bits, divided "
            "by 257.",
        )
    if side is not None and (scaled := shapes - {(side, side)}):
        notes += (scaled_note(scaled, side),)
    return Raw(splits, found.class_names, f"picture folders in {directory}", notes)


def _first(pictures: list[tuple[Path, int]]) -> Path:
    """Returns the picture that says what all are: the first that is grey, or colour, for sure."""
    for path, _ in pictures:
        with path.open("rb") as file, contextlib.suppress(PictureError), _open(file) as image:
            if not _has_grey_palette(image):
                return path
    return pictures[0][0]


def _read(
    pictures: list[tuple[Path, int]],
    first: Path,
    side: int | None,
    shapes: set[tuple[int, ...]],
    deep: list[Path],
) -> Split:
    """Reads the pictures of a split; adds their sizes to `shapes`, those of 16 bits to `deep`."""
    expected = sized(read_picture(first), side)
    if len(pictures) * expected.size > LARGEST:
        got = f"{len(pictures):,} pictures of {_describe(expected)}"
        raise UserError(
            f"{pictures[0][0].parent.parent}: {got} unpack into more than {LARGEST:,} bytes. "
            "Scale them down."
        )
    images = np.empty((len(pictures), *expected.shape), np.uint8)
    for index, (path, _) in enumerate(pictures):
        picture = _picture(path)
        shapes.add(picture.pixels.shape[:2])
        deep += [path] if picture.deep else []
        image = sized(picture.pixels, side)
        if picture.grey_palette and image.shape[:2] == expected.shape[:2]:
            image = np.broadcast_to(image, expected.shape)
        if image.shape != expected.shape:
            got, want = _describe(image), _describe(expected)
            alike = "/".join(first.parts[-3:])
            todo = "Make all alike"
            if image.shape[:2] != expected.shape[:2]:
                todo += ", or have them scaled to one size, as with --config.data.resize=28"
            raise UserError(f"{path} is {got}, but {alike} is {want}. {todo}.")
        images[index] = image
    return Split(images, np.array([label for _, label in pictures], np.int32))


def _describe(image: np.ndarray) -> str:
    height, width, channels = image.shape
    return f"{width}x{height} {'grey' if channels == 1 else 'colour'}"


def read_picture(path: Path) -> np.ndarray:
    """Returns a PNG, JPEG or WebP file, upright, as uint8 [H, W, C]; UserError if it is none.

    An EXIF orientation is applied; of an animation the first frame is taken.
    """
    return _picture(path).pixels


def _picture(path: Path) -> Picture:
    try:
        with path.open("rb") as file, _open(file) as image:
            grey_palette = _has_grey_palette(image)
            deep = image.mode.startswith("I")
            return Picture(pixels(image, upright=True, deep=True), grey_palette, deep)
    except PictureError as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Check the file.") from None


def _open(file: "io.BufferedReader") -> "contextlib.AbstractContextManager[ImageFile.ImageFile]":
    return opened(file, formats=_FORMATS)


def _has_grey_palette(image: "Image.Image") -> bool:
    """Says whether all colours of a picture's palette are grey; transparent ones count as colour.

    The palette and not the pixels: that is told before anything is decoded.
    """
    if image.mode != "P" or "transparency" in image.info or image.palette is None:
        return False
    colours = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def pixels(file: "ImageFile.ImageFile", *, upright: bool = False, deep: bool = False) -> np.ndarray:
    """Returns a picture as uint8 [H, W, 1] when grey or black-and-white (0, 255), else [H, W, 3].

    A palette is resolved, to grey where all of its colours are. An alpha channel is dropped where
    it is opaque all over; raises PictureError where it is not, and for other colour models. With
    `upright` an EXIF orientation is applied. 16-bit grey is divided by 257 with `deep`, and raises
    PictureError without it, as 16-bit colour does.
    """
    from PIL import Image, ImageOps

    image: Image.Image = file
    mode, grey_palette = image.mode, _has_grey_palette(image)
    # Pillow cuts 16-bit colour to 8 bits without a word; only the decoder's name tells.
    is_deep = mode.startswith("I")
    if (is_deep and not deep) or (
        not is_deep and any(";16" in str(tile.args) for tile in file.tile)
    ):
        raise PictureError("it has 16 bits a channel; save it with 8")
    if upright:
        ImageOps.exif_transpose(image, in_place=True)
    if is_deep:
        if "transparency" in image.info:
            raise PictureError("it is transparent in places; flatten it onto a background first")
        array = np.asarray(image)
        if array.min() < 0 or array.max() > 65_535:
            raise PictureError("it has values beyond 16 bits; save it with 8")
        return (array / np.float32(257)).round().astype(np.uint8)[..., np.newaxis]
    if mode in ("L", "P", "RGB") and "transparency" in image.info:
        image = image.convert("LA" if mode == "L" else "RGBA")
    elif mode in ("1", "P"):
        image = image.convert("L" if mode == "1" or grey_palette else "RGB")
    if image.mode in ("LA", "RGBA"):
        if image.getchannel("A").getextrema() != (255, 255):
            raise PictureError("it is transparent in places; flatten it onto a background first")
        image = image.convert(image.mode[:-1])
    if image.mode not in ("L", "RGB"):
        raise PictureError(f"its mode is {mode}; save it as 8-bit grey (L) or colour (RGB)")
    array = np.asarray(image)
    return array[..., np.newaxis] if array.ndim == 2 else array


def decode(data: Sequence[bytes], images: np.ndarray, first: int = 0) -> None:
    """Decodes PNG or JPEG pictures, as they lie in a record file, into images uint8 [N, H, W, C].

    Such files have checksums of their own. Raises PictureError, a ValueError, for other bytes, and
    for pictures of another size or number of channels.
    """
    for start in range(0, len(data), _ON_A_CANVAS):
        block = slice(start, start + _ON_A_CANVAS)
        _decode_block(data[block], images[block], first + start)


def _decode_block(data: Sequence[bytes], images: np.ndarray, first: int) -> None:
    """Decodes a few pictures on one canvas: an array of its own for each takes a fifth longer."""
    from PIL import Image

    height, width, channels = shape = images.shape[1:]
    plain = "L" if channels == 1 else "RGB", (width, height)
    canvas, others = Image.new(plain[0], (width, height * len(data))), []
    for index, one in enumerate(data):
        # Most pictures are what they should be; `opened` takes half as long again, and tells of
        # the others what is wrong with them.
        with contextlib.suppress(Exception):
            image = Image.open(io.BytesIO(one), formats=("PNG", "JPEG"))
            if (image.mode, image.size) == plain and "transparency" not in image.info:
                canvas.paste(image, (0, height * index))
                continue
        others.append(index)
    images[:] = np.asarray(canvas).reshape(images.shape)
    for index in others:
        with opened(io.BytesIO(data[index]), verify=False) as image:
            picture = pixels(image)
        if picture.shape != shape:  # NumPy would stretch a grey picture over three channels
            raise PictureError(
                f"picture {first + index} is {list(picture.shape)}, not {list(shape)}"
            )
        images[index] = picture


def encode(image: np.ndarray) -> bytes:
    """Returns a picture, uint8 [H, W, C] with C = 1 or 3, as the bytes of a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()
