"""Grain reads records by threads. The only importer of grain, where it is used."""

import contextlib
import importlib.util
import os
import re
import warnings

import numpy as np

from mnist_flax.data.records import Records
from mnist_flax.errors import UserError, installing

_PILLOW = re.compile(r"PIL\.")  # its modules
_PIECE_BYTES = 2**20
_PIECE = 64  # pictures
_LACKING = (
    "config.data.stream=true: the package grain is not installed. Install it with "
    f"{installing('grain')}, or leave the field out."
)


def fault() -> str:
    """Returns why nothing can be streamed here; '' where it can."""
    return "" if importlib.util.find_spec("grain") else _LACKING


class _Pieces:
    """A source for Grain, by random access: a few records are one element.

    What Grain spends on an element is spent once for all of them.
    """

    def __init__(self, records: Records, numbers: np.ndarray):
        self._records, self._numbers = records, numbers
        self._size = max(1, min(_PIECE, _PIECE_BYTES // int(np.prod(records.shape))))

    def __len__(self) -> int:
        return -(-len(self._numbers) // self._size)

    def __getitem__(self, index: int) -> np.ndarray:
        start = index * self._size
        return self._records.read(self._numbers[start : start + self._size].tolist())


def threads() -> int:
    """Returns how many threads decode: one for each core that this process may use, two at least.

    Pillow leaves Python's lock to others while it decodes.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(2, cores or 1)


def _hush_pillow() -> None:
    """Has Pillow's warnings ignored, once and for all: threads cannot do it for a while.

    See decoding.quiet, and why they are.
    """
    if not any(module == _PILLOW for _, _, _, module, _ in list(warnings.filters)):
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)


def read(records: Records, numbers: np.ndarray) -> np.ndarray:
    """Decodes pictures: int [n] -> uint8 [n, H, W, C], in that order.

    Raises:
      UserError: what reading them raises, of the first that is faulty; grain is not installed.
    """
    try:
        import grain
    except ImportError as error:
        raise UserError(_LACKING) from error
    _hush_pillow()
    options = grain.ReadOptions(num_threads=threads(), prefetch_buffer_size=2 * threads())
    pieces = grain.MapDataset.source(_Pieces(records, numbers)).to_iter_dataset(options)
    images, place = np.empty((len(numbers), *records.shape), np.uint8), 0
    with contextlib.closing(iter(pieces)) as iterator:
        for piece in iterator:
            images[place : place + len(piece)] = piece
            place += len(piece)
    return images
