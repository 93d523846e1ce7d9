"""Where a run's rows go: one row of values in; a console line and a line of metrics.jsonl out.

And an event for TensorBoard and a call of config.writers, where a run asks for them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_flax.show.console import Console
from mnist_flax.show.writers import Writers
from mnist_flax.workdir.kept_pictures import keep_picture
from mnist_flax.workdir.rows import append_row, split_of

if TYPE_CHECKING:  # it brings tensorboardX, which a run without event files need not have
    from mnist_flax.show.tensorboard import EventFile

# What writers are told of a row, by its split or by what it is of.
_EVENTS = {
    **{"train": "train", "eval": "eval", "select": "eval", "epoch": "epoch"},
    **dict.fromkeys(("finished", "stopped", "diverged"), "ended"),
}


class Writer:
    """Sends every row to the console and to metrics.jsonl.

    Attributes:
      rows: how many the file holds.
      event_file: where they go as well, for TensorBoard; None without config.tensorboard.
      writers: who is told of them; None without config.writers.
    """

    def __init__(self, workdir: Path | None, console: Console, dataset: str):
        """Binds the run's folder, its console and the name of its data, which each row carries.

        In a process that only computes the folder is None, and no file is written.
        """
        self._workdir = workdir
        self._console = console
        self._dataset = dataset
        self.rows = 0  # counted from what the file held when the run was opened
        self.event_file: EventFile | None = None
        self.writers: Writers | None = None

    def row(self, step: int, split: str, dataset: str = "", /, **values: float) -> None:
        """Writes a row of `split` 'train', 'eval' or 'select', or of an extra split of its data."""
        row = {"step": step, "split": split, **values, "dataset": dataset or self._dataset}
        self._append(row)
        self._console.row(row)
        self._tell(row)

    def event(self, step: int, event: str, message: str, **values: Any) -> None:
        """Writes a row of another kind (resumed, stopped, fallback, …) and says its message."""
        row = self._event_row(step, event, message, **values)
        self._append(row)
        self._console.say(message)
        self._tell(row)

    def record(self, step: int, event: str, message: str, **values: Any) -> None:
        """Writes such a row without a word: of what an error says next."""
        row = self._event_row(step, event, message, **values)
        self._append(row)
        self._tell(row)

    def saved(self, step: int) -> None:
        """Tells the writers that the state of this step is on the disk."""
        if self.writers is not None:
            self.writers.tell("saved", step, {})

    def drawing(self, step: int, split: str) -> Callable[[Mapping[str, np.ndarray]], None] | None:
        """Returns what shows pictures uint8 [H, W, 3] of a split's step; None if nothing does."""
        if self.event_file is None:
            return None
        return functools.partial(self.event_file.images, step, split)

    def keep(self, step: int, split: str, pictures: Mapping[str, np.ndarray]) -> None:
        """Writes pictures uint8 [H, W, 3] to the workdir, and shows them where drawing() does."""
        for name, picture in pictures.items():
            if self._workdir is not None:
                keep_picture(self._workdir, name, step, picture)
        if draw := self.drawing(step, split):
            draw(pictures)

    def _event_row(self, step: int, event: str, message: str, **values: Any) -> dict[str, Any]:
        row = {"step": step, "event": event, "message": message, **values}
        return row | {"dataset": self._dataset}

    def _tell(self, row: Mapping[str, Any]) -> None:
        event = _EVENTS.get(split_of(row) or row["event"])
        if self.writers is not None and event is not None:
            self.writers.tell(event, row["step"], row)

    def _append(self, row: dict[str, Any]) -> None:
        if self._workdir is not None:
            append_row(self._workdir, row)
        self.rows += 1
        if self.event_file is not None:
            self.event_file.row(row)
