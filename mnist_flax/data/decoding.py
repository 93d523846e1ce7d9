"""The bytes of a picture file -> its pixels, upright and opaque; or what is wrong with it.

PIL is imported inside the functions: a run without pictures does not load it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageFile

MAX_SIDE = 20_000  # pixels; read from the file's header, before anything is decoded
MAX_PIXELS = 50_000_000  # take 500 MB to decode; transparent or of 16 bits up to 1 GB
_LIMITS = f"{MAX_SIDE:,} pixels a side and {MAX_PIXELS // 1_000_000} megapixels"
FORMATS = ("PNG", "JPEG")
_SPELLED = {"WEBP": "WebP"}
_TOO_LARGE = f"the picture is too large; at most {_LIMITS} are read: scale it down"


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


def decode(file: BinaryIO, mode: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The picture's pixels, upright and opaque: uint8 [h, w] for mode 'L', [h, w, 3] for 'RGB'.

    Beside them, what was done to its colours.
    """
    from PIL import ImageOps

    with opened(file) as image:
        colour = not image.mode.startswith(("1", "L", "I"))
        pixels = np.asarray(_opaque(ImageOps.exif_transpose(image), mode))
    other = colour != (mode == "RGB")
    return pixels, ("made grey" if colour else "grey in all three colours",) if other else ()


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
