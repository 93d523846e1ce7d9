"""What a network says of pictures: files of the user's own, or a whole split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_flax.data.dataset import Split
from mnist_flax.data.pictures import Fitted, read_pictures
from mnist_flax.data.preparation import Preparation
from mnist_flax.data.streamed_images import Images
from mnist_flax.errors import UsageError, UserError
from mnist_flax.use.output_files import write_npz
from mnist_flax.use.restore import Restored


def predict(restored: Restored, images: Images) -> dict[str, np.ndarray]:
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
    predict_batch = jax.jit(restored.task.predict, compiler_options=restored.compiler_options)
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


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """What a network says of one picture.

    Attributes:
      file: as it was given; '' of an array.
      picture: what the network saw, and what there is to say of it.
      outputs: of task.predict by name, without the batch's axis.
      class_names: of a classification's classes; () of other tasks.
    """

    file: str
    picture: Fitted
    outputs: dict[str, np.ndarray]
    class_names: tuple[str, ...]

    @property
    def image(self) -> np.ndarray:
        """uint8 [H, W, C]."""
        return self.picture.image

    @property
    def class_index(self) -> int:
        """The most probable class, counted from 0. Raises UsageError if no class is predicted."""
        require_classes(self.class_names, self.outputs)
        return int(self.outputs["classes"])

    @property
    def class_name(self) -> str:
        """Its name. Raises UsageError likewise."""
        return self.class_names[self.class_index]

    @property
    def probability(self) -> float:
        """That of this class. Raises UsageError likewise."""
        return float(self.probabilities[self.class_index])

    @property
    def probabilities(self) -> np.ndarray:
        """Those of all classes, float32 [K]. Raises UsageError likewise."""
        require_classes(self.class_names, self.outputs)
        return self.outputs["probabilities"]

    @property
    def warning(self) -> str:
        """Why the picture may not be what the network knows; '' for nothing."""
        return self.picture.warning

    def row(self) -> dict[str, Any]:
        """Returns what --mode=predict prints as JSON; an array has no 'file'."""
        file = {"file": self.file} if self.file else {}
        return {**file, **answer_row(self.outputs, self.class_names, self.picture)}

    def __repr__(self) -> str:
        said = [repr(self.file)] if self.file else []
        if self.class_names:
            said += [f"{self.class_name!r} at {self.probability:.1%}"]
        else:
            said += [f"{name} {list(np.shape(values))}" for name, values in self.outputs.items()]
        said += [f"warning: {self.warning}"] if self.warning else []
        return f"Prediction({', '.join(said)})"


def require_classes(class_names: Sequence[str], outputs: Mapping[str, np.ndarray]) -> None:
    """Raises UsageError where no class is predicted."""
    if not class_names:
        there = ", ".join(f"outputs[{name!r}]" for name in outputs)
        raise UsageError(f"This network predicts no classes. It gives {there}.")


def answer_row(
    outputs: Mapping[str, np.ndarray], class_names: Sequence[str], picture: Fitted
) -> dict[str, Any]:
    """Returns the answer for one image, as JSON takes it; the same to a terminal and over HTTP.

    Args:
      outputs: of task.predict by name, without the batch's axis.
      class_names: of a classification; () of other tasks.
      picture: what the network saw.

    Returns:
      The outputs, those aside that are pictures themselves, whose numbers nobody reads (a whole
      split's are in the .npz); of a classification also 'class' (the index that 'classes' is, too),
      'class_name' and 'class_names': an index alone is not what a folder was called. 'prepared' is
      there where something was done to the picture, 'warning' where it may not be one digit.
    """
    row = {
        name: np.asarray(value).tolist()
        for name, value in outputs.items()
        if np.shape(value) != picture.image.shape
    }
    if class_names:
        best = int(outputs["classes"])
        row |= {"class": best, "class_name": class_names[best], "class_names": list(class_names)}
    if picture.done:
        row["prepared"] = list(picture.done)
    return row | ({"warning": picture.warning} if picture.warning else {})


def answered_classes(restored: Restored) -> tuple[str, ...]:
    """Returns the names of the classes that a network answers with; () if it predicts none."""
    return restored.class_names if is_classification(restored) else ()


def predict_files(
    restored: Restored, files: Sequence[str], preparation: Preparation
) -> list[Prediction | UserError]:
    """Asks a network of picture files; one that is missing or damaged costs itself alone.

    Args:
      restored: a network.
      files: PNG or JPEG.
      preparation: what is done to the pictures before; restored.preparation as a rule.

    Returns:
      For each file, in order, what the network says, or one line on why it was not asked.
    """
    read = read_pictures(files, preparation, restored.image_shape)
    images = [picture.image for picture in read if isinstance(picture, Fitted)]
    if not images:
        return [fault for fault in read if isinstance(fault, UserError)]
    result, class_names = predict(restored, np.stack(images)), answered_classes(restored)
    answers = ({name: values[n] for name, values in result.items()} for n in range(len(images)))
    return [
        picture
        if isinstance(picture, UserError)
        else Prediction(file, picture, next(answers), class_names)
        for file, picture in zip(files, read, strict=True)
    ]


def predict_split(restored: Restored, split: Split, output: Path) -> dict[str, np.ndarray]:
    """Writes the labels [N] of a whole split, and what the network says of it, as NPZ.

    Of a classification it also holds class_names [K]: text, in the order of the labels.

    Returns:
      What the network says, by name; of a classification {'classes', 'probabilities'}.

    Raises:
      UserError: the file cannot be written.
    """
    result = predict(restored, split.images)
    arrays: Any = {"labels": split.labels, **result}
    if class_names := answered_classes(restored):
        arrays["class_names"] = np.array(class_names)
    write_npz(output, arrays)
    return result
