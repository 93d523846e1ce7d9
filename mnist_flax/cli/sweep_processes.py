"""Commands, each in a process of its own on a core of its own, as many at once as there are cores.

The number of cores that a process sees is among what decides a run's bits. So each process has one,
whatever the machine has and however many run at once: from before its first instruction on, since
a process has the cores of the thread that starts it.
"""

import contextlib
import importlib.util
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mnist_flax.cli.flags import FLAGS
from mnist_flax.cli.train import SWEEP
from mnist_flax.errors import UsageError, UserError
from mnist_flax.workdir.lock import locked

_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 5  # for a run whose sweep was killed, and which is about to notice
_LONGEST_FAULT = 300  # letters
CONSOLE_FILE = "console.log"
Slots = Sequence[int | None]


@dataclass(frozen=True)
class Ended:
    """What became of a command.

    Attributes:
      index: of the command.
      seconds: that it took.
      fault: a line that says why it failed; '' if it did not.
      stopped: whether it was asked to, and did.
    """

    index: int
    seconds: float
    fault: str = ""
    stopped: bool = False


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen
    slot: int | None
    log: Path
    offset: int  # where this process's part of the log begins
    since: float


def find_slots() -> tuple[Slots, str]:
    """Returns the cores that runs get, one each; and what there is to say of it.

    None stands for no core in particular.

    Raises:
      UsageError: --jobs asks for more at once.
    """
    if not hasattr(os, "sched_setaffinity"):
        slots: Slots = [None]
        told = (
            "This system pins no process to a core: runs are trained one after another, on all "
            "cores, and have the bits of the plain command"
        )
    elif _has_accelerator():
        slots, told = [None], "JAX is installed for an accelerator: one run at a time has it"
    else:
        slots = sorted(os.sched_getaffinity(0))
        told = "Each run is pinned to one core: it has the bits of a run on one core"
        if len(slots) > 1:
            told += f", and not those of the plain command on {len(slots)}"
    if FLAGS.jobs is not None and FLAGS.jobs > len(slots):
        raise UsageError(f"--jobs={FLAGS.jobs}: at most {len(slots)} here. {told}.")
    return slots[: FLAGS.jobs], f"{told}."


def _has_accelerator() -> bool:
    plugins = importlib.util.find_spec("jax_plugins") is not None
    return plugins and os.environ.get("JAX_PLATFORMS") != "cpu"


def run_pinned(
    commands: Mapping[Path, Sequence[str]],
    slots: Slots,
    stop: Callable[[], signal.Signals | None],
) -> Iterator[int | Ended]:
    """Runs commands; yields the index of each that starts, and what became of each that ends.

    Args:
      commands: by the folder of each, which is created; what it says goes to console.log there.
      slots: cores, of find_slots.
      stop: once it returns a signal, all that run get it, none is started any more, and those that
        run are waited for.
    """
    folders, free = list(commands), list(slots)
    waiting = list(enumerate(folders))
    running: dict[int, _Running] = {}
    asked = None
    try:
        while waiting or running:
            if asked is None and (asked := stop()):
                waiting.clear()
                for each in running.values():
                    each.process.send_signal(asked)
            while waiting and free:
                index, folder = waiting.pop(0)
                slot = free.pop(0)
                yield index
                started = _start(commands[folder], folder, slot)
                if isinstance(started, str):
                    free.insert(0, slot)
                    yield Ended(index, 0.0, started)
                else:
                    running[index] = started
            time.sleep(_POLL_SECONDS)
            for index, each in list(running.items()):
                if each.process.poll() is not None:
                    del running[index]
                    free.append(each.slot)
                    yield _ended(index, each, asked)
    finally:  # an error here, or in whoever takes what is yielded
        for each in running.values():
            each.process.terminate()
        for each in running.values():
            each.process.wait()


def _start(command: Sequence[str], folder: Path, slot: int | None) -> _Running | str:
    """Starts a command; returns why not, where another process is in its folder."""
    try:
        with locked(folder, patience=_PATIENCE_SECONDS):
            pass  # nobody trains in it
    except UserError as error:
        return str(error)
    log = folder / CONSOLE_FILE
    with log.open("ab") as output, _on_core(slot):
        offset = log.stat().st_size
        # A session of its own: what a terminal sends to all comes once, from the parent.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, SWEEP: str(os.getpid())},
            start_new_session=True,
        )
    return _Running(process, slot, log, offset, time.monotonic())


@contextlib.contextmanager
def _on_core(slot: int | None) -> Iterator[None]:
    """Has this thread, and hence what it starts, run on this core alone."""
    if slot is None:
        yield
        return
    before = os.sched_getaffinity(0)  # of this thread, as all of it here
    os.sched_setaffinity(0, {slot})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _ended(index: int, run: _Running, asked: signal.Signals | None) -> Ended:
    status, seconds = run.process.returncode, time.monotonic() - run.since
    stopped = asked is not None and status in (128 + asked, -asked)
    fault = "" if status == 0 or stopped else _why(status, run)
    return Ended(index, seconds, fault, stopped)


def _why(status: int, run: _Running) -> str:
    """Returns a line that says why a run has failed."""
    if status < 0:
        name = signal.Signals(-status).name
        memory = ", as the system does where memory ends: --jobs=1 needs less"
        return f"ended by {name}{memory if name == 'SIGKILL' else ''}"
    with run.log.open("rb") as file:
        file.seek(run.offset)
        text = file.read().decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("Error: ")]
    if not errors:
        return (lines or [f"exit status {status}"])[-1][:_LONGEST_FAULT]
    first, *others = lines[errors[-1] :]
    # A list of what is wrong is indented.
    listed = itertools.takewhile(lambda line: line.startswith("  "), others)
    told = f"{first.removeprefix('Error: ')} {', '.join(map(str.strip, listed))}"
    return told.strip()[:_LONGEST_FAULT]
