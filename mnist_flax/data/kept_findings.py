"""What was found in data that are streamed is kept: nobody reads 100 GB twice to recognise them.

One file for each listing of files, arrays by name, in ~/.cache/mnist_flax/streams/. A file that is
not what was written is read as if it were not there.
"""

import contextlib
import os
import uuid
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from mnist_flax.config.paths import cache_folder

_MOST_BYTES = 256 * 2**20  # the oldest files go


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
    paths = [path for path in folder().glob("*.npz") if path.name != newest]
    total = (folder() / newest).stat().st_size
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        total += path.stat().st_size
        if total > _MOST_BYTES:
            path.unlink(missing_ok=True)
