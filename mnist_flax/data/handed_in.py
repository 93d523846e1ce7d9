"""Data that are handed in, train(config, workdir, data=…): arrays, or data sets of other libraries.

They become a Raw of 'train' and 'test', as files do, and are cut, scaled, recognised and trained on
as those are: the same images, labels and class names have one fingerprint, wherever they were.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mnist_flax.data import items
from mnist_flax.data.arrays import class_names_of
from mnist_flax.data.dataset import CLASS_NAMES, LARGEST, Raw, Split
from mnist_flax.errors import UsageError

NAME = "handed_in"  # what they are called, unless config.data.name says otherwise
_OF_FILES = (("data_dir", None), ("stream", False), ("fallback", "mnist_sample"))
_MOST_CLASSES = 2**16  # that are known by their numbers alone
_HINT = "Channels come last: np.moveaxis(x, 1, -1)."


def faults(config_data: Any) -> list[str]:
    """Returns, in a line, which fields of `config.data` make no sense where data are handed in."""
    asked = [
        f"config.data.{field}={getattr(config_data, field)!r}"
        for field, default in _OF_FILES
        if getattr(config_data, field) != default
    ]
    if config_data.name == "mnist_sample":
        asked.append("config.data.name='mnist_sample'")
    if not asked:
        return []
    return [
        f"{', '.join(asked)}: of no use where the data are handed in, train(config, workdir, "
        "data=…). Leave this out, or data."
    ]


def name_of(config_data: Any) -> str:
    """Returns what data that are handed in are called: not 'mnist', which is the mere default."""
    return NAME if config_data.name == "mnist" else str(config_data.name)


def missing(whose: str, todo: str) -> str:
    """Returns what is said where a run's data were handed in, and are wanted again."""
    return (
        f"{whose}: its data were handed in, train(config, workdir, data=…). From Python {todo}; or "
        "name data in files with config.data.data_dir=FOLDER"
    )


def read(data: Any, name: str, side: int | None, report: Callable[[str], None]) -> Raw:
    """Returns what was handed in: images uint8 [N, H, W, C], labels int32 [N].

    Args:
      data: (images, labels, eval_images, eval_labels), arrays or what NumPy makes arrays of: images
        uint8 [N, H, W] or [N, H, W, C] with C = 1 or 3, which are not copied, labels whole numbers
        [N]. Or (train, eval), two objects with __len__ and __getitem__; see items.read_items.
      name: that they are called; those of a known one have class names.
      side: scales every image of an object to side × side pixels; None refuses different sizes.
      report: gets a line before objects are asked for their items, which takes its time.

    Raises:
      UsageError: it is something else, in a line that names the array, and the image or the item.
    """
    parts = list(data) if isinstance(data, tuple | list) else []
    notes: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()
    if len(parts) == 4:
        source, places = "arrays that were handed in", ("labels", "eval_labels")
        train = _of_arrays(parts[0], parts[1], "")
        evaluation = _of_arrays(parts[2], parts[3], "eval_")
    elif len(parts) == 2:
        source, places = "data sets that were handed in", ("train", "eval")
        offered = _one(*(items.class_names(*pair) for pair in zip(parts, places, strict=True)))
        (train, of_train), (evaluation, of_eval) = (
            items.read_items(part, which, side, report)
            for part, which in zip(parts, places, strict=True)
        )
        notes = tuple(dict.fromkeys((*of_train, *of_eval)))
    else:
        raise UsageError(
            "data: want four arrays, (images, labels, eval_images, eval_labels), or two data sets, "
            f"(train, eval), that have __len__ and __getitem__. Got a {type(data).__name__}"
            f"{f' of {len(parts)}' if parts else ''}."
        )
    splits = {"train": train, "test": evaluation}
    known = offered or CLASS_NAMES.get(name, ())
    for split, place in zip(splits.values(), places, strict=True):
        _require_in_range(split.labels, place, known)
    return Raw(splits, known or class_names_of(name, splits), source, notes)


def _of_arrays(images: Any, labels: Any, prefix: str) -> Split:
    what, whose = f"data: {prefix}images", f"data: {prefix}labels"
    pictures = items.as_uint8(images, what)
    if pictures.ndim == 3:
        pictures = pictures[..., np.newaxis]
    if pictures.ndim != 4 or pictures.shape[-1] not in (1, 3) or not pictures.size:
        first = pictures.ndim == 4 and pictures.shape[1] in (1, 3)
        raise UsageError(
            f"{what} has the shape {list(np.shape(images))}: want [N, H, W], or [N, H, W, C] with "
            f"C = 1 (grey) or 3 (colour).{f' {_HINT}' if first else ''}"
        )
    if pictures.nbytes > LARGEST:
        raise UsageError(
            f"{what} takes {pictures.nbytes:,} bytes, more than {LARGEST:,}. Give fewer, or put "
            "them into files: config.data.stream=true reads those as it goes."
        )
    numbers = items.as_array(labels, whose)
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise UsageError(
            f"{whose} is {numbers.dtype} {list(numbers.shape)}: want whole numbers [N], the class "
            "of each image."
        )
    if len(pictures) != len(numbers):
        raise UsageError(
            f"{what} has {len(pictures):,} images, but {prefix}labels has {len(numbers):,}: want "
            "one for each."
        )
    _require_in_range(numbers, f"{prefix}labels", ())
    return Split(pictures, numbers.astype(np.int32))


def _one(train: tuple[str, ...], evaluation: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the class names of two data sets, of which one may offer none."""
    if train and evaluation and train != evaluation:
        differing = next(
            (pair for pair in zip(train, evaluation, strict=False) if pair[0] != pair[1]),
            (f"{len(train)} classes", f"{len(evaluation)}"),
        )
        raise UsageError(
            f"data: the classes of train and eval differ: {differing[0]!r} there, {differing[1]!r} "
            "here. Give both the same, in one order."
        )
    return train or evaluation


def _require_in_range(labels: np.ndarray, place: str, names: tuple[str, ...]) -> None:
    """Raises UsageError for a label that is no class's number; names the first of them."""
    classes = len(names) or _MOST_CLASSES
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        of_names = f" ({names[0]!r} to {names[-1]!r})" if names else ""
        raise UsageError(
            f"data: {place}[{wrong[0]}]: the label is {labels[wrong[0]]}; allowed is 0 to "
            f"{classes - 1:,}{of_names}."
        )
