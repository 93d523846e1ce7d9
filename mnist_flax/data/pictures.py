"""Picture files -> the network's input, laid out by ink.py as MNIST's pictures are.

PIL is imported inside the functions: a run without pictures does not load it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from mnist_flax.data import ink
from mnist_flax.errors import UsageError, UserError

if TYPE_CHECKING:
    from PIL import Image, ImageFile

MNIST_SHAPE = (28, 28, 1)
MAX_SIDE = 20_000  # pixels; read from the file's header, before anything is decoded
MAX_PIXELS = 50_000_000  # take 500 MB to decode; transparent or of 16 bits up to 1 GB
_LIMITS = f"{MAX_SIDE:,} pixels a side and {MAX_PIXELS // 1_000_000} megapixels"
FORMATS = ("PNG", "JPEG")
_SPELLED = {"WEBP": "WebP"}
_TOO_LARGE = f"the picture is too large; at most {_LIMITS} are read: scale it down"


def read_picture(
    path: str | Path, *, center: bool = True, shape: tuple[int, int, int] = MNIST_SHAPE
) -> np.ndarray:
    """Reads one PNG or JPEG file as uint8 [H, W, C]; see fit_picture().

    Raises UserError, one line with the path, what is wrong and what to do, for an unfit file;
    UsageError for center=True with a shape other than 28×28×1.
    """
    check_shape(shape, center)
    try:
        with Path(path).open("rb") as file:
            return fit_picture(file, center=center, shape=shape)
    except PictureError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a PNG or JPEG file") from error


def fit_picture(file: BinaryIO, *, center: bool, shape: tuple[int, int, int]) -> np.ndarray:
    """Makes the network's input of a PNG or JPEG picture: uint8 [H, W, C].

    An EXIF orientation is applied. Transparent parts become white, or black where only that shows
    the drawing (white chalk on nothing). Of an animation the first frame is taken.

    Args:
        file: Open and seekable; at most MAX_SIDE pixels a side and MAX_PIXELS in all are decoded.
        center: True lays the picture out as MNIST does: finds the ink, dark or light, on a ground
            that may be lit unevenly; scales it into 20×20; centres it by mass; makes the brightest
            ink 255 on a ground of 0. False takes a picture of the network's size as it is.
        shape: The network's input [H, W, C]; center=True is for 28×28×1 only.

    Raises PictureError for an unfit picture.
    """
    pixels = _decode(file, "RGB" if shape[2] == 3 else "L")
    if center:
        try:
            return ink.lay_out(pixels)[..., None]
        except ink.NoInkError as error:
            todo = "give a clearer picture with a bare border"
            raise PictureError(f"{error}; {todo}") from error
    if pixels.shape[:2] != shape[:2]:
        todo = "use --center=true to fit it" if shape == MNIST_SHAPE else "scale it to that size"
        got = f"the picture is {pixels.shape[1]} pixels wide and {pixels.shape[0]} high"
        raise PictureError(f"{got}, the network takes {shape[1]} and {shape[0]}; {todo}")
    return pixels.reshape(shape)


def read_pictures(
    paths: Sequence[str | Path], *, center: bool = True, shape: tuple[int, int, int] = MNIST_SHAPE
) -> np.ndarray:
    """Reads N files as uint8 [N, H, W, C]; as read_picture(), with a line for every faulty file."""
    check_shape(shape, center)
    images = np.zeros((len(paths), *shape), np.uint8)
    faults = []
    for image, path in zip(images, paths, strict=True):
        try:
            image[:] = read_picture(path, center=center, shape=shape)
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))
    return images


def check_shape(shape: tuple[int, int, int], center: bool) -> None:
    """Raises UsageError for center=True with a network that takes no pictures of 28×28×1."""
    if center and shape != MNIST_SHAPE:
        takes = f"and this network takes {'x'.join(map(str, shape))}"
        todo = "use --center=false with pictures of that size"
        raise UsageError(f"--center=true makes pictures of 28x28x1, {takes}: {todo}")


def _decode(file: BinaryIO, mode: str) -> np.ndarray:
    """The picture's pixels, upright and opaque: uint8 [h, w] for mode 'L', [h, w, 3] for 'RGB'."""
    from PIL import ImageOps

    with opened(file) as image:
        pixels = np.asarray(_opaque(ImageOps.exif_transpose(image), mode))
    if pixels.min() == pixels.max():
        raise PictureError("the picture is empty: all pixels are alike; give one with ink")
    return pixels


class PictureError(ValueError):
    """Says what is wrong with a picture and what to do."""


@contextlib.contextmanager
def opened(
    file: BinaryIO, *, verify: bool = True, formats: tuple[str, ...] = FORMATS
) -> Iterator[ImageFile.ImageFile]:
    """Opens a picture; raises PictureError, also for what decoding it inside raises."""
    from PIL import Image, UnidentifiedImageError

    if not file.read(1):
        raise PictureError("the file is empty; give a PNG or JPEG file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures: the limits here are our own
            if verify:  # the checksums of a PNG's pixels, which decoding passes over
                with _open(file, formats) as image:
                    image.verify()
            with _open(file, formats) as image:
                yield image
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(_TOO_LARGE) from error
    except UnidentifiedImageError as error:
        *others, last = (_SPELLED.get(name, name) for name in formats)
        which = f"{', '.join(others)} or {last}"
        raise PictureError(f"no {which} picture, or damaged; save it as one") from error
    except Exception as error:  # of a dozen types, by decoder and by kind of damage
        reason = f"damaged or cut short ({' '.join(str(error).split())[:80]})"
        raise PictureError(f"the picture is {reason}; save or copy it anew") from error


def _open(file: BinaryIO, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    from PIL import Image

    # Pillow's forty other decoders are not let near a stranger's bytes.
    image = Image.open(file, formats=formats)
    if max(image.size) > MAX_SIDE or image.width * image.height > MAX_PIXELS:
        raise PictureError(f"{image.width}x{image.height} pixels: {_TOO_LARGE}")
    return image


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    """The picture in mode 'L' or 'RGB', what is transparent laid on white or black."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255
        deep = np.asarray(image)
        shown = deep != image.info.get("transparency")  # one value; None is unlike any
        pair = (deep / np.float32(257)).round().astype(np.uint8), shown * np.uint8(255)
        image = Image.fromarray(np.stack(pair, -1))
    if not image.has_transparency_data:
        return image.convert(mode)
    image = image.convert("RGBA")
    white, black = (
        Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert(mode)
        for ground in ("white", "black")
    )
    in_white, in_black = (np.ptp(np.asarray(picture.convert("L"))) for picture in (white, black))
    return black if in_black > in_white else white
