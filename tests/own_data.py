"""Made data that are not laid out as MNIST's digits are, each in folders. Not a test itself.

Each kind gives (image uint8 [H, W] or [H, W, 3], class) by a generator and a number; what tells the
class is what a digit's layout would take away: the ground, the place, the brightness, the size.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Made = tuple[np.ndarray, int]


def dark_on_white(random: np.random.Generator, number: int) -> Made:
    """A bar along, a bar across, a cross or a frame in dark ink, anywhere on white paper."""
    label = number % 4
    ink = np.zeros((28, 28))
    y, x, side = *random.integers(2, 12, 2), random.integers(11, 15)
    middle = side // 2
    if label in (0, 2):
        ink[y + middle - 1 : y + middle + 2, x : x + side] = 1
    if label in (1, 2):
        ink[y : y + side, x + middle - 1 : x + middle + 2] = 1
    if label == 3:
        ink[y : y + side, x : x + side] = 1
        ink[y + 3 : y + side - 3, x + 3 : x + side - 3] = 0
    paper = random.integers(235, 256, (28, 28))
    return np.where(ink > 0, random.integers(0, 40, (28, 28)), paper).astype(np.uint8), label


def place(random: np.random.Generator, number: int) -> Made:
    """The same light blot in one of the four corners of black."""
    label = number % 4
    image = random.integers(0, 12, (28, 28), np.uint8)
    y, x = 14 * (label // 2) + random.integers(1, 6), 14 * (label % 2) + random.integers(1, 6)
    image[y : y + 7, x : x + 7] = random.integers(200, 256, (7, 7))
    return image, label


def clothes(random: np.random.Generator, number: int) -> Made:
    """As Fashion-MNIST has them, as high as the picture, on black: light or dark, legs or none."""
    label = number % 4
    image = np.zeros((28, 28), np.uint8)
    low = 200 if label % 2 else 70
    left, right = 7 - random.integers(0, 3), 21 + random.integers(0, 3)
    image[1:27, left:right] = random.integers(low, low + 30, (26, right - left))
    if label >= 2:  # legs
        image[10:27, 12:16] = 0
    image[3:5, left + 1] = 255  # a button: the brightest pixel is the same in all
    return image, label


def hues(random: np.random.Generator, number: int) -> Made:
    """All red, all green or all blue, 12 pixels high and 10 wide."""
    label = number % 3
    image = random.integers(0, 40, (12, 10, 3), np.uint8)
    image[..., label] = random.integers(180, 220)
    return image, label


KINDS: dict[str, Callable[[np.random.Generator, int], Made]] = {
    "dark on white": dark_on_white,
    "place": place,
    "clothes": clothes,
    "hues": hues,
}


def write_folders(folder: Path, kind: str, train: int, test: int) -> list[tuple[Path, str]]:
    """Writes train/<class>/ and test/<class>/; returns the test's files and their classes."""
    random, written = np.random.default_rng(0), []
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            image, label = KINDS[kind](random, number)
            path = folder / split / f"kind-{label}" / f"{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            written.append((path, path.parent.name))
    return written[train:]
