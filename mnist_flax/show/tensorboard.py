"""A run as TensorBoard shows it: its rows as curves, its evaluations as images.

The only importer of tensorboardX, imported itself only where config.tensorboard is set.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mnist_flax.errors import UserError, installing
from mnist_flax.workdir.rows import split_of

try:
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import masked_crc32c
except ImportError as error:
    raise UserError(
        f"config.tensorboard=true: {error}. Install it with {installing('tensorboard')}, "
        "or leave the field out."
    ) from error

_Place = tuple[str, int]  # split and step: a row's


class EventFile:
    """The event file of a run.

    It is a view of metrics.jsonl: what that file lost or gained while no event was written, by a
    crash or because the field was off, is lost or gained here with the next start, which writes one
    file anew and empties the older one. So every step is there once, for any reader.

    tensorboardX's SummaryWriter writes in a thread, which flush() does not wait for; here a row is
    on the disk when row() returns.
    """

    def __init__(
        self,
        folder: Path,
        rows: Iterable[Mapping[str, Any]],
        hparams: Mapping[str, Any],
        metrics: Iterable[str],
        report: Callable[[str], None],
    ):
        """Writes what the run has been so far.

        Args:
          folder: is created; TensorBoard's --logdir.
          rows: of metrics.jsonl, cut to the step that the run stands at.
          hparams: {'optimizer.learning_rate': 0.001, …}.
          metrics: 'eval/loss', … which the table of runs shows next to them.
          report: gets a line about an older file that is damaged.

        Raises:
          UserError: the folder cannot be read or written.
        """
        self._folder = folder
        with self._disk_faults():
            folder.mkdir(exist_ok=True)
            older = sorted(folder.glob("events.out.tfevents.*"))
            curves, images = _read(older, report)
            # Readers take files by name; two starts within a second need names of their own.
            self._file = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
            # If a crash leaves older files next to this one, TensorBoard drops what they hold.
            self._add(Event(wall_time=time.time(), session_log=SessionLog(status=SessionLog.START)))
            for part in _hparams(hparams, metrics):
                self._add(Event(wall_time=time.time(), summary=part))
            for row in rows:
                place = split_of(row), row["step"]
                if place in images:
                    self._add(images[place])
                self._add_row(row, curves[place].wall_time if place in curves else time.time())
            self._file.flush()
            for path in older:
                _empty_or_remove(path)

    def row(self, row: Mapping[str, Any]) -> None:
        """Adds every number of a training, an epoch's or an evaluation row; of others, nothing."""
        with self._disk_faults():
            self._add_row(row, time.time())
            self._file.flush()

    def images(self, step: int, split: str, images: Mapping[str, np.ndarray]) -> None:
        """Adds images uint8 [H, W, 3] of an evaluation, before its row.

        In this order a crash between the two loses neither: an image without a row is dropped and
        drawn again, and a row without its event is found in metrics.jsonl.
        """
        values = [
            value
            for name, image in images.items()
            for value in summary.image(f"{split}/{name}", image, dataformats="HWC").value
        ]
        with self._disk_faults():
            self._add(Event(step=step, wall_time=time.time(), summary=Summary(value=values)))
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        with self._disk_faults():
            self._file.close()

    def _add_row(self, row: Mapping[str, Any], wall_time: float) -> None:
        if values := _scalars(row):
            self._add(Event(step=row["step"], wall_time=wall_time, summary=Summary(value=values)))

    def _add(self, event: Event) -> None:
        self._file.write_event(event)

    @contextlib.contextmanager
    def _disk_faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self._folder}: {error.strerror}. Make room, or see to its permissions, and "
                "start again: the run goes on from its newest checkpoint; "
                "config.tensorboard=false does without."
            ) from error


def _empty_or_remove(path: Path) -> None:
    """Empties a file with this start and removes it with the next.

    A TensorBoard that is reading it (--load_fast=false) goes on to the next file at its end, but
    waits for ever for a file that is gone.
    """
    if path.stat().st_size:
        os.truncate(path, 0)
    else:
        path.unlink()


def _scalars(row: Mapping[str, Any]) -> list[Any]:
    """Returns the values 'train/loss', … of a row: float32."""
    split = split_of(row)
    return [
        value
        for name, number in row.items()
        if split and name != "step" and type(number) in (int, float)
        for value in summary.scalar(f"{split}/{name}", number).value
    ]


def _hparams(config: Mapping[str, Any], metrics: Iterable[str]) -> list[Any]:
    """Returns the summaries for TensorBoard's table of runs; fields that are None are left out."""
    plain = {key: str(value) if isinstance(value, list) else value for key, value in config.items()}
    experiment, start, _end = summary.hparams(plain, dict.fromkeys(metrics))
    return [experiment, start]


def _read(
    paths: Iterable[Path], report: Callable[[str], None]
) -> tuple[dict[_Place, Event], dict[_Place, Event]]:
    """Returns the rows' events and the images' of event files; of two for a place, the later."""
    curves: dict[_Place, Event] = {}
    images: dict[_Place, Event] = {}
    for path in paths:
        for record in _records(path, report):
            event = Event.FromString(record)
            for value in event.summary.value[:1]:  # the others of an event are of its kind
                place = value.tag.partition("/")[0], event.step
                (images if value.HasField("image") else curves)[place] = event
    return curves, images


def _records(path: Path, report: Callable[[str], None]) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, up to the first that is not whole.

    A record is its length (8 bytes), the length's checksum (4), so many bytes, their checksum (4).
    """
    content, at = path.read_bytes(), 0
    while at < len(content):
        start = at + 12
        end = start + int.from_bytes(content[at : at + 8], "little")
        record = content[start:end]
        if content[end : end + 4] != masked_crc32c(record).to_bytes(4, "little"):
            report(
                f"{path} is damaged or cut short after byte {at:,}: images from there on are "
                "left out. The curves are whole: they come from metrics.jsonl."
            )
            return
        yield record
        at = end + 4
