"""Picture files -> uint8 images in the form that preparation.py found the training data to have.

PIL is imported inside the functions: a run without pictures does not load it.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from mnist_flax.data.doubts import doubt
from mnist_flax.data.ink import NoInkError, find_ink, laid_out
from mnist_flax.data.preparation import DIGIT, Preparation, on_its_ground
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


class Fitted(NamedTuple):
    """A picture as a network takes it.

    Attributes:
      image: uint8 [H, W, C].
      done: what was done to it beyond a digit's layout, in words: 'inverted'.
      warning: why it may not be one digit, see doubts.py; '' for nothing.
    """

    image: np.ndarray
    done: tuple[str, ...] = ()
    warning: str = ""


def read_picture(
    path: str | Path,
    preparation: Preparation = DIGIT,
    shape: tuple[int, int, int] = MNIST_SHAPE,
) -> Fitted:
    """Reads one PNG or JPEG file; see fit_picture().

    Raises UserError, one line with the path, what is wrong and what to do, for an unfit file;
    UsageError where check_shape() does.
    """
    check_shape(shape, preparation)
    try:
        with Path(path).open("rb") as file:
            return fit_picture(file, preparation, shape)
    except PictureError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a PNG or JPEG file") from error


def read_pictures(
    paths: Sequence[str | Path],
    preparation: Preparation = DIGIT,
    shape: tuple[int, int, int] = MNIST_SHAPE,
) -> list[Fitted | UserError]:
    """Reads files as read_picture() does; a faulty one costs itself alone.

    Returns:
      For each path, in order, the picture or what read_picture() raises of it.
    """
    check_shape(shape, preparation)
    read: list[Fitted | UserError] = []
    for path in paths:
        try:
            read.append(read_picture(path, preparation, shape))
        except UserError as error:
            read.append(error)
    return read


def fit_picture(file: BinaryIO, preparation: Preparation, shape: tuple[int, int, int]) -> Fitted:
    """Makes the network's input [H, W, C] of a PNG or JPEG picture.

    An EXIF orientation is applied. Transparent parts become white, or black where only that shows
    the drawing (white chalk on nothing). Of an animation the first frame is taken.

    Args:
        file: Open and seekable; at most MAX_SIDE pixels a side and MAX_PIXELS in all are decoded.
        preparation: 'digit' lays the picture out as MNIST does: finds the ink, dark or light, on a
            ground that may be lit unevenly; scales it into 20×20; centres it by mass; makes the
            brightest ink 255 on a ground of 0. 'size' scales it, and inverts it if its ground is
            not that of the training data. 'none' takes a picture of the network's size as it is.
        shape: The network's input; 'digit' is for 28×28×1 only.

    Raises PictureError for an unfit picture.
    """
    pixels, done = _decode(file, "RGB" if shape[2] == 3 else "L")
    if preparation.layout == "size":
        return _scaled(pixels, done, preparation.ground, shape)
    if pixels.min() == pixels.max():
        raise PictureError("the picture is empty: all pixels are alike; give one with ink")
    if preparation.layout == "digit":
        try:
            found = find_ink(pixels)
            return Fitted(laid_out(found)[..., None], warning=doubt(found))
        except NoInkError as error:
            todo = "give a clearer picture with a bare border"
            raise PictureError(f"{error}; {todo}") from error
    if pixels.shape[:2] != shape[:2]:
        got = f"the picture is {pixels.shape[1]} pixels wide and {pixels.shape[0]} high"
        todo = "scale it to that size, or leave center=false (AS_IS) out"
        raise PictureError(f"{got}, the network takes {shape[1]} and {shape[0]}; {todo}")
    return Fitted(pixels.reshape(shape), done)


def check_shape(shape: tuple[int, int, int], preparation: Preparation) -> None:
    """Raises UsageError for a network that takes no pictures, or none of a digit's 28×28×1."""
    takes = f"this network takes {'x'.join(map(str, shape))}"
    if shape[2] not in (1, 3):
        raise UsageError(f"A picture has 1 channel or 3, and {takes}: no picture file fits it.")
    if preparation.layout == "digit" and shape != MNIST_SHAPE:
        todo = "use center=false (AS_IS), or leave it out"
        raise UsageError(f"center=true (DIGIT) makes pictures of 28x28x1, and {takes}: {todo}")


def _scaled(
    pixels: np.ndarray, done: tuple[str, ...], ground: str, shape: tuple[int, int, int]
) -> Fitted:
    """Brings a picture to the network's size and the ground of its data."""
    from PIL import Image

    height, width = shape[:2]
    if pixels.shape[:2] != (height, width):
        done += (f"scaled from {pixels.shape[1]}x{pixels.shape[0]} to {width}x{height}",)
        small = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
        pixels = np.asarray(small)
    image = pixels.reshape(shape)
    turned = on_its_ground(image, ground)
    return Fitted(turned, done if turned is image else (*done, "inverted"))


def _decode(file: BinaryIO, mode: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The picture's pixels, upright and opaque: uint8 [h, w] for mode 'L', [h, w, 3] for 'RGB'.

    Beside them, what was done to its colours.
    """
    from PIL import ImageOps

    with opened(file) as image:
        colour = not image.mode.startswith(("1", "L", "I"))
        pixels = np.asarray(_opaque(ImageOps.exif_transpose(image), mode))
    other = colour != (mode == "RGB")
    return pixels, ("made grey" if colour else "grey in all three colours",) if other else ()


class PictureError(ValueError):
    """Says what is wrong with a picture and what to do."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ignores Pillow's warnings, say of large pictures: the limits here are our own.

    Filters are the whole process's: where several threads read, each would undo another's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def opened(
    file: BinaryIO,
    *,
    verify: bool = True,
    formats: tuple[str, ...] = FORMATS,
    hushed: Callable[[], AbstractContextManager[None]] = quiet,
) -> Iterator[ImageFile.ImageFile]:
    """Opens a picture; raises PictureError, also for what decoding it inside raises.

    `hushed` is what keeps Pillow's warnings away meanwhile; contextlib.nullcontext where somebody
    else has seen to them.
    """
    from PIL import Image, UnidentifiedImageError

    if not file.read(1):
        raise PictureError("the file is empty; give a PNG or JPEG file")
    try:
        with hushed():
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


def png(picture: np.ndarray) -> bytes:
    """Returns a picture uint8 [H, W, 3] as a PNG file's bytes."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()


def film(frames: Sequence[Path], milliseconds: int = 250) -> bytes:
    """Returns an animated WebP, repeated for ever, that stays on its last frame for a while.

    Args:
      frames: PNG files, all of one size; at least one.
      milliseconds: that a frame is shown for.
    """
    from PIL import Image

    pictures = [Image.open(path).convert("RGB") for path in frames]
    shown = [milliseconds] * (len(pictures) - 1) + [8 * milliseconds]
    content = io.BytesIO()
    pictures[0].save(
        content,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=shown,
        loop=0,
        quality=50,
    )
    return content.getvalue()
