"""Which images a run is trained on, by digest: nobody is judged on what he was taught unsaid."""

import hashlib
import io
from pathlib import Path

import numpy as np

from mnist_flax.errors import UserError
from mnist_flax.workdir.files import reason, write_atomic

TRAINED_ON_FILE = "trained_on.npy"


def keep_trained_on(workdir: Path, images: np.ndarray, before: Path | None = None) -> None:
    """Writes the digests of a run's training images: uint64 [N], sorted, 8 bytes each.

    Args:
      workdir: of the run, at its start.
      images: uint8 [N, H, W, C], as they are, before any augmentation.
      before: the workdir of a run whose parameters it starts from: what that one was trained on
        counts, too.

    Raises:
      UserError: the file cannot be written, or that of `before` cannot be read.
    """
    found = _digests(images)
    if before is not None and (known := _read(before)) is not None:
        found = np.concatenate([found, known])
    content = io.BytesIO()
    np.save(content, np.unique(found))
    write_atomic(workdir / TRAINED_ON_FILE, content.getvalue())


def count_trained_on(workdir: Path, images: np.ndarray) -> int:
    """Counts those of some images, uint8 [N, H, W, C], that a run was trained on.

    It is 0 of a run that kept no digests, as those of older versions.

    Raises:
      UserError: the file cannot be read.
    """
    known = _read(workdir)
    return 0 if known is None else int(np.isin(_digests(images), known).sum())


def tell_trained_on(count: int, images: np.ndarray) -> str:
    """Returns what is said of so many of these images; '' where there are none."""
    if not count:
        return ""
    return (
        f"{count:,} of these {len(images):,} images were trained on, by their digests: the figures "
        "look better than the network is."
    )


def _digests(images: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    made = b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows)
    return np.frombuffer(made, "<u8")


def _read(workdir: Path) -> np.ndarray | None:
    path = workdir / TRAINED_ON_FILE
    try:
        found = np.load(path, allow_pickle=False)
        if found.dtype != np.uint64 or found.ndim != 1:
            raise ValueError(f"{found.dtype} {list(found.shape)}, no list of digests")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{path}: cannot be read ({reason(error)}). Put it back, or remove it: nothing is then "
            "said of images that were trained on."
        ) from error
    return np.asarray(found)
