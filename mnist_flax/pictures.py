"""Picture files -> the network's input.

A network trained on MNIST has seen one kind of picture only: light ink on a black ground, the
digit scaled to a box of 20×20 and laid by its centre of mass into 28×28. read_picture() does the
same to a photograph or a drawing; whatever is left undone here, the network answers for. Sizes and
centring: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document
recognition", Proc. IEEE 86 (1998), section III.A.

PIL is imported inside the functions: a run without pictures does not load it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from mnist_flax.errors import UsageError, UserError

if TYPE_CHECKING:
    from PIL import Image, ImageFile

MNIST_SHAPE = (28, 28, 1)
MAX_SIDE = 20_000  # pixels; read from the file's header, before anything is decoded
MAX_PIXELS = 50_000_000  # take 500 MB to decode; transparent or of 16 bits up to 1 GB
_LIMITS = f"{MAX_SIDE:,} pixels a side and {MAX_PIXELS // 1_000_000} megapixels"
_TOO_LARGE = f"the picture is too large; at most {_LIMITS} are read: scale it down"

_BOX = 20  # longer side of the ink in an MNIST picture
_WORKING_SIDE = 640  # a larger picture is averaged down to this before its ink is looked for


def read_picture(
    path: str | Path, *, center: bool = True, shape: tuple[int, int, int] = MNIST_SHAPE
) -> np.ndarray:
    """Reads one PNG or JPEG file as uint8 [H, W, C].

    An EXIF orientation is applied. Transparent parts become white, or black where only that shows
    the drawing (white chalk on nothing). Of an animation the first frame is taken.

    Args:
        path: The file, at most MAX_SIDE pixels a side and MAX_PIXELS in all.
        center: True lays the picture out as MNIST does: finds the ink, dark or light, on a ground
            that may be lit unevenly; scales it into 20×20; centres it by mass; makes the brightest
            ink 255 on a ground of 0. False takes a picture of the network's size as it is.
        shape: The network's input [H, W, C]; center=True is for 28×28×1 only.

    Raises UserError, one line with the path, what is wrong and what to do, for an unfit file;
    UsageError for center=True with another shape.
    """
    _check_shape(shape, center)
    path = Path(path)
    pixels = _decode(path, "RGB" if shape[2] == 3 else "L")
    if center:
        return _laid_out(_find_ink(pixels, path))[..., None]
    if pixels.shape[:2] != shape[:2]:
        todo = "use --center=true to fit it" if shape == MNIST_SHAPE else "scale it to that size"
        got = f"the picture is {pixels.shape[1]} pixels wide and {pixels.shape[0]} high"
        raise UserError(f"{path}: {got}, the network takes {shape[1]} and {shape[0]}; {todo}")
    return pixels.reshape(shape)


def read_pictures(
    paths: Sequence[str | Path], *, center: bool = True, shape: tuple[int, int, int] = MNIST_SHAPE
) -> np.ndarray:
    """Reads N files as uint8 [N, H, W, C]; as read_picture(), with a line for every faulty file."""
    _check_shape(shape, center)
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


def _check_shape(shape: tuple[int, int, int], center: bool) -> None:
    if center and shape != MNIST_SHAPE:
        takes = f"and this network takes {'x'.join(map(str, shape))}"
        todo = "use --center=false with pictures of that size"
        raise UsageError(f"--center=true makes pictures of 28x28x1, {takes}: {todo}")


def _decode(path: Path, mode: str) -> np.ndarray:
    """The file's pixels, upright and opaque: uint8 [h, w] for mode 'L', [h, w, 3] for 'RGB'."""
    from PIL import ImageOps

    try:
        with path.open("rb") as file, opened(file) as image:
            pixels = np.asarray(_opaque(ImageOps.exif_transpose(image), mode))
    except PictureError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a PNG or JPEG file") from error
    if pixels.min() == pixels.max():
        raise UserError(f"{path}: the picture is empty: all pixels are alike; give one with ink")
    return pixels


class PictureError(ValueError):
    """Says what is wrong with a picture and what to do."""


