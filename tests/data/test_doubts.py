"""Several digits in one picture, and paper on a table, are doubted; one digit on paper is not."""

import os
from pathlib import Path

import numpy as np
import pytest
from drawings import drawings
from PIL import Image

from mnist_flax.data.doubts import doubt
from mnist_flax.data.idx import read_directory
from mnist_flax.data.ink import find_ink
from mnist_flax.data.sample import read_sample


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """1,000 real digits: uint8 [1000, 28, 28]."""
    return read_sample().splits["test"].images[..., 0]


def told(picture: np.ndarray) -> str:
    return doubt(find_ink(picture))


def on_paper(digit: np.ndarray, times: int = 1) -> np.ndarray:
    """In dark ink on clean white paper, in its own size or larger."""
    side = 28 * times
    large = Image.fromarray(255 - digit).resize((side, side), Image.Resampling.BICUBIC)
    return np.pad(np.asarray(large), ((side // 2, side), (side, side // 3)), constant_values=255)


def beside(digits: np.ndarray, random: np.random.Generator, axis: int = 1) -> np.ndarray:
    """Two digits, a little apart: cut to their ink, 2 to 10 pixels between them."""
    cut = []
    for digit in digits[random.integers(0, len(digits), 2)]:
        ink = np.flatnonzero(digit.any(1 - axis))
        cut.append(digit.take(range(ink[0], ink[-1] + 1), axis))
    shape = [28, 28]
    shape[axis] = int(random.integers(2, 11))
    both = np.concatenate([cut[0], np.zeros(shape, np.uint8), cut[1]], axis)
    return 255 - np.pad(both, 14)


def on_a_table(digit: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A sheet with a digit on a darker table, photographed a little turned: uint8 [360, 480]."""
    width, height = int(480 * random.uniform(0.45, 0.85)), int(360 * random.uniform(0.5, 0.85))
    side = int(min(width, height) * random.uniform(0.35, 0.8))
    ink = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    paper = np.full((height, width), random.uniform(190, 245))
    y, x = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
    paper[y : y + side, x : x + side] *= 1 - 0.8 * np.asarray(ink) / 255
    sheet = Image.fromarray(paper.astype(np.uint8)).convert("RGBA")
    sheet = sheet.rotate(random.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True)
    table = Image.new("L", (480, 360), int(random.uniform(40, 130))).convert("RGBA")
    corner = (480 - sheet.width) // 2, (360 - sheet.height) // 2
    if random.random() < 0.5:  # the sheet is cut by a side of the picture
        corner = -int(random.integers(1, sheet.width // 5)), corner[1]
    table.paste(sheet, corner, sheet)
    grain = random.normal(0, 5, (360, 480))
    return np.clip(np.asarray(table.convert("L")) + grain, 0, 255).astype(np.uint8)


def test_digits_side_by_side_are_doubted(digits: np.ndarray) -> None:
    random = np.random.default_rng(0)
    for axis in (0, 1):  # or one above the other
        doubted = ["several" in told(beside(digits, random, axis)) for _ in range(100)]
        assert sum(doubted) >= 95


def test_paper_on_a_darker_table_is_doubted(digits: np.ndarray) -> None:
    random = np.random.default_rng(0)
    doubted = ["a whole area" in told(on_a_table(digit, random)) for digit in digits[:100]]
    assert sum(doubted) >= 95


@pytest.mark.parametrize("times", [1, 5])
def test_one_digit_on_clean_paper_is_not_doubted(digits: np.ndarray, times: int) -> None:
    doubted = [bool(told(on_paper(digit, times))) for digit in digits[: 1000 // times]]
    assert sum(doubted) <= 1


def test_no_look_of_a_drawing_is_doubted() -> None:
    """Chalk on a board and a photograph are light areas no more than ink is."""
    drawn = list(drawings())
    doubted = [one.name for one in drawn if told(np.asarray(one.picture))]
    assert len(doubted) <= len(drawn) / 50, doubted


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("MNIST_DIR"), reason="needs MNIST_DIR: the four IDX files")
def test_of_ten_thousand_digits_on_clean_paper_at_most_ten_are_doubted() -> None:
    raw = read_directory(Path(os.environ["MNIST_DIR"]), "mnist")
    assert raw is not None
    images = raw.splits["test"].images[..., 0]
    assert len(images) == 10_000
    assert sum(bool(told(on_paper(digit))) for digit in images) <= 10
    random = np.random.default_rng(0)
    assert sum(bool(told(beside(images, random))) for _ in range(100)) >= 95
