"""Picture files -> uint8 images in the form that preparation.py found the training data to have."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from mnist_flax.data.decoding import PictureError, decode
from mnist_flax.data.doubts import doubt
from mnist_flax.data.ink import NoInkError, find_ink, laid_out
from mnist_flax.data.preparation import DIGIT, Preparation, on_its_ground
from mnist_flax.errors import UsageError, UserError

MNIST_SHAPE = (28, 28, 1)


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
    pixels, done = decode(file, "RGB" if shape[2] == 3 else "L")
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
