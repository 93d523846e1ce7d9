"""config.writers: what they are called with, when, and what becomes of a run whose writer fails."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import TESTS, events, launch_command, launch_environment, rows
from ml_collections import ConfigDict

from mnist_flax.errors import UsageError, UserError
from mnist_flax.show.writers import Context
from mnist_flax.training import train
from mnist_flax.workdir.rows import read_rows

SEEN: list[tuple[str, int, dict[str, Any]]] = []
STARTED: list[list[dict[str, Any]]] = []  # what stood in the file at each start
RAISED: dict[tuple[str, int] | str, BaseException] = {}  # by event and step, or by event


def remember(event: str, step: int, row: Mapping[str, Any], context: Context) -> None:
    """Remembers what it is told, and that it is so."""
    on_disk = context.rows()
    if event in ("train", "epoch", "eval"):
        assert row in on_disk[-2:]  # a fault of `raises` may stand behind it
    if event == "saved":
        folders = (context.workdir / "checkpoints").glob(f"*/{step}")
        assert list(folders)
    if event == "started":
        assert context.memory == {}
        STARTED.append(on_disk)
    context.memory[event, step] = True
    assert ("started", STARTED[-1][-1]["step"]) in context.memory
    SEEN.append((event, step, dict(row)))


def spoils(event: str, step: int, row: dict[str, Any], context: Context) -> None:
    """Changes all that it is given."""
    context.memory["spoilt"] = True
    row["loss"] = row["step"] = "spoilt"
    for stood in context.rows():
        stood.clear()
    with pytest.raises(AttributeError):
        context.config.num_steps = 7
    with pytest.raises(AttributeError):
        context.spec.num_steps = 7


def raises(event: str, step: int, row: Mapping[str, Any], context: Context) -> None:
    if error := RAISED.get((event, step)) or RAISED.get(event):
        raise error


RAISE_LINE = raises.__code__.co_firstlineno + 2
no_function = 7


def three(event: str, step: int, row: Mapping[str, Any]) -> None: ...


def five(event: str, step: int, row: Mapping[str, Any], context: Context, more: int) -> None: ...


def any_number(event: str, *others: Any, more: int = 0) -> None: ...


@pytest.fixture(autouse=True)
def forgotten() -> None:
    SEEN.clear()
    STARTED.clear()
    RAISED.clear()


def named(*names: str) -> tuple[str, ...]:
    return tuple(f"{__name__}:{name}" for name in names)


@pytest.fixture
def written(tiny_config: ConfigDict) -> ConfigDict:
    """The small run, with a writer that fails where RAISED says so, and one that remembers."""
    tiny_config.writers = named("raises", "remember")
    return tiny_config


def told(*kinds: str) -> list[tuple[str, int]]:
    return [(event, step) for event, step, _ in SEEN if event in kinds or not kinds]


def assert_same(left: Any, right: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_a_writer_is_called_with_every_row_once_it_is_on_the_disk(written, tmp_path) -> None:
    train(written, tmp_path)
    assert told("started", "train", "epoch", "eval", "ended") == [
        *(("started", 0), ("train", 1), ("train", 10), ("eval", 16), ("epoch", 17), ("train", 20)),
        *(("train", 30), ("eval", 32), ("epoch", 34), ("train", 40), ("eval", 40), ("ended", 40)),
    ]
    assert told("saved") == [("saved", step) for step in range(4, 41, 4)]
    assert told()[-3:] == [("eval", 40), ("saved", 40), ("ended", 40)]
    stand = [row for row in read_rows(tmp_path) if "split" in row or row["event"] == "epoch"]
    assert [row for event, _, row in SEEN if event in ("train", "epoch", "eval")] == stand
    assert SEEN[-1][2]["event"] == "finished"
    assert events(tmp_path, "writer_fault") == []  # an assertion that failed would be one


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.compiles
def test_neither_bits_nor_rows_nor_programs_depend_on_writers(tiny_config, tmp_path) -> None:
    train(tiny_config, tmp_path / "warm")
    with compiled() as without:
        state = train(tiny_config, tmp_path / "without")
    tiny_config.writers = named("spoils", "remember")
    with compiled() as beside:
        watched = train(tiny_config, tmp_path / "with")
    assert_same(state, watched)
    assert rows(tmp_path / "without") == rows(tmp_path / "with")
    assert events(tmp_path / "with", "writer_fault") == []
    assert sorted(beside) == sorted(without) != []  # in threads, in any order
    assert all(row["step"] == step for event, step, row in SEEN if row)  # not what `spoils` left


class compiled:
    """Counts what JAX traces, lowers and compiles."""

    def __enter__(self) -> list[str]:
        self._seen: list[str] = []
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self._seen

    def _listen(self, event: str, duration: float, **details: Any) -> None:
        if "/compile/" in event:
            self._seen.append(event)

    def __exit__(self, *error: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)


def test_a_writer_that_fails_is_left_out_until_the_next_start(written, tmp_path, capsys) -> None:
    undisturbed = train(written, tmp_path / "undisturbed")
    SEEN.clear()
    RAISED["train", 10] = ValueError("no such chat")
    RAISED["train", 20] = AssertionError("it is not called again")
    state = train(written, tmp_path / "run", should_stop=stop_at(tmp_path / "run", 24))
    faults = events(tmp_path / "run", "writer_fault")
    assert [row["step"] for row in faults] == [10]
    row = faults[0]
    assert row["message"] == (
        f"config.writers: '{__name__}:raises' fails at 'train' of step 10: {__file__}, line "
        f"{RAISE_LINE}: ValueError: no such chat. The run goes on without it; the next start calls "
        "it again."
    )
    assert row["writer"] == f"{__name__}:raises"
    said = capsys.readouterr().err.splitlines()
    assert said.count(row["message"]) == 1
    assert said[-1] == (  # where who comes back hours later sees it
        f"config.writers: '{__name__}:raises' was left out from step 10 on: {__file__}, line "
        f"{RAISE_LINE}: ValueError: no such chat."
    )
    assert said.index(row["message"]) > max(
        number for number, line in enumerate(said) if line.startswith("step     10/40")
    )
    assert told("train")[:3] == [("train", 1), ("train", 10), ("train", 20)]
    assert SEEN[-1][0] == "ended"
    assert SEEN[-1][2]["event"] == "stopped"
    del RAISED["train", 20]
    RAISED["train", 40] = SystemExit(3)
    state = train(written, tmp_path / "run")
    assert [row["step"] for row in events(tmp_path / "run", "writer_fault")] == [10, 40]
    assert "SystemExit: 3. The run goes on" in capsys.readouterr().err
    assert_same(state, undisturbed)
    assert rows(tmp_path / "run") == rows(tmp_path / "undisturbed")


def stop_at(workdir: Path, step: int) -> Callable[[], bool]:
    return (workdir / f"checkpoints/latest/{step}").exists


@pytest.mark.slow
def test_or_it_ends_the_run_which_goes_on_from_its_saves(written, tmp_path, capsys) -> None:
    undisturbed = train(written, tmp_path / "undisturbed")
    written.on_writer_fault = "stop"
    RAISED["train", 30] = OSError("the disk of the other machine is full")
    with pytest.raises(UserError) as caught:
        train(written, tmp_path / "run")
    assert type(caught.value).exit_status == 1
    assert str(caught.value) == (
        f"config.writers: '{__name__}:raises' fails at 'train' of step 30: {__file__}, line "
        f"{RAISE_LINE}: OSError: the disk of the other machine is full. The run stops here and "
        "keeps its saves: start again to go on."
    )
    assert read_rows(tmp_path / "run")[-1]["message"] == str(caught.value)
    assert str(caught.value) not in capsys.readouterr().err  # launch.py says it, once
    assert SEEN[-1][0] == "ended"
    assert SEEN[-1][2]["event"] == "failed"
    del RAISED["train", 30]
    assert_same(train(written, tmp_path / "run"), undisturbed)
    assert rows(tmp_path / "run") == rows(tmp_path / "undisturbed")
    assert STARTED[-1][-1]["step"] == 28


def test_what_a_writer_says_of_itself_is_said_as_it_is(written, tmp_path) -> None:
    written.num_steps = 4
    RAISED["started", 0] = UsageError("Log in first.")
    train(written, tmp_path / "one")
    (row,) = events(tmp_path / "one", "writer_fault")
    assert row["message"] == (
        f"config.writers: '{__name__}:raises' fails at 'started' of step 0: Log in first. The run "
        "goes on without it; the next start calls it again."
    )
    written.on_writer_fault = "stop"
    with pytest.raises(UserError, match=r"Log in first\. The run stops here") as caught:
        train(written, tmp_path / "two")
    assert type(caught.value).exit_status == 1


def test_a_kill_takes_back_what_the_next_start_writes_again(written, tmp_path) -> None:
    """KeyboardInterrupt is nobody's fault: it ends the run at once, as a kill does."""
    RAISED["eval", 32] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        train(written, tmp_path)
    assert told()[-1] == ("train", 30)  # it was not told of the evaluation, nor of an end
    assert read_rows(tmp_path)[-1]["step"] == 32
    del RAISED["eval", 32]
    train(written, tmp_path)
    second = SEEN[[event for event, _, _ in SEEN].index("started", 1) :]
    assert [(event, step) for event, step, _ in second[:3]] == [
        *(("started", 28), ("train", 30), ("eval", 32)),
    ]
    final = [row for row in STARTED[-1] if "split" in row]
    final += [row for event, _, row in second if event in ("train", "eval")]
    assert final == [row for row in read_rows(tmp_path) if "split" in row]


