"""The parent of one of several processes: starts it, watches it, and says what became of it.

JAX's runtime ends a process from C++ when another one is gone, with a stack and without Python. So
the command that was given starts itself once more as a child, hands signals on, and says in a line
why it ended.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from types import FrameType

from mnist_flax.cli.flags import FLAGS
from mnist_flax.cli.hints import say

# In the environment of the child: its parent's number, and a descriptor that the parent reads.
_CHILD = "MNIST_FLAX_CHILD"
ALL_CAME, SAID_WHY = b".", b"!"
_FORWARDED = ("SIGTERM", "SIGINT", "SIGHUP")


def is_watched() -> bool:
    """Says whether this is the child that the parent watches."""
    return _CHILD in os.environ


def watch() -> int:
    """Runs this command as a child, and returns its exit status; says it if JAX has ended it."""
    forwarded: list[int] = []
    heard, says = os.pipe()
    # A session of its own: what a terminal sends to all is handed on, once.
    child = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env={**os.environ, _CHILD: f"{os.getpid()} {says}"},
        pass_fds=(says,),
        start_new_session=True,
    )
    os.close(says)

    def forward(number: int, frame: FrameType | None) -> None:
        forwarded.append(number)
        child.send_signal(number)

    for name in _FORWARDED:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as by nohup
            signal.signal(number, forward)
    status = child.wait()
    if status >= 0:
        return status
    if -status in forwarded:
        return 128 - status
    wrote = os.read(heard, 2)
    if SAID_WHY in wrote:
        return 1
    if ALL_CAME not in wrote:
        say(f"Error: {not_together('')}")
        return 1
    name = signal.Signals(-status).name
    say(
        f"Error: ended by {name}: another process of this run is gone, or cannot be reached; why "
        "is said where it ran. Start all of them again: the run goes on from its newest save."
    )
    return 1


def parent() -> int:
    """Returns the number of the process that watches this one."""
    return _given()[0]


def _given() -> tuple[int, int]:
    number, descriptor = os.environ[_CHILD].split()
    return int(number), int(descriptor)


def end_with_parent(parent: int) -> None:
    """Has this process end when its parent, of this number, is killed: a job that is gone."""

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def write_to_parent(what: bytes) -> None:
    """Writes ALL_CAME, once the processes are together, and SAID_WHY, where this one has failed."""
    with contextlib.suppress(OSError):  # it may be gone
        os.write(_given()[1], what)


def not_together(why: str) -> str:
    """Returns what is said where not all came."""
    return (
        f"--distributed={FLAGS.distributed}: not all processes came together in "
        f"{FLAGS.join_seconds} seconds{why}. Start all of them at once, with the same "
        "--coordinator and --num_processes, and another --process_id each; --join_seconds waits "
        "longer."
    )
