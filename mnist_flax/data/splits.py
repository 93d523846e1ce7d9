"""The language that cuts a dataset's splits: which images of them are meant.

It is that of TFDS's ReadInstruction: 'train', 'train[5000:]', 'train[10%:90%]', 'train[-5000:]',
'train[:100]+test[50%:]', 'all'. It is written anew here because importing tensorflow_datasets to
cut an array takes longer than reading MNIST.
"""

import re
from collections.abc import Mapping
from reprlib import repr as short_repr
from typing import NamedTuple

from mnist_flax.errors import UsageError

EXAMPLES = "for example 'train', 'train[5000:]', 'train[10%:90%]' or 'train[:100]+test[50%:]'"

_PART = re.compile(r"([\w-]+)(?:\[([^\[\]]*)\])?")
_NUMBER = r"\d+(?:_\d+)*"  # as Python writes them: 60_000
_BOUND = re.compile(rf"(?:(-?{_NUMBER})|(-?(?:{_NUMBER}\.?\d*|\.\d+))(%))?", re.ASCII)
_LONGEST_BOUND = 20  # characters; a larger number is beyond every split


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


def count_shared(ranges: list[tuple[str, int, int]], others: list[tuple[str, int, int]]) -> int:
    """Counts the images that are in both of two selections, as resolve_split returns them."""
    return sum(
        max(0, min(stop, other_stop) - max(start, other_start))
        for split, start, stop in ranges
        for other, other_start, other_stop in others
        if split == other
    )
