"""Runs of two processes, on this machine, and what may happen to one of them."""

import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from harness import Bench
from kills import newest_save

from mnist_flax.data.idx import read_idx, write_idx
from mnist_flax.workdir.rows import METRICS_FILE

BOUND = 60  # seconds after which every process has ended, whatever became of one
JOIN = 20  # seconds that one waits for the other
LONG = ("--config.num_steps=20000",)  # nobody waits for its end
_preparing = threading.Lock()


class Pair:
    """Two processes of one run, started at once; each has a folder, as on another machine."""

    def __init__(
        self,
        bench: Bench,
        workdir: Path,
        *more: str,
        each: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()),
        during: tuple[str, str] = ("", ""),
        told: tuple[int, int] = (2, 2),
        only: tuple[int, ...] = (0, 1),
        port: int | None = None,
    ):
        """Starts them.

        Args:
          bench: gives the command.
          workdir: of the first; that of the second must stay empty.
          more: arguments of both.
          each: arguments of one.
          during: wrapper.py's faults of one.
          told: how many processes each is told of.
          only: which are started.
          port: of the coordinator; by default a free one.
        """
        self.workdir, self.port = workdir, port or free_port()
        self.started = time.monotonic()
        environment = bench.environment() | {"JAX_NUM_CPU_DEVICES": "1"}
        # The coordinator would be looked for beyond it.
        for proxy in ("http_proxy", "https_proxy"):
            environment.pop(proxy, None)
        self.processes = {}
        for number in only:
            together = (
                *("--distributed=manual", f"--coordinator=127.0.0.1:{self.port}"),
                *(f"--num_processes={told[number]}", f"--process_id={number}"),
                f"--join_seconds={JOIN}",
            )
            place = workdir if number == 0 else workdir.with_name(f"{workdir.name}-{number}")
            command = bench.command(place, *more, *together, *each[number], during=during[number])
            self.processes[number] = subprocess.Popen(
                command,
                cwd=bench.folder,
                env=environment,
                stdout=subprocess.DEVNULL,  # where gloo writes
                stderr=subprocess.PIPE,
                text=True,
            )

    def wait_for_save(self, step: int) -> None:
        """Waits until the first process has saved a step as late as this."""
        while newest_save(self.workdir) < step:
            for process in self.processes.values():
                assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)

    def kill(self, number: int) -> None:
        """Kills one as the kernel would, its watching parent first or not at all."""
        parent = self.processes[number].pid
        [child] = _children(parent)
        os.kill(child, signal.SIGKILL)

    def end(self) -> dict[int, tuple[int, str]]:
        """Returns the exit status of each, and what it said; each must end in time."""
        asked = time.monotonic()
        ended = {}
        for number, process in self.processes.items():
            errors = process.communicate(timeout=BOUND)[1]
            ended[number] = (process.returncode, errors)
        assert time.monotonic() - asked < BOUND
        assert not self.workdir.with_name(f"{self.workdir.name}-1").exists()
        return ended


