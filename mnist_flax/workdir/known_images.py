"""Which images a run knows, by digest: nobody is judged unsaid on what he was taught or chosen by.

trained_on.npy is of the images that a run is trained on, chosen_on.npy of those that choose its
best save: uint64 [N] each, sorted, 8 bytes an image.
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mnist_flax.data.streamed_images import Images, image_digests
from mnist_flax.errors import UserError
from mnist_flax.workdir.files import reason, write_atomic

TRAINED_ON_FILE = "trained_on.npy"
CHOSEN_ON_FILE = "chosen_on.npy"


class Known(NamedTuple):
    """How many of some images a run knows.

    Attributes:
      trained_on: by having been trained on them.
      chosen_on: by having been chosen, as the best save, for how it does on them.
      images: how many they are.
    """

    trained_on: int
    chosen_on: int
    images: int

    def told(self) -> list[str]:
        """Returns what is said of it, a line each; nothing where they are new to the run."""
        said = []
        if self.trained_on:
            said.append(
                f"{self.trained_on:,} of these {self.images:,} images were trained on: the figures "
                "look better than the network is."
            )
        if self.chosen_on:
            said.append(
                f"{self.chosen_on:,} of these {self.images:,} images were used to choose this save "
                "as the best: the figures may look better than the network is. Judge it on others "
                "(config.data.select_split holds some out to choose), or judge "
                "the latest save, which was not chosen."
            )
        return said

    def row(self) -> dict[str, int]:
        """Returns what a line of JSON says of it."""
        counted = {
            "examples_trained_on": self.trained_on,
            "examples_chosen_on": self.chosen_on,
        }
        return {name: count for name, count in counted.items() if count}


def keep_known(workdir: Path, trained_on: Images, *before: Path) -> None:
    """Writes the digests of the images that a run is trained on.

    Args:
      workdir: of the run, at its start.
      trained_on: uint8 [N, H, W, C], as they are, before any augmentation.
      before: the workdirs of runs whose parameters it starts from, or takes in: what those were
        trained on counts, too.

    Raises:
      UserError: a file cannot be written, or that of `before` cannot be read.
    """
    found = [image_digests(trained_on)]
    for other in before:
        if (known := _read(other / TRAINED_ON_FILE)) is not None:
            found.append(known)
    _write(workdir / TRAINED_ON_FILE, np.concatenate(found))


def keep_chosen(workdir: Path, images: Images) -> None:
    """Writes the digests of the images uint8 [N, H, W, C] that choose a run's best save.

    Raises:
      UserError: the file cannot be written.
    """
    _write(workdir / CHOSEN_ON_FILE, image_digests(images))


def count_known(workdir: Path, images: Images, *, chosen: bool) -> Known:
    """Counts those of some images that a run knows: none of a run that kept no digests, an older.

    Args:
      workdir: of the run.
      images: uint8 [N, H, W, C].
      chosen: whether the save that is judged was chosen as the best.

    Raises:
      UserError: a file cannot be read.
    """
    digests = image_digests(images)

    def count(name: str) -> int:
        known = _read(workdir / name)
        return 0 if known is None else int(np.isin(digests, known).sum())

    return Known(count(TRAINED_ON_FILE), count(CHOSEN_ON_FILE) if chosen else 0, len(images))


def _write(path: Path, digests: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, np.unique(digests))
    write_atomic(path, content.getvalue())


def _read(path: Path) -> np.ndarray | None:
    try:
        found = np.load(path, allow_pickle=False)
        if found.dtype != np.uint64 or found.ndim != 1:
            raise ValueError(f"{found.dtype} {list(found.shape)}, no list of digests")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{path}: cannot be read ({reason(error)}). Put it back, or remove it: nothing is then "
            "said of images that the run knows."
        ) from error
    return np.asarray(found)
