"""Files that a command writes where the user says: whole or not at all."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from mnist_flax.errors import UserError


def write_npz(output: Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays as NPZ.

    Raises:
      UserError: the file cannot be written.
    """
    with written(output) as file:  # an open file, or NumPy would append .npz to the name
        np.savez(file, **arrays)


@contextlib.contextmanager
def written(output: Path) -> Iterator[IO[bytes]]:
    """Gives a file that takes the place of `output` once it is whole.

    Raises:
      UserError: it cannot be written.
    """
    temporary = output.with_name(output.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"{output}: cannot be written ({error.strerror}). Make room, or name another place."
        ) from error
