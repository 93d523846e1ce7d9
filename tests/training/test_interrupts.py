"""Ctrl-C where train() is called from Python: the state is kept, and the same call goes on."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import TESTS, events, launch_environment, rows
from ml_collections import ConfigDict

from mnist_flax import restore, train
from mnist_flax.core.state import TrainState
from mnist_flax.training.interrupts import Interrupts


@pytest.fixture
def straight(tiny_config: ConfigDict, tmp_path: Path) -> TrainState:
    return train(tiny_config, tmp_path / "straight")


def assert_same_run(one: Path, other: Path, state: TrainState) -> None:
    jax.tree.map(np.testing.assert_array_equal, state, restore(one).state)
    jax.tree.map(np.testing.assert_array_equal, state, restore(other).state)
    assert rows(one) == rows(other)


def pressed(workdir: Path, step: int, times: int) -> Callable[[], bool]:
    """A should_stop that never says so, but presses Ctrl-C when the run has come to a step."""
    left = [signal.SIGINT] * times

    def press() -> bool:
        while left and rows(workdir)[-1:] and rows(workdir)[-1]["step"] == step:
            signal.raise_signal(left.pop())
        return False

    return press


def test_the_first_keeps_the_state_and_the_same_call_goes_on(
    tiny_config: ConfigDict, straight: TrainState, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    before = signal.getsignal(signal.SIGINT)
    assert before is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt, match=r"step 10 is saved; the same call goes on"):
        train(tiny_config, str(cut), should_stop=pressed(cut, 10, times=1))
    assert signal.getsignal(signal.SIGINT) is before
    assert int(restore(cut).state.step) == 10  # no step at which a save is due
    assert [event["step"] for event in events(cut, "stopped")] == [10]
    state = train(tiny_config, cut)
    assert_same_run(cut, tmp_path / "straight", state)
    jax.tree.map(np.testing.assert_array_equal, state, straight)


def test_the_second_leaves_at_once_and_loses_no_bit(
    tiny_config: ConfigDict, straight: TrainState, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt) as caught:
        train(tiny_config, cut, should_stop=pressed(cut, 10, times=2))
    assert caught.value.args == ()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert int(restore(cut).state.step) == 8
    assert_same_run(cut, tmp_path / "straight", train(tiny_config, cut))


def test_a_handler_of_the_callers_own_stays(tiny_config: ConfigDict, tmp_path: Path) -> None:
    heard: list[int] = []

    def own(number: int, frame: object) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGINT, own)
    try:
        train(tiny_config, tmp_path, should_stop=pressed(tmp_path, 10, times=1))
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]
    assert rows(tmp_path)[-1]["step"] == 40


def test_a_thread_takes_nothing_over() -> None:
    found = []

    def look() -> None:
        with Interrupts(list):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


SCRIPT = """
import sys
import time
from tiny import get_config
from mnist_flax import train

def slowly():
    print("step", flush=True)
    time.sleep(0.1)
    return False

config = get_config()
config.data.data_dir = sys.argv[1]
train(config, sys.argv[2], should_stop=slowly)
print("not interrupted")
"""


@pytest.mark.slow
def test_a_script_is_left_by_the_signal_with_its_state_saved(
    tiny_config: ConfigDict, straight: TrainState, digits: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    environment = launch_environment()
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(digits), str(cut)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(4):
        assert process.stdout.readline() == "step\n"
    process.send_signal(signal.SIGINT)
    output, told = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, told
    assert "not interrupted" not in output
    assert "\nCtrl-C: saving and leaving; once more leaves at once.\n" in told
    step = int(restore(cut).state.step)
    assert 0 < step < 40
    assert re.search(rf"\nStopped at step {step}, which is saved\.\n", told)
    assert told.endswith(f"{cut}: step {step} is saved; the same call goes on from there.\n")
    assert_same_run(cut, tmp_path / "straight", train(tiny_config, cut))
