"""What Orbax and TensorStore say of a save: nothing while it works, one line where it failed."""

import contextlib
import logging
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def without_advice() -> Iterator[None]:
    """Drops what Orbax logs meanwhile, that a folder is only read, say; what fails raises.

    What others log by absl stays, and so does what a caller's own use of Orbax does.
    """
    logger = logging.getLogger("absl")

    def others(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


@contextlib.contextmanager
def silent_after_failure() -> Iterator[None]:
    """Drops what tensorstore's threads and asyncio still have to say of a save that failed.

    When one array cannot be read or written, Orbax closes its event loop, and each array that is
    done after that prints a traceback of its own next to our message. They may come late: where
    something failed, the silence stays.
    """
    hook = sys.unraisablehook

    def filtered(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    sys.unraisablehook = filtered
    try:
        yield
    except Exception:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    sys.unraisablehook = hook


def first_line(error: Exception) -> str:
    """Returns the system's reason if there is one, else the message's first line, cut at 160."""
    if isinstance(error, shutil.Error):  # (source, target, reason) of every file
        return re.sub(r": '.*", "", error.args[0][0][2])
    text = str(error).strip() or type(error).__name__
    # TensorStore tells at length where it was, and the system's reason last.
    if reason := re.search(r"\[OS error \d+: \w+ ([^\]]+)\]", text):
        return reason[1]
    if text.startswith("RESOURCE_EXHAUSTED"):
        return "the disk is full"
    return text.splitlines()[0][:160]
