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
from conftest import ROOT, TESTS, events, launch_command, launch_environment

from mnist_flax.cli.signals import StopSignals

POLL = """
import time
from mnist_flax.cli.signals import StopSignals
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
from mnist_flax.cli.signals import StopSignals
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


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
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
        (signal.SIGHUP, signal.SIGHUP, 129),
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_the_last_instant_is_known(number: signal.Signals) -> None:
    for _ in range(100):
        with StopSignals() as stop:
            os.kill(os.getpid(), number)
        assert stop.signal == number


def test_nohup_is_respected() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
        assert not stop.requested()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)


def test_nothing_needs_a_signal_that_the_platform_has_not() -> None:
    source = "import signal; del signal.SIGHUP; import mnist_flax.cli.signals as s; "
    done = subprocess.run(
        [sys.executable, "-c", source + "print(*(n.name for n in s._SIGNALS))"],
        env=launch_environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "SIGTERM SIGINT\n", done.stderr


# A run that gets a signal as its handlers are given back.
LATE = """
import os, signal, sys
from mnist_flax.cli import main
from mnist_flax.cli.signals import StopSignals
give_back = StopSignals.__exit__
def late(self, *args):
    os.kill(os.getpid(), signal.SIGTERM)
    give_back(self, *args)
StopSignals.__exit__ = late
sys.exit(main.main(["launch.py", *sys.argv[1:]]))
"""


def test_a_run_that_gets_a_signal_at_its_very_end_says_so(digits: Path, tmp_path: Path) -> None:
    workdir = f"--workdir={tmp_path / 'run'}"
    data = f"--config.data.data_dir={digits}"
    arguments = [f"--config={TESTS / 'tiny.py'}", workdir, data, "--config.num_steps=1"]
    done = subprocess.run(
        [sys.executable, "-c", LATE, *arguments],
        env=launch_environment() | {"PYTHONPATH": f"{ROOT}:{TESTS}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 143, done.stderr
    assert "Finished at step 1, which is saved." in done.stderr
    assert f"Go on with: python launch.py {' '.join(arguments)}" in done.stderr


# The command without what it imports, with a Ctrl-C in the middle of that or after main().
DOOR = """
import atexit, os, runpy, signal, sys, types
interrupt = lambda *args: os.kill(os.getpid(), signal.SIGINT)
class Late(types.ModuleType):
    def __getattr__(self, name):
        if sys.argv[1] == "imports":
            interrupt()
        atexit.register(interrupt)
        return lambda argv: 0
sys.modules["mnist_flax.cli.main"] = Late("main")
runpy.run_path(sys.argv[2], run_name="__main__")
"""


@pytest.mark.parametrize("when", ["imports", "exit"])
@pytest.mark.parametrize("door", ["launch.py", "mnist_flax/__main__.py"])
def test_ctrl_c_beside_main_ends_the_process_without_a_traceback(door: str, when: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DOOR, when, str(ROOT / door)],
        env=launch_environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGINT  # which a shell calls 130
    assert done.stderr == ""


def test_ctrl_c_beside_main_is_ignored_where_whoever_started_it_ignores_it() -> None:
    """As a shell does for what it starts in the background of a script."""
    ignored = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    done = subprocess.run(
        [sys.executable, "-c", ignored + DOOR, "imports", str(ROOT / "launch.py")],
        env=launch_environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


# Starts a command on a terminal of its own, which goes away once the run has saved. In a process of
# its own: JAX, which the tests have loaded, does not bear a fork.
HANG_UP = """
import os, pty, sys, time
from pathlib import Path
workdir, *command = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    os.execv(command[0], command)
deadline = time.monotonic() + 120
while not Path(workdir, "checkpoints/latest/4").exists() and time.monotonic() < deadline:
    os.read(terminal, 10000)
os.close(terminal)  # sends SIGHUP
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_terminal_that_goes_away_has_the_run_saved(digits: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    command = launch_command(
        f"--config={TESTS / 'tiny.py'}",
        f"--workdir={workdir}",
        f"--config.data.data_dir={digits}",
        "--config.num_steps=1000000",
    )
    done = subprocess.run(
        [sys.executable, "-c", HANG_UP, str(workdir), *command],
        env=launch_environment(),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.stdout == "129\n", done.stderr
    (stopped,) = events(workdir, "stopped")
    assert (workdir / "checkpoints/latest" / str(stopped["step"])).exists()
