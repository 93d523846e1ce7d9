"""One picture file of a user's own becomes an array. Pillow is imported where it is used."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mnist_flax.data import decoding
from mnist_flax.data.decoding import PictureError, opened, quiet
from mnist_flax.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = (*decoding.FORMATS, "WEBP")


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


def read_picture(path: Path) -> np.ndarray:
    """Returns a PNG, JPEG or WebP file, upright, as uint8 [H, W, C]; UserError if it is none.

    An EXIF orientation is applied; of an animation the first frame is taken.
    """
    with quiet():
        return read(path).pixels


def read(path: Path) -> Picture:
    """Returns a picture, and what is to be known of it apart from its pixels; raises as above.

    Pillow's warnings are left to whoever asks: threads share their filters.
    """
    hushed = contextlib.nullcontext
    try:
        with path.open("rb") as file, opened(file, formats=FORMATS, hushed=hushed) as image:
            grey_palette = has_grey_palette(image)
            deep = image.mode.startswith("I")
            return Picture(pixels(image, upright=True, deep=True), grey_palette, deep)
    except PictureError as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Check the file.") from None


def is_picture(value: Any) -> bool:
    """Says whether something is a picture of Pillow's."""
    from PIL import Image

    return isinstance(value, Image.Image)


def taken(image: "Image.Image") -> np.ndarray:
    """Returns a picture of another library as `read` returns one of a file: uint8 [H, W, C].

    The picture itself is not changed. Raises PictureError as `pixels` does, and for one that cannot
    be decoded.
    """
    from PIL import ImageOps

    try:
        with quiet():
            return pixels(ImageOps.exif_transpose(image), deep=True)
    except PictureError:
        raise
    except Exception as error:  # of a dozen types, by decoder and by kind of damage
        raise PictureError(f"it cannot be decoded ({' '.join(str(error).split())[:80]})") from error


def has_grey_palette(image: "Image.Image") -> bool:
    """Says whether all colours of a picture's palette are grey; transparent ones count as colour.

    The palette and not the pixels: that is reported before anything is decoded.
    """
    if image.mode != "P" or "transparency" in image.info or image.palette is None:
        return False
    colours = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def pixels(file: "Image.Image", *, upright: bool = False, deep: bool = False) -> np.ndarray:
    """Returns a picture as uint8 [H, W, 1] when grey or black-and-white (0, 255), else [H, W, 3].

    A palette is resolved, to grey where all of its colours are. An alpha channel is dropped where
    it is opaque all over; raises PictureError where it is not, and for other colour models. With
    `upright` an EXIF orientation is applied. 16-bit grey is divided by 257 with `deep`, and raises
    PictureError without it, as 16-bit colour does.
    """
    from PIL import ImageOps

    image = file
    mode, grey_palette = image.mode, has_grey_palette(image)
    # Pillow cuts 16-bit colour to 8 bits without a word; only the decoder's name tells.
    is_deep = mode.startswith("I")
    if (is_deep and not deep) or (
        not is_deep and any(";16" in str(tile.args) for tile in getattr(file, "tile", ()))
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
