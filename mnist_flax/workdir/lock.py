"""One process at a time in a run's folder."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

from mnist_flax.errors import UserError
from mnist_flax.workdir.files import reason, write_atomic


@contextlib.contextmanager
def locked(workdir: Path, patience: float = 0.0) -> Iterator[None]:
    """Creates the folder and holds it for one process; a killed holder leaves nothing behind.

    Args:
      workdir: of a run or of a sweep.
      patience: seconds that another holder is waited for.

    Raises:
      UserError: it is a file, cannot be written, or another process trains in it.
    """
    holder = workdir / ".holder"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(workdir / ".lock", timeout=patience)
        lock.acquire()
    except filelock.Timeout as error:
        who = holder.read_text() if holder.exists() else "another process"
        raise UserError(
            f"--workdir={workdir}: {who} trains in it. Wait for it, stop it, "
            "or name another --workdir."
        ) from error
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"--workdir={workdir}: cannot be written ({reason(error)}). "
            "Name a folder of yours with --workdir=…"
        ) from error
    try:
        write_atomic(holder, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        lock.release()