@contextlib.contextmanager
def opened(file: BinaryIO, *, verify: bool = True) -> Iterator[ImageFile.ImageFile]:
    """Opens a PNG or JPEG picture; raises PictureError, also for what decoding it inside raises."""
    from PIL import Image, UnidentifiedImageError

    if not file.read(1):
        raise PictureError("the file is empty; give a PNG or JPEG file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures: the limits here are our own
            if verify:  # the checksums of a PNG's pixels, which decoding passes over
                with _open(file) as image:
                    image.verify()
            with _open(file) as image:
                yield image
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(_TOO_LARGE) from error
    except UnidentifiedImageError as error:
        raise PictureError("no PNG or JPEG picture, or damaged; save it as one") from error
    except Exception as error:  # of a dozen types, by decoder and by kind of damage
        reason = f"damaged or cut short ({' '.join(str(error).split())[:80]})"
        raise PictureError(f"the picture is {reason}; save or copy it anew") from error


def _open(file: BinaryIO) -> ImageFile.ImageFile:
    from PIL import Image

    # Pillow's forty other decoders are not let near a stranger's bytes.
    image = Image.open(file, formats=("PNG", "JPEG"))
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


def _find_ink(pixels: np.ndarray, path: Path) -> np.ndarray:
    """How much ink each pixel holds: uint8 [h, w] -> float32 [h', w'] cut to the ink, 0 to 1.

    Ink is what stands out from the ground to one side, by more than the noise and a speck of dust.
    """
    from PIL import Image

    factor = -(-max(pixels.shape) // _WORKING_SIDE)
    grey = np.asarray(Image.fromarray(pixels).reduce(factor), np.float32)
    ground, noise = _ground(grey)
    ink = grey - ground
    ink *= np.sign(ink.mean())  # the bare ground averages 0, so the sign is that of the ink
    ink[ink < max(4 * noise, 0.2 * ink.max())] = 0  # a fifth: blur and JPEG's ripples
    ink[~_large_pieces(ink > 0)] = 0
    # MNIST's strokes are flat and full; the upper quartile is a stroke's inside, without its noise.
    full = float(np.percentile(ink[ink > 0], 75)) if ink.any() else 0.0
    if full < 6 * noise:  # on bare paper too a pixel in 30,000 passes the 4 sigma above
        raise UserError(f"{path}: no ink stands out; give a clearer picture with a bare border")
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.minimum(ink / full, 1)


def _ground(grey: np.ndarray) -> tuple[np.ndarray, float]:
    """The light of the bare ground, a quadratic in x and y, and its noise: [h, w] -> [h, w], sigma.

    Begins with the median of the border, which may have ink on it here and there, and is fitted
    again and again to all pixels that agree with the last fit.
    """
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in grey.shape]
    y, x = np.meshgrid(*axes, indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
    some = tuple(slice(None, None, max(1, n // 64)) for n in grey.shape)  # enough for six numbers
    sample, sample_terms = grey[some], terms[some]
    agrees = np.abs(sample_terms[..., 1:3]).max(-1) > 0.9  # near |x| = 1 or |y| = 1
    error = np.abs(sample - np.median(sample[agrees]))
    for _ in range(10):
        agrees = error <= 4 * np.median(error[agrees]) + 0.05 * np.ptp(sample)
        weights = np.linalg.lstsq(sample_terms[agrees], sample[agrees], rcond=None)[0]
        error = np.abs(sample - sample_terms @ weights)
    # 1.4826: from the median of |error| to a normal sigma. At least 1: grey levels are rounded.
    return terms @ weights, max(1.0, 1.4826 * float(np.median(error[agrees])))


def _large_pieces(mask: np.ndarray) -> np.ndarray:
    """Drops the pieces smaller than a twentieth of the largest: bool [h, w] -> bool [h, w].

    On a grid of at most 64×64 blocks, each piece takes the highest number among its blocks.
    """
    block = -(-max(mask.shape) // 64)
    height, width = (-(-n // block) for n in mask.shape)
    padded = np.pad(mask, [(0, -n % block) for n in mask.shape])
    area = padded.reshape(height, block, width, block).sum((1, 3))
    piece = np.where(area > 0, np.arange(1, area.size + 1).reshape(area.shape), 0)
    before = np.zeros_like(piece)
    while (piece != before).any():
        before = piece
        around = np.lib.stride_tricks.sliding_window_view(np.pad(piece, 1), (3, 3))
        piece = np.where(area > 0, around.max((2, 3)), 0)
    areas = np.bincount(piece.ravel(), area.ravel())
    large = (areas >= areas.max() / 20)[piece]
    return mask & large.repeat(block, 0).repeat(block, 1)[: mask.shape[0], : mask.shape[1]]


def _laid_out(ink: np.ndarray) -> np.ndarray:
    """Scales the ink into 20×20 and centres it in 28×28: float32 [h, w] -> uint8 [28, 28].

    In MNIST the centre of mass lies within half a pixel of pixel (14, 14), counted from 0.
    """
    from PIL import Image

    height, width = (max(1, round(n * _BOX / max(ink.shape))) for n in ink.shape)
    small = Image.fromarray(ink).resize((width, height), Image.Resampling.LANCZOS)
    digit = np.clip(np.asarray(small), 0, 1)
    output = np.zeros(MNIST_SHAPE[:2], np.float32)
    window = []
    for axis, n in enumerate(digit.shape):
        mass = digit.sum(1 - axis)
        centre = (mass * np.arange(n)).sum() / mass.sum()
        start = min(max(round(14 - centre), 0), 28 - n)  # a lopsided one must not leave the frame
        window.append(slice(start, start + n))
    output[tuple(window)] = digit * (255 / digit.max())
    return output.round().astype(np.uint8)
