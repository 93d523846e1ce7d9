"""A run next to others, on the same images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mnist_flax.data.dataset import Split
from mnist_flax.data.streamed_images import same_images
from mnist_flax.errors import UsageError, UserError
from mnist_flax.report.scores import McNemar, mcnemar
from mnist_flax.use.prediction import is_classification, predict
from mnist_flax.use.restore import Restored
from mnist_flax.workdir.known_images import Known, count_known


@dataclass(frozen=True)
class Compared:
    """Another run, and how it differs from this one; in `test`, this run is the first.

    `known` says how many of the images it was trained on, or chosen on.
    """

    workdir: Path
    step: int
    accuracy: float
    test: McNemar
    known: Known


def compare(
    right: np.ndarray, split: Split, workdir: Path, other: Restored, other_split: Split
) -> Compared:
    """Evaluates another run and tests whether it differs.

    Args:
      right: bool [N], whether this run is right on each image.
      split: that it was evaluated on.
      workdir: the other run's.
      other: its network.
      other_split: that its own config names.

    Raises:
      UserError: it predicts no classes; these are other images, or in another order.
    """
    refuse_without_classes(workdir, other)
    data = other.config.data
    same = np.array_equal(split.labels, other_split.labels)
    if not (same and same_images(split.images, other_split.images)):
        raise UserError(
            f"The run {workdir} to compare with: its evaluation split holds other images than "
            f"this run's, or in another order (data.name={data.name!r}, data.eval_split="
            f"{data.eval_split!r}, data.resplit={data.resplit}; {len(other_split.labels):,} "
            "images). Leave it out."
        )
    other_right = predict(other, other_split.images)["classes"] == other_split.labels
    return Compared(
        workdir=workdir,
        step=int(other.state.step),
        accuracy=float(other_right.mean()),
        test=mcnemar(right, other_right),
        known=count_known(workdir, split.images, chosen=other.chosen),
    )


def refuse_without_classes(workdir: Path, restored: Restored) -> None:
    """Raises UsageError for a network, of two that are to be compared, that predicts no classes.

    Args:
      workdir: the other run's.
      restored: either's network.
    """
    if not is_classification(restored):
        name = restored.config.task.name
        raise UsageError(
            f"The run {workdir} to compare with: this tells on which images two runs name the "
            f"right class; the task {name!r} predicts no classes. Leave it out."
        )
