"""Arrays -> figures. Nothing is saved here.

The figures are matplotlib's own objects, without pyplot and its global state. They have no
background, and take their colours from `theme`; what the colours mean stands in show/palette.py.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler  # matplotlib's own
from matplotlib import font_manager, patheffects, ticker
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure

from mnist_flax.report.history import Points
from mnist_flax.show.palette import SCHEMES
from mnist_flax.use.calibration import Calibration

WIDTH = 5.6  # inches, of all figures: so are their letters of one size on a page
_DPI = 200
_MOST_NUMBERS = 20  # classes; the numbers of a larger matrix could not be read
_LONGEST_NAME = 14  # letters
_MARKERS = "os^vDPX"  # of evaluations; all but the first are of extra splits


def theme(name: str) -> AbstractContextManager[None]:
    """Colours for a light or a dark page, for the figures that are made inside it."""
    colours = SCHEMES[name]
    cycle = (colours.first, colours.second, colours.third)  # C0, C1, C2
    # The defaults first: a user's matplotlibrc (text.usetex, say) is for figures of theirs.
    defaults: Any = {key: v for key, v in mpl.rcParamsDefault.items() if key != "backend"}
    return mpl.rc_context(
        {
            **defaults,
            **dict.fromkeys(
                ("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), colours.ink
            ),
            **dict.fromkeys(("axes.edgecolor", "grid.color"), colours.line),
            "figure.facecolor": colours.page,
            "axes.prop_cycle": cycler(color=cycle),
            "axes.grid": True,
            "axes.grid.which": "major",
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "legend.fontsize": 10,
            "lines.linewidth": 1.5,
            "lines.markersize": 4,
            "font.size": 11,
            "savefig.transparent": True,
            "figure.constrained_layout.use": True,
        }
    )


def curves(
    lines: Mapping[str, Points],
    ylabel: str,
    *,
    resumes: Sequence[int] = (),
    yscale: str = "linear",
) -> Figure:
    """Draws values over steps, a line each; vertical lines where the run was resumed.

    Args:
      lines: {'train': (steps, values), …}; others than 'train' get a mark for each evaluation, and
        all after the first of these, of extra splits, are dotted.
      ylabel: what the values are, with their unit.
      resumes: steps.
      yscale: 'linear', 'log', or 'accuracy', which is the logarithm of the share that is wrong.
    """
    figure = Figure(figsize=(WIDTH, 3.1))
    axes = figure.add_subplot()
    evaluations = [name for name in lines if name != "train"]
    for name, (steps, values) in lines.items():
        if name == "train":
            marker = "o" if len(steps) == 1 else None
            axes.plot(steps, values, label=name, marker=marker, color="C0")
            continue
        place = evaluations.index(name)
        marker, style = _MARKERS[place % len(_MARKERS)], ":" if place else "-"
        axes.plot(steps, values, label=name, marker=marker, linestyle=style, color="C1")
    for place, step in enumerate(sorted(set(resumes))):
        label = "resumed" if place == 0 else None
        axes.axvline(step, color="C2", linestyle=(0, (4, 3)), linewidth=1, label=label)
    axes.set(xlabel="step", ylabel=ylabel)
    set_scales(axes, yscale)
    if axes.get_legend_handles_labels()[1] != ["train"]:
        figure.legend(loc="outside upper right", ncols=3)
    return figure


def set_scales(axes: Axes, yscale: str) -> None:
    """Lays out the axes of values over steps; the scale is as of `curves`."""
    _SCALES[yscale](axes)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def shades(count: int) -> np.ndarray:
    """Returns colours from the theme's first through its third to its second: RGBA [count, 4]."""
    first, second, third = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    ramp = LinearSegmentedColormap.from_list("shades", (first, third, second))
    return ramp(np.linspace(0, 1, count))


def _linear(axes: Axes) -> None:
    if axes.dataLim.intervaly[0] >= 0:
        axes.set_ylim(0, None)
    axes.yaxis.set_major_locator(ticker.MaxNLocator(6))