def test_an_error_that_ends_the_run_is_told_and_stays_the_one_that_is_reported(
    written, tmp_path
) -> None:
    written.on_writer_fault = "stop"
    written.optimizer = ConfigDict({"name": "tiny:spoil_late", "learning_rate": 0.01})
    RAISED["ended"] = ValueError("gone")
    with pytest.raises(UserError, match="The run diverged") as caught:
        train(written, tmp_path / "diverged")
    assert [row["event"] for event, _, row in SEEN if event == "ended"] == ["diverged"]
    assert str(caught.value).startswith(SEEN[-1][2]["message"])
    assert len(events(tmp_path / "diverged", "writer_fault")) == 1

    written.optimizer = ConfigDict({"name": "adam", "learning_rate": 0.01})
    written.observers = named("observer_that_fails")
    with pytest.raises(ZeroDivisionError):
        train(written, tmp_path / "failed")
    ends = [row for event, _, row in SEEN if event == "ended"]
    assert ends[1:] == [{"step": 10, "event": "failed", "message": "division by zero"}]


def observer_that_fails(event: str, step: int, row: Mapping[str, Any], context: Any) -> None:
    if step == 10:
        1 / 0  # noqa: B018


def test_writers_may_change_when_a_run_goes_on(written, tmp_path, capsys) -> None:
    written.num_steps = 8
    train(written, tmp_path)
    written.num_steps = 12
    written.writers, written.on_writer_fault = named("remember"), "stop"
    SEEN.clear()
    train(written, tmp_path)
    assert told()[0] == ("started", 8)
    assert "config.writers was" in capsys.readouterr().err
    SEEN.clear()
    train(written, tmp_path)  # it is finished
    assert SEEN == []
    assert "Its writers are called again with one more step." in capsys.readouterr().err


