"""Digits drawn by code as a stranger might draw them. Not a test itself.

A shape is a few strokes through points in a box of 1×1, y down. None of it comes from MNIST or from
a font.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

# {class: {shape: strokes}}: '~' is a smooth curve through points in hundredths, '-' straight lines.
SHAPES = {
    0: {
        "oval": ["~ 52,8 22,28 18,62 42,93 74,78 82,40 66,13 50,8"],
        "open": ["~ 60,12 30,14 14,50 32,86 66,88 86,52 72,20 46,16"],
    },
    1: {
        "bar": ["- 52,6 48,94"],
        "slanted": ["~ 66,6 50,50 36,94"],
        "hook": ["- 34,26 54,8 54,94"],
        "foot": ["- 30,30 54,8 54,92", "- 28,92 80,92"],
    },
    2: {
        "swan": ["~ 20,28 46,8 74,26 62,54 20,90", "- 20,90 82,88"],
        "angular": ["- 24,14 72,12 22,90 80,90"],
        "loop": ["~ 24,24 50,8 72,24 58,56 30,84 18,82 30,72 50,84 82,84"],
    },
    3: {
        "round": ["~ 24,16 50,7 72,22 62,42 42,48", "~ 42,48 68,54 78,74 54,93 20,84"],
        "flat top": ["- 22,10 74,10 44,42", "~ 44,42 72,52 76,76 50,93 20,82"],
    },
    4: {
        "open": ["~ 30,8 22,36 20,56", "- 20,56 80,52", "- 70,10 64,94"],
        "closed": ["- 62,94 62,6 16,64 86,64"],
    },
    5: {
        "bellied": ["- 74,8 34,10 30,44", "~ 30,44 56,38 76,60 60,88 22,88"],
        "hat last": ["~ 34,12 28,44 58,42 74,66 50,92 20,84", "- 34,12 80,6"],
    },
    6: {
        "curl": ["~ 66,7 36,32 24,66 42,92 70,80 66,56 42,56 28,72"],
        "upright": ["~ 40,6 28,40 28,76 50,93 74,76 62,54 40,58 29,74"],
    },
    7: {
        "plain": ["- 18,12 78,12 42,94"],
        "lip": ["- 20,30 22,10 78,10 48,94"],
        "crossed": ["~ 18,18 46,13 78,14", "~ 78,14 58,50 46,94", "- 34,52 76,50"],
    },
    8: {
        "one stroke": ["~ 72,18 46,7 30,26 50,46 70,68 50,93 26,74 46,50 68,30 70,16"],
        "two rings": ["~ 50,7 30,26 50,46 70,26 50,7", "~ 50,46 24,70 50,94 76,70 50,46"],
    },
    9: {
        "straight leg": ["~ 70,16 44,8 26,30 44,50 68,36 71,16", "- 71,16 66,94"],
        "curved leg": ["~ 70,20 46,7 28,28 44,48 70,30", "~ 70,24 74,60 56,90 28,88"],
    },
}


def stroke_points(stroke: str) -> np.ndarray:
    """The points that a stroke passes through: [N, 2], x and y."""
    return np.array([point.split(",") for point in stroke[1:].split()], float) / 100


def spline(points: np.ndarray) -> np.ndarray:
    """Points along the Catmull-Rom spline through points: [N, 2] -> [12 · (N - 1), 2]."""
    ends = 2 * points[[0, -1]] - points[[1, -2]]
    control = np.concatenate([ends[:1], points, ends[1:]])
    t = np.linspace(0, 1, 12)[:, None]
    pieces = []
    for p0, p1, p2, p3 in zip(control, control[1:], control[2:], control[3:], strict=False):
        cubic = -p0 + 3 * p1 - 3 * p2 + p3
        square = 2 * p0 - 5 * p1 + 4 * p2 - p3
        pieces.append((2 * p1 + (p2 - p0) * t + square * t**2 + cubic * t**3) / 2)
    return np.concatenate(pieces)


def ink(
    strokes: list[str],
    *,
    size: tuple[int, int] = (280, 280),
    height: float = 200,
    middle: tuple[float, float] = (140, 140),
    pen: float = 16,
    degrees: float = 0,
    lean: float = 0,
    stretch: float = 1,
    tremble: float = 0,
) -> np.ndarray:
    """How much ink each pixel holds: float [h, w], 0 to 1; drawn fourfold and averaged.

    Args:
      strokes: a shape's.
      size: of the sheet, width and height.
      height: of the shape's box in pixels.
      middle: where the box's middle lies, x and y.
      pen: its width in pixels.
      degrees: clockwise.
      lean: how far the top is pushed to the right, as a share of the height.
      stretch: width over height.
      tremble: standard deviation of each point's place, as a share of the height.
    """
    fine = 4
    sheet = Image.new("L", (size[0] * fine, size[1] * fine), 0)
    draw, radius = ImageDraw.Draw(sheet), pen * fine / 2
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = matrix @ [[stretch, -lean], [0, 1]]
    random = np.random.default_rng(0)
    for stroke in strokes:
        points = random.normal(stroke_points(stroke), tremble)
        places = spline(points) if stroke.startswith("~") else points
        places = ((places - 0.5) * height @ matrix.T + middle) * fine
        draw.line([tuple(place) for place in places], fill=255, width=round(2 * radius))
        for x, y in places:  # round caps and joints
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
    return np.asarray(sheet.reduce(fine), np.float64) / 255


def on_white(amount: np.ndarray) -> np.ndarray:
    return 255 - 255 * amount


def on_black(amount: np.ndarray) -> np.ndarray:
    return 255 * amount


def on_paper(amount: np.ndarray) -> np.ndarray:
    """Photographed: light falling off towards a corner, grey ink, grain."""
    y, x = np.mgrid[-1 : 1 : amount.shape[0] * 1j, -1 : 1 : amount.shape[1] * 1j]
    light = (205 - 150 * amount) * (1 + 0.22 * (x + y) / 2 - 0.08 * (x**2 + y**2))
    return light + np.random.default_rng(0).normal(0, 5, amount.shape)


def in_pencil(amount: np.ndarray) -> np.ndarray:
    """Faint grey on a ground of nearly the same grey, with the paper's grain in it."""
    random = np.random.default_rng(1)
    grain = random.uniform(0.6, 1, amount.shape)
    return 225 - 45 * amount * grain + random.normal(0, 2.5, amount.shape)


