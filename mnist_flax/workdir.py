"""The folder of a run: who may write in it, and its text files.

config.json      every resolved field, the data, the versions of the stack
metrics.jsonl    one JSON object a line
checkpoints/     see checkpoint.py
tensorboard/     see tensorboard.py
report/          see report/__init__.py
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from mnist_flax.errors import UserError

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Creates the folder and holds it for one process; a killed holder leaves nothing behind.

    Raises:
      UserError: it is a file, cannot be written, or another process trains in it.
    """
    holder = workdir / ".holder"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(workdir / ".lock", timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        who = holder.read_text() if holder.exists() else "another process"
        raise UserError(
            f"--workdir={workdir}: {who} trains in it. Wait for it, stop it, "
            "or name another --workdir."
        ) from error
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"--workdir={workdir}: cannot be written ({_reason(error)}). "
            "Name a folder of yours with --workdir=…"
        ) from error
    try:
        write_atomic(holder, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        lock.release()


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all, whatever happens in between."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # a part of it would keep a full disk full
            temporary.unlink()
        raise UserError(
            f"{path}: cannot be written ({_reason(error)}). Make room, or see to its permissions, "
            "and start again."
        ) from error


def write_config(workdir: Path, config: dict[str, Any]) -> None:
    """Writes config.json."""
    write_atomic(workdir / CONFIG_FILE, json.dumps(config, indent=2) + "\n")


def read_config(workdir: Path) -> dict[str, Any]:
    """Reads config.json.

    Raises:
      UserError: there is none, or it is not what write_config wrote.
    """
    path = workdir / CONFIG_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: not found, so no run was started in --workdir={workdir}. "
            "Train first, or name its folder with --workdir=…"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read ({_reason(error)}). Train again, or put back the config, "
            "which is in every checkpoint, too."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise UserError(f"{path}: holds no config of a run. Name another --workdir.")
    return content


def append_row(workdir: Path, row: dict[str, Any]) -> None:
    """Appends one row to metrics.jsonl; it is on the disk when this returns.

    Raises:
      UserError: it cannot be written.
    """
    path = workdir / METRICS_FILE
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({_reason(error)}). Make room and start again: the run "
            "goes on from its newest checkpoint."
        ) from error


def read_rows(workdir: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl, without a last line that a crash cut short.

    Raises:
      UserError: a line before the last is no JSON object with a whole number as its step.
    """
    path = workdir / METRICS_FILE
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({_reason(error)}).") from error
    rows = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is partial
        row = None
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
        if not isinstance(row, dict):
            raise UserError(
                f"{path}, line {number}: is no JSON object. Mend the line, or remove it "
                "if it does not belong there."
            )
        if not isinstance(row.get("step"), int):
            raise UserError(f"{path}, line {number}: has no step. Mend the line.")
        rows.append(row)
    return rows


def truncate_rows(workdir: Path, step: int) -> int:
    """Drops the rows after a step, which a resumed run will write again; counts the others."""
    rows = [row for row in read_rows(workdir) if row["step"] <= step]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomic(workdir / METRICS_FILE, text)
    return len(rows)
