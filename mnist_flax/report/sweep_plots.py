"""Points of a sweep, and the curves of its runs -> matplotlib figures, as plots.py has them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mnist_flax.report.history import Points
from mnist_flax.report.plots import WIDTH, Figure, set_scales, shades, ticker
from mnist_flax.report.sweep_statistics import Summary

_MOST_NAMES = 12  # of a legend
_LONGEST_NAME = 48  # letters
_DASHES = ("-", "--", ":", "-.")


class Panel(NamedTuple):
    """Curves that are drawn into one figure.

    Attributes:
      name: of the picture.
      ylabel: what the values are.
      yscale: as plots.curves takes it.
      lines: for each point (steps, values) of each of its runs.
    """

    name: str
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
    figure = Figure(figsize=(WIDTH, 1.3 + 0.5 * len(summaries)))
    axes = figure.add_subplot()
    for place, ((point, known), colour) in enumerate(
        zip(summaries.items(), shades(len(summaries)), strict=True)
    ):
        dots = values[point]
        axes.plot(known.mean, place, "|", color=colour, markersize=13, markeredgewidth=2)
        if known.interval is not None:
            axes.plot(known.interval, [place, place], color=colour, linewidth=6, alpha=0.25)
        axes.plot(dots, [place] * len(dots), "o", color=colour)
        # Over its line: next to it a long name would leave no room on a telephone.
        of_axes = axes.get_yaxis_transform()
        axes.text(0.01, place - 0.22, _cut(point), size=9, transform=of_axes, parse_math=False)
    axes.set_yticks([])
    axes.set_ylim(len(summaries) - 0.5, -0.8)
    axes.set_xlabel(xlabel, size=10)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
    axes.ticklabel_format(axis="x", useOffset=False)
    return figure


def curves(panel: Panel, names: Sequence[str]) -> Figure:
    """Draws the curves of all runs.

    Args:
      panel: what is measured.
      names: of the points, in the order of their colours and dashes; a few have a legend.
    """
    told = names if 1 < len(names) <= _MOST_NAMES else ()
    figure = Figure(figsize=(WIDTH, 3.1 + 0.22 * len(told)))
    axes = figure.add_subplot()
    looks = {
        name: {"color": colour, "linestyle": _DASHES[place % len(_DASHES)]}
        for place, (name, colour) in enumerate(zip(names, shades(len(names)), strict=True))
    }
    for point, runs in panel.lines.items():
        for steps, values in runs:
            marker = "o" if len(steps) == 1 else None
            axes.plot(steps, values, **looks[point], alpha=0.8, marker=marker)
    axes.set(xlabel="step", ylabel=panel.ylabel)
    set_scales(axes, panel.yscale)
    if told:
        lines = [Figure().add_subplot().plot([], **looks[name])[0] for name in told]
        figure.legend(lines, list(map(_cut, told)), loc="outside lower left", handlelength=3.2)
    return figure


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
