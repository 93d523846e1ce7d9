"""A run's text files: written whole or not at all; config.json."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from mnist_flax.errors import UserError
from mnist_flax.workdir import old_runs

CONFIG_FILE = "config.json"


def reason(error: Exception) -> str:
    """Returns the system's words for what went wrong, without the file's name, if there are any."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all, whatever happens in between.

    What UTF-8 cannot hold (a byte of a folder's name) stands in a text as an escape: \\udce9.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(
                content.encode(errors="backslashreplace") if isinstance(content, str) else content
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # a part of it would keep a full disk full
            temporary.unlink()
        raise UserError(
            f"{path}: cannot be written ({reason(error)}). Make room, or see to its permissions, "
            "and start again."
        ) from error


def write_config(workdir: Path, config: dict[str, Any]) -> None:
    """Writes config.json."""
    write_atomic(workdir / CONFIG_FILE, json.dumps(config, indent=2) + "\n")


def read_config(workdir: Path) -> dict[str, Any]:
    """Reads config.json, in today's form.

    Raises:
      UserError: there is none, or it is not what write_config wrote.
    """
    path = workdir / CONFIG_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: not found, so no run was started in {workdir}. "
            "Train first, or name the workdir of a run."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read ({reason(error)}). Train again, or put back the config, "
            "which is in every checkpoint, too."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise UserError(f"{path}: holds no config of a run. Name another workdir.")
    return old_runs.today_config(content)
