"""What is looked at next to the numbers of a row: host functions, found by name.

An observer is a function of (event, step, row, context), called in the order of task.observers and
then of config.observers. It reads, and may say or draw something, which adds rows of its own; what
it returns is not used, and the state does not depend on it. What it raises ends the run. The
events:

    'train'      a training row is written
    'epoch'      an epoch's row is written
    'evaluated'  an evaluation is done, its row is not yet written
    'eval'       its row is written
    'saved'      the state of this step is saved; the row is {}
    'ended'      the loop ends here, finished or stopped, not diverged; the row is {}
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mnist_flax.config import registry
from mnist_flax.core.chunk import LastBatch
from mnist_flax.core.sampling import draw_latents, sample
from mnist_flax.core.state import TrainState
from mnist_flax.core.task import Spec, Task
from mnist_flax.show import diagnosis
from mnist_flax.show.drawings import draw_evaluation, grid_image
from mnist_flax.use.filters import first_filters

_SHOWN_RECONSTRUCTIONS = 10
_SHOWN_SAMPLES = 64  # a square number
_SHOWN_PREDICTIONS = 20  # as many as the tutorial shows next to their labels


@dataclass(frozen=True)
class Context:
    """What an observer may look at.

    Attributes:
      config: of the run.
      task: what is learnt.
      spec: image shape, class names, and the run's last step as num_steps.
      steps_per_epoch: of the training split.
      state: of this step; not to be kept, for its arrays are gone after the next one.
      outputs: of task.evaluate over the whole split, at 'evaluated' and 'eval'; else {}.
      last_batch: () -> the batch of the step that led here, seen once more; not before step 1.
      say: (event, message, **values): writes a row of its own and prints the message.
      draw: ({name: uint8 [H, W, 3]}): shows pictures next to the evaluation whose row comes next;
        None where nothing of this run shows pictures.
      keep: likewise, and writes them to the workdir's pictures/<name>/<step>.png, always.
    """

    config: ConfigDict
    task: Task
    spec: Spec
    steps_per_epoch: int
    state: TrainState
    outputs: Mapping[str, np.ndarray]
    last_batch: Callable[[], LastBatch]
    say: Callable[..., None]
    draw: Callable[[Mapping[str, np.ndarray]], None] | None
    keep: Callable[[Mapping[str, np.ndarray]], None]


Observer = Callable[[str, int, Mapping[str, Any], Context], None]
OBSERVERS = {
    name: f"mnist_flax.show.observers:{name}"
    for name in (
        *("evaluation_pictures", "lost_classes", "first_predictions", "flat_loss"),
        *("probabilities", "autoencoder_pictures", "samples"),
    )
}


def find_observers(names: Iterable[str]) -> tuple[Observer, ...]:
    """Returns the functions that task.observers and config.observers name.

    Raises:
      UsageError: a line for each name that there is no such function for.
    """
    called_with = ("event", "step", "row", "context")
    return registry.resolve_functions(names, OBSERVERS, "config.observers", called_with)


def evaluation_pictures(event: str, step: int, row: Mapping[str, Any], context: Context) -> None:
    """Draws the confusion matrix of an evaluation and the filters of the first convolution."""
    if event != "evaluated" or context.draw is None or context.task.model is None:
        return
    shape, names = context.spec.image_shape, context.spec.class_names
    variables = context.task.answering(context.state.variables)
    filters = first_filters(context.task.model, variables, shape)
    labels, classes = context.outputs["labels"], context.outputs["classes"]
    context.draw(draw_evaluation(labels, classes, len(names), filters))


def samples(event: str, step: int, row: Mapping[str, Any], context: Context) -> None:
    """Keeps what the task draws out of noise, at every evaluation out of the same."""
    if event == "evaluated":
        context.keep({"samples": _samples(context)})


def autoencoder_pictures(event: str, step: int, row: Mapping[str, Any], context: Context) -> None:
    """Keeps images next to what the task draws of them, a walk between two, and samples."""
    if event != "evaluated":
        return
    images, drawn = (
        context.outputs[name][:_SHOWN_RECONSTRUCTIONS] for name in ("images", "reconstructions")
    )
    start, end = context.outputs["latents"][:2]
    way = np.linspace(0, 1, _SHOWN_RECONSTRUCTIONS, dtype=np.float32)[:, None]
    walk = draw_latents(context.task, context.state.variables, start + way * (end - start))
    context.keep(
        {
            "samples": _samples(context),
            "reconstructions": grid_image(np.concatenate([images, drawn]), len(images)),
            "walk": grid_image(walk, len(walk)),
        }
    )


def _samples(context: Context) -> np.ndarray:
    config, columns = context.config, math.isqrt(_SHOWN_SAMPLES)
    drawn = sample(
        context.task, context.state.variables, config.seed, _SHOWN_SAMPLES, config.batch_size
    )
    return grid_image(drawn, columns)


def lost_classes(event: str, step: int, row: Mapping[str, Any], context: Context) -> None:
    """Names the classes that are never predicted, from the end of the first epoch on."""
    if event == "eval" and step >= context.steps_per_epoch:
        classes, labels = context.outputs["classes"], context.outputs["labels"]
        names, relu = context.spec.class_names, getattr(context.task.model, "relu_logits", False)
        if lost := diagnosis.lost_classes(classes, labels, names, relu):
            context.say("lost_classes", lost)


def first_predictions(event: str, step: int, row: Mapping[str, Any], context: Context) -> None:
    """Shows the first predictions next to their labels, as the tutorial does, at the run's end."""
    if event != "eval" or step < context.spec.num_steps:
        return
    names = context.spec.class_names
    classes, labels = (
        context.outputs[name][:_SHOWN_PREDICTIONS].tolist() for name in ("classes", "labels")
    )
    context.say(
        "predictions",
        f"First {len(labels)} predictions: {' '.join(names[i] for i in classes)}\n"
        f"     and their labels: {' '.join(names[i] for i in labels)}",
        classes=classes,
        labels=labels,
    )


def flat_loss(event: str, step: int, row: Mapping[str, Any], context: Context) -> None:
    """Says so if the loss has not fallen by the first end of an epoch after 100 steps."""
    if event == "epoch" and diagnosis.is_judged(row["epoch"], context.steps_per_epoch):
        num_classes = len(context.spec.class_names)
        # A last batch whose step was skipped has no loss.
        last = row.get("last_batch_loss", row["loss"])
        if flat := diagnosis.flat_loss(row["loss"], last, num_classes, row["epoch"]):
            context.say("flat_loss", flat)


def probabilities(event: str, step: int, row: Mapping[str, Any], context: Context) -> None:
    """Shows the class probabilities of a training row's last batch, with dropout on."""
    if event != "train":
        return
    last = jax.device_get(context.last_batch())
    values = last.outputs["probabilities"]
    shown = np.array2string(values, precision=3, suppress_small=True, threshold=60)
    context.say(
        "probabilities",
        f"Probabilities of the last batch, {list(values.shape)}:\n{shown}",
        probabilities=np.round(values.astype(float), 6).tolist(),
        labels=last.batch.labels.tolist(),
    )
