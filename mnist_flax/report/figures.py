"""Rows -> the curves of the page; and what draws a figure for a light and for a dark page."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mnist_flax.report import metrics, plots
from mnist_flax.report.history import History, Points, points
from mnist_flax.report.page import Picture
from mnist_flax.use.restore import Restored


@dataclass(frozen=True)
class Curves:
    """The curves of a run; none without rows of training.

    Attributes:
      pictures: a figure for each metric and rate, and one of the speed.
      stretched: what has an axis that is stretched towards 1.
      rates: what is that of a point's last update.
    """

    pictures: list[Picture]
    stretched: list[str]
    rates: list[str]


def curves(history: History, restored: Restored, columns: Mapping[str, Sequence[str]]) -> Curves:
    """Draws the rows of a run.

    Args:
      history: of the run.
      restored: its task says which metrics and rates there are.
      columns: of metrics.columns.
    """
    if not history.train:
        return Curves([], [], [])
    task, task_name = restored.task, restored.config.task.name
    made, stretched = [], []

    def draw(place: str, lines: dict[str, Points], ylabel: str, yscale: str) -> None:
        ends = "; ".join(_ends(split, *line) for split, line in lines.items() if line[0])
        alt = f"{ylabel[:1].upper()}{ylabel[1:]} over the steps of the run" + f": {ends}" * bool(
            ends
        )
        figure = functools.partial(
            plots.curves, lines, ylabel, resumes=history.resumes, yscale=yscale
        )
        made.append(drawn(place, figure, alt))

    rows = {"train": history.train, history.evaluated_on: history.eval, **history.extra}
    columns = {**dict.fromkeys(history.extra, columns[history.evaluated_on]), **columns}
    for name, metric in task.metrics.items():
        lines = {
            split: points(of_split, name)
            for split, of_split in rows.items()
            if name in columns[split] and any(name in row for row in of_split)
        }
        if lines:
            measured = [value for _, values in lines.values() for value in values]
            yscale = metrics.scale(name, metric, measured)
            stretched += [metrics.label(name)] * (yscale == "accuracy")
            draw(metrics.place(name), lines, metrics.label(name, task_name), yscale)
    rates = [name for name in task.rates if any(name in row for row in history.train)]
    for name in rates:
        line = {"train": points([row for row in history.train if name in row], name)}
        draw(metrics.place(name), line, metrics.label(name), "linear")
    # 0 says that all steps up to a row were an earlier process's.
    timed = [row for row in history.train if row["steps_per_second"]]
    line = {"train": points(timed, "steps_per_second")}
    draw("speed", line, "steps per second", "linear")
    return Curves(made, stretched, [metrics.label(name) for name in rates])


def _ends(split: str, steps: Sequence[int], values: Sequence[float]) -> str:
    """Says where a curve begins and ends, for those who do not see it."""
    first = f"from {values[0]:.4g} at step {steps[0]:,} to " if len(steps) > 1 else ""
    return f"{split} {first}{values[-1]:.4g} at step {steps[-1]:,}"


def drawn(name: str, draw: Callable[[], plots.Figure], alt: str) -> Picture:
    """Draws a figure for a light and for a dark page."""
    pngs = {}
    for theme in ("light", "dark"):
        with plots.theme(theme):
            pngs[theme] = plots.png(draw())
    return Picture(name, pngs["light"], alt, pngs["dark"])
