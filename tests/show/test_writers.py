"""What a run says, and what it writes down."""

import io
import json
from pathlib import Path
from typing import Any

import optax
import pytest
from made import task_of
from tiny import TinyNet

from mnist_flax.show.console import Console, clock, format_row
from mnist_flax.show.writer import Writer
from mnist_flax.workdir.rows import read_rows

TASK = task_of(TinyNet(), optax.sgd(0.1))
METRICS = TASK.metrics
TRAIN = {
    "step": 100,
    "split": "train",
    "loss": 2.30258,
    "accuracy": 0.1,
    "steps_per_second": 50.04,
}
EVAL = {"step": 1000, "split": "eval", "loss": 0.08, "accuracy": 0.97565, "examples": 10_000}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


@pytest.mark.parametrize(
    ("row", "total", "line"),
    [
        (
            TRAIN,
            20_000,
            "step    100/20,000   0.5 %  train  loss 2.3026  accuracy 0.1000  50.0/s  ETA 6:38",
        ),
        (
            TRAIN | {"step": 20_000},
            20_000,
            "step 20,000/20,000 100.0 %  train  loss 2.3026  accuracy 0.1000  50.0/s  ETA 0:00",
        ),
        (
            EVAL,
            2000,
            "step  1,000/2,000  50.0 %  eval   loss 0.0800  accuracy 0.9757  10,000 images",
        ),
    ],
)
def test_lines(row: dict[str, Any], total: int, line: str) -> None:
    assert format_row(row, total, METRICS) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (9.4, "0:09"),
        (59.6, "1:00"),
        (245, "4:05"),
        (3599, "59:59"),
        (3845, "1:04:05"),
        (100 * 3600, "100:00:00"),
    ],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_row_goes_to_the_file_and_to_the_console(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(stream)
    console.start(0, 20_000, TASK)
    values = {"loss": 2.5, "accuracy": 0.5, "steps_per_second": 10.0}
    Writer(tmp_path, console, "mnist").row(100, "train", **values)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    row = {"step": 100, "split": "train", **values, "dataset": "mnist"}
    assert line == json.dumps(row)
    assert stream.getvalue() == format_row(row, 20_000, METRICS) + "\n"


def test_an_event_is_said_and_kept(tmp_path: Path) -> None:
    stream = io.StringIO()
    writer = Writer(tmp_path, Console(stream), "mnist_sample")
    writer.event(3, "resumed", "Resumed at step 3.", changed={"seed": [0, 1]})
    assert stream.getvalue() == "Resumed at step 3.\n"
    assert read_rows(tmp_path) == [
        {
            "step": 3,
            "event": "resumed",
            "message": "Resumed at step 3.",
            "changed": {"seed": [0, 1]},
            "dataset": "mnist_sample",
        }
    ]


def test_a_loss_that_is_no_number_is_neither_written_nor_shown(tmp_path: Path) -> None:
    stream = io.StringIO()
    writer = Writer(tmp_path, Console(stream), "mnist")
    with pytest.raises(ValueError, match="not JSON compliant"):
        writer.row(1, "train", loss=float("nan"), accuracy=0.0, steps_per_second=1.0)
    assert (read_rows(tmp_path), stream.getvalue()) == ([], "")


def test_elsewhere_than_on_a_terminal_lines_are_plain() -> None:
    stream = io.StringIO()
    long = "[bold]runs/:cat:/x[/bold] " * 20
    with Console(stream) as console:
        console.start(99, 1000, TASK)
        console.advance(100, 50.0)
        console.say(long)
        console.row(TRAIN)
        console.row(EVAL)
    assert stream.getvalue().splitlines() == [
        long,
        format_row(TRAIN, 1000, METRICS),
        format_row(EVAL, 1000, METRICS),
    ]


def test_on_a_terminal_a_bar_shows_where_the_run_is(terminal: Terminal) -> None:
    with Console(terminal) as console:
        console.start(40, 100, TASK)
        assert "40.0 %" in terminal.getvalue()
        assert "40/100" in terminal.getvalue()
        console.advance(50, 12.34)
        console.row(TRAIN)
        console.row(EVAL)
    shown = terminal.getvalue()
    for text in ("50/100", "12.3/s", "loss 2.3026  accuracy 0.1000"):
        assert text in shown
    assert format_row(TRAIN, 100, METRICS) not in shown  # the bar has it
    assert format_row(EVAL, 100, METRICS) in shown


def test_on_a_terminal_a_text_is_shown_as_it_is(terminal: Terminal) -> None:
    text = "[bold]runs/:cat:/1[/bold] " * 20
    with Console(terminal) as console:
        console.say(text)
        console.start(0, 10, TASK)
        console.say(text)
    assert terminal.getvalue().count(text) == 2


HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_bar_is_taken_down_however_the_run_ends(
    terminal: Terminal, error: type[BaseException] | None
) -> None:
    def run() -> None:
        with Console(terminal) as console:
            console.start(0, 10, TASK)
            assert HIDE in terminal.getvalue()
            assert SHOW not in terminal.getvalue()
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(error):
            run()
    assert terminal.getvalue().rindex(SHOW) > terminal.getvalue().rindex(HIDE)


def test_a_console_that_never_started_leaves_the_terminal_alone(terminal: Terminal) -> None:
    with Console(terminal):
        pass
    assert terminal.getvalue() == ""
