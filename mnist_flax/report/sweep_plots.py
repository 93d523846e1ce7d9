"""Points of a sweep, and the curves of its runs -> matplotlib figures, as plots.py has them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mnist_flax.report.history import Points
from mnist_flax.report.plots import Figure, set_scales, shades
from mnist_flax.report.sweep_statistics import Summary

_MOST_NAMES = 12  # of a legend
_LONGEST_NAME = 48  # letters


class Panel(NamedTuple):
    """Curves that are drawn into one pair of axes.

    Attributes:
      ylabel: what the values are.
      yscale: as plots.curves takes it.
      lines: for each point (steps, values) of each of its runs.
    """

    ylabel: str
    yscale: str
    lines: Mapping[str, Sequence[Points]]


def points(
    summaries: Mapping[str, Summary], values: Mapping[str, Sequence[float]], xlabel: str
) -> Figure:
    """Draws a line for each point: a dot for each seed, a stroke for the mean, and its interval.

    Args:
      summaries: by point, from the top of the figure down.
      values: likewise, of the seeds.
      xlabel: what they are.
    """
    figure = Figure(figsize=(11.2, 1.1 + 0.34 * len(summaries)))
    axes = figure.add_subplot()
    for place, ((point, known), colour) in enumerate(
        zip(summaries.items(), shades(len(summaries)), strict=True)
    ):
        dots = values[point]
        axes.plot(known.mean, place, "|", color=colour, markersize=13, markeredgewidth=2)
        if known.interval is not None:
            axes.plot(known.interval, [place, place], color=colour, linewidth=6, alpha=0.25)
        axes.plot(dots, [place] * len(dots), "o", color=colour)
    axes.set_yticks(range(len(summaries)), list(map(_cut, summaries)), size=9, parse_math=False)
    axes.set_ylim(len(summaries) - 0.5, -0.5)
    axes.set(xlabel=xlabel)
    axes.ticklabel_format(axis="x", useOffset=False)
    return figure


def curves(panels: Sequence[Panel], names: Sequence[str]) -> Figure:
    """Draws the curves of all runs, a panel for each thing that is measured.

    Args:
      panels: one at least.
      names: of the points, in the order of their colours; a few have a legend.
    """
    figure = Figure(figsize=(5.6 * len(panels), 3.6 + 0.2 * min(len(names), _MOST_NAMES)))
    colours = dict(zip(names, shades(len(names)), strict=True))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for point, runs in panel.lines.items():
            for steps, values in runs:
                marker = "o" if len(steps) == 1 else None
                axes.plot(steps, values, color=colours[point], alpha=0.8, marker=marker)
        axes.set(xlabel="step", ylabel=panel.ylabel)
        set_scales(axes, panel.yscale)
    if 1 < len(names) <= _MOST_NAMES:
        lines = [Figure().add_subplot().plot([], color=colours[name])[0] for name in names]
        figure.legend(lines, list(map(_cut, names)), loc="outside lower center")
    return figure


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
