"""Pictures that a run keeps: pictures/<name>/<step>.png, written again by whoever comes by."""

from pathlib import Path

import numpy as np

from mnist_flax.data.encoding import png
from mnist_flax.errors import UserError
from mnist_flax.workdir.files import reason, write_atomic

PICTURES = "pictures"


def keep_picture(workdir: Path, name: str, step: int, picture: np.ndarray) -> None:
    """Writes a picture of a step.

    Args:
      workdir: of the run.
      name: of the series that it belongs to.
      step: that it was made at.
      picture: uint8 [H, W, 3].

    Raises:
      UserError: it cannot be written.
    """
    folder = workdir / PICTURES / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: no folder ({reason(error)}). Move what is there.") from error
    write_atomic(folder / f"{step:08d}.png", png(picture))


def kept_pictures(workdir: Path, name: str) -> dict[int, Path]:
    """Returns the pictures of a series, by step and in this order."""
    found = (workdir / PICTURES / name).glob("*.png")
    return {int(path.stem): path for path in sorted(found) if path.stem.isdecimal()}
