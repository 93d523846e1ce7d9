"""A run's curves as SVG, drawn without a library: what a notebook shows while it trains.

Text has the colour of the page that it stands on, light or dark.
"""

import html
import math
from collections.abc import Mapping, Sequence

from mnist_flax.show.palette import ON_ANY_PAGE

Points = Sequence[tuple[int, float]]  # (step, value), in order

_WIDTH, _HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 350, 26, 166  # of what is drawn in
_MOST_POINTS = 300


def curves(title: str, lines: Mapping[str, Points], total_steps: int, *, log: bool) -> str:
    """Draws values over steps, a line each; the last of two lines has a dot at every value.

    Args:
      title: what the values are.
      lines: {'train': …, 'eval': …}, one or two of them, with a value at least.
      total_steps: where the axis of the steps ends.
      log: whether the axis of the values is logarithmic, if all of them are above 0.
    """
    values = [value for points in lines.values() for _, value in points]
    low, high = min(values), max(values)
    log = log and 0 < 5 * low < high
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)

    def place(step: int, value: float) -> tuple[float, float]:
        share = (
            math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        )
        x = _LEFT + (_RIGHT - _LEFT) * min(step / max(total_steps, 1), 1)
        return round(x, 1), round(_BOTTOM - (_BOTTOM - _TOP) * share, 1)

    parts = [_text(_LEFT, 14, title, weight="bold")]
    for tick in _ticks(low, high, log):
        y = place(0, tick)[1]
        parts.append(f'<path d="M{_LEFT} {y}H{_RIGHT}" stroke="currentColor" opacity=".2"/>')
        parts.append(_text(_LEFT - 5, y + 3.5, f"{tick:.6g}", anchor="end"))
    for step, anchor in ((0, "start"), (total_steps, "end")):
        x = _RIGHT if step else _LEFT
        parts.append(_text(x, _HEIGHT - 8, f"{step:,}", anchor=anchor))
    for number, (name, points) in enumerate(lines.items()):
        colour = ON_ANY_PAGE[number % 2]
        parts.append(_text(_RIGHT - 44 * (len(lines) - 1 - number), 14, name, "end", fill=colour))
        at = [place(step, value) for step, value in _fewer(points)]
        way = " ".join(f"{x},{y}" for x, y in at)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if number or len(at) == 1:
            parts += [f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>' for x, y in at]
    frame = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    style = 'font-family="sans-serif" font-size="11"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {frame} {style}>{"".join(parts)}</svg>'


def _text(
    x: float,
    y: float,
    text: str,
    anchor: str = "start",
    fill: str = "currentColor",
    weight: str = "",
) -> str:
    bold = f' font-weight="{weight}"' if weight else ""
    place = f'x="{x}" y="{y}" text-anchor="{anchor}" fill="{fill}"'
    return f"<text {place}{bold}>{html.escape(text)}</text>"


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """Returns round values from low to high, three to seven of them."""
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for leading in ((1,), (1, 3), (1, 2, 5)):
            ticks = [m * 10.0**power for power in powers for m in leading]
            ticks = [tick for tick in ticks if low <= tick <= high]
            if len(ticks) >= 3:
                return ticks[:: math.ceil(len(ticks) / 7)]
    power = 10.0 ** math.floor(math.log10(high - low))
    for step in (5 * power, 2 * power, power, power / 2, power / 5):
        ticks = [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
        if len(ticks) >= 3:
            break
    return ticks


def _fewer(points: Points) -> Points:
    """Leaves points out evenly where there are more than can be seen; the last one stays."""
    every = math.ceil(len(points) / _MOST_POINTS)
    return [point for place, point in enumerate(points) if (len(points) - 1 - place) % every == 0]
