"""--mode=check from the outside: what it says, what it writes (nothing), what it would refuse."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import picture_folder
import pytest
from conftest import ROOT, TESTS
from ml_collections import ConfigDict
from picture_folder import config_of
from tiny import get_config

from mnist_flax.cli.check import _duration, _when
from mnist_flax.config import flatten, overridden
from mnist_flax.training import train
from mnist_flax.training.gather import check, gather
from mnist_flax.training.timetable import Timetable
from mnist_flax.training.trial import Timed, Trial, try_out

Launch = Callable[..., subprocess.CompletedProcess[str]]
TINY = f"--config={TESTS / 'tiny.py'}"


@pytest.fixture(scope="module")
def stopped(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 steps that was stopped at step 17."""
    config, workdir = get_config(), tmp_path_factory.mktemp("stopped")
    config.data.data_dir = str(digits)
    train(config, workdir, should_stop=(workdir / "checkpoints/latest/16").is_dir)
    return workdir


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """What lies in a folder, and when each file of it was written."""
    return {
        str(path): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


def asked(launch: Launch, digits: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return launch(TINY, f"--config.data.data_dir={digits}", "--mode=check", *more)


def test_what_would_be_trained_is_said_and_nothing_is_written(
    launch: Launch, digits: Path, tmp_path: Path
) -> None:
    rates = "--config.optimizer.rates=(('norm/.*', 0.5),)"
    done = asked(launch, digits, "--config.optimizer.learning_rate=0.02", rates)
    assert done.returncode == 0, done.stderr
    for expected in (
        f"Data: mnist, 105 images to train, 37 to evaluate, from IDX files in {digits}.\n",
        "Images uint8 8×8×1. 10 classes, and how many to train of each: 0 (11), 1 (11), ",
        "State: parameters 1.6 KiB, batch_stats 32 B, optimizer state 3.3 KiB.\n",
        "Steps: 40, which are 2.353 epochs of 17.\n",
        "  5 training rows: at step 1, every 10 steps, and at the end\n",
        "  3 evaluations: every 16 steps, and at the end\n",
        "  10 saves: every 4 steps, and at the end, and the best besides\n",
        "Compiled in ",
        "Memory of a step, as XLA has planned it: ",
        " ms: measured, the median of ",
        "Estimated duration: ",
        "Workdir: runs/tiny, where a run would start.\n",
    ):
        assert expected in done.stderr
    told = [line.split() for line in done.stderr.splitlines()]
    assert ["conv", "Conv", "6×8×8×4", "1", "40", "160", "B", "6.0", "KiB", "46.5", "k"] in told
    assert "together 418 1.6 KiB 13.1 KiB 59.4 k".split() in told  # noqa: SIM905
    assert list(tmp_path.iterdir()) == []

    config = get_config()
    changes = {"optimizer.learning_rate": 0.02, "data.data_dir": str(digits)}
    changes["optimizer.rates"] = (("norm/.*", 0.5),)
    found = json.loads(done.stdout)
    assert flatten(found) == flatten(overridden(config, changes)[0])
    assert done.stdout == json.dumps(found, indent=2, sort_keys=True) + "\n"


def test_all_faults_are_told_at_once(launch: Launch, digits: Path) -> None:
    faulty = ("--config.batch_size=0", "--config.optimizer.name=adamm", "--config.num_steps=-1")
    done = asked(launch, digits, *faulty)
    assert (done.returncode, done.stdout) == (2, "")
    for field in ("config.batch_size=0", "config.optimizer.name='adamm'", "config.num_steps=-1"):
        assert field in done.stderr
    assert "Traceback" not in done.stderr
    done = asked(launch, digits, "--distributed=auto")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: --distributed=auto: ")


def test_a_run_that_would_go_on(launch: Launch, digits: Path, stopped: Path) -> None:
    before = contents(stopped)
    arguments = (f"--workdir={stopped}", "--config.log_every_steps=5")
    done = asked(launch, digits, *arguments)
    assert done.returncode == 0, done.stderr
    told = f"Workdir: {stopped}, whose run would go on from step 17. config.log_every_steps was 10,"
    assert told in done.stderr
    assert "Ahead from step 17:\n  5 training rows: every 5 steps, and at the end\n" in done.stderr
    assert contents(stopped) == before


def test_a_run_that_would_be_refused(launch: Launch, digits: Path, stopped: Path) -> None:
    before = contents(stopped)
    done = asked(launch, digits, f"--workdir={stopped}", "--config.seed=7")
    assert done.returncode == 1
    assert f"Error: workdir={stopped} holds another run, saved at step 17:" in done.stderr
    assert "seed: was 0, now 7" in done.stderr
    assert json.loads(done.stdout)["seed"] == 7
    with filelock.FileLock(stopped / ".lock"):
        done = asked(launch, digits, f"--workdir={stopped}")
    assert done.returncode == 1
    assert f"Error: workdir={stopped}: process {os.getpid()} on " in done.stderr
    assert "another workdir. Its newest save is that of step 17.\n" in done.stderr
    assert asked(launch, digits, f"--workdir={TESTS / 'tiny.py'}").returncode == 1
    assert contents(stopped) == before


@pytest.mark.slow
@pytest.mark.promise
def test_a_damaged_save_is_told_and_stays(
    launch: Launch, digits: Path, tmp_path: Path, tiny_config: ConfigDict
) -> None:
    run = tmp_path / "run"
    train(tiny_config, run, should_stop=(run / "checkpoints/latest/8").is_dir)
    for path in (run / "checkpoints/latest/10/state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (run / "checkpoints/latest/12.orbax-checkpoint-tmp").mkdir()  # a killed save's
    before = contents(run)
    done = asked(launch, digits, f"--workdir={run}")
    assert done.returncode == 1
    assert "To go on from step 8: config.on_damaged_checkpoint=previous" in done.stderr
    previous = "--config.on_damaged_checkpoint=previous"
    done = asked(launch, digits, f"--workdir={run}", previous)
    assert done.returncode == 0, done.stderr
    assert f"{run}/checkpoints/latest/10 is damaged: it would be moved aside.\n" in done.stderr
    assert "whose run would go on from step 8." in done.stderr
    assert contents(run) == before


def test_a_finished_run_and_one_that_starts_from_it(
    launch: Launch, digits: Path, tmp_path: Path, tiny_config: ConfigDict
) -> None:
    tiny_config.num_steps = 2
    train(tiny_config, tmp_path / "run")
    before = contents(tmp_path)
    done = asked(launch, digits, "--workdir=run", "--config.num_steps=2")
    assert done.returncode == 0, done.stderr
    assert "The run in run is finished: it stands at step 2." in done.stderr
    assert "Estimated duration" not in done.stderr
    done = asked(launch, digits, "--workdir=new", "--init_from=run")
    assert done.returncode == 0, done.stderr
    assert "/run/checkpoints/latest/2: 8.\n" in done.stderr
    assert contents(tmp_path) == before


def tried(config: ConfigDict) -> Any:
    check(config)
    return try_out(gather(config, print))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae", "dcgan_fast"])
def test_tasks_that_draw(launch: Launch, tmp_path: Path, name: str) -> None:
    done = launch(
        f"--config={ROOT / 'configs'}/{name}.py",
        "--mode=check",
        "--config.data.name=mnist_sample",
        "--config.data.train_split=train[:20]",
        "--config.data.eval_split=test[:10]",
        "--config.batch_size=4",
        "--config.num_steps=5",
    )
    assert done.returncode == 0, done.stderr
    assert {"vae": "fc21 ", "dcgan_fast": "discriminator/conv1 "}[name] in done.stderr
    assert "Estimated duration: " in done.stderr
    assert json.loads(done.stdout)["batch_size"] == 4
    assert list(tmp_path.iterdir()) == []


def test_what_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = config_of(picture_folder.made(tmp_path / "pictures"), stream=True)
    config.model = ConfigDict({"name": "tiny:TinyNet"})
    config.num_steps = 5
    trial = tried(config)
    assert trial.finite
    assert min(trial.steps.seconds + trial.batches.seconds) > 0


@pytest.mark.parametrize("steps", [1, 2, 3, 40])
def test_steps_are_timed_up_to_the_runs_end(tiny_config: ConfigDict, steps: int) -> None:
    tiny_config.num_steps = steps
    trial = tried(tiny_config)
    assert 1 <= len(trial.steps.seconds) <= 5
    assert trial.steps.length <= max(1, steps - 2)
    assert len(trial.batches.seconds) == 5
    assert trial.memory is not None
    # Params, statistics, Adam's moments and sums; 105 images of 64 bytes, labels, an order.
    held = 3 * 4 * 418 + 4 * 8 + 105 * (64 + 4 + 4)
    assert held <= trial.memory.held < held + 400
    assert trial.memory.temporary > 4 * 6 * 8 * 8 * 4  # at least what the convolution gives


def test_the_estimate_is_the_sum_of_what_it_names(tiny_config: ConfigDict) -> None:
    tiny_config.data.extra_eval_splits = {"again": "test", "few": "test[:6]"}
    check(tiny_config)
    plan = gather(tiny_config, print)  # evaluated at 16, 32 and 40, in batches of 6: 7, 7 and 1
    trial = Trial(70.0, Timed((0.5, 1.0, 4.0), 2), Timed((2.0,), 1), True, None, ())
    assert _duration(plan, trial, since=0) == (
        "Estimated duration: 3 min 20 s, of which 1 min 10 s to compile, 40.0 s for steps and "
        "1 min 30 s for evaluations, if nothing else needs the machine. Not counted: Python's "
        "start, reading the data, saves and pictures."
    )
    assert "of which 1 min 10 s to compile, 8.0 s for steps and 30.0 s for evaluations" in (
        _duration(plan, trial, since=32)
    )


@pytest.mark.parametrize(
    ("numbers", "since", "told"),
    [
        ((40, 17, 10, 40, 4), 0, "at step 1, every 10 steps, and at the end"),
        ((40, 17, 10, 40, 4), 17, "every 10 steps, and at the end"),
        ((40, 17, 10, 40, 4), 30, "at the end"),  # the next of ten steps is the end
        ((40, 17, 100, 40, 4), 0, "at step 1, and at the end"),
        ((1, 17, 100, 40, 4), 0, "at the end"),
        ((3, 17, 1, 40, 4), 0, "every step, and at the end"),
    ],
)
def test_when_rows_come(numbers: tuple[int, ...], since: int, told: str) -> None:
    times = Timetable(*numbers)
    assert _when(times, since, times.log_every, from_start=True) == told


def test_one_is_one(launch: Launch, digits: Path) -> None:
    done = asked(launch, digits, "--config.num_steps=17", "--config.eval_every_steps=50")
    assert "Steps: 17, which are 1 epoch of 17.\n" in done.stderr
    assert "  1 evaluation: at the end\n" in done.stderr
    assert "  3 training rows: at step 1, every 10 steps, and at the end\n" in done.stderr


def test_what_diverges_at_once_and_what_is_slow(tiny_config: ConfigDict) -> None:
    tiny_config.optimizer.name = "tiny:spoil"
    assert not tried(tiny_config).finite
    tiny_config.optimizer.name = "sgd"
    tiny_config.model = ConfigDict({"name": "tiny:SlowNet"})
    trial = tried(tiny_config)
    assert trial.finite
    assert len(trial.slow_layers) == 1


def test_how_often_what_is_due_comes() -> None:
    for numbers in np.ndindex(13, 6, 6, 6):
        total, log, evaluate, save = (number + 1 for number in numbers)
        times = Timetable(total, 5, log, evaluate, save)
        for since in range(total + 1):
            ahead = range(since + 1, total + 1)
            due = (times.row_due, times.eval_due, times.save_due)
            counted = tuple(sum(map(each, ahead)) for each in due)
            assert tuple(times.times_after(since)) == counted, (numbers, since)
