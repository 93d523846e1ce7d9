"""The records of a prepared TFDS directory, pictures with labels, decoded by ourselves.

TFDS's own way from a record to arrays takes as long again as decoding its picture.
"""

import contextlib
import functools
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnist_flax.data import folder, kept_findings
from mnist_flax.data.dataset import LARGEST, Split
from mnist_flax.data.records import key_of_files
from mnist_flax.data.streamed_images import StreamedImages
from mnist_flax.errors import UserError

_BATCH = 10_000  # records in memory at once, besides the images
# What reading damaged files raises.
DAMAGE = (OSError, ValueError, RuntimeError, LookupError, OverflowError)


def damaged(directory: Path, error: BaseException) -> UserError:
    """Returns what is reported of a directory that cannot be read."""
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{directory} cannot be read: {reason}. Delete it or repair it.")


def read_all(
    sources: Mapping[str, Any],
    shape: tuple[int, int, int],
    directory: Path,
    report: Callable[[str], None],
) -> dict[str, Split]:
    """Reads all pictures of each split.

    Args:
      sources: of TFDS, by the name of the split.
      shape: (H, W, C) of a picture.
      directory: that they lie in.
      report: gets nothing.

    Raises:
      UserError: they are too large to lie in memory.
    """
    del report
    splits = {}
    for split, source in sources.items():
        if len(source) * int(np.prod(shape)) > LARGEST:
            raise UserError(
                f"{directory}: {len(source):,} pictures {list(shape)} in {split!r} unpack into "
                f"more than {LARGEST:,} bytes. Use config.data.stream=true."
            )
        images = np.empty((len(source), *shape), np.uint8)
        labels = np.empty(len(source), np.int32)
        for start in range(0, len(source), _BATCH):
            indices = range(start, min(start + _BATCH, len(source)))
            rows = _rows(source, indices)
            labels[start : indices.stop] = [row["label"].int64_list.value[0] for row in rows]
            folder.decode(_pictures(rows), images[start : indices.stop], indices)
        splits[split] = Split(images, labels)
    return splits


def streamed(
    sources: Mapping[str, Any],
    shape: tuple[int, int, int],
    directory: Path,
    report: Callable[[str], None],
) -> dict[str, Split]:
    """Returns splits whose pictures are decoded when they are asked for; the labels are read.

    Those are in the records, next to the pictures, so all records are read for them, once: they are
    kept (kept_findings.py).
    """
    records = TfdsRecords(list(sources.values()), shape, directory)
    name = f"labels-{records.key}"
    kept = kept_findings.read(name, report)
    if kept is None or kept["labels"].shape != (len(records),):
        report(f"Reading {len(records):,} records once, for their labels: {directory}.")
        kept = {"labels": records.labels()}
        if fault := kept_findings.write(name, kept):
            report(f"{kept_findings.folder()}: {fault}: the next start reads the records again.")
    splits, start = {}, 0
    for split, source in sources.items():
        numbers = np.arange(start, start := start + len(source))
        splits[split] = Split(StreamedImages(records, numbers), kept["labels"][numbers])
    return splits


class TfdsRecords:
    """The records of several splits, one split after another.

    Attributes:
      shape: (H, W, C) of each picture.
    """

    def __init__(self, sources: Sequence[Any], shape: tuple[int, int, int], directory: Path):
        """Reads nothing yet; the arguments are those of `streamed`."""
        self._sources, self._directory, self.shape = sources, directory, shape
        self._ends = np.cumsum([len(source) for source in sources])

    @functools.cached_property
    def key(self) -> str:
        """See records.Records."""
        listing = []
        for path in sorted(self._directory.iterdir()):
            told = path.stat()
            listing.append((str(path.absolute()), told.st_size, told.st_mtime_ns))
        return key_of_files(listing, "TFDS", self.shape, importlib.metadata.version("pillow"))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def labels(self) -> np.ndarray:
        """Reads those of all records: int32 [N]."""
        found = [
            row["label"].int64_list.value[0]
            for source in self._sources
            for start in range(0, len(source), _BATCH)
            for row in _rows(source, range(start, min(start + _BATCH, len(source))))
        ]
        return np.array(found, np.int32)

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """Decodes pictures: uint8 [n, H, W, C]."""
        try:
            rows = self._rows(numbers)
            pictures = _pictures([rows[number] for number in numbers])
            images = np.empty((len(numbers), *self.shape), np.uint8)
            folder.decode(pictures, images, numbers, hushed=contextlib.nullcontext)
        except DAMAGE as error:
            raise damaged(self._directory, error) from error
        return images

    def _rows(self, numbers: Sequence[int]) -> dict[int, Any]:
        rows: dict[int, Any] = {}
        for source, end in zip(self._sources, self._ends.tolist(), strict=True):
            start = end - len(source)
            # At once: a call of array_record's starts threads of its own.
            if here := [number for number in numbers if start <= number < end]:
                rows |= zip(here, _rows(source, [n - start for n in here]), strict=True)
        return rows

    def notes(self) -> tuple[str, ...]:
        """Nothing is to be said."""
        return ()


def _rows(source: Any, indices: Sequence[int]) -> list[Any]:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow_datasets.proto import tf_example_pb2

    records = source.data_source.__getitems__(list(indices))
    try:
        return [tf_example_pb2.Example.FromString(record).features.feature for record in records]
    except DecodeError as error:
        raise ValueError(str(error)) from error


def _pictures(rows: Sequence[Any]) -> list[bytes]:
    return [row["image"].bytes_list.value[0] for row in rows]
