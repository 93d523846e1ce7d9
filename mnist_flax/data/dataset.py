"""What every source of images becomes: two splits, their class names and one fingerprint.

The split language is that of TFDS's ReadInstruction: 'train', 'train[5000:]', 'train[10%:90%]',
'train[-5000:]', 'train[:100]+test[50%:]', 'all'. It is written anew here because importing
tensorflow_datasets to cut an array takes longer than reading MNIST.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as short_repr
from typing import NamedTuple

import numpy as np

from mnist_flax.errors import UsageError, UserError

# The class names that TFDS gives; a dataset of another name brings its own or is numbered.
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
LARGEST = 4 * 2**30  # bytes of pictures that one split may take
EXAMPLES = "for example 'train', 'train[5000:]', 'train[10%:90%]' or 'train[:100]+test[50%:]'"

_PART = re.compile(r"([\w-]+)(?:\[([^\[\]]*)\])?")
_NUMBER = r"\d+(?:_\d+)*"  # as Python writes them: 60_000
_BOUND = re.compile(rf"(?:(-?{_NUMBER})|(-?(?:{_NUMBER}\.?\d*|\.\d+))(%))?", re.ASCII)
_LONGEST_BOUND = 20  # characters; a larger number is beyond every split


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures and their classes: images uint8 [N, H, W, C], labels int32 [N]."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Raw:
    """What a source holds, before the config's split expressions cut it."""

    splits: dict[str, Split]  # by name, usually 'train' and 'test', in the order of 'all'
    class_names: tuple[str, ...]
    source: str  # "IDX files in ../shared/mnist"
    notes: tuple[str, ...] = ()
    sideways: bool = False  # rows and columns are exchanged, as in EMNIST's files


@dataclass(frozen=True, eq=False)
class Dataset:
    """The data of a run: train and eval, images uint8 [N, H, W, C], labels int32 [N].

    `fingerprint` is the SHA-256 of both splits in order and of the class names: equal data has
    an equal fingerprint, wherever it came from. `notes` are lines that the user must see.
    `data_dir` is the folder that it was found in, absolute; None for the sample.
    """

    name: str
    source: str
    train: Split
    eval: Split
    class_names: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...]
    data_dir: str | None = None


class Part(NamedTuple):
    """One summand of a split expression; a bound that was left out is None."""

    split: str
    start: float | None
    stop: float | None
    percent: bool


def parse_split(expression: str, field: str = "split") -> tuple[Part, ...]:
    """Reads a split expression, before any data is there.

    Raises UsageError, naming `field`, when the expression is not one.
    """
    if not isinstance(expression, str):  # a config's placeholder takes None
        raise UsageError(f"{field}={short_repr(expression)}: must be text. Write {EXAMPLES}.")
    try:
        return tuple(_parse_part(part) for part in re.split(r"\s*\+\s*", expression))
    except ValueError as error:
        message = f"{field}={short_repr(expression)}: {error}. Write {EXAMPLES}."
        raise UsageError(message) from None


def _parse_part(text: str) -> Part:
    match = _PART.fullmatch(text)
    if match is None:
        raise ValueError(f"{short_repr(text)} is not a split's name with an optional [from:to]")
    name, selector = match.groups()
    if selector is None:
        return Part(name, None, None, False)
    if name == "all":
        raise ValueError("'all' cannot be sliced")
    bounds = [_BOUND.fullmatch(bound) for bound in selector.split(":")]
    start, stop = bounds if len(bounds) == 2 else (None, None)
    if start is None or stop is None or not (start[0] or stop[0]):
        raise ValueError(f"{short_repr(text)} is not [from:to] in whole numbers or percent")
    if max(len(start[0]), len(stop[0])) > _LONGEST_BOUND:
        raise ValueError(f"{short_repr(text)} has a number longer than {_LONGEST_BOUND} characters")
    percent = "%" in selector
    # TFDS reads [100:50%] as [100%:50%]; nobody means that.
    if percent and (start[1] or stop[1]):
        raise ValueError(f"[{selector}] mixes a number of images with a percentage")
    values = [float(bound[1] or bound[2]) if bound[0] else None for bound in (start, stop)]
    if percent and any(abs(value or 0) > 100 for value in values):
        raise ValueError(f"[{selector}] goes beyond 100%")
    return Part(name, values[0], values[1], percent)


class BeyondSplitError(UsageError):
    """A bound lies beyond the images that there are: right for a larger dataset."""


class _BeyondError(ValueError):
    pass


def resolve_split(
    expression: str, sizes: Mapping[str, int], field: str = "split"
) -> list[tuple[str, int, int]]:
    """Returns the (split, from, to) that an expression selects from splits of these sizes.

    Percentages are rounded to the closest image, as TFDS does by default. Raises UsageError,
    naming `field` and the sizes, for an unknown split or an empty slice, and its BeyondSplitError
    for a bound out of range.
    """
    try:
        ranges = []
        for part in parse_split(expression, field):
            parts = [Part(n, None, None, False) for n in sizes] if part.split == "all" else [part]
            ranges += [_resolve_part(part, sizes) for part in parts]
        return ranges
    except ValueError as error:
        there = ", ".join(f"{name} ({size:,} images)" for name, size in sizes.items())
        message = f"{field}={short_repr(expression)}: {error}. There is: {there}. Write {EXAMPLES}."
        kind = BeyondSplitError if isinstance(error, _BeyondError) else UsageError
        raise kind(message) from None


