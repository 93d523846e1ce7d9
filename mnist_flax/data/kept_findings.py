"""What was found in data that are streamed is kept: nobody reads 100 GB twice to recognise them.

One file for each listing of files, arrays by name, in ~/.cache/mnist_flax/streams/. A file that is
not what was written is read as if it were not there.
"""

import contextlib
import os
import time
import uuid
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from mnist_flax.config.paths import cache_folder

_MOST_BYTES = 256 * 2**20  # the oldest files go
_LONGEST_WRITE = 3600  # seconds


def folder() -> Path:
    """Returns where they are kept."""
    return cache_folder() / "streams"


def read(name: str, report: Callable[[str], None]) -> dict[str, np.ndarray] | None:
    """Returns what was kept under a name; None where nothing was.

    `report` is told of a file that is damaged.
    """
    path = folder() / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as archive:  # its checksums are checked
            found = {field: archive[field] for field in archive.files}
        os.utime(path)  # the oldest are those that nobody has asked for
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:80]
        report(f"{path}: cannot be used ({reason}): what stood in it is found anew.")
        return None
    return found


def write(name: str, found: Mapping[str, np.ndarray]) -> str:
    """Keeps arrays under a name, whole or not at all; the oldest files beyond _MOST_BYTES go.

    Returns:
      Why they could not be kept; '' where they were.
    """
    part = folder() / f".part-{uuid.uuid4().hex}"
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            np.savez(file, **dict(found))  # type: ignore[arg-type]
        part.replace(folder() / f"{name}.npz")
        _tidy(f"{name}.npz")
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        return error.strerror or str(error)
    return ""


def _tidy(newest: str) -> None:
    """Deletes the oldest files beyond the bound, and what killed processes have begun."""
    known = []
    for path in folder().iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process tidies up, too
            known.append((path.name == newest, path.stat().st_mtime, path.stat().st_size, path))
    total, long_ago = 0, time.time() - _LONGEST_WRITE
    for is_newest, written, size, path in sorted(known, reverse=True):
        begun = path.name.startswith(".part-")
        total += size
        if not is_newest and (written < long_ago if begun else total > _MOST_BYTES):
            path.unlink(missing_ok=True)
