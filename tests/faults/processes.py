"""What may happen to one of two processes that train together."""

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
from pair import BOUND, Pair, is_alive, newest_save

from mnist_flax.data.idx import read_idx, write_idx
from mnist_flax.workdir.rows import METRICS_FILE

LONG = ("--config.num_steps=20000",)  # nobody waits for its end
_preparing = threading.Lock()


def start(
    bench: Bench,
    workdir: Path,
    *more: str,
    second: tuple[str, ...] = (),
    during: str = "",
    told: tuple[int, int] = (2, 2),
    port: int | None = None,
) -> Pair:
    """Starts two processes; each has a folder, as on another machine.

    Args:
      bench: gives the command.
      workdir: of the first; that of the second must stay empty.
      more: arguments of both.
      second: more of the second.
      during: wrapper.py's faults of the first.
      told: how many processes each is told of.
      port: of the coordinator.
    """
    commands = {
        0: bench.command(workdir, *more, during=during),
        1: bench.command(_of_second(workdir), *more, *second),
    }
    return Pair(commands, bench.environment(), port, told)


def _of_second(workdir: Path) -> Path:
    return workdir.with_name(f"{workdir.name}-second")


def _run(bench: Bench, workdir: Path, *more: str) -> str:
    """Runs both to their end; returns what the first has said."""
    statuses, said = start(bench, workdir, *more).end()
    assert statuses == [0, 0], said
    assert "step" not in said[1], said[1]  # one of them speaks
    assert not _of_second(workdir).exists()
    return said[0]


def _two_devices(bench: Bench) -> Path:
    """Returns the workdir of the undisturbed run of one process with two devices."""
    workdir = bench.folder / "two-devices"
    with _preparing:
        if not workdir.exists():
            done = subprocess.run(
                bench.command(workdir),
                env=bench.environment() | {"JAX_NUM_CPU_DEVICES": "2"},
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr
            assert "for 2 × cpu" in done.stderr
    return workdir


def _undisturbed(bench: Bench, workdir: Path) -> str:
    """Two processes end where one with two devices does, to the bit."""
    _run(bench, workdir)
    return f"as one process with two devices: {bench.compare(workdir, True, _two_devices(bench))}"


def _asked_to_stop(number: int, bench: Bench, workdir: Path) -> str:
    pair = start(bench, workdir, *LONG)
    pair.wait_for_save(workdir, 8)
    pair.processes[number].send_signal(signal.SIGTERM)
    statuses, said = pair.end(BOUND)
    assert statuses == [143, 143], said
    stopped = re.search(r"Stopped at step ([\d,]+), which is saved", said[0])
    assert stopped, said[0]
    assert newest_save(workdir) == int(stopped[1].replace(",", ""))
    return "both stop at one step, which is saved, status 143"


def _killed(number: int, bench: Bench, workdir: Path) -> str:
    pair = start(bench, workdir, *LONG)
    pair.wait_for_save(workdir, 8)
    os.kill(pair.training(number), signal.SIGKILL)
    statuses, said = pair.end(BOUND)
    assert statuses == [1, 1], said
    assert all("is gone" in _error(each) for each in said), said
    return f"{_error(said[1 - number])}; {_goes_on(bench, workdir)}"


def _unwatched(bench: Bench, workdir: Path) -> str:
    """Whoever starts a job knows the parent alone: with it, the one that trains must go."""
    pair = start(bench, workdir, *LONG)
    pair.wait_for_save(workdir, 8)
    training = pair.training(1)
    pair.processes[1].kill()
    statuses, said = pair.end(BOUND)
    assert statuses == [1, -9], said
    assert "is gone" in _error(said[0]), said[0]
    for _ in range(10 * BOUND):
        if not is_alive(training):
            break
        time.sleep(0.1)
    assert not is_alive(training)
    return f"{_error(said[0])}; {_goes_on(bench, workdir)}"


def _goes_on(bench: Bench, workdir: Path) -> str:
    """Starts both again: they go on from the newest save, in whatever step that is."""
    saved = newest_save(workdir)
    said = _run(bench, workdir, f"--config.num_steps={saved + 5}")
    assert f"Resumed at step {saved:,} " in said, said
    return "started again, they go on from the newest save"


def _absent(bench: Bench, workdir: Path) -> str:
    """Three are told of, two come."""
    return _refused(start(bench, workdir, told=(3, 3)), workdir, "not all processes came together")


def _not_of_one_count(bench: Bench, workdir: Path) -> str:
    says = "--num_processes=3: the first process was given 2|another process of this run is gone"
    return _refused(start(bench, workdir, told=(2, 3)), workdir, says)


def _port_in_use(bench: Bench, workdir: Path) -> str:
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = int(listener.getsockname()[1])
        says = f"port {port} cannot be used|not all processes came together"
        return _refused(start(bench, workdir, port=port), workdir, says)


def _other_config(bench: Bench, workdir: Path) -> str:
    pair = start(bench, workdir, second=("--config.log_every_steps=7",))
    return _refused(pair, workdir, "config.log_every_steps: 7 here, 10 there")


def _other_data(bench: Bench, workdir: Path) -> str:
    other = workdir.with_name(f"{workdir.name}-data")
    shutil.copytree(bench.digits, other)
    labels = read_idx(other / "train-labels-idx1-ubyte.gz").copy()
    labels[0] = (labels[0] + 1) % 10
    write_idx(other / "train-labels-idx1-ubyte.gz", labels)
    pair = start(bench, workdir, second=(f"--config.data.data_dir={other}",))
    return _refused(pair, workdir, "the data's fingerprint: ")


def _refused(pair: Pair, workdir: Path, says: str) -> str:
    """Both end with an error of one line that says why; nothing is begun."""
    statuses, said = pair.end(BOUND)
    assert set(statuses) <= {1, 2}, said
    assert all(re.search(says, _error(each)) for each in said), said
    assert not (workdir / METRICS_FILE).exists()
    workdir.mkdir(exist_ok=True)  # the harness removes it
    return _error(said[1])


def _disk_full(bench: Bench, workdir: Path) -> str:
    """From its save of step 28 on the first one's disk takes nothing; then it does again."""
    statuses, said = start(bench, workdir, during="full@os.mkdir:latest/28.").end(BOUND)
    assert statuses == [1, 1], said
    assert all("could not be written" in _error(each) for each in said), said
    _run(bench, workdir)
    same = bench.compare(workdir, True, _two_devices(bench))
    return f"{_error(said[1])}; started again, {same}"


def _error(said: str) -> str:
    """Returns the one line that an error is told in; what JAX says besides may stand around it."""
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, said
    return lines[0]


PROCEDURES = {
    "two processes: nothing happens": _undisturbed,
    "two processes: SIGTERM to the first": functools.partial(_asked_to_stop, 0),
    "two processes: SIGTERM to the second": functools.partial(_asked_to_stop, 1),
    "two processes: kill -9 of the second": functools.partial(_killed, 1),
    "two processes: kill -9 of the first, the coordinator": functools.partial(_killed, 0),
    "two processes: kill -9 of the one that watches the second": _unwatched,
    "two processes: a third does not come": _absent,
    "two processes: the second is given another number": _not_of_one_count,
    "two processes: the port is in use": _port_in_use,
    "two processes: another config": _other_config,
    "two processes: other data": _other_data,
    "two processes: the first one's disk is full": _disk_full,
}
