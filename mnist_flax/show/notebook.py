"""What a run shows in a notebook: one place that is drawn again, with progress, curves and lines.

The only importer of IPython, which a notebook's kernel has imported already; elsewhere it is never
loaded.
"""

from __future__ import annotations

import contextlib
import html
import sys
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

from mnist_flax.core.task import Task
from mnist_flax.show.console import Console, clock, format_metrics
from mnist_flax.show.curves import curves
from mnist_flax.workdir.rows import read_rows

_SECONDS = 0.5  # between two drawings, once steps are run
_MOST_LINES = 100
_MOST_CURVES = 6


def find_console(workdir: Path, *, silent: bool) -> Console:
    """Returns what shows a run where it is: in a notebook's cell, on a terminal, or as lines.

    Args:
      workdir: of the run.
      silent: whether nothing is shown.
    """
    return NotebookConsole(workdir) if not silent and in_notebook() else Console(silent=silent)


def in_notebook() -> bool:
    """Says whether what is printed now lands under a notebook's cell.

    IPython's kernel has a shell with a kernel, and a stderr of its own, unless it was redirected.
    """
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return hasattr(get_shell(), "kernel") and type(sys.stderr).__name__ == "OutStream"


class NotebookConsole(Console):
    """Shows a run in one output of a notebook's cell, in place of hundreds of lines."""

    def __init__(self, workdir: Path):
        """Shows nothing yet; the rows that the folder holds when steps begin are drawn, too."""
        super().__init__(silent=True)
        self._workdir = workdir
        self._display: Any = None
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._rows: list[dict[str, Any]] = []
        self._better: dict[str, bool] = {}
        self._started, self._step, self._speed, self._drawn_at = False, 0, 0.0, 0.0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Draws it as it stays."""
        self._speed = 0.0
        self._draw()

    def say(self, text: str) -> None:
        """Shows lines below the curves, the last hundred; metrics.jsonl has them all."""
        self._lines.append(text)
        self._draw_soon()

    def interrupted(self) -> None:
        """Says nothing: a signal's handler must not send to the notebook, which may be sending."""

    def start(self, step: int, total_steps: int, task: Task) -> None:
        """Opens the progress of a run that stands at step, with the rows up to there."""
        super().start(step, total_steps, task)
        self._rows = [row for row in read_rows(self._workdir) if "split" in row]
        self._started, self._step = True, step
        self._draw_soon()

    def advance(self, step: int, steps_per_second: float) -> None:
        """Moves the progress."""
        self._step, self._speed = step, steps_per_second
        self._draw_soon()

    def row(self, row: dict[str, Any]) -> None:
        """Adds a row to the curves."""
        self._rows.append(row)
        self._draw_soon()

    def _draw_soon(self) -> None:
        if not self._started or time.monotonic() - self._drawn_at >= _SECONDS:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        self._drawn_at = time.monotonic()
        status = self._status() if self._started else []
        shown = {
            "text/plain": "\n".join([*self._lines, *status]),
            "text/html": self._page(status),
        }
        with contextlib.suppress(OSError):  # a kernel whose notebook is gone
            if self._display is None:
                self._display = display(shown, raw=True, display_id=True)
            else:
                self._display.update(shown, raw=True)

    def _status(self) -> list[str]:
        """Where the run stands, and its last row of each split: a line each."""
        share = self._step / max(self._total_steps, 1)
        done = f"step {self._step:,}/{self._total_steps:,}  {share:.1%}"
        if self._speed:
            left = clock((self._total_steps - self._step) / self._speed)
            done += f"  {self._speed:.1f}/s  ETA {left}"
        last = {row["split"]: row for row in self._rows}
        return [
            done,
            *(
                f"{split:<6} {format_metrics(row, self._metrics)}  at step {row['step']:,}"
                for split, row in last.items()
            ),
        ]

    def _page(self, status: list[str]) -> str:
        lines = html.escape("\n".join(self._lines))
        small = "font-size:85%;white-space:pre-wrap;margin:0"
        parts = [f'<pre style="{small};max-height:14em;overflow:auto">{lines}</pre>']
        if self._started:
            bar = f'<progress value="{self._step}" max="{self._total_steps}" style="width:100%">'
            told = html.escape("\n".join(status))
            parts = [f'{bar}</progress><pre style="{small}">{told}</pre>', self._figure(), *parts]
        return f'<div style="max-width:740px">{"".join(parts)}</div>'

    def _figure(self) -> str:
        """The curves of the metrics, in the order in which the task names them."""
        drawn = []
        for name, metric in self._metrics.items():
            lines: dict[str, list[tuple[int, float]]] = {}
            for row in self._rows:
                if name in row:
                    lines.setdefault(row["split"], []).append((row["step"], row[name]))
            if lines:
                log = not (metric.larger_is_better or metric.summed)
                title = name.replace("_", " ")
                drawn.append(curves(title, lines, self._total_steps, log=log))
        return f'<div style="display:flex;flex-wrap:wrap">{"".join(drawn[:_MOST_CURVES])}</div>'
