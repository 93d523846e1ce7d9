"""What a run says on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

from mnist_flax.core.task import Metric, Task
from mnist_flax.workdir.rows import is_evaluation, is_extra


class Console:
    """What a run says on stderr: a live bar on a terminal, plain lines elsewhere.

    A context manager: the bar is taken down however the run ends.
    """

    def __init__(self, stream: TextIO | None = None, silent: bool = False):
        """Takes stderr, or the stream of a test or a notebook; says nothing where it is silent."""
        from rich.console import Console as RichConsole

        self._stream = sys.stderr if stream is None else stream
        self._rich = RichConsole(file=self._stream, highlight=False, emoji=False, soft_wrap=True)
        self._silent = silent
        self._bar: Any = None
        self._bar_task: Any = None
        self._total_steps = 0
        self._metrics: Mapping[str, Metric] = {}
        self._best = ""

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
            with contextlib.suppress(OSError):  # a terminal that is gone
                self._bar.stop()

    def say(self, text: str) -> None:
        """Prints lines as they are, above the bar if there is one.

        A console that is gone (a pipe that was closed) costs the run nothing: what is said is in
        metrics.jsonl too.
        """
        if self._silent:
            return
        with contextlib.suppress(OSError):
            if self._rich.is_terminal:
                self._rich.print(text, markup=False)
            else:
                print(text, file=self._stream, flush=True)

    def interrupted(self) -> None:
        """Says that Ctrl-C was heard: in a signal's handler, hence past all that is buffered."""
        if not self._silent and self._stream is sys.__stderr__:
            with contextlib.suppress(OSError):
                os.write(2, b"Ctrl-C: saving and leaving; once more leaves at once.\n")

    def start(self, step: int, total_steps: int, task: Task) -> None:
        """Opens the progress of a run that stands at step; the task says how numbers are shown."""
        self._total_steps, self._metrics, self._best = total_steps, task.metrics, task.best
        if self._rich.is_terminal and not self._silent:
            self._bar, self._bar_task = _live_bar(self._rich, step, total_steps)

    def advance(self, step: int, steps_per_second: float) -> None:
        """Moves the bar; a terminal only."""
        if self._bar is not None:
            speed = f"{steps_per_second:.1f}/s"
            self._bar.update(self._bar_task, completed=step, speed=speed)

    def row(self, row: dict[str, Any]) -> None:
        """Shows a training or evaluation row."""
        if self._bar is not None and row["split"] == "train":
            self._bar.update(self._bar_task, latest=format_metrics(row, self._metrics))
        else:
            self.say(self.format(row))

    def format(self, row: Mapping[str, Any]) -> str:
        """Returns the line of a row of the run that was started."""
        return format_row(row, self._total_steps, self._metrics, self._best)


def format_row(
    row: Mapping[str, Any], total_steps: int, metrics: Mapping[str, Metric], best: str = ""
) -> str:
    """Returns the console line of a training, an epoch's or an evaluation row.

    Args:
      row: with `step` and `split`.
      total_steps: of the run.
      metrics: the task's; shown are those that the row has.
      best: the metric that an epoch's row shows of its last batch.
    """
    step = row["step"]
    split = f"{row['split']:<5}"
    share = step / total_steps if total_steps else 1  # of a run that trains nothing
    head = f"step {step:>6,}/{total_steps:,} {100 * share:5.1f} %  {split}"
    line = "  ".join(filter(None, [head, format_metrics(row, metrics)]))
    if is_evaluation(row) or (is_extra(row) and row["split"] != "epoch"):
        return f"{line}  {row['examples']:,} images"
    if row["split"] == "epoch":
        told = [f"loss summed {row['loss_sum']:.6g}"] if "loss_sum" in row else []
        if (last := row.get(f"last_batch_{best}")) is not None:
            told.append(f"last batch {last:{metrics[best].format}}")
        return f"{line}  epoch {row['epoch']}" + (f": {', '.join(told)}" if told else "")
    rate = row["steps_per_second"]
    if rate == 0:  # all its steps were an earlier process's
        return line
    return f"{line}  {rate:.1f}/s  ETA {clock((total_steps - step) / rate)}"


def format_metrics(values: Mapping[str, Any], metrics: Mapping[str, Metric]) -> str:
    """Returns 'loss 0.1234  accuracy 0.9876' of the metrics that are among the values."""
    return "  ".join(
        f"{name.replace('_', ' ')} {values[name]:{metric.format}}"
        for name, metric in metrics.items()
        if name in values
    )


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
