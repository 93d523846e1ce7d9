"""What a sweep varies: a list of points, each of them {field: value}, and what a point is called.

A recipe may have get_sweep() next to get_config(), which returns such a list:

    def get_sweep():
        return grid({"optimizer.learning_rate": (0.01, 0.001), "batch_size": (50, 100)})

    def get_sweep():
        rates = log_uniform(1e-4, 1e-1)
        return random_points(seed=0, count=20, values={"optimizer.learning_rate": rates})

Lists may be added, and one that is written out is as good. The point {} is the recipe as it is.
Where recipes have variants, get_sweep(variant) may return other points for each. A point's values
are checked as those of flags are, in cli/sweep_plan.py.
"""

import hashlib
import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mnist_flax.errors import UsageError

Point = Mapping[str, Any]
_LONGEST_NAME = 100  # letters; a folder's name may have 255 bytes
_DRAWS_A_POINT = 100  # after which no further point is looked for
_PLAIN_LETTERS = r"[a-z0-9_.+-]"  # of which a folder's name may consist, on every system


class Range(NamedTuple):
    """Numbers from low to high, both of them included; drawn evenly or evenly in the logarithm."""

    low: float
    high: float
    logarithmic: bool


def uniform(low: float, high: float) -> Range:
    """Returns the numbers from low to high, each as probable as any other."""
    return Range(low, high, logarithmic=False)


def log_uniform(low: float, high: float) -> Range:
    """Returns the numbers from low to high, each order of magnitude as probable as any other."""
    return Range(low, high, logarithmic=True)


def grid(values: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Returns every combination of the fields' values; the last field changes fastest.

    Args:
      values: {'optimizer.learning_rate': (0.01, 0.001), …}.

    Raises:
      UsageError: a field has no list of values; a line for each.
    """
    if faults := [fault for name, choices in values.items() for fault in _no_list(name, choices)]:
        raise UsageError("\n".join(faults))
    return [
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    ]


def random_points(
    seed: int, count: int, values: Mapping[str, Range | Sequence[Any]]
) -> list[Point]:
    """Draws points, no two of them the same.

    A field's draws are a function of (seed, field) alone: with a larger count come further points,
    and with another field the others keep their values. A number out of a range has three
    significant digits, so that what is shown of it is what was trained with.

    Args:
      seed: whatever is drawn is a function of it, on every machine and in every version of Python.
      count: how many points.
      values: for each field uniform(low, high), log_uniform(low, high), or a list to choose from,
        such as range(1, 9).

    Raises:
      UsageError: a range or list that nothing can be drawn from; or these values give fewer points
        than count.
    """
    faults = [fault for name, choices in values.items() for fault in _not_drawable(name, choices)]
    if not isinstance(count, int) or count < 1:
        faults.append(f"random_points: count={count!r}: must be a whole number, at least 1.")
    if faults:
        raise UsageError("\n".join(faults))
    # Of all that Python's random numbers are, the text that seeds them and what random() then
    # gives are promised to stay: docs.python.org/3/library/random.html, "Notes on Reproducibility".
    draws = {name: random.Random(f"{seed} {name}") for name in values}
    points: list[Point] = []
    for _ in range(_DRAWS_A_POINT * count):
        point = {name: _draw(draws[name].random(), choices) for name, choices in values.items()}
        if point not in points:
            points.append(point)
        if len(points) == count:
            return points
    raise UsageError(
        f"random_points: count={count}: these values give {len(points)} different points, as far "
        "as could be found. Ask for fewer, or give more values."
    )


def _draw(share: float, choices: Range | Sequence[Any]) -> Any:
    """Returns what stands at this share, in [0, 1), of a range or a list."""
    if not isinstance(choices, Range):
        return choices[int(share * len(choices))]
    low, high, logarithmic = choices
    if logarithmic:
        drawn = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        drawn = low + share * (high - low)
    return min(max(float(f"{drawn:.3g}"), float(low)), float(high))


def _not_drawable(name: str, choices: Any) -> list[str]:
    if not isinstance(choices, Range):
        return _no_list(name, choices)
    low, high, logarithmic = choices
    numbers = all(type(end) in (int, float) and math.isfinite(end) for end in (low, high))
    if not numbers or low >= high:
        return [f"config.{name}: {low!r} to {high!r} is no range: give a number and a larger one."]
    if logarithmic and low <= 0:
        return [f"config.{name}: log_uniform({low!r}, {high!r}): both must be above 0."]
    return []


def _no_list(name: str, choices: Any) -> list[str]:
    """Returns a fault unless there is a list to choose from; a text would be one of letters."""
    listed = hasattr(choices, "__len__") and hasattr(choices, "__getitem__")
    if not listed or isinstance(choices, str | bytes | Mapping | Range) or not len(choices):
        return [f"config.{name}={choices!r}: a sweep takes a list of values, such as (0.1, 0.01)."]
    return []


def point_name(point: Point) -> str:
    """Returns a name that is short, a function of the point alone, and fit for a folder.

    'batch_size=50,learning_rate=0.01': sorted, without the sections that fields are in; 'optimizer'
    stands for 'optimizer.name'. A value that is no plain word or number is spelled without what
    folders cannot have, and a digest tells it from others that are spelled so, too.
    """
    short = [_label(field) for field in point]
    labels = [
        own if short.count(own) == 1 else field for own, field in zip(short, point, strict=True)
    ]
    values = map(_spelled, point.values())
    name = ",".join(sorted(f"{label}={value}" for label, value in zip(labels, values, strict=True)))
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 7]}-{_digest(name)}"
    return name


def _label(field: str) -> str:
    section, _, leaf = field.rpartition(".")
    return section if section and leaf == "name" else leaf


def _spelled(value: Any) -> str:
    if isinstance(value, list | tuple) and all(type(item) in (int, float) for item in value):
        return "-".join(map(str, value))
    text = str(value)
    if not isinstance(value, str | list | tuple) or re.fullmatch(f"{_PLAIN_LETTERS}+", text):
        return text
    plain = re.sub(rf"(?!{_PLAIN_LETTERS}|[A-Z]).", "-", text, flags=re.DOTALL)
    return f"{plain.strip('-')}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:6]
