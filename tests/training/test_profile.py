"""A profiled window: the trace and its table, the same bits and rows, refusals, ends."""

import gzip
import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from conftest import TESTS, events, launch_command, launch_environment, rows
from ml_collections import ConfigDict

from mnist_flax import restore, train
from mnist_flax.errors import UsageError, UserError
from mnist_flax.show.operations import operations, what_it_is
from mnist_flax.training.timetable import Timetable, Window

Launch = Callable[..., subprocess.CompletedProcess[str]]
TINY = f"--config={TESTS / 'tiny.py'}"


@pytest.fixture(scope="module")
def straight(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of the tiny run without a profile."""
    from tiny import get_config

    config, workdir = get_config(), tmp_path_factory.mktemp("straight")
    config.data.data_dir = str(digits)
    train(config, workdir)
    return workdir


def traces(workdir: Path) -> list[str]:
    """The folders of a run's windows that hold a trace."""
    found = (workdir / "profile").glob("*/plugins/profile/*/*.xplane.pb")
    return sorted(path.relative_to(workdir / "profile").parts[0] for path in found)


def assert_same_run(one: Path, other: Path) -> None:
    left, right = (
        jax.tree_util.tree_leaves_with_path(restore(workdir, "latest", {}).state)
        for workdir in (one, other)
    )
    for (path, a), (_, b) in zip(left, right, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path
    assert rows(one) == rows(other)
    kinds = ("epoch", "predictions", "finished", "profile", "saved")
    assert events(one, *kinds) == events(other, *kinds) != []


def table(told: str) -> list[str]:
    """The head and the rows of the costliest operations, among what a run says."""
    lines = told.splitlines()
    (start,) = [number for number, line in enumerate(lines) if " a step, traced. The " in line]
    return lines[start : start + 12]


def shares(told: str) -> list[float]:
    """Their shares, in percent."""
    return [float(share) for row in table(told)[2:] for share in re.findall(r" ([\d.]+) %", row)]


def test_a_window_is_traced_and_changes_nothing(
    tiny_config: ConfigDict, tmp_path: Path, straight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Neither end is a step of any event, and an evaluation and two saves lie inside.
    train(tiny_config, tmp_path, profile=(13, 21))
    assert traces(tmp_path) == ["13-21"]
    assert_same_run(tmp_path, straight)

    told = capsys.readouterr().err
    assert f"Traced 8 steps from 14 on: {tmp_path}/profile/13-21/plugins/profile/" in told
    (named,) = re.findall(r"^Traced 8 steps from 14 on: (.*)/, with (.*)$", told, re.MULTILINE)
    folder = Path(named[0])
    assert sorted(re.split(", | and ", named[1])) == sorted(path.name for path in folder.iterdir())
    assert any(path.name.endswith(".trace.json.gz") for path in folder.iterdir())
    columns = ("operation", "what it is", "share", "ms a step", "calls a step")
    assert tuple(re.split("  +", table(told)[1])) == columns
    found = shares(told)
    assert found == sorted(found, reverse=True)
    assert len(found) == 10
    assert 0 < sum(found) <= 100
    assert found[0] > 2
    assert "TinyNet/" in "\n".join(table(told))  # layers by their names

    (perfetto,) = (tmp_path / "profile/13-21").rglob("perfetto_trace.json.gz")
    names = {
        event.get("name")
        for event in json.loads(gzip.decompress(perfetto.read_bytes()))["traceEvents"]
    }
    assert {"steps 14 to 16", "steps 17 to 17", "steps 18 to 20", "steps 21 to 21"} <= names


@pytest.mark.slow
@pytest.mark.promise
def test_runs_that_go_on_inside_and_after_a_window(
    tiny_config: ConfigDict, tmp_path: Path, straight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(
        tiny_config,
        tmp_path,
        should_stop=(tmp_path / "checkpoints/latest/12").is_dir,
        profile=(10, 30),
    )
    told = capsys.readouterr().err
    assert "Traced 6 of the 20 steps from 11 on: " in told
    assert len(shares(told)) == 10
    kept = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"^profile=10:30: this start runs the steps 17 to 40, "):
        train(tiny_config, tmp_path, profile=(10, 30))
    assert (tmp_path / "metrics.jsonl").read_bytes() == kept
    train(tiny_config, tmp_path, profile=(16, 40))
    assert traces(tmp_path) == ["10-30", "16-40"]
    assert_same_run(tmp_path, straight)
    with pytest.raises(
        UsageError, match=r"^profile=16:40: the run in .* is finished, at step 40: "
    ):
        train(tiny_config, tmp_path, profile=(16, 40))


def test_of_a_finished_run_nothing_is_profiled(tiny_config: ConfigDict, tmp_path: Path) -> None:
    tiny_config.num_steps = 2
    train(tiny_config, tmp_path)
    with pytest.raises(UsageError, match=r"is finished, at step 2: no step is left, and nothing"):
        train(tiny_config, tmp_path, profile=(0, 2))
    assert not (tmp_path / "profile").exists()


def test_a_window_beyond_the_run_is_refused_before_anything_is_made(
    tiny_config: ConfigDict, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"^profile=30:41: .* the steps 1 to 40, .* from 0:40,"):
        train(tiny_config, tmp_path / "run", profile=(30, 41))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("5", "two step numbers"),
        ("20:10", "two step numbers"),
        ("7:7", "two step numbers"),
        ("-1:5", "two step numbers"),
        ("0:1001", "1,001 steps; no viewer"),
    ],
)
def test_what_is_no_window(launch: Launch, tmp_path: Path, given: str, told: str) -> None:
    done = launch(TINY, f"--profile={given}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: --profile={given}: ")
    assert told in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert launch(TINY, "--mode=eval", "--profile=1:5").returncode == 2


def test_a_run_that_ends_before_its_window_says_so(
    tiny_config: ConfigDict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = (tmp_path / "checkpoints/latest/4").is_dir
    train(tiny_config, tmp_path, should_stop=stop, profile=(20, 25))
    assert "profile=20:25: the run did not come to these steps" in capsys.readouterr().err
    assert not (tmp_path / "profile").exists()


def test_a_run_that_diverges_in_its_window_leaves_a_trace(
    tiny_config: ConfigDict, tmp_path: Path
) -> None:
    tiny_config.optimizer.name = "tiny:spoil_late"
    with pytest.raises(UserError, match=r"^The run diverged: NaN or infinity within steps 1\d to"):
        train(tiny_config, tmp_path, profile=(11, 30))
    assert traces(tmp_path) == ["11-30"]


@pytest.mark.slow
def test_a_trace_that_cannot_be_written_costs_the_run_nothing(
    tiny_config: ConfigDict,
    tmp_path: Path,
    straight: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, full = tmp_path / "run", tmp_path / "full"
    run.mkdir()
    (run / "profile").write_text("in the way")
    train(tiny_config, run, profile=(2, 3))
    assert f"There is no trace in {run}/profile/2-3: " in capsys.readouterr().err
    assert_same_run(run, straight)

    stop = jax.profiler.stop_trace

    def failing() -> None:
        stop()
        raise OSError("No space left on device")

    monkeypatch.setattr(jax.profiler, "stop_trace", failing)
    train(tiny_config, full, profile=(2, 3))
    assert "full/profile/2-3: No space left on device" in capsys.readouterr().err
    assert_same_run(full, straight)


@pytest.mark.slow
def test_another_trace_is_in_the_way(tiny_config: ConfigDict, tmp_path: Path) -> None:
    with (
        jax.profiler.trace(tmp_path / "mine"),
        pytest.raises(UserError, match=r"^profile=2:3: JAX's profiler cannot start "),
    ):
        train(tiny_config, tmp_path / "run", profile=(2, 3))


def test_steps_that_are_called_from_python(
    tiny_config: ConfigDict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_config.model = ConfigDict({"name": "tiny:SlowNet"})
    tiny_config.num_steps = 6
    train(tiny_config, tmp_path, profile=(2, 5))
    told = capsys.readouterr().err
    assert 0 < sum(shares(told)) <= 100
    assert "SlowNet" in told


def test_a_signal_inside_the_window_ends_it_properly(digits: Path, tmp_path: Path) -> None:
    more = ("--config.num_steps=100000", "--config.log_every_steps=1", "--profile=5:1005")
    command = launch_command(TINY, f"--config.data.data_dir={digits}", "--workdir=run", *more)
    process = subprocess.Popen(
        command, cwd=tmp_path, env=launch_environment(), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    while not (line := process.stderr.readline()).startswith("step     20/"):
        assert line, "it has ended"
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 143, told
    assert re.search(r"Traced \d+ of the 1000 steps from 6 on: run/profile/", told)
    (go_on,) = [line for line in told.splitlines() if line.startswith("Go on with: ")]
    assert "--profile" not in go_on
    assert traces(tmp_path / "run") == ["5-1005"]


def test_chunks_end_at_the_ends_of_a_window() -> None:
    times = Timetable(100, 30, 25, 25, 50, Window(7, 26))
    at = [0]
    while at[-1] < 100:
        at.append(times.next_event(at[-1]))
    assert at == [0, 1, 7, 25, 26, 30, 50, 60, 75, 90, 100]
    for step, window, fits in (
        (0, (0, 100), True),
        (7, (7, 8), True),
        (8, (7, 26), False),
        (0, (99, 101), False),
    ):
        asked = Timetable(100, 30, 25, 25, 50, Window(*window))
        if fits:
            asked.require_window(step)
        else:
            with pytest.raises(UsageError):
                asked.require_window(step)


def event(start: int, duration: int, op: str | None, module: str = "jit_step") -> Any:
    stats = [("hlo_op", op), ("hlo_module", module)] if op else []
    return SimpleNamespace(start_ns=start, end_ns=start + duration, stats=stats)


def trace(**planes: list[list[Any]]) -> Any:
    return SimpleNamespace(
        planes=[
            SimpleNamespace(name=name, lines=[SimpleNamespace(events=events) for events in lines])
            for name, lines in planes.items()
        ]
    )


def test_times_are_an_operations_own_and_of_one_program() -> None:
    loop = [
        event(0, 100, "while"),
        event(10, 30, "dot"),
        event(20, 5, "copy"),
        event(60, 30, "dot"),
    ]
    other = [event(0, 50, "dot"), event(50, 40, "dot", "jit_eval"), event(0, 500, None)]
    found = operations(trace(host=[loop, other]), "jit_step")
    nanoseconds = {each.name: (round(1e9 * each.seconds), each.calls) for each in found}
    assert nanoseconds == {"dot": (25 + 30 + 50, 3), "while": (100 - 60, 1), "copy": (5, 1)}
    assert [each.name for each in found] == ["dot", "while", "copy"]
    both = {"host": [[event(0, 9, "dot")]], "/device:GPU:0": [[event(0, 7, "dot")]]}
    (one,) = operations(trace(**both), "jit_step")
    assert (round(1e9 * one.seconds), one.calls) == (7, 1)  # the device's own alone


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (
            "jit(train_chunk)/while/body/transpose(jvp(Net/conv1))/conv_general_dilated",
            "Net/conv1: conv_general_dilated, backward",
        ),
        ("jit(train_chunk)/while/body/jvp(Net)/max", "Net: max"),
        (
            "jit(f)/while/body/jvp(Net/dropout)/jit(_bernoulli)/jit(_uniform)/while",
            "Net/dropout: while",
        ),
        ("jit(train_chunk)/add", "add"),
        ("", "?"),
    ],
)
def test_what_an_operation_is(record: str, told: str) -> None:
    assert what_it_is(record) == told
