"""The mistakes of a network that predicts classes, as pictures."""

import functools
from dataclasses import dataclass

import jax
import numpy as np

from mnist_flax.data.dataset import Split
from mnist_flax.report import pixels
from mnist_flax.report.page import Picture
from mnist_flax.report.pictures import sheet, side
from mnist_flax.report.saliency import saliency
from mnist_flax.report.scores import Predictions
from mnist_flax.use.restore import Restored

MISTAKES = 24


@dataclass(frozen=True)
class Mistake:
    """An image that the network is wrong on; `index` is its place in the split."""

    index: int
    label: str
    predicted: str
    probability: float
    picture: Picture


def mistakes(restored: Restored, split: Split, predictions: Predictions) -> list[Mistake]:
    """Returns the most confident mistakes, each next to its saliency map where there are any."""
    wrong = np.flatnonzero(~predictions.right)
    confidence = predictions.probabilities.max(-1)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    if not len(chosen):
        return []
    maps = _maps(restored, split.images[chosen], predictions.classes[chosen])
    made = []
    for place, index in enumerate(chosen):
        label = restored.class_names[predictions.labels[index]]
        predicted = restored.class_names[predictions.classes[index]]
        tiles = [pixels.photo(split.images[index])]
        alt = f"Image {index} of class {label}, taken for {predicted}"
        if maps is not None:
            tiles.append(pixels.heat(maps[place]))
            alt += "; beside it, its saliency map"
        picture = sheet(f"mistake-{place + 1:02}", tiles, 2, alt, side(split.images))
        made.append(Mistake(int(index), label, predicted, float(confidence[index]), picture))
    return made


def has_saliency(restored: Restored) -> bool:
    """Says whether the task's module gives a logit for each class, of which there is a gradient."""
    if restored.task.model is None:
        return False
    images = jax.ShapeDtypeStruct((1, *restored.image_shape), np.float32)
    logits = jax.eval_shape(restored.task.model.apply, restored.variables, images)
    return getattr(logits, "shape", None) == (1, len(restored.class_names))


def _maps(restored: Restored, images: np.ndarray, classes: np.ndarray) -> np.ndarray | None:
    """Returns saliency maps float32 [B, H, W]; None where there are none."""
    if not has_saliency(restored):
        return None
    of_model = functools.partial(saliency, restored.model)
    look = jax.jit(of_model, compiler_options=restored.compiler_options)
    return np.asarray(look(restored.variables, images, classes))
