"""The table of a sweep: its points over their seeds, the best one first; as text and as JSON."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mnist_flax.core.sums import Metric
from mnist_flax.report.sweep_statistics import Difference, Summary, paired, summarize
from mnist_flax.workdir.files import read_config
from mnist_flax.workdir.rows import last_evaluation, read_rows


class SweptRun(NamedTuple):
    """A run of a sweep, as it ended.

    Attributes:
      point: its name; the runs of a point differ by their seeds.
      varied: {field: value} of the point.
      seed: its config.seed.
      workdir: its folder.
      fault: why it failed; '' if it did not.
    """

    point: str
    varied: Mapping[str, Any]
    seed: int
    workdir: Path
    fault: str


@dataclass(frozen=True)
class Row:
    """A point.

    Attributes:
      point: its name.
      varied: {field: value}.
      values: of the metric, by seed, of the runs that were finished.
      failed: how many were not.
      summary: of the values; None where there are none.
      difference: from the best point; None for the best itself, or without a seed in common.
    """

    point: str
    varied: Mapping[str, Any]
    values: dict[int, float]
    failed: int
    summary: Summary | None
    difference: Difference | None


@dataclass(frozen=True)
class Table:
    """All points, the best one first; those that miss values of a seed stand behind the others.

    Attributes:
      metric_name: what is compared: of the last evaluation of each run.
      metric: how it is shown, and whether more of it is better.
      evaluated_on: the field of the config that names those images, and the split; () of a table
        without values.
      rows: of the points.
      faults: (name, fault) of the runs that failed.
    """

    metric_name: str
    metric: Metric
    evaluated_on: tuple[()] | tuple[str, str]
    rows: Sequence[Row]
    faults: Sequence[tuple[str, str]]


def make_table(runs: Sequence[SweptRun], metric_name: str, metric: Metric) -> Table:
    """Reads the runs' last evaluations.

    Raises:
      UserError: rows or config of a run that did not fail are damaged.
    """
    values: dict[str, dict[int, float]] = {run.point: {} for run in runs}
    evaluated_on: tuple[()] | tuple[str, str] = ()
    for run in runs:
        if not run.fault:
            row = last_evaluation(read_rows(run.workdir))
            values[run.point][run.seed] = row[metric_name]
            field = "data.select_split" if row["split"] == "select" else "data.eval_split"
            data = read_config(run.workdir)["config"]["data"]
            evaluated_on = (field, data[field.removeprefix("data.")])
    varied = {run.point: run.varied for run in runs}
    sign = -1 if metric.larger_is_better else 1
    summaries = {
        point: summarize([*of.values()], metric.bounds) for point, of in values.items() if of
    }

    def place(point: str) -> tuple[int, float]:
        known = summaries.get(point)
        return (-known.n, sign * known.mean) if known else (0, math.inf)

    order = sorted(values, key=place)
    best = order[0]
    rows = [
        Row(
            point=point,
            varied=varied[point],
            values=values[point],
            failed=sum(run.point == point and bool(run.fault) for run in runs),
            summary=summaries.get(point),
            difference=(
                None if point == best else paired(values[point], values[best], metric.bounds)
            ),
        )
        for point in order
    ]
    faults = [(run.workdir.name, run.fault) for run in runs if run.fault]
    return Table(metric_name, metric, evaluated_on, rows, faults)


def heads(table: Table) -> list[str]:
    """Returns the heads of its columns."""
    name = table.metric_name.replace("_", " ")
    told = ["point", "seeds", f"mean {name}", "deviation", "95 % interval", "smallest–largest"]
    if len(table.rows) > 1:
        told += ["difference from the best", "its 95 % interval", "p"]
    return told


def cells(table: Table, row: Row) -> list[str]:
    """Returns the texts of a point; a dash stands for what is not known."""
    form, known = table.metric.format, row.summary
    count = f"{len(row.values)}" + (f" ({row.failed} failed)" if row.failed else "")
    told = [row.point, count]
    if known is None:
        told += ["–"] * 4
    else:
        told += [
            format(known.mean, form),
            "–" if known.deviation is None else f"{known.deviation:.2g}",
            _interval(known.interval, form),
            f"{known.smallest:{form}}–{known.largest:{form}}",
        ]
    if len(table.rows) == 1:
        return told
    if row.difference is None:
        return [*told, "–", "–", "–"]
    difference = row.difference
    p_value = "–" if difference.p_value is None else f"{difference.p_value:.2g}"
    return [*told, f"{difference.mean:+.2g}", _interval(difference.interval, "+.2g"), p_value]


def _interval(interval: tuple[float, float] | None, form: str) -> str:
    return "–" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def _cut(metric: Metric, name: str) -> str:
    if metric.bounds is None:
        return ""
    low, high = metric.bounds
    return f", cut at {low:g} and {high:g}, beyond which no {name} lies"


def notes(table: Table) -> list[str]:
    """Returns what must be known of the numbers, a sentence or two each."""
    if not table.evaluated_on:
        return []
    name, (field, split) = table.metric_name.replace("_", " "), table.evaluated_on
    better = "larger" if table.metric.larger_is_better else "smaller"
    told = [
        f"The {name} is that of each run's last evaluation, on config.{field}={split!r}; "
        f"{better} is better. The best of several evaluations of a run is not taken.",
        "Deviation: over the seeds, divided by n - 1. Interval: of the mean, by Student's t"
        f"{_cut(table.metric, name)}. A dash stands where one seed has neither.",
    ]
    if len(table.rows) > 1:
        told.append(
            f"Difference from the best: the point's {name} minus that of the point in the first "
            "row, at the same seeds; the mean of it. p is of a paired t-test, two-sided, and not "
            "corrected for the number of points, of which one was taken for the best. A dash: one "
            "seed, or differences that are all the same."
        )
    if len(table.rows) > 1 and field == "data.eval_split":
        told.append(
            "A point that is chosen by this table is chosen on these images, and looks better on "
            "them than on others: config.data.select_split holds images out to choose by."
        )
    return told


def as_markdown(table: Table) -> str:
    """Returns the table as Markdown, in columns that are aligned for a console, too."""
    lines = [heads(table), *(cells(table, row) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        "| " + " | ".join(_set(index, text, width) for index, text, width in each) + " |"
        for each in (zip(range(len(widths)), line, widths, strict=True) for line in lines)
    ]
    rule = "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths))
    return "\n".join([texts[0], f"|{rule}|", *texts[1:]])


def _set(column: int, text: str, width: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def as_json(table: Table, told: Sequence[str]) -> dict[str, Any]:
    """Returns all of it, the numbers whole."""
    return {
        "metric": table.metric_name,
        "larger_is_better": table.metric.larger_is_better,
        "evaluated_on": list(table.evaluated_on),
        "points": [dataclasses.asdict(row) for row in table.rows],
        "faults": dict(table.faults),
        "notes": list(told),
    }