def on_ruled_paper(amount: np.ndarray) -> np.ndarray:
    """Pale lines every 40 pixels, under the ink."""
    paper = np.full(amount.shape, 245.0)
    paper[20::40] = paper[21::40] = 205
    return paper * (1 - amount) + 40 * amount


Look = tuple[dict[str, object], Callable[[np.ndarray], np.ndarray], str]
LOOKS: dict[str, Look] = {
    "thick": ({"pen": 34}, on_white, "png"),
    "thin": ({"pen": 5}, on_white, "png"),
    "small, in a corner": ({"height": 70, "pen": 7, "middle": (210, 60)}, on_white, "png"),
    "turned left by 10 degrees": ({"degrees": -10}, on_white, "png"),
    "turned right by 10 degrees": ({"degrees": 10, "pen": 22}, on_white, "png"),
    "light on dark": ({"pen": 20, "middle": (120, 150)}, on_black, "png"),
    "leaning": ({"lean": 0.35, "pen": 14}, on_white, "png"),
    "wide": ({"stretch": 1.3, "height": 160}, on_white, "jpg"),
    "trembling": ({"tremble": 0.03, "pen": 12}, on_white, "png"),
    "in pencil": ({"pen": 8}, in_pencil, "jpg"),
    "on ruled paper": ({"pen": 14}, on_ruled_paper, "png"),
    "photographed": (
        {"size": (640, 480), "height": 300, "pen": 22, "middle": (350, 230)},
        on_paper,
        "jpg",
    ),
}


class Drawing(NamedTuple):
    """A picture, its digit, and a name that is fit for a file: '7 crossed, thin.png'."""

    name: str
    digit: int
    picture: Image.Image


def drawings() -> Iterator[Drawing]:
    """Every shape in every look."""
    for digit, shapes in SHAPES.items():
        for shape, strokes in shapes.items():
            for look, (how, ground, suffix) in LOOKS.items():
                pixels = ground(ink(strokes, **how)).clip(0, 255).round().astype(np.uint8)
                name = f"{digit} {shape}, {look}.{suffix}"
                yield Drawing(name, digit, Image.fromarray(pixels))
