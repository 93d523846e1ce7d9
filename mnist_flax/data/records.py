"""Pictures by number, decoded one by one when they are asked for: the form of what is streamed."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Records(Protocol):
    """Pictures of one size that lie in files.

    Attributes:
      shape: (H, W, C) of each.
      key: a digest of what their pixels depend on: names, sizes and times of the files, and what is
        done to them. It stays the same while nothing is changed.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...  # noqa: D102

    @property
    def key(self) -> str: ...  # noqa: D102

    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """Decodes pictures: uint8 [n, H, W, C]. Several threads may ask at once.

        Pillow's warnings are left to whoever asks.

        Raises:
          UserError: one of them is damaged, or unlike the others; it is named.
        """
        ...

    def notes(self) -> tuple[str, ...]:
        """Returns what is to be said of the pictures that were read so far."""
        ...


@dataclass(frozen=True, eq=False)
class Mapped:
    """Records of which something else is made, each time that they are read.

    Attributes:
      records: that are read.
      function: uint8 [n, …] -> uint8 [n, *shape].
      shape: of a picture then.
      told: what the function does, a word for the key.
    """

    records: Records
    function: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, int, int]
    told: str

    @property
    def key(self) -> str:
        """That of the records, and of what is made of them."""
        return hashlib.sha256(f"{self.records.key} {self.told}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.records)

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """Decodes and maps pictures: uint8 [n, H, W, C]."""
        return self.function(self.records.read(numbers))

    def notes(self) -> tuple[str, ...]:
        """Those of the records."""
        return self.records.notes()


def key_of_files(listing: Sequence[tuple[str, int, int]], *more: object) -> str:
    """Returns a digest of files, (name, bytes, nanoseconds), and of what else decides pixels."""
    digest = hashlib.sha256(repr(more).encode())
    for entry in listing:
        digest.update(f"\n{entry!r}".encode())
    return digest.hexdigest()
