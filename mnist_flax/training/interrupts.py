"""Ctrl-C, and a notebook's stop button, where train() is called from Python."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType


class Interrupts:
    """A context manager: the first Ctrl-C asks for an orderly stop, the second raises at once.

    It takes SIGINT over where Python's own handler has it, which would raise in the middle of a
    step or a save. The command's handlers (cli/signals.py) and those of a caller's own stay, and a
    thread other than the main one takes nothing over: only the main one may.
    """

    def __init__(self, report: Callable[[], None]) -> None:
        """Takes nothing over yet; `report` is called in the handler, at the first Ctrl-C."""
        self._report, self._requested, self._taken = report, False, False

    def requested(self) -> bool:
        """Says whether Ctrl-C was pressed."""
        return self._requested

    def __enter__(self) -> "Interrupts":
        """Takes SIGINT over, if it may."""
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._heard)
            self._taken = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Gives it back."""
        if self._taken:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
        self._report()
