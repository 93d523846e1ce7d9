"""metrics.jsonl: a JSON object a line, each on the disk before its step is saved."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_flax.errors import UserError
from mnist_flax.workdir.files import reason, write_atomic

METRICS_FILE = "metrics.jsonl"


def append_row(workdir: Path, row: dict[str, Any]) -> None:
    """Appends one row to metrics.jsonl; it is on the disk when this returns.

    Raises:
      UserError: it cannot be written.
    """
    path = workdir / METRICS_FILE
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({reason(error)}). Make room and start again: the run "
            "goes on from its newest checkpoint."
        ) from error


def read_rows(workdir: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl, without a last line that a crash cut short.

    Raises:
      UserError: a line before the last is no JSON object with a whole number as its step.
    """
    path = workdir / METRICS_FILE
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}).") from error
    rows = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is partial
        row = None
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
        if not isinstance(row, dict):
            raise UserError(
                f"{path}, line {number}: is no JSON object. Mend the line, or remove it "
                "if it does not belong there."
            )
        if not isinstance(row.get("step"), int):
            raise UserError(f"{path}, line {number}: has no step. Mend the line.")
        rows.append(row)
    return rows


def is_evaluation(row: Mapping[str, Any]) -> bool:
    """Says whether a row is of an evaluation: of those that may choose the best save."""
    return row.get("split") in ("eval", "select")


def last_evaluation(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the last row of an evaluation; {} where there is none."""
    evaluations = [row for row in rows if is_evaluation(row)]
    return evaluations[-1] if evaluations else {}


def split_of(row: Mapping[str, Any]) -> str:
    """'train', 'eval', 'select', an extra split's or 'epoch'; '' for a row of another kind."""
    return row.get("split") or ("epoch" if row.get("event") == "epoch" else "")


def is_extra(row: Mapping[str, Any]) -> bool:
    """Says whether a row is of an extra split, evaluated before the one that counts."""
    split = row.get("split")
    return isinstance(split, str) and split not in ("train", "eval", "select")


def truncate_rows(workdir: Path, step: int) -> int:
    """Drops the rows that a resumed run will write again; counts the others.

    These are the rows after its step, and those of this step's extra splits where the run was
    killed before it wrote the evaluation that counts: all of it is done again.
    """
    rows = [row for row in read_rows(workdir) if row["step"] <= step]
    if not any(is_evaluation(row) for row in rows if row["step"] == step):
        rows = [row for row in rows if not (is_extra(row) and row["step"] == step)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomic(workdir / METRICS_FILE, text)
    return len(rows)
