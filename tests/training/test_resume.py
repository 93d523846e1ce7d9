"""An interrupted run equals an uninterrupted one: every bit of the state, every metrics row."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from conftest import TESTS, events, launch_command, launch_environment, rows
from made import state_of
from ml_collections import ConfigDict
from tiny import TinyNet

from mnist_flax.core.state import TrainState
from mnist_flax.training import loop, train
from mnist_flax.workdir.checkpoints import Checkpoints

Launch = Callable[..., subprocess.CompletedProcess[str]]


def _saved_state(workdir: Path, clipped: bool) -> TrainState:
    optimizer = optax.adam(optax.constant_schedule(0.01))
    if clipped:
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optimizer)
    like = jax.eval_shape(lambda: state_of(TinyNet(), optimizer, (8, 8, 1), 0))
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    try:
        return jax.device_get(checkpoints.restore(checkpoints.find("latest"), like))
    finally:
        checkpoints.close()


def _assert_same_run(one: Path, other: Path, clipped: bool = False) -> None:
    states = (_saved_state(workdir, clipped) for workdir in (one, other))
    left, right = map(jax.tree_util.tree_leaves_with_path, states)
    for (path, a), (_, b) in zip(left, right, strict=True):
        assert a.dtype == b.dtype, path
        assert a.tobytes() == b.tobytes(), path
    assert rows(one) == rows(other)
    kinds = ("epoch", "probabilities", "predictions")
    assert events(one, *kinds) == events(other, *kinds) != []


def _arguments(digits: Path, workdir: Path, *more: str) -> list[str]:
    config = f"--config={TESTS / 'tiny.py'}"
    return [config, f"--workdir={workdir}", f"--config.data.data_dir={digits}", *more]


@pytest.mark.compiles
def test_k_steps_and_the_rest_in_a_new_process_equal_one_run(
    tiny_config: ConfigDict,
    digits: Path,
    tmp_path: Path,
    launch: Callable[..., subprocess.CompletedProcess],
) -> None:
    train(tiny_config, tmp_path / "straight")
    cut = tmp_path / "cut"
    train(tiny_config, cut, should_stop=(cut / "checkpoints/latest/4").exists)
    # Step 8 lies inside the first epoch (17 steps) and inside a window (2 … 10).
    assert (cut / "checkpoints/latest/8").exists()
    assert [row["step"] for row in rows(cut)] == [1]
    again = launch(*_arguments(digits, cut))
    assert again.returncode == 0, again.stderr
    assert f"Resumed at step 8 from {cut}" in again.stderr
    _assert_same_run(tmp_path / "straight", cut)


@pytest.mark.slow
@pytest.mark.promise
def test_augmentation_and_the_extended_set_go_on_where_they_stood(tiny_config, tmp_path) -> None:
    tiny_config.augment.order = ("random_rotation", "random_scaling", "random_shift")
    tiny_config.data.extended = tiny_config.log_probabilities = True
    tiny_config.batch_size, tiny_config.clip_by_global_norm = 60, 1.0  # 10 steps an epoch, not 1
    tiny_config.num_steps = 24
    train(tiny_config, tmp_path / "straight")
    cut = tmp_path / "cut"
    for step in (4, 12):  # inside the first and the second epoch
        stop = (cut / f"checkpoints/latest/{step}").exists
        assert int(train(tiny_config, cut, should_stop=stop).step) < 24
    train(tiny_config, cut)
    _assert_same_run(tmp_path / "straight", cut, clipped=True)
    assert [event["step"] for event in events(cut, "epoch")] == [10, 20]


@pytest.mark.slow
@pytest.mark.promise
def test_a_stop_in_the_middle_of_an_evaluation_loses_nothing(tiny_config, tmp_path) -> None:
    train(tiny_config, tmp_path / "straight")
    cut, asked = tmp_path / "cut", []

    def stop_in_evaluation() -> bool:
        metrics = cut / "metrics.jsonl"
        asked.append('"step": 10,' in metrics.read_text() if metrics.exists() else False)
        return sum(asked) >= 3  # after the chunks to 10 and 12, and the first batch at 16

    train(tiny_config, cut, should_stop=stop_in_evaluation)
    assert (cut / "checkpoints/latest/16").exists()
    assert [row["step"] for row in rows(cut)] == [1, 10]  # no evaluation row for step 16 yet
    train(tiny_config, cut)
    _assert_same_run(tmp_path / "straight", cut)


def test_a_stop_in_the_last_evaluation_is_made_good_once(tiny_config, tmp_path, capsys) -> None:
    tiny_config.num_steps = 12
    tiny_config.optimizer.learning_rate = 1e-9  # so that no evaluation beats the first
    tiny_config.eval_every_steps = 10
    metrics = tmp_path / "metrics.jsonl"
    stop = lambda: metrics.exists() and '"step": 12, "split": "train"' in metrics.read_text()  # noqa: E731
    train(tiny_config, tmp_path, should_stop=stop)
    assert [row["step"] for row in rows(tmp_path)] == [1, 10, 10, 12]
    train(tiny_config, tmp_path)
    once = metrics.read_bytes()
    train(tiny_config, tmp_path)
    assert metrics.read_bytes() == once
    assert "is finished" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.promise
def test_a_stop_before_the_first_step_may_come_twice(tiny_config, tmp_path) -> None:
    tiny_config.num_steps = 5
    for _ in range(2):
        assert int(train(tiny_config, tmp_path, should_stop=lambda: True).step) == 0
    assert int(train(tiny_config, tmp_path).step) == 5


def test_a_console_that_goes_away_costs_nothing(digits, tmp_path) -> None:
    command = launch_command(*_arguments(digits, tmp_path / "run"))
    process = subprocess.Popen(
        command, cwd=tmp_path, env=launch_environment(), stderr=subprocess.PIPE
    )
    assert process.stderr
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert rows(tmp_path / "run")[-1]["step"] == 40


def _wait_for(condition: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "nothing happened for two minutes"
        time.sleep(0.01)


@pytest.mark.slow  # SIGTERM at a chosen moment is in faults/, in the ordinary run, too
def test_a_signal_in_training_loses_nothing(digits, tmp_path, launch) -> None:
    """SIGINT, at whatever step it comes; SIGTERM and kill -9 come at chosen moments in faults/."""
    more = (
        "--config.num_steps=3000",
        "--config.log_every_steps=250",
        "--config.eval_every_steps=1450",
        "--config.checkpoint_every_steps=350",
    )
    straight = launch(*_arguments(digits, tmp_path / "straight", *more))
    assert straight.returncode == 0, straight.stderr

    cut = tmp_path / "cut"
    command = launch_command(*_arguments(digits, cut, *more))
    process = subprocess.Popen(
        command, cwd=tmp_path, env=launch_environment(), stderr=subprocess.PIPE, text=True
    )
    _wait_for((cut / "checkpoints/latest/350").exists, process)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGINT, errors
    assert time.monotonic() - started < 20
    assert "Go on with: python" in errors
    assert max(row["step"] for row in rows(cut)) < 3000  # it was cut indeed

    again = launch(*_arguments(digits, cut, *more))
    assert again.returncode == 0, again.stderr
    assert "Resumed at step" in again.stderr
    _assert_same_run(tmp_path / "straight", cut)


@pytest.mark.slow
@pytest.mark.promise
def test_a_signal_in_compilation_saves_the_start(digits, tmp_path) -> None:
    command = launch_command(*_arguments(digits, tmp_path / "run"))
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=launch_environment(compiles=True),
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for((tmp_path / "run/metrics.jsonl").exists, process)  # is written before it compiles
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 143, errors
    assert "Stopped at step 0" in errors
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["event"]
    assert (tmp_path / "run/checkpoints/latest/0").exists()


@pytest.mark.slow
@pytest.mark.promise
def test_the_same_run_twice_gives_the_same_bits(tiny_config, tmp_path) -> None:
    first, second = (train(tiny_config, tmp_path / name) for name in "ab")
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.slow
@pytest.mark.promise
def test_another_seed_gives_another_run(tiny_config, tmp_path) -> None:
    tiny_config.num_steps = 1
    train(tiny_config, tmp_path / "0")
    tiny_config.seed = 1
    train(tiny_config, tmp_path / "1")
    assert rows(tmp_path / "0")[0]["loss"] != rows(tmp_path / "1")[0]["loss"]


class Killed(BaseException):
    """Ends a run as kill -9 would."""


@pytest.mark.slow
@pytest.mark.promise
def test_a_row_stands_once_though_another_interval_makes_it_due_at_the_save(
    tiny_config, tmp_path, monkeypatch
) -> None:
    stop = (tmp_path / "checkpoints/latest/4").exists
    train(tiny_config, tmp_path, should_stop=stop)  # at step 8, inside the window of 2 to 10
    tiny_config.log_every_steps = 8

    def killing(*args: object) -> None:
        raise Killed

    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(loop, "_run_chunk", killing)
            with pytest.raises(Killed):
                train(tiny_config, tmp_path)
        assert [row["step"] for row in rows(tmp_path)] == [1, 8]
    train(tiny_config, tmp_path)
    told = [row for row in rows(tmp_path) if row["split"] == "train"]
    assert [row["step"] for row in told] == [1, 8, 16, 24, 32, 40]

    straight = tmp_path / "straight"
    train(tiny_config, straight)
    assert told == [row for row in rows(straight) if row["split"] == "train"]