def _log(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=8))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def _accuracy(axes: Axes) -> None:
    """Stretches the axis towards 1, where most of a run is spent; it still ends there."""
    least = 1e-3  # of the wrong share that has a place of its own
    low, high = axes.dataLim.intervaly

    def place(accuracy: np.ndarray) -> np.ndarray:
        return -np.log10(1 + least - np.minimum(accuracy, 1))

    def accuracy_at(place: np.ndarray) -> np.ndarray:
        return 1 + least - 10.0**-place

    axes.set_yscale("function", functions=(place, accuracy_at))
    ticks = [value for value in _ACCURACIES if low <= value <= high]
    if len(ticks) > 2:
        axes.yaxis.set_major_locator(ticker.FixedLocator(ticks))
    axes.yaxis.set_major_formatter("{x:g}")


_SCALES = {"linear": _linear, "log": _log, "accuracy": _accuracy}
_ACCURACIES = (0.1, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 1.0)


def confusion(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws a confusion matrix, int [K, K], labels in rows; the numbers up to 20 classes.

    Long names are cut; one that the font has no letters for is replaced by the class's number, from
    0. Above 40 classes the axes count them.
    """
    count = len(names)
    size = 10 if count <= 10 else 6
    letters = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    names = [
        _cut(name) if all(ord(letter) in letters for letter in name) else str(number)
        for number, name in enumerate(names)
    ]
    figure = Figure(figsize=(WIDTH, 5.4))
    axes = figure.add_subplot()
    axes.grid(False)
    axes.spines[:].set_visible(True)
    strength = (matrix / max(1, matrix.max())) ** 0.4  # so that single mistakes are seen
    cells = np.empty((*matrix.shape, 4))
    cells[:] = to_rgba("C0")
    cells[..., 3] = strength
    axes.imshow(cells)
    axes.set(xlabel="predicted class", ylabel="label")
    if count <= 2 * _MOST_NUMBERS:
        turned = 90 if max(map(len, names)) > 3 else 0
        axes.set_xticks(range(count), names, rotation=turned, size=size, parse_math=False)
        axes.set_yticks(range(count), names, size=size, parse_math=False)
    if count <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(matrix):
            if value:
                strong = strength[row, column] > 0.68
                colour = mpl.rcParams["figure.facecolor" if strong else "text.color"]
                text = f"{value:,}"
                axes.text(column, row, text, ha="center", va="center", color=colour, size=size)
    return figure


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def reliability(measured: Calibration) -> Figure:
    """Draws each bin's accuracy as a bar and its confidence as a stroke; below, its images."""
    figure = Figure(figsize=(WIDTH, 5.4))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = np.linspace(0, 1, len(measured.counts) + 1)
    width, left = edges[1], edges[:-1]
    accuracy, confidence = np.nan_to_num(measured.accuracy), np.nan_to_num(measured.confidence)
    bars = upper.bar(left, accuracy, width, align="edge", label="accuracy: the share that is right")
    gaps = upper.bar(left, confidence - accuracy, width, accuracy, align="edge", hatch="////")
    for gap in gaps:
        gap.set(fill=False, linewidth=0, edgecolor="C1")
    gaps.set_label("the gap between the two")
    some = measured.counts > 0
    strokes = upper.hlines(confidence[some], left[some], left[some] + width, "C1", linewidth=3.5)
    strokes.set(label="confidence: the share that it expects", capstyle="butt")
    ground = mpl.rcParams["figure.facecolor"]
    strokes.set_path_effects([patheffects.withStroke(linewidth=6, foreground=ground)])
    upper.set(ylabel="share of the bin's images", xlim=(0, 1), ylim=(0, 1.03))
    upper.set_title(
        "Bar below its stroke: over-confident. Above: under-confident.", size=10, loc="left"
    )
    figure.legend(handles=[bars, strokes, gaps], loc="outside upper left", ncols=1)
    counts = lower.bar(left, measured.counts, width, align="edge")
    lower.set(xlabel="confidence: probability of the predicted class", ylabel="images")
    lower.set_yscale("log")
    lower.set_ylim(0.7, None)
    for bar in (*bars, *counts):
        bar.set(alpha=0.6, linewidth=0.8, edgecolor="C0")
    return figure


def png(figure: Figure, *, opaque: bool = False) -> bytes:
    """Renders a figure; an opaque one is for no page, but for a file of its own."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, transparent=not opaque)
    return buffer.getvalue()
