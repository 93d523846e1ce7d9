"""What a user can cause: one class for wrong usage, one for a run that cannot go on.

Each is raised with a message that names the field or file, what was got, what is allowed and what
to do. The command prints the message alone; a traceback is for our own mistakes.
"""

import importlib.metadata
import shlex
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


class UserError(Exception):
    """A run cannot start or go on, for a reason outside the program. Exit status 1."""

    exit_status = 1

    def _render_traceback_(self) -> list[str]:
        """Returns what IPython shows in the place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class UsageError(UserError):
    """A flag or a config field is wrong. Exit status 2."""

    exit_status = 2


def together(*calls: Callable[[], Any]) -> tuple[Any, ...]:
    """Returns what each call gives; raises UsageError with the faults of all, a line each."""
    results, faults = [], []
    for call in calls:
        try:
            results.append(call())
        except UsageError as error:
            faults.append(str(error))
    if faults:
        raise UsageError("\n".join(faults))
    return tuple(results)


def installing(extra: str) -> str:
    """Returns the command that installs what an extra of pyproject.toml needs.

    From a wheel it names the packages themselves: mnist-flax is on no index.
    """
    if Path(__file__).parent.with_name("pyproject.toml").is_file():
        return f"pip install -e '.[{extra}]'"
    try:
        required = importlib.metadata.requires("mnist-flax") or []
    except importlib.metadata.PackageNotFoundError:  # copied there, not installed
        required = []
    packages = [one.partition(";")[0].strip() for one in required if f'extra == "{extra}"' in one]
    if not packages:
        return f"pip install -e '.[{extra}]' in the repository's folder"
    return f"pip install {shlex.join(packages)}"


def out_of_memory(error: BaseException) -> bool:
    """Says whether Python, NumPy or XLA could not have the memory that it asked for."""
    of_xla = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
    return isinstance(error, MemoryError) or (of_xla and "RESOURCE_EXHAUSTED" in str(error))


def where_it_failed(error: BaseException, *callers: str) -> str:
    """Returns 'mine.py, line 12: TypeError: …' for a fault in a user's own function.

    Args:
      error: as it was caught.
      callers: files that only called the function, and the libraries', are passed over on the way
        to the line at fault. If no line is left, the exception alone is named.
    """
    others = ("site-packages", sysconfig.get_path("stdlib"), "<frozen", __file__, *callers)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [
        (frame.filename, frame.lineno)
        for frame in frames
        if not any(path in frame.filename for path in others)
    ]
    if isinstance(error, SyntaxError) and error.filename is not None:
        lines.append((error.filename, error.lineno))
    where = f"{lines[-1][0]}, line {lines[-1][1]}: " if lines else ""
    what = next(iter(str(error).strip().splitlines()), "")[:160]
    return f"{where}{type(error).__name__}: {what}"
