"""A window of steps, traced by JAX's profiler while a run goes on.

The run's programs are wrapped, so that the loop knows nothing of it. Chunks end at the window's two
ends, which changes no bit: one program serves chunks of every length.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from mnist_flax.core.state import TrainState
from mnist_flax.data.sources import Feed
from mnist_flax.errors import UserError
from mnist_flax.show.operations import operations_table
from mnist_flax.training.compilation import Programs
from mnist_flax.training.timetable import Window

PROFILE_FOLDER = "profile"


@contextlib.contextmanager
def profiled(
    programs: Programs, window: Window, workdir: Path, say: Callable[[str], None]
) -> Iterator[Programs]:
    """Gives the programs of a run, of which train_chunk traces the steps of the window.

    At the window's end, or where the run ends inside it, the trace is written, and what the
    costliest operations were is said. Nothing goes to the run's rows.

    Args:
      programs: of the run.
      window: chunks end at its ends.
      workdir: of the run; a folder of it takes the trace.
      say: hears of it.

    Raises:
      UserError: JAX's profiler is in use, when the window begins.
    """
    trace = _Trace(
        programs, window, workdir / PROFILE_FOLDER / f"{window.first}-{window.last}", say
    )
    try:
        yield replace(programs, train_chunk=trace.train_chunk)
    finally:
        trace.end()


class _Trace:
    """The steps of a window, in the making."""

    def __init__(
        self, programs: Programs, window: Window, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._programs, self._window, self._folder, self._say = programs, window, folder, say
        self._at: int | None = None  # where the trace stands; None: it has not begun
        self._ended = False
        self._seconds = 0.0  # spent in its steps

    def train_chunk(
        self, state: TrainState, feed: Feed, count: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        """Computes as the program does; starts the trace before it, or ends it after."""
        step, steps = int(state.step), int(count)
        if step == self._window.first:
            self._start()
        if self._at is None or self._ended:
            return self._programs.train_chunk(state, feed, count)
        started = time.perf_counter()
        with jax.profiler.TraceAnnotation(f"steps {step + 1} to {step + steps}"):
            made = jax.block_until_ready(self._programs.train_chunk(state, feed, count))
        self._seconds += time.perf_counter() - started
        self._at = step + steps
        if self._at == self._window.last:
            self.end()
        return made

    def _start(self) -> None:
        options: Any = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # each call of Python would be an event, and take time
        try:
            # Here, since JAX cannot trace again after a trace that it could not write.
            self._folder.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(
                self._folder, create_perfetto_trace=True, profiler_options=options
            )
        except OSError as error:
            self._give_up(error)
            return
        except RuntimeError as error:
            raise UserError(
                f"profile={self._window}: JAX's profiler cannot start ({error}) One trace at a "
                "time: end the other one, or leave profile out."
            ) from error
        self._at = self._window.first

    def _give_up(self, error: Exception) -> None:
        """Says that there is no trace, whose lack must not cost the run anything."""
        self._ended = True
        self._say(f"There is no trace in {self._folder}: {error}")

    def end(self) -> None:
        """Writes the trace, once; says what is in it, or that the window was not reached."""
        if self._ended:
            return
        self._ended = True
        if self._at is None:
            self._say(f"profile={self._window}: the run did not come to these steps; no trace.")
            return
        steps = self._at - self._window.first
        try:
            jax.profiler.stop_trace()
            written = max(self._folder.glob("plugins/profile/*/*.xplane.pb"))
            program = self._programs.step.as_text() or ""
            table = operations_table(written, program, steps, self._seconds) if steps else ""
        except (OSError, RuntimeError, ValueError) as error:  # a full disk
            self._give_up(error)
            return
        count = f"{steps}"
        if self._at < self._window.last:
            count = f"{steps} of the {self._window.steps}"
        *others, last = sorted(path.name for path in written.parent.iterdir())
        names = f"{', '.join(others)} and {last}" if others else last
        first = self._window.first + 1
        self._say(f"Traced {count} steps from {first} on: {written.parent}/, with {names}")
        if table:
            self._say(table)