def _resolve_part(part: Part, sizes: Mapping[str, int]) -> tuple[str, int, int]:
    if part.split not in sizes:
        raise ValueError(f"there is no split {short_repr(part.split)}")
    size = sizes[part.split]
    start = 0 if part.start is None else _absolute(part.start, part.percent, size)
    stop = size if part.stop is None else _absolute(part.stop, part.percent, size)
    if start >= stop:
        raise ValueError(f"images {start:,} to {stop:,} of {part.split!r} are none at all")
    return part.split, start, stop


def _absolute(bound: float, percent: bool, size: int) -> int:
    index = round(bound * size / 100.0) if percent else int(bound)
    if abs(index) > size:
        raise _BeyondError(f"{index:,} is beyond a split of {size:,}")
    return index + size if index < 0 else index


def make_dataset(
    name: str, raw: Raw, train_split: str, eval_split: str, resplit: int | None = None
) -> Dataset:
    """Checks what a source returned and cuts it into train and eval.

    With `resplit`, a seed, train followed by eval is permuted and cut at their sizes again.

    Raises UserError for faulty data, UsageError for a split expression that does not fit it.
    """
    _check(raw)
    sizes = {split: len(data.labels) for split, data in raw.splits.items()}
    train_ranges = resolve_split(train_split, sizes, "config.data.train_split")
    eval_ranges = resolve_split(eval_split, sizes, "config.data.eval_split")
    train, evaluation = _take(raw, train_ranges), _take(raw, eval_ranges)
    shared = sum(
        max(0, min(stop, other_stop) - max(start, other_start))
        for split, start, stop in train_ranges
        for other, other_start, other_stop in eval_ranges
        if split == other
    )
    notes = raw.notes
    if shared:
        notes += (f"train and eval share {shared:,} images: the accuracy will look too good.",)
    source = raw.source
    if resplit is not None:
        train, evaluation = _resplit(train, evaluation, resplit)
        source += f", train and eval mixed and cut again with seed {resplit}"
    print_of = fingerprint(train, evaluation, raw.class_names)
    return Dataset(name, source, train, evaluation, raw.class_names, print_of, notes)


def _resplit(train: Split, evaluation: Split, seed: int) -> tuple[Split, Split]:
    count = len(train.labels)
    # RandomState and not Generator: NumPy keeps its streams as they are for ever (NEP 19).
    order = np.random.RandomState(seed).permutation(count + len(evaluation.labels))
    images = np.concatenate([train.images, evaluation.images])
    labels = np.concatenate([train.labels, evaluation.labels])
    first, second = (Split(images[part], labels[part]) for part in (order[:count], order[count:]))
    return first, second


def _take(raw: Raw, ranges: list[tuple[str, int, int]]) -> Split:
    images = [raw.splits[name].images[start:stop] for name, start, stop in ranges]
    labels = [raw.splits[name].labels[start:stop] for name, start, stop in ranges]
    if len(ranges) == 1:  # a view: no second copy of 47 MB
        return Split(images[0], labels[0])
    return Split(np.concatenate(images), np.concatenate(labels))


def _check(raw: Raw) -> None:
    shape, classes = None, len(raw.class_names)
    for name, split in raw.splits.items():
        where, images, labels = f"{raw.source}, {name}", split.images, split.labels
        if images.dtype != np.uint8 or images.ndim != 4 or labels.dtype != np.int32:
            got = f"{images.dtype} {list(images.shape)} and {labels.dtype} {list(labels.shape)}"
            raise UserError(f"{where}: want uint8 [N, H, W, C] and int32 [N], got {got}.")
        if labels.shape != images.shape[:1]:
            raise UserError(f"{where}: {len(images):,} images, but labels {list(labels.shape)}.")
        if images.size == 0:
            raise UserError(f"{where}: no images, shape {list(images.shape)}.")
        if images.shape[1:] != (shape or images.shape[1:]):
            got = f"pictures of {images.shape[1:]}, before it of {shape}. Make all alike."
            raise UserError(f"{where}: {got}")
        shape = images.shape[1:]
        wrong = np.flatnonzero((labels < 0) | (labels >= classes))
        if len(wrong):
            got = f"image {wrong[0]:,} has label {labels[wrong[0]]}"
            allowed = f"0 to {classes - 1} ({classes} classes)"
            raise UserError(f"{where}: {got}, allowed is {allowed}. Check config.data.name.")


def fingerprint(train: Split, evaluation: Split, class_names: tuple[str, ...]) -> str:
    """Returns the SHA-256 (hex) of names, shapes and bytes of both splits and the class names."""
    digest = hashlib.sha256(json.dumps(class_names).encode())
    for name, split in (("train", train), ("eval", evaluation)):
        # One byte order and int32 everywhere, so that two machines agree.
        arrays = {"images": split.images, "labels": split.labels.astype("<i4", copy=False)}
        for field, array in arrays.items():
            digest.update(f"\n{name}.{field} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data.cast("B"))
    return digest.hexdigest()
