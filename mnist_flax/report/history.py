"""A run's rows -> what its curves and its list of events show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_flax.errors import UserError
from mnist_flax.workdir.rows import METRICS_FILE, is_extra, read_rows

Row = dict[str, Any]
Points = tuple[list[int], list[float]]

_OF_FIGURES = ("epoch", "probabilities", "predictions")  # a line or more for each epoch or row
# What a reader must know before any figure.
_WARNINGS = ("fallback", "damaged_checkpoint", "diverged", "flat_loss", "lost_classes")


@dataclass(frozen=True)
class History:
    """What metrics.jsonl says of a run.

    Attributes:
      train: rows, in the order of their steps; whole however often the run was resumed.
      eval: likewise, of the evaluations, whichever split they were made on.
      extra: likewise, of those made as well, by the names of their splits.
      events: the other rows, those of figures left out.
      left_out: how many those are.
      resumes: the steps at which the run went on.
      warnings: the last event of each kind that a reader must know of.
    """

    train: list[Row]
    eval: list[Row]
    extra: Mapping[str, list[Row]]
    events: list[Row]
    left_out: int
    resumes: list[int]
    warnings: list[Row]

    @property
    def evaluated_on(self) -> str:
        """The split of the evaluations, 'eval' or 'select': one in all rows of a run."""
        return self.eval[0]["split"] if self.eval else "eval"


def read_history(
    workdir: Path, columns: Mapping[str, Sequence[str]] = {}, measured: Sequence[str] = ()
) -> History:
    """Sorts the rows of metrics.jsonl.

    Args:
      workdir: of the run.
      columns: what each row of 'train', 'eval' and 'select' must hold, numbers; rates aside of
        which an event says that rows have none.
      measured: what rows may lack: a judge may have come later.

    Raises:
      UserError: a row is damaged.
    """
    rows = read_rows(workdir)
    told = [row for row in rows if "split" not in row]
    for row in told:
        _require(row, ("event", "message"), str, workdir)
    events = [row for row in told if row["event"] not in _OF_FIGURES]
    latest = {row["event"]: row for row in events if row["event"] in _WARNINGS}
    absent = {name for row in told if row["event"] == "no_rate" for name in row.get("rates", ())}
    absent |= {*measured}
    columns = {split: [n for n in names if n not in absent] for split, names in columns.items()}
    return History(
        train=_of_split(rows, "train", columns, workdir),
        eval=[
            *_of_split(rows, "eval", columns, workdir),
            *_of_split(rows, "select", columns, workdir),
        ],
        extra={
            name: _of_extra(rows, name, columns, workdir)
            for name in dict.fromkeys(row["split"] for row in rows if is_extra(row))
        },
        events=events,
        left_out=len(told) - len(events),
        resumes=[row["step"] for row in events if row["event"] == "resumed"],
        warnings=sorted(latest.values(), key=lambda row: row["step"]),
    )


def points(rows: list[Row], field: str) -> Points:
    """Returns the steps and the values of a field, as they are plotted, where a row has it."""
    there = [row for row in rows if field in row]
    return [row["step"] for row in there], [row[field] for row in there]


def _of_split(
    rows: list[Row], split: str, columns: Mapping[str, Sequence[str]], workdir: Path
) -> list[Row]:
    chosen = [row for row in rows if row.get("split") == split]
    for row in chosen:
        _require(row, columns.get(split, ()), (int, float), workdir)
    return chosen


def _of_extra(
    rows: list[Row], split: str, columns: Mapping[str, Sequence[str]], workdir: Path
) -> list[Row]:
    """Likewise of an extra split, whose rows go without what was not finite."""
    chosen = _of_split(rows, split, {}, workdir)
    for row in chosen:
        there = [name for name in columns.get("eval", ()) if name in row]
        _require(row, there, (int, float), workdir)
    return chosen


def _require(row: Row, fields: Sequence[str], kind: Any, workdir: Path) -> None:
    for field in fields:
        if not isinstance(row.get(field), kind):
            raise UserError(
                f"{workdir / METRICS_FILE}: a row of step {row['step']} has no {field}. "
                "Mend or remove its line."
            )
