"""What a terminal draws of a picture and of what a network takes it for.

Arrays -> str; nothing is printed and no terminal is asked, except by supports_drawing().
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from typing import TextIO

import numpy as np

_COLUMNS = 80
_MAX_PICTURE = 40  # columns; a wider picture is drawn smaller
_MAX_CLASSES = 14  # as many as MNIST's 28 rows of pixels take lines
_MAX_NAME = 16
_MAX_BAR = 30
_SHADES = " ░▒▓█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BOLD, _RESET = "\x1b[1m", "\x1b[0m"


def supports_drawing(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows the characters of draw_prediction()."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    try:
        f"{_SHADES}{_EIGHTHS}▀→…".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def draw_prediction(
    image: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    title: str,
    colour: bool = True,
) -> str:
    """Draws a picture with the probabilities of its classes next to it, at most 80 columns wide.

    Two rows of pixels make one line. An arrow marks the most probable class. Of more than 14
    classes the 14 most probable are drawn, in falling order.

    Args:
        image: uint8 [H, W, 1] grey or [H, W, 3] colour.
        probabilities: float [K], finite, 0 to 1.
        class_names: K names.
        title: The first line.
        colour: True draws half-blocks in ANSI colours: 256-colour codes for grey pixels, which
            every colour terminal has, 24-bit codes for others. False draws shades, without any
            escape code; for NO_COLOR.
    """
    image = _reduced(image)
    picture = _draw_colours(image) if colour else _draw_shades(image)
    classes = _draw_classes(probabilities, class_names, image.shape[1], colour)
    # The shorter of the two is centred on the other.
    height = max(len(picture), len(classes))
    picture = _centred(picture, height, " " * image.shape[1])
    classes = _centred(classes, height, "")
    lines = [f"{left}  {right}".rstrip() for left, right in zip(picture, classes, strict=True)]
    return "\n".join([_fitted(title, _COLUMNS).rstrip(), *lines])


def _reduced(image: np.ndarray) -> np.ndarray:
    """Means of whole squares, so that no picture is wider than _MAX_PICTURE; an even height."""
    n = -(-image.shape[1] // _MAX_PICTURE)
    height, width, channels = image.shape[0] // n, image.shape[1] // n, image.shape[2]
    squares = image[: height * n, : width * n].reshape(height, n, width, n, channels)
    image = squares.mean((1, 3)).round().astype(np.uint8)
    return np.pad(image, [(0, height % 2), (0, 0), (0, 0)])


def _draw_colours(image: np.ndarray) -> list[str]:
    """Half-blocks: the upper pixel in the foreground colour, the lower in the background's."""
    lines = []
    for upper, lower in zip(image[::2].tolist(), image[1::2].tolist(), strict=True):
        cells = groupby(zip(upper, lower, strict=True))
        runs = [
            f"\x1b[38;{_colour_code(top)};48;{_colour_code(bottom)}m" + "▀" * len(list(run))
            for (top, bottom), run in cells
        ]
        lines.append("".join(runs) + _RESET)
    return lines


def _colour_code(pixel: list[int]) -> str:
    """Grey as one of the 256-colour palette's black (16), 24 greys (232-255) and white (231)."""
    if len(set(pixel)) > 1:
        return "2;" + ";".join(map(str, pixel))
    step = (pixel[0] - 3) // 10  # the 24 greys are 8, 18, ..., 238
    return "5;16" if step < 0 else f"5;{232 + step}" if step < 24 else "5;231"


def _draw_shades(image: np.ndarray) -> list[str]:
    """The mean of an upper and a lower pixel as one of five shades."""
    grey = image.astype(np.float32).mean(-1)
    level = (grey[::2] + grey[1::2]) / 2 / 255
    shades = (level * (len(_SHADES) - 1)).round().astype(int)
    return ["".join(_SHADES[shade] for shade in row) for row in shades]


def _draw_classes(
    probabilities: np.ndarray, class_names: Sequence[str], picture_width: int, colour: bool
) -> list[str]:
    order = np.argsort(-probabilities, kind="stable")
    shown = order[:_MAX_CLASSES] if len(order) > _MAX_CLASSES else np.arange(len(order))
    names = [_printable(class_names[k]) for k in shown]
    name_width = min(_MAX_NAME, max(map(_width, names)))
    # Beside the bar: two gaps of 2 and 1, the arrow's 2, a gap of 1 and a percentage of 6.
    bar_width = min(_MAX_BAR, _COLUMNS - picture_width - name_width - 12)
    lines = []
    for k, name in zip(shown, names, strict=True):
        bar = _bar(float(probabilities[k]), bar_width)
        percent = f"{100 * float(probabilities[k]):5.1f}%"
        line = f"{'→' if k == order[0] else ' '} {_fitted(name, name_width)} {bar} {percent}"
        lines.append(f"{_BOLD}{line}{_RESET}" if colour and k == order[0] else line)
    return lines


def _bar(probability: float, width: int) -> str:
    full, eighths = divmod(round(probability * width * 8), 8)
    return ("█" * full + _EIGHTHS[eighths]).ljust(width)[:width]


def _centred(lines: list[str], height: int, blank: str) -> list[str]:
    above = (height - len(lines)) // 2
    return [blank] * above + lines + [blank] * (height - len(lines) - above)


def _printable(text: str) -> str:
    # A class is named by a folder, a title by a file: neither may steer the terminal.
    return "".join(c if c.isprintable() else "?" for c in text)


def _width(text: str) -> int:
    """Columns that a terminal gives to a text: 2 to a Chinese character, 0 to an accent."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _fitted(text: str, width: int) -> str:
    """The text in exactly `width` columns, cut with … where it is longer."""
    text = _printable(text)
    if _width(text) > width:
        while _width(text) > width - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (width - _width(text))
