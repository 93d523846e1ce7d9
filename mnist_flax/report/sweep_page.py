"""A sweep as files in its folder: the table, its numbers, a figure, and a page of all runs."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mnist_flax.config import flatten
from mnist_flax.core.sums import Metric
from mnist_flax.report import metrics, plots, sweep_plots
from mnist_flax.report.figures import drawn
from mnist_flax.report.history import History, points, read_history
from mnist_flax.report.page import Picture, render
from mnist_flax.report.sweep_plots import Panel
from mnist_flax.report.sweep_table import (
    SweptRun,
    Table,
    as_json,
    as_markdown,
    cells,
    heads,
    make_table,
    notes,
)
from mnist_flax.workdir.files import read_config, write_atomic

_STEM = "sweep"  # of the four files
_OF_ALL_NUMBERS = ("fallback", "damaged_checkpoint")  # events that cast doubt on any of them
_SHOWN = ("data", "device", "cores", "processor", "python", "jax", "mnist_flax")
_Histories = Sequence[tuple[SweptRun, History]]


class _Warning(NamedTuple):
    """What must be known of runs: an event of their rows, and whose it is."""

    event: str
    message: str
    who: str


def write_sweep(
    folder: Path, runs: Sequence[SweptRun], metric_name: str, metric: Metric
) -> tuple[str, Path]:
    """Writes sweep.md, sweep.json, sweep.png and sweep.html.

    Args:
      folder: of the sweep.
      runs: all of it; those that did not fail are finished.
      metric_name: what is compared.
      metric: how it is shown, and whether more of it is better.

    Returns:
      What sweep.md holds, and the path of the page.

    Raises:
      UserError: a run's files are damaged, or the folder cannot be written.
    """
    table = make_table(runs, metric_name, metric)
    finished = [run for run in runs if not run.fault]
    written = {run.workdir.name: read_config(run.workdir) for run in finished}
    histories = [(run, read_history(run.workdir)) for run in finished]
    warnings = _warnings(histories)
    told = [f"{row.who}: {row.message}" for row in warnings if row.event in _OF_ALL_NUMBERS]
    told += [*_conditions(written), *notes(table)]
    failed = [f"Failed: {name}: {fault}" for name, fault in table.faults]
    text = "\n".join([as_markdown(table), "", *(f"- {line}" for line in (*failed, *told)), ""])
    write_atomic(folder / f"{_STEM}.md", text)
    write_atomic(folder / f"{_STEM}.json", json.dumps(as_json(table, told), indent=2) + "\n")
    if finished:
        with plots.theme("light"):
            write_atomic(folder / f"{_STEM}.png", plots.png(_figure(table), opaque=True))
    page = render(
        "sweep.html",
        title=folder.resolve().name,
        runs=len(runs),
        heads=heads(table),
        rows=[cells(table, row) for row in table.rows],
        notes=told,
        faults=table.faults,
        warnings=[(row.who, row.message) for row in warnings if row.event not in _OF_ALL_NUMBERS],
        pictures=_pictures(table, histories) if finished else [],
        configs=_differing(finished, written),
    )
    write_atomic(folder / f"{_STEM}.html", page)
    return text, folder / f"{_STEM}.html"


def _warnings(histories: _Histories) -> list[_Warning]:
    """Returns what must be known of runs, each message once."""
    found: dict[tuple[str, str], list[str]] = {}
    for run, history in histories:
        for row in history.warnings:
            found.setdefault((row["event"], row["message"]), []).append(run.workdir.name)
    return [_Warning(*key, _of(names, len(histories))) for key, names in found.items()]


def _conditions(written: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns what else than their configs the numbers depend on, and where runs differ in it."""
    found: dict[str, dict[str, list[str]]] = {field: {} for field in _SHOWN}
    for name, config in written.items():
        data = config.get("dataset", {})
        conditions = {"data": data.get("name"), "fingerprint": data.get("fingerprint")}
        for field, value in (conditions | config.get("environment", {})).items():
            found.setdefault(field, {}).setdefault(str(value), []).append(name)
    common = [f"{field} {next(iter(found[field]))}" for field in _SHOWN if len(found[field]) == 1]
    told = [f"Trained with {', '.join(common)}."] if common else []
    return told + [
        f"Not all runs have the same {field}: "
        + "; ".join(f"{value[:60]} ({_of(names, len(written))})" for value, names in values.items())
        for field, values in found.items()
        if len(values) > 1
    ]


def _of(names: Sequence[str], runs: int) -> str:
    if len(names) == runs:
        return "All runs"
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _figure(table: Table) -> plots.Figure:
    known = {row.point: row.summary for row in table.rows if row.summary is not None}
    values = {row.point: [*row.values.values()] for row in table.rows}
    label = metrics.label(table.metric_name)
    told = f"{label}: a dot for each seed, a stroke for their mean,\na band for its 95 % interval"
    return sweep_plots.points(known, values, told)


def _pictures(table: Table, histories: _Histories) -> list[Picture]:
    """Draws the table, and the curves of all runs."""
    label, best = metrics.label(table.metric_name), table.rows[0]
    names = [row.point for row in table.rows if row.values]
    alt = f"{label} of {len(names)} points, a line each; the best mean is that of {best.point}"
    made = [drawn("points", functools.partial(_figure, table), alt)]
    for name, rows in ((table.metric_name, "eval"), ("loss", "train")):
        panel = _panel(table, name, rows, histories)
        if panel is not None:
            figure = functools.partial(sweep_plots.curves, panel, names)
            made.append(drawn(panel.name, figure, f"{panel.ylabel}: of all runs, over their steps"))
    return made


def _panel(table: Table, name: str, of_rows: str, histories: _Histories) -> Panel | None:
    """Returns the curves of what rows have by this name; None where no run has two of them."""
    lines: dict[str, list[Any]] = {row.point: [] for row in table.rows if row.values}
    for run, history in histories:
        lines[run.point].append(points(getattr(history, of_rows), name))
    every = [line for of_point in lines.values() for line in of_point]
    if max(len(steps) for steps, _ in every) < 2:
        return None
    metric = table.metric if name == table.metric_name else Metric()
    scale = metrics.scale(name, metric, [value for _, values in every for value in values])
    where = "evaluations" if of_rows == "eval" else "training"
    return Panel(f"curves-{of_rows}", f"{metrics.label(name)}, {where}", scale, lines)


def _differing(
    finished: Sequence[SweptRun], written: Mapping[str, Mapping[str, Any]]
) -> list[list[str]]:
    """Returns a row for each point, of the fields in which the points' configs differ."""
    of_point = {run.point: flatten(written[run.workdir.name]["config"]) for run in finished}
    names = sorted({name for config in of_point.values() for name in config} - {"seed"})
    differ = [
        name
        for name in names
        if len({json.dumps(config.get(name)) for config in of_point.values()}) > 1
    ]
    if not differ:
        return []
    rows = [
        [point, *(str(config[name]) if name in config else "–" for name in differ)]
        for point, config in of_point.items()
    ]
    return [["point", *differ], *rows]
