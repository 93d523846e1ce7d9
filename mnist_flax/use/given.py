"""What a caller in Python gives as pictures, names of files or arrays -> what a network takes."""

import io
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from mnist_flax.config.paths import expanded
from mnist_flax.data.dataset import Split
from mnist_flax.data.decoding import PictureError
from mnist_flax.data.encoding import png
from mnist_flax.data.pictures import (
    Fitted,
    check_shape,
    fit_picture,
    read_picture,
)
from mnist_flax.data.preparation import Preparation, on_the_other
from mnist_flax.errors import UsageError, UserError

Shape = tuple[int, int, int]
_WANT = "uint8 [H, W], [H, W, C], [N, H, W] or [N, H, W, C]"


class Given(NamedTuple):
    """Pictures as a network takes them.

    Attributes:
      files: their names, '' of an array.
      pictures: as many.
      one: whether a single one was given, and not several, be it one alone.
    """

    files: list[str]
    pictures: list[Fitted]
    one: bool


def read_given(given: Any, shape: Shape, own: Preparation, asked: Preparation | None) -> Given:
    """Reads pictures, each prepared as a file is for --mode=predict.

    Not so an array of the network's own size, unless a preparation is asked for: it is taken as it
    is, as images of the training data are.

    Args:
      given: the name of a PNG or JPEG file; an array uint8 [H, W], [H, W, C], [N, H, W] or
        [N, H, W, C]; or several names and arrays of one picture each.
      shape: (H, W, C) that the network takes.
      own: preparation of the run.
      asked: that takes its place.

    Raises:
      UsageError: it is nothing of that kind, or no picture fits the network.
      UserError: a file, or a picture, that cannot be used; the first of them.
    """
    one, parts = _parts(given, shape)
    if not parts:
        raise UsageError("predict: no pictures are given.")
    faults: list[str] = []
    files: list[str] = []
    pictures: list[Fitted] = []
    as_they_are: list[int] = []
    for place, part in enumerate(parts):
        file = "" if isinstance(part, np.ndarray) else os.fspath(part)
        try:
            if file:
                picture = read_picture(expanded(file, "predict"), asked or own, shape)
            elif part.shape == shape and asked is None:
                as_they_are.append(len(pictures))
                picture = Fitted(part)
            else:
                picture = _fitted(part, asked or own, shape)
        except PictureError as error:
            faults.append(f"{'the array' if one else f'pictures[{place}]'}: {error}")
        except UsageError:  # no picture fits: it is not this one's fault
            raise
        except UserError as error:
            faults.append(str(error))
        else:
            files.append(file)
            pictures.append(picture)
    if faults:
        others = f" ({len(faults) - 1:,} more cannot be used, either.)" if faults[1:] else ""
        raise UserError(f"{faults[0]}.{others}")
    return Given(files, _doubted(pictures, as_they_are, own.ground), one)


def split_of(images: Any, labels: Any, shape: Shape, class_names: tuple[str, ...]) -> Split:
    """Checks images and labels that a network is to be judged on.

    Args:
      images: uint8 [N, H, W, C] of the network's own size, or [N, H, W] for one channel.
      labels: whole numbers [N], the places of the classes in class_names.
      shape: (H, W, C) that the network takes.
      class_names: that it knows.

    Raises:
      UsageError: they are others.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        raise UsageError(
            f"evaluate: images are {_told(images)}; this network takes uint8 [N, "
            f"{', '.join(map(str, shape))}]."
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise UsageError(
            f"evaluate: labels are {_told(labels)}; {len(images):,} images need as many whole "
            f"numbers [{len(images)}], 0 to {len(class_names) - 1}."
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(wrong):
        raise UsageError(
            f"evaluate: labels[{wrong[0]}] is {labels[wrong[0]]}; this network knows "
            f"{len(class_names)} classes, 0 to {len(class_names) - 1}."
        )
    return Split(images, labels.astype(np.int32))


def _parts(given: Any, shape: Shape) -> tuple[bool, list[Any]]:
    """Whether one picture is given, and each: a name, or an array uint8 [h, w, c]."""
    if isinstance(given, str | os.PathLike):
        return True, [given]
    is_array = hasattr(given, "__array__") or hasattr(given, "__array_interface__")
    if is_array and (array := np.asarray(given)).dtype.kind not in "OU":
        return _cut(array, shape)
    if not isinstance(given, Iterable):
        raise UsageError(f"predict: {type(given).__name__} is no picture. Give a file or {_WANT}.")
    parts: list[Any] = []
    for place, part in enumerate(given):
        one, found = _parts(part, shape) if _is_picture(part) else (False, [])
        if not one:
            raise UsageError(
                f"predict: pictures[{place}] is no picture, but {_told(part)}. Of several, each is "
                "the name of a file or an array uint8 [H, W] or [H, W, C]."
            )
        parts += found
    return False, parts


def _is_picture(part: Any) -> bool:
    return isinstance(part, str | os.PathLike) or hasattr(part, "__array__")


def _cut(array: np.ndarray, shape: Shape) -> tuple[bool, list[np.ndarray]]:
    """Cuts an array into pictures [h, w, c].

    Of three axes the last is that of colours where it can be: no picture is 1 or 3 pixels wide,
    unless the network's own are.
    """
    if array.dtype != np.uint8 or not 2 <= array.ndim <= 4:
        scaled = " Pixels are 0 to 255." if array.dtype.kind == "f" else ""
        raise UsageError(f"predict: an array is {_told(array)}; give {_WANT}.{scaled}")
    if array.ndim == 2:
        return True, [array[..., None]]
    if array.ndim == 4:
        return False, list(array)
    if array.shape[2] in (1, 3, shape[2]) and array.shape[1:] != shape[:2]:
        return True, [array]
    return False, list(array[..., None])


def _fitted(pixels: np.ndarray, preparation: Preparation, shape: Shape) -> Fitted:
    """Prepares uint8 [h, w, c] as the file is that holds these pixels."""
    check_shape(shape, preparation)
    if pixels.shape[2] not in (1, 3) or not pixels.size:
        takes = ", ".join(map(str, shape))
        raise UsageError(
            f"predict: a picture is {_told(pixels)}; this network takes uint8 [{takes}] as it is, "
            "and pictures of 1 or 3 channels in any size."
        )
    content = png(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return fit_picture(io.BytesIO(content), preparation, shape)


def _doubted(pictures: list[Fitted], as_they_are: list[int], ground: str) -> list[Fitted]:
    """Adds a warning to those, taken as they are, that lie on another ground than trained on."""
    if not as_they_are or ground == "any":
        return pictures
    images = np.stack([pictures[place].image for place in as_they_are])
    other = {"dark": "light", "light": "dark"}[ground]
    warning = f"it is taken as it is, on a {other} ground; the training data are on a {ground} one"
    for place in np.array(as_they_are)[on_the_other(images, ground)]:
        pictures[place] = pictures[place]._replace(warning=warning)
    return pictures


def _told(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__
