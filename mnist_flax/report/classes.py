"""What the page shows of a network that predicts classes, and of no other."""

from dataclasses import dataclass

import numpy as np

from mnist_flax.data.dataset import Split
from mnist_flax.report import plots
from mnist_flax.report.comparison import Compared
from mnist_flax.report.figures import drawn
from mnist_flax.report.mistakes import Mistake, has_saliency, mistakes
from mnist_flax.report.page import Picture
from mnist_flax.report.scores import Predictions, Scores, score
from mnist_flax.use.calibration import Calibration, calibration
from mnist_flax.use.restore import Restored

_CONFUSIONS = 8  # that are listed


@dataclass(frozen=True)
class Classes:
    """The parts of the page that are of classes.

    Attributes:
      right: on how many images the network is.
      scores: class by class.
      confusions: label, predicted class and count of the most frequent ones.
      confusion: the matrix, drawn.
      calibration: of the probabilities.
      confidence: whether it is right as often as it says, in a sentence or two.
      reliability: the same, drawn.
      mistakes: the most confident ones.
      has_saliency: whether each is next to its saliency map.
      compared: other runs.
    """

    right: int
    scores: Scores
    confusions: list[tuple[str, str, int]]
    confusion: Picture
    calibration: Calibration
    confidence: str
    reliability: Picture
    mistakes: list[Mistake]
    has_saliency: bool
    compared: list[Compared]

    def pictures(self) -> list[Picture]:
        """Returns all its pictures."""
        return [self.confusion, self.reliability, *(made.picture for made in self.mistakes)]


def look_at_classes(
    restored: Restored, split: Split, predictions: Predictions, compared: list[Compared]
) -> Classes:
    """Counts and draws what a network says of a split.

    Args:
      restored: the network.
      split: that the predictions are of.
      predictions: as they were saved.
      compared: other runs on the same images.
    """
    scores, names = score(predictions), restored.class_names
    measured = calibration(predictions.probabilities, predictions.labels)
    confidence, right = tell_confidence(measured), int(predictions.right.sum())
    return Classes(
        right=right,
        scores=scores,
        confusions=_confusions(scores.confusion, names),
        confusion=drawn(
            "confusion",
            lambda: plots.confusion(scores.confusion, names),
            f"Confusion matrix: how many images of each label were taken for each class; {right:,} "
            f"of {len(predictions.labels):,} lie on its diagonal, which is right",
        ),
        calibration=measured,
        confidence=confidence,
        reliability=drawn(
            "reliability",
            lambda: plots.reliability(measured),
            "Reliability diagram: of each bin of confidence the accuracy, a bar, and the mean "
            f"confidence, a stroke. {confidence}",
        ),
        mistakes=mistakes(restored, split, predictions),
        has_saliency=has_saliency(restored),
        compared=compared,
    )


def tell_confidence(measured: Calibration) -> str:
    """Says whether a network is over- or under-confident, or that this cannot be told."""
    gap = 100 * (measured.mean_confidence - measured.mean_accuracy)
    chance = f"{100 * measured.chance:.2f} points of difference can be chance"
    means = (
        f"on average it gives its answers {100 * measured.mean_confidence:.2f}\N{NO-BREAK SPACE}%, "
        f"and {100 * measured.mean_accuracy:.2f}\N{NO-BREAK SPACE}% of them are right"
    )
    if abs(measured.mean_confidence - measured.mean_accuracy) <= measured.chance:
        return (
            "Whether the network is over- or under-confident is too close to say: "
            f"{means}. Up to {chance} (95\N{NO-BREAK SPACE}%); these are {abs(gap):.2f}."
        )
    kind, sure = ("over", "too sure") if gap > 0 else ("under", "not sure enough")
    return (
        f"The network is {kind}-confident: {means}. That is {abs(gap):.2f} percentage points "
        f"{sure}; up to {chance} (95\N{NO-BREAK SPACE}%)."
    )


def _confusions(matrix: np.ndarray, names: tuple[str, ...]) -> list[tuple[str, str, int]]:
    wrong = matrix * (1 - np.eye(len(matrix), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
    pairs = np.transpose(np.unravel_index(order, wrong.shape))
    return [(names[i], names[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]]
