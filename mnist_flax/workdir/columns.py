"""Rows as columns: NumPy arrays of one length, which pandas.DataFrame and polars.DataFrame take."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mnist_flax.errors import UsageError

_LARGEST = 2**63


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Returns each field of some rows as an array [N], 'step' first, the rows in order of steps.

    Whole numbers are int64, other numbers float64, and texts 'U'. What a row lacks is NaN among
    numbers, which are float64 then. A list, or what a row lacks among other values (None), makes
    the array one of objects.
    """
    ordered = sorted(rows, key=lambda row: row["step"])
    names = dict.fromkeys(["step", *(name for row in ordered for name in row)])
    return {name: _column([row.get(name) for row in ordered]) for name in names}


def rows_of(rows: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """Returns the rows of one split or one event.

    Args:
      rows: of metrics.jsonl.
      kind: 'train', 'eval' or 'select', or an event: 'epoch', 'resumed', …

    Raises:
      UsageError: there is none; the message lists what there is.
    """
    found = [row for row in rows if kind in (row.get("split"), row.get("event"))]
    if not found:
        there = dict.fromkeys(str(row.get("split", row.get("event"))) for row in rows)
        told = f"There are: {', '.join(there)}." if there else "There are none yet."
        raise UsageError(f"rows({kind!r}): no such rows. {told}")
    return found


def _column(values: list[Any]) -> np.ndarray:
    kinds = {type(value) for value in values}
    if kinds == {int} and all(-_LARGEST <= value < _LARGEST for value in values):
        return np.array(values, np.int64)
    if kinds - {type(None)} and kinds <= {int, float, type(None)}:
        return np.array([np.nan if value is None else value for value in values], np.float64)
    if kinds in ({str}, {bool}):
        return np.array(values)
    column = np.empty(len(values), object)  # filled one by one: lists of one length stay lists
    for place, value in enumerate(values):
        column[place] = value
    return column
