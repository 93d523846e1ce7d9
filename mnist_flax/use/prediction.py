"""What a network says of pictures: files of the user's own, or a whole split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mnist_flax.data.dataset import Split
from mnist_flax.data.pictures import read_pictures
from mnist_flax.errors import UserError
from mnist_flax.tasks.programs import make_predict_batch
from mnist_flax.use.restore import Restored


def predict(restored: Restored, images: np.ndarray) -> dict[str, np.ndarray]:
    """Classifies images batch by batch.

    Args:
      restored: a network.
      images: uint8 [N, H, W, C] of the network's shape.

    Returns:
      {'classes': int32 [N], 'probabilities': float32 [N, K]}.
    """
    batch_size = min(restored.config.batch_size, len(images))
    predict_batch = jax.jit(make_predict_batch(restored.model))
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        missing = batch_size - len(batch)  # one shape for all batches: one compilation
        padded = np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0)))
        result = jax.device_get(predict_batch(restored.state, padded))
        parts.append({name: values[: len(batch)] for name, values in result.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class Prediction:
    """What a network says of one picture.

    Attributes:
      file: as it was given.
      image: uint8 [H, W, C], what the network saw.
      best_class: the most probable one.
      probabilities: float32 [K].
    """

    file: str
    image: np.ndarray
    best_class: int
    probabilities: np.ndarray

    def row(self) -> dict[str, Any]:
        """Returns what is printed as JSON."""
        values = [float(value) for value in self.probabilities]
        return {"file": self.file, "classes": self.best_class, "probabilities": values}


def predict_files(restored: Restored, files: Sequence[str], *, center: bool) -> list[Prediction]:
    """Classifies picture files.

    Args:
      restored: a network.
      files: PNG or JPEG.
      center: whether to find the digit and centre it as MNIST's makers did; see pictures.py.

    Raises:
      UserError: any file is missing or no picture; all such files are listed.
    """
    images = read_pictures(files, center=center, shape=restored.image_shape)
    result = predict(restored, images)
    rows = zip(files, images, result["classes"], result["probabilities"], strict=True)
    return [Prediction(file, image, int(best), values) for file, image, best, values in rows]


def predict_split(restored: Restored, split: Split, output: Path) -> float:
    """Writes labels [N], classes [N] and probabilities [N, K] of a whole split as NPZ.

    Returns:
      The accuracy.

    Raises:
      UserError: the file cannot be written.
    """
    result = predict(restored, split.images)
    temporary = output.with_name(output.name + ".tmp")
    try:
        with temporary.open("wb") as file:  # an open file, or NumPy would append .npz to the name
            np.savez(
                file,
                labels=split.labels,
                classes=result["classes"],
                probabilities=result["probabilities"],
            )
        temporary.replace(output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"{output}: cannot be written ({error.strerror}). Make room, or name another place."
        ) from error
    return float(np.mean(result["classes"] == split.labels))
