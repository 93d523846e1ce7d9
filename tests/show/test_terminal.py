"""Drawings small enough to be worked out by hand."""

import io
import re

import numpy as np
import pytest

from mnist_flax.show.terminal import draw_prediction, supports_drawing

# Two columns, two rows: black over black, white over white.
BARS = np.array([[0, 255], [0, 255]], np.uint8)[..., None]


def columns(line):
    return len(re.sub(r"\x1b\[[0-9;]*m", "", line))


def test_without_colour():
    # The bars have 30 columns, 240 eighths: 0.75 is 180 = 22 columns and 4 eighths,
    # 0.25 is 60 = 7 columns and 4 eighths.
    drawn = draw_prediction(
        BARS, np.array([0.25, 0.75]), ["cat", "horse"], title="pet.png", colour=False
    )
    assert drawn.split("\n") == [
        "pet.png",
        " █    cat   " + "█" * 7 + "▌" + " " * 22 + "  25.0%",
        "    → horse " + "█" * 22 + "▌" + " " * 7 + "  75.0%",
    ]


def test_shades_are_means_of_two_rows():
    image = np.array([[0, 0, 128, 255, 255], [0, 128, 128, 128, 255]], np.uint8)[..., None]
    drawn = draw_prediction(image, np.array([1.0]), ["a"], title="", colour=False)
    assert drawn.split("\n")[1].startswith(" ░▒▓█  → a █")


def test_with_colour():
    image = np.array([[[255] * 3, [255, 0, 9]], [[0] * 3, [1, 2, 3]]], np.uint8)
    drawn = draw_prediction(image, np.array([1.0]), ["a"], title="t")
    grey = "\x1b[38;5;231;48;5;16m▀"
    red = "\x1b[38;2;255;0;9;48;2;1;2;3m▀"
    assert drawn == f"t\n{grey}{red}\x1b[0m  \x1b[1m→ a {'█' * 30} 100.0%\x1b[0m"


def test_equal_neighbours_share_one_code():
    image = np.full((2, 9, 1), 128, np.uint8)
    drawn = draw_prediction(image, np.array([1.0]), ["a"], title="t")
    assert f"\x1b[38;5;244;48;5;244m{'▀' * 9}\x1b[0m" in drawn  # 8 + 10 * (244 - 232) = 128


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("width", [28, 40, 224])
def test_never_wider_than_80_columns(colour, width):
    image = np.random.default_rng(0).integers(0, 256, (width, width, 3), dtype=np.uint8)
    names = ["a name that is far too long for a terminal", "手書きの文字を認識する長い名前", "ok"]
    drawn = draw_prediction(
        image, np.array([0.0, 1.0, 0.0]), names, title="long " * 30, colour=colour
    )
    lines = drawn.split("\n")
    # Each Chinese or Japanese character takes two columns.
    wide = [columns(line) + len(re.findall(r"[\u3040-\u9fff]", line)) for line in lines]
    assert max(wide) == 80
    assert lines[0].endswith("…")
    assert "a name that is … " in drawn


def test_fewer_classes_are_centred_beside_the_picture():
    image = np.full((28, 28, 1), 255, np.uint8)
    lines = draw_prediction(
        image, np.full(10, 0.1), list("0123456789"), title="t", colour=False
    ).split("\n")[1:]
    assert len(lines) == 14
    assert [line[32:33] for line in lines] == ["", "", *"0123456789", "", ""]


def test_of_many_classes_the_most_probable_in_falling_order():
    probabilities = np.arange(26) / 325
    names = [chr(ord("a") + k) for k in range(26)]
    lines = draw_prediction(BARS, probabilities, names, title="t", colour=False).split("\n")[1:]
    assert "".join(line[6] for line in lines) == "zyxwvutsrqponm"
    assert [line[4] for line in lines] == ["→"] + [" "] * 13


def test_an_odd_last_row_is_drawn_over_black():
    image = np.full((3, 1, 1), 255, np.uint8)
    lines = draw_prediction(image, np.array([1.0]), ["a"], title="t", colour=False).split("\n")
    assert [line[0] for line in lines[1:]] == ["█", "▒"]


def test_names_cannot_steer_the_terminal():
    drawn = draw_prediction(BARS, np.array([1.0]), ["\x1b[2J"], title="a\nb\x1b", colour=False)
    assert "\x1b" not in drawn
    assert drawn.split("\n")[0] == "a?b?"


class Stream(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("encoding", "term", "expected"),
    [("utf-8", "xterm", True), ("utf-8", "dumb", False), ("latin-1", "xterm", False)],
)
def test_supports_drawing(monkeypatch, encoding, term, expected):
    monkeypatch.setenv("TERM", term)
    assert supports_drawing(Stream(io.BytesIO(), encoding=encoding)) is expected


def test_a_file_is_no_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert not supports_drawing(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
