"""Runs launch.py and breaks it: python wrapper.py 'kill@os.rename:latest/20.' --config=…

Each fault is action@moment or action@moment#count, for the count-th such moment; several are
separated by blanks. Not a test itself.

    kill, term, int    the process sends itself SIGKILL, SIGTERM or SIGINT
    stop               it sends itself SIGSTOP, and goes on with SIGCONT
    full               from now on no file takes a byte: the disk is full
    short              from now on no file grows by more than 20 bytes beyond the one at hand
    clock              the wall clock is set back by ten years
    copy=FOLDER        the --workdir is copied to FOLDER/0001, FOLDER/0002, … at this moment and at
                       each file operation in it from then on: all that a kill there would leave

    start              before anything of the package is imported
    compile            before one of the run's programs is compiled
    step               between two chunks of steps
    chunk              half-way through a chunk
    evaluation         between two batches of an evaluation
    EVENT:PART         just before an audit event of Python (os.rename, os.mkdir, os.remove,
                       shutil.rmtree, import, open for writing, …) whose first argument has PART
"""

import contextlib
import dataclasses
import importlib
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SIGNALS = {"kill": "SIGKILL", "term": "SIGTERM", "int": "SIGINT", "stop": "SIGSTOP"}
FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
_DECADE = 10 * 365.25 * 24 * 3600

Act = Callable[[str], None]  # is given the file at hand, if the moment has one


def main() -> int:
    """Arms the faults and calls main() with what is left of the command line."""
    sys.path[0] = str(ROOT)
    for fault in sys.argv.pop(1).split():
        action, _, moment = fault.partition("@")
        moment, _, count = moment.partition("#")
        arm(moment, _once_at(int(count or 1), act_of(action)))
    sys.argv[0] = str(ROOT / "launch.py")
    return importlib.import_module("mnist_flax.cli.main").main(sys.argv)


def act_of(action: str) -> Act:
    """Returns what an action does."""
    if action in SIGNALS:
        return lambda path: os.kill(os.getpid(), getattr(signal, SIGNALS[action]))
    if action.startswith("copy="):
        return lambda path: copy_from_now_on(Path(action.removeprefix("copy=")))
    return {"full": lambda path: limit(0), "short": short, "clock": set_clock_back}[action]


def limit(size: int) -> None:
    """Lets writes beyond this size of a file fail, those of C++ too; Python ignores SIGXFSZ."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def short(path: str) -> None:
    """Lets the file at hand take 20 bytes more: part of a row."""
    limit(Path(path).stat().st_size + 20)


def set_clock_back(path: str) -> None:
    """Replaces what Python code knows of the time of day."""
    del path
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() - _DECADE
    time.time_ns = lambda: now_ns() - int(_DECADE * 1e9)


def arm(moment: str, act: Act) -> None:
    """Has `act` called at every such moment."""
    event, colon, part = moment.partition(":")
    if moment == "start":
        act("")
    elif colon:
        sys.addaudithook(
            lambda name, args: act(str(args[0])) if _is(event, part, name, args) else None
        )
    elif moment == "compile":
        _before("jax.stages", "Lowered.compile", act)
    elif moment == "step":
        _before("mnist_flax.training.loop", "_run_chunk", act)
    else:
        {"chunk": _in_chunk, "evaluation": _in_evaluation}[moment](act)


def copy_from_now_on(folder: Path) -> None:
    """Copies the workdir before each operation on one of its files."""
    workdir = next(value for value in sys.argv if value.startswith("--workdir="))[10:]
    copied, busy = 0, threading.Lock()

    def copy(event: str, args: tuple) -> None:
        nonlocal copied
        inside = event in FILE_EVENTS and _is(event, workdir, event, args)
        # shutil.rmtree removes by names in an open folder.
        removal = event in ("os.remove", "os.rmdir") and args[1] != -1
        if (inside or removal) and busy.acquire(blocking=False):  # copying is such events, too
            copied += 1
            with contextlib.suppress(shutil.Error):  # what another thread has renamed meanwhile
                shutil.copytree(workdir, folder / f"{copied:04}")
            busy.release()

    sys.addaudithook(copy)


def _is(event: str, part: str, name: str, args: tuple) -> bool:
    if name != event or part not in str(args[0]):
        return False
    return name != "open" or bool(args[2] & (os.O_WRONLY | os.O_RDWR))


def _once_at(count: int, act: Act) -> Act:
    seen, lock = 0, threading.Lock()

    def counted(path: str) -> None:
        nonlocal seen
        with lock:
            seen += 1
            now = seen == count
        if now:
            act(path)

    return counted


def _before(module: str, path: str, act: Act) -> None:
    """Replaces a function or a class's method by one that calls `act` first."""
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original = getattr(owner, name)

    def replaced(*args: Any, **kwargs: Any) -> Any:
        act("")
        return original(*args, **kwargs)

    setattr(owner, name, replaced)


def _in_chunk(act: Act) -> None:
    loop: Any = importlib.import_module("mnist_flax.training.loop")
    original = loop._run_chunk

    def replaced(run: Any, at: Any, state: Any) -> Any:
        whole = run.programs.train_chunk

        def halves(state: Any, feed: Any, count: Any) -> Any:
            state, _ = whole(state, feed, count // 2)
            act("")
            return whole(state, feed, count - count // 2)

        programs = dataclasses.replace(run.programs, train_chunk=halves)
        return original(dataclasses.replace(run, programs=programs), at, state)

    loop._run_chunk = replaced


def _in_evaluation(act: Act) -> None:
    loop: Any = importlib.import_module("mnist_flax.training.loop")
    original = loop.evaluate

    def replaced(eval_chunk: Any, *others: Any) -> Any:
        def acting(*args: Any) -> Any:
            act("")
            return eval_chunk(*args)

        return original(acting, *others)

    loop.evaluate = replaced


if __name__ == "__main__":
    sys.exit(main())
