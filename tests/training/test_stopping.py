"""Signals, as processes get them: the first asks, the second leaves at once."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mnist_flax.training.signals import StopSignals

POLL = """
import time
from mnist_flax.training.signals import StopSignals
with StopSignals() as stop:
    print(stop.requested(), stop.signal, flush=True)
    while not stop.requested():
        time.sleep(0.01)
    print("asked by", stop.signal.name, flush=True)
print("left in order", flush=True)
"""

# One call into C of many minutes: Python's own signal handlers do not run before it returns.
BUSY = """
import hashlib
from mnist_flax.training.signals import StopSignals
with StopSignals():
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""

Start = Callable[[str], subprocess.Popen]


@pytest.fixture
def start() -> Iterator[Start]:
    processes = []

    def start(source: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", source],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def line(stream: object) -> str:
    return stream.readline().rstrip("\n")  # type: ignore[attr-defined]


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_for_an_orderly_stop(start: Start, first: signal.Signals) -> None:
    process = start(POLL)
    assert line(process.stdout) == "False None"
    process.send_signal(first)
    output, errors = process.communicate(timeout=20)
    assert output == f"asked by {first.name}\nleft in order\n"
    assert errors == f"{first.name}: saving and leaving; once more leaves at once.\n"
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        (signal.SIGTERM, signal.SIGTERM, 143),
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGTERM, signal.SIGINT, 130),
    ],
)
def test_the_second_leaves_at_once_even_from_a_long_call_into_c(
    start: Start, first: signal.Signals, second: signal.Signals, status: int
) -> None:
    process = start(BUSY)
    assert line(process.stdout) == "busy"
    time.sleep(0.1)
    process.send_signal(first)
    assert line(process.stderr).startswith(first.name)
    assert process.poll() is None
    sent = time.monotonic()
    process.send_signal(second)
    assert process.wait(timeout=20) == status
    assert time.monotonic() - sent < 5
    assert line(process.stderr) == ""


def taken() -> tuple:
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    return descriptor, signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_everything_is_given_back_after_an_error() -> None:
    def fail() -> None:
        with StopSignals():
            assert not set(taken()) & set(before)
            raise KeyError

    before, descriptors = taken(), open_descriptors()
    with pytest.raises(KeyError):
        fail()
    assert taken() == before
    for thread in threading.enumerate():
        if thread.name == "stop-signals":
            thread.join(5)
            assert not thread.is_alive()
    assert open_descriptors() == descriptors


def test_another_signal_asks_for_nothing() -> None:
    came = []
    old = signal.signal(signal.SIGUSR1, lambda number, frame: came.append(number))
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.05)
            assert came == [signal.SIGUSR1]
            assert not stop.requested()
    finally:
        signal.signal(signal.SIGUSR1, old)
