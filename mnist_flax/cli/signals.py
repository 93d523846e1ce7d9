"""SIGTERM, SIGHUP and SIGINT: the first asks for an orderly stop, the second leaves at once."""

import contextlib
import os
import signal
import socket
import threading
import time
from types import FrameType, TracebackType

# SIGHUP is that of a connection that is lost; Windows has none. SIGINT is last, so that it is given
# back last: its own handler raises, and from then on there must be nothing left to give back.
_SIGNALS = (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []), signal.SIGINT)


class StopSignals:
    """A context manager that turns the first signal into a flag, which the run polls.

    Python runs its handlers between two bytecodes of the main thread, hence not while XLA compiles
    or computes; the wake-up descriptor is written by the C handler at the moment of the signal. A
    thread reads it, so that a second signal ends the process even then.
    """

    def __init__(self, deaf_seconds: float = 0.0) -> None:
        """Takes nothing over yet.

        Args:
          deaf_seconds: after the first signal, in which another one is the same: whoever ends a
            whole tree of processes sends it to a child, and to the parent that hands it on.
        """
        self._deaf_seconds, self._first_at = deaf_seconds, 0.0
        self._received: list[int] = []
        # No pipe: on Windows, those of Python 3.11 cannot be told not to wait.
        self._read_end, self._write_end = socket.socketpair()

    def requested(self) -> bool:
        """Says whether a signal has come."""
        return bool(self._received)

    @property
    def signal(self) -> signal.Signals | None:
        """The first signal that came, if any."""
        return signal.Signals(self._received[0]) if self._received else None

    def __enter__(self) -> "StopSignals":
        """Takes the signals over; only the main thread may.

        A SIGHUP that is ignored stays so: that is what nohup is for.
        """
        self._write_end.setblocking(False)
        self._old_descriptor = signal.set_wakeup_fd(self._write_end.fileno())
        self._old_handlers = {
            number: signal.signal(number, _ignore) for number in _SIGNALS if not _nohup(number)
        }
        self._thread = threading.Thread(target=self._watch, name="stop-signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Gives them back; what came until then is known when this returns."""
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_descriptor)
        self._write_end.close()  # ends the thread: it receives nothing
        self._thread.join()

    def _watch(self) -> None:
        while byte := self._read_end.recv(1):
            if byte[0] not in _SIGNALS:
                continue
            if self._received:
                if time.monotonic() - self._first_at < self._deaf_seconds:
                    continue
                os._exit(128 + byte[0])
            self._first_at = time.monotonic()
            self._received.append(byte[0])
            name = signal.Signals(byte[0]).name
            with contextlib.suppress(OSError):  # a pipe that the same Ctrl-C has closed
                os.write(2, f"{name}: saving and leaving; once more leaves at once.\n".encode())
        self._read_end.close()


def _nohup(number: signal.Signals) -> bool:
    return number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN


def _ignore(number: int, frame: FrameType | None) -> None:
    """Replaces Python's own handlers; the wake-up descriptor has told the thread already."""