def test_all_wrong_names_are_told_before_anything_begins(written, tmp_path) -> None:
    written.writers = ("wanbd", *named("no_function", "remember", "nobody"))
    written.on_writer_fault = "ignore"
    with pytest.raises(UsageError) as caught:
        train(written, tmp_path / "run")
    assert [line.partition("Known")[0].strip() for line in str(caught.value).splitlines()] == [
        "config.on_writer_fault='ignore': must be 'drop' or 'stop'.",
        "config.writers='wanbd': unknown. Did you mean 'wandb'?",
        f"config.writers: '{__name__}:no_function' is no function, but 7.",
        f"config.writers='{__name__}:nobody': {__name__} has no 'nobody'.",
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("field", ["writers", "observers"])
def test_how_they_are_called_is_checked_with_all_else(written, field, tmp_path) -> None:
    written[field] = (three, any_number, five)
    written.batch_size = 0
    with pytest.raises(UsageError) as caught:
        train(written, tmp_path / "run")
    size, first, second = str(caught.value).splitlines()
    assert size == "config.batch_size=0: must be at least 1."
    assert first.startswith(f"config.{field}: '{__name__}:three' takes (event: str, step: int, row")
    assert first.endswith(
        ", and is called with (event, step, row, context): too many positional arguments."
    )
    assert second.startswith(f"config.{field}: '{__name__}:five' takes (event")
    assert second.endswith("missing a required argument: 'more'.")
    assert not (tmp_path / "run").exists()


def test_a_function_is_as_good_as_its_name(written, tmp_path) -> None:
    written.writers = (remember,)
    written.num_steps = 1
    train(written, tmp_path / "run")
    assert told()[0] == ("started", 0)
    saved = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert saved["writers"] == [f"{__name__}:remember"]


MINE = """
def mine(event, step, row, context):
    if event == "saved" and step == 2:
        {}["no chat"]
"""


@pytest.fixture
def command(digits: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    (tmp_path / "mine.py").write_text(MINE)

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        arguments = (f"--config={TESTS / 'tiny.py'}", f"--config.data.data_dir={digits}")
        ours = ("--workdir=run", "--config.num_steps=3", "--config.checkpoint_every_steps=1")
        return subprocess.run(
            launch_command(*arguments, *ours, "--config.writers='mine:mine',", *more),
            cwd=tmp_path,
            env=launch_environment(),
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize(("on_fault", "status"), [("drop", 0), ("stop", 1)])
def test_from_the_command_line(command, tmp_path, on_fault: str, status: int) -> None:
    done = command(f"--config.on_writer_fault={on_fault}")
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    fault, *again = (
        line for line in done.stderr.splitlines() if "config.writers: 'mine:mine'" in line
    )
    assert len(again) == (on_fault == "drop")
    assert f"step 2: {tmp_path}{os.sep}mine.py, line 4: KeyError: 'no chat'." in fault
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    if on_fault == "drop":
        assert last["event"] == "finished"
    else:
        assert fault == done.stderr.splitlines()[-1] == f"Error: {last['message']}"
        assert (tmp_path / "run/checkpoints/latest/2").exists()
        assert "Resumed at step 2" in command().stderr
