"""Curves as SVG: where the points lie, and what stands at the axes."""

import re
import xml.etree.ElementTree as ET

import pytest

from mnist_flax.show.curves import curves

SVG = "{http://www.w3.org/2000/svg}"


def drawn(svg: str) -> tuple[list[str], list[list[tuple[float, float]]], int]:
    """Its texts, the points of its lines, and how many dots it has."""
    root = ET.fromstring(svg)
    lines = [
        [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
        for line in root.iter(f"{SVG}polyline")
    ]
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    return texts, lines, len(list(root.iter(f"{SVG}circle")))  # type: ignore[return-value]


def test_a_line_for_each_split_and_dots_for_evaluations() -> None:
    lines = {"train": [(0, 0.5), (50, 0.75), (100, 1.0)], "eval": [(100, 0.9)]}
    texts, (train, evaluated), dots = drawn(curves("accuracy", lines, 200, log=False))
    assert train == [(48, 166), (123.5, 96), (199, 26)]  # half of the way
    assert evaluated == [(199, 54)]
    assert dots == 1
    assert {"accuracy", "train", "eval", "0", "200", "0.6", "0.8", "1"} <= set(texts)


def test_a_loss_that_falls_far_has_a_logarithmic_axis() -> None:
    falling = {"train": [(0, 1.0), (10, 0.1), (20, 0.01)]}
    texts, ((first, middle, last),), _ = drawn(curves("loss", falling, 20, log=True))
    assert (first[1], middle[1], last[1]) == (26, 96, 166)
    assert {"0.01", "0.1", "1"} <= set(texts)
    # Not one that hardly falls, and none that reaches 0.
    for low in (0.9, 0.0):
        points = {"train": [(0, 1.0), (10, (1 + low) / 2), (20, low)]}
        _, (line,), _ = drawn(curves("loss", points, 20, log=True))
        assert line == [(48, 26), (199, 96), (350, 166)]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-9])
def test_one_point_is_seen(value: float) -> None:
    _, lines, dots = drawn(curves("a < b", {"train": [(1, value)]}, 1, log=True))
    assert lines == [[(350, 96)]]
    assert dots == 1


def test_of_many_points_as_many_as_can_be_seen_are_drawn() -> None:
    many = [(step, float(step)) for step in range(100_000)]
    _, (line,), _ = drawn(curves("x", {"train": many}, 99_999, log=False))
    assert 200 < len(line) <= 300
    assert line[-1] == (350, 26)


def test_its_text_has_the_colour_of_the_page() -> None:
    svg = curves("x", {"train": [(1, 1.0)]}, 1, log=False)
    assert set(re.findall(r'<text[^>]*fill="(\w+)"', svg)) == {"currentColor"}
