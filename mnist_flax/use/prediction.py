"""What a network says of pictures: files of the user's own, or a whole split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_flax.data.dataset import Split
from mnist_flax.data.pictures import read_pictures
from mnist_flax.errors import UserError
from mnist_flax.use.restore import Restored


def predict(restored: Restored, images: np.ndarray) -> dict[str, np.ndarray]:
    """Asks a network of images, batch by batch.

    Args:
      restored: a network.
      images: uint8 [N, H, W, C] of the network's shape.

    Returns:
      What task.predict gives, [N, …] by name: of a classification {'classes': int32 [N],
      'probabilities': float32 [N, K]}. What NumPy has no type for, as bfloat16, is float32: an NPZ
      file would hold bytes of no type.
    """
    batch_size = min(restored.config.batch_size, len(images))
    predict_batch = jax.jit(restored.task.predict)
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        missing = batch_size - len(batch)  # one shape for all batches: one compilation
        padded = np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0)))
        result = jax.device_get(predict_batch(restored.state.variables, padded))
        parts.append({name: _told(values[: len(batch)]) for name, values in result.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _told(values: np.ndarray) -> np.ndarray:
    foreign = values.dtype.kind == "V" and jnp.issubdtype(values.dtype, jnp.floating)
    return values.astype(np.float32) if foreign else values


def is_classification(restored: Restored) -> bool:
    """Says whether a network predicts one of the classes of its data for each image.

    Then `predict` gives 'classes', int32 [N], and 'probabilities', float32 [N, K]. Whatever shows
    classes asks this.
    """
    images = jax.ShapeDtypeStruct((1, *restored.image_shape), np.uint8)
    outputs = jax.eval_shape(restored.task.predict, restored.state.variables, images)
    shapes = {name: leaf.shape for name, leaf in outputs.items()}
    return (shapes.get("classes"), shapes.get("probabilities")) == (
        (1,),
        (1, len(restored.class_names)),
    )


@dataclass(frozen=True)
class Prediction:
    """What a network says of one picture.

    Attributes:
      file: as it was given.
      image: uint8 [H, W, C], what the network saw.
      outputs: of task.predict by name, without the batch's axis.
    """

    file: str
    image: np.ndarray
    outputs: dict[str, np.ndarray]

    def row(self) -> dict[str, Any]:
        """Returns what is printed as JSON."""
        values = {name: np.asarray(value).tolist() for name, value in self.outputs.items()}
        return {"file": self.file, **values}


def predict_files(restored: Restored, files: Sequence[str], *, center: bool) -> list[Prediction]:
    """Asks a network of picture files.

    Args:
      restored: a network.
      files: PNG or JPEG.
      center: whether to find the digit and centre it as MNIST's makers did; see data/pictures.py.

    Raises:
      UserError: any file is missing or no picture; all such files are listed.
    """
    images = read_pictures(files, center=center, shape=restored.image_shape)
    result = predict(restored, images)
    return [
        Prediction(file, image, {name: values[place] for name, values in result.items()})
        for place, (file, image) in enumerate(zip(files, images, strict=True))
    ]


def predict_split(restored: Restored, split: Split, output: Path) -> dict[str, np.ndarray]:
    """Writes the labels [N] of a whole split, and what the network says of it, as NPZ.

    Returns:
      What the network says, by name; of a classification {'classes', 'probabilities'}.

    Raises:
      UserError: the file cannot be written.
    """
    result = predict(restored, split.images)
    arrays: Any = {"labels": split.labels, **result}
    temporary = output.with_name(output.name + ".tmp")
    try:
        with temporary.open("wb") as file:  # an open file, or NumPy would append .npz to the name
            np.savez(file, **arrays)
        temporary.replace(output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"{output}: cannot be written ({error.strerror}). Make room, or name another place."
        ) from error
    return result
