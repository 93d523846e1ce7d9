"""What a run says on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from types import TracebackType
from typing import Any, TextIO


class Console:
    """What a run says on stderr: a live bar on a terminal, plain lines elsewhere.

    A context manager: the bar is taken down however the run ends.
    """

    def __init__(self, stream: TextIO | None = None):
        """Takes stderr, or the stream of a test or a notebook."""
        from rich.console import Console as RichConsole

        self._stream = sys.stderr if stream is None else stream
        self._rich = RichConsole(file=self._stream, highlight=False, emoji=False, soft_wrap=True)
        self._bar: Any = None
        self._task: Any = None
        self._total_steps = 0

    def __enter__(self) -> Console:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Takes the bar down."""
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Prints lines as they are, above the bar if there is one.

        A console that is gone (a pipe that was closed) costs the run nothing: what is said is in
        metrics.jsonl too.
        """
        with contextlib.suppress(OSError):
            if self._rich.is_terminal:
                self._rich.print(text, markup=False)
            else:
                print(text, file=self._stream, flush=True)

    def start(self, step: int, total_steps: int) -> None:
        """Opens the progress of a run that stands at step."""
        self._total_steps = total_steps
        if self._rich.is_terminal:
            self._bar, self._task = _live_bar(self._rich, step, total_steps)

    def advance(self, step: int, steps_per_second: float) -> None:
        """Moves the bar; a terminal only."""
        if self._bar is not None:
            speed = f"{steps_per_second:.1f}/s"
            self._bar.update(self._task, completed=step, speed=speed)

    def row(self, row: dict[str, Any]) -> None:
        """Shows a training or evaluation row."""
        if self._bar is not None and row["split"] == "train":
            latest = f"loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}"
            self._bar.update(self._task, latest=latest)
        else:
            self.say(format_row(row, self._total_steps))


def format_row(row: dict[str, Any], total_steps: int) -> str:
    """Returns the console line of a training, an epoch's or an evaluation row."""
    step = row["step"]
    split = f"{row['split']:<5}"
    head = f"step {step:>6,}/{total_steps:,} {100 * step / total_steps:5.1f} %  {split}"
    values = f"loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}"
    if row["split"] == "eval":
        return f"{head}  {values}  {row['examples']:,} images"
    if row["split"] == "epoch":
        summed, last = f"{row['loss_sum']:.6g}", f"{row['last_batch_accuracy']:.4f}"
        return f"{head}  {values}  epoch {row['epoch']}: loss summed {summed}, last batch {last}"
    rate = row["steps_per_second"]
    if rate == 0:  # all its steps were an earlier process's
        return f"{head}  {values}"
    return f"{head}  {values}  {rate:.1f}/s  ETA {clock((total_steps - step) / rate)}"


def clock(seconds: float) -> str:
    """Returns seconds as 4:05 or 1:04:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _live_bar(console: Any, step: int, total_steps: int) -> tuple[Any, Any]:
    from rich import progress

    bar = progress.Progress(
        progress.TextColumn("{task.percentage:5.1f} %"),
        progress.BarColumn(bar_width=None),  # what the others leave of the line
        progress.TextColumn("{task.completed:,}/{task.total:,}"),
        progress.TextColumn("{task.fields[speed]}"),
        progress.TextColumn("ETA"),
        progress.TimeRemainingColumn(compact=True),
        progress.TextColumn("{task.fields[latest]}"),
        console=console,
        speed_estimate_period=30,
        expand=True,
    )
    task = bar.add_task("train", total=total_steps, completed=step, speed="", latest="")
    bar.start()
    return bar, task