def two_devices(bench: Bench) -> Path:
    """Returns the workdir of the undisturbed run of one process with two devices."""
    workdir = bench.folder / "two-devices"
    with _preparing:
        if not workdir.exists():
            done = subprocess.run(
                bench.command(workdir),
                cwd=bench.folder,
                env=bench.environment() | {"JAX_NUM_CPU_DEVICES": "2"},
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr
            assert "for 2 × cpu" in done.stderr
    return workdir


def as_one_with_two_devices(bench: Bench, workdir: Path) -> str:
    """Nothing happens: two processes end where one with two devices does, to the bit."""
    ended = Pair(bench, workdir).end()
    assert [status for status, _ in ended.values()] == [0, 0], ended
    assert "step" in ended[0][1]
    assert "step" not in ended[1][1], ended[1][1]  # one of them speaks
    return bench.compare(workdir, undisturbed=two_devices(bench))


def _asked_to_stop(number: int, bench: Bench, workdir: Path) -> str:
    pair = Pair(bench, workdir, *LONG)
    pair.wait_for_save(8)
    pair.processes[number].send_signal(signal.SIGTERM)
    ended = pair.end()
    assert [status for status, _ in ended.values()] == [143, 143], ended
    stopped = re.search(r"Stopped at step ([\d,]+), which is saved", ended[0][1])
    assert stopped, ended[0][1]
    assert newest_save(workdir) == int(stopped[1].replace(",", ""))
    return f"both stop at one step, which is saved, with status 143; {_goes_on(bench, workdir)}"


def _killed(number: int, bench: Bench, workdir: Path) -> str:
    pair = Pair(bench, workdir, *LONG)
    pair.wait_for_save(8)
    pair.kill(number)
    ended = pair.end()
    for status, errors in ended.values():
        assert status == 1, ended
        assert "Traceback" not in errors, errors
        assert "is gone" in _said(errors), errors
    assert newest_save(workdir) >= 8
    return f"{_said(ended[1 - number][1])}; {_goes_on(bench, workdir)}"


def _goes_on(bench: Bench, workdir: Path) -> str:
    """Starts both again: they go on from the newest save, in whatever step that is."""
    saved = newest_save(workdir)
    ended = Pair(bench, workdir, f"--config.num_steps={saved + 5}").end()
    assert [status for status, _ in ended.values()] == [0, 0], ended
    assert f"Resumed at step {saved:,} " in ended[0][1], ended[0][1]
    return "started again, they go on from the newest save"


def _absent(bench: Bench, workdir: Path) -> str:
    """Three are told of, two come."""
    return _refused(Pair(bench, workdir, told=(3, 3)), "not all processes came together")


def _not_of_one_count(bench: Bench, workdir: Path) -> str:
    says = "--num_processes=3: the first process was told of 2|another process of this run is gone"
    return _refused(Pair(bench, workdir, told=(2, 3)), says)


def _port_in_use(bench: Bench, workdir: Path) -> str:
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = int(listener.getsockname()[1])
        return _refused(
            Pair(bench, workdir, port=port), f"port {port} cannot be used|came together"
        )


def _other_config(bench: Bench, workdir: Path) -> str:
    each = ((), ("--config.log_every_steps=7",))
    return _refused(Pair(bench, workdir, each=each), r"log_every_steps: 7 here, 10 there")


def _other_data(bench: Bench, workdir: Path) -> str:
    other = workdir.with_name(f"{workdir.name}-data")
    shutil.copytree(bench.digits, other)
    labels = read_idx(other / "train-labels-idx1-ubyte.gz").copy()
    labels[0] = (labels[0] + 1) % 10
    write_idx(other / "train-labels-idx1-ubyte.gz", labels)
    each = ((), (f"--config.data.data_dir={other}",))
    return _refused(Pair(bench, workdir, each=each), "the data's fingerprint: ")


def _refused(pair: Pair, says: str) -> str:
    """Both end with an error of one line that says why; nothing is begun."""
    ended = pair.end()
    for status, errors in ended.values():
        assert status in (1, 2), ended
        assert "Traceback" not in errors, errors
        assert re.search(says, _said(errors)), errors
    assert not (pair.workdir / METRICS_FILE).exists()
    return _said(ended[1][1])


def _disk_full(bench: Bench, workdir: Path) -> str:
    """The first one's disk takes nothing from a save on: both say so, and go on when it does."""
    ended = Pair(bench, workdir, during=("full@os.mkdir:latest/28.", "")).end()
    for status, errors in ended.values():
        assert status == 1, ended
        assert "could not be written" in _said(errors), errors
    again = Pair(bench, workdir).end()
    assert [status for status, _ in again.values()] == [0, 0], again
    told = bench.compare(workdir, undisturbed=two_devices(bench))
    return f"{_said(ended[1][1])}; started again, {told}"


def _said(errors: str) -> str:
    """Returns the one line that an error is told in; what JAX says besides may stand around it."""
    lines = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, errors
    return lines[0]


PROCEDURES = {
    "two processes: nothing happens": as_one_with_two_devices,
    "two processes: SIGTERM to the first": functools.partial(_asked_to_stop, 0),
    "two processes: SIGTERM to the second": functools.partial(_asked_to_stop, 1),
    "two processes: kill -9 of the second": functools.partial(_killed, 1),
    "two processes: kill -9 of the first, the coordinator": functools.partial(_killed, 0),
    "two processes: a third does not come": _absent,
    "two processes: the second is told of three": _not_of_one_count,
    "two processes: the port is in use": _port_in_use,
    "two processes: another config": _other_config,
    "two processes: other data": _other_data,
    "two processes: the first one's disk is full": _disk_full,
}


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(number) for number in text.split()]


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
