"""One process at a time in a run's folder."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

from mnist_flax.errors import UserError
from mnist_flax.workdir.files import reason, write_atomic

_LOCK, _HOLDER = ".lock", ".holder"


@contextlib.contextmanager
def locked(workdir: Path, patience: float = 0.0) -> Iterator[None]:
    """Creates the folder and holds it for one process; a killed holder leaves nothing behind.

    Args:
      workdir: of a run or of a sweep.
      patience: seconds that another holder is waited for.

    Raises:
      UserError: it is a file, cannot be written, or another process trains in it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(workdir / _LOCK, timeout=patience)
        lock.acquire()
    except filelock.Timeout as error:
        raise _taken(workdir) from error
    except (OSError, NotImplementedError) as error:
        raise _not_writable(workdir, reason(error)) from error
    try:
        write_atomic(workdir / _HOLDER, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        lock.release()


def require_free(workdir: Path) -> None:
    """Raises what `locked` would; creates and changes nothing, and no lock stays.

    Raises:
      UserError: as `locked` does, as far as it can be seen.
    """
    if (workdir / _LOCK).exists() and _is_held(workdir / _LOCK):
        raise _taken(workdir)
    there = workdir
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise _not_writable(workdir, f"{there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise _not_writable(workdir, f"{there} is not for writing")


def _is_held(lock: Path) -> bool:
    """Says whether a process holds the lock: asks for a share of it, which goes back at once."""
    try:
        import fcntl
    except ImportError:  # Windows
        try:
            filelock.FileLock(lock, timeout=0).acquire().lock.release()
        except filelock.Timeout:
            return True
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _taken(workdir: Path) -> UserError:
    holder = workdir / _HOLDER
    who = holder.read_text() if holder.exists() else "another process"
    return UserError(
        f"workdir={workdir}: {who} trains in it. Wait for it, stop it, or name another workdir."
    )


def _not_writable(workdir: Path, why: str) -> UserError:
    return UserError(
        f"workdir={workdir}: cannot be written ({why}). Name a folder of yours as the workdir."
    )
