"""What scikit-learn and SciPy count on saved predictions. The only importer of the two."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn import metrics as sklearn_metrics


@dataclass(frozen=True, eq=False)
class Predictions:
    """What prediction.predict_split has written of a network that predicts classes.

    Attributes:
      labels: int32 [N].
      classes: int32 [N], the most probable ones.
      probabilities: float32 [N, K].
    """

    labels: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Whether the network is right on each image: bool [N]."""
        return self.classes == self.labels


@dataclass(frozen=True, eq=False)
class Scores:
    """Figures of a classification, class by class. NaN where a figure would divide by zero.

    Attributes:
      accuracy: the share of images whose most probable class is their label.
      confusion: int64 [K, K], images by label (row) and predicted class (column).
      precision: float64 [K], of the images taken for a class, the share that is of it.
      recall: float64 [K], of the images of a class, the share that is taken for it.
      f1: float64 [K], the harmonic mean of the two.
      support: int64 [K], images of each class.
      macro: means of precision, recall and F1 over the classes that have them.
    """

    accuracy: float
    confusion: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    macro: tuple[float, float, float]


@dataclass(frozen=True)
class McNemar:
    """Two networks on the same images.

    Attributes:
      only_first: images that the first alone is right on.
      only_second: images that the second alone is right on.
      p_value: of the exact test, two-sided: how probable a difference of this size or a larger one
        would be if either were equally often the one that is right.
    """

    only_first: int
    only_second: int
    p_value: float


def read_predictions(path: Path) -> Predictions:
    """Reads labels, classes and probabilities."""
    with np.load(path) as saved:
        return Predictions(saved["labels"], saved["classes"], saved["probabilities"])


def score(predictions: Predictions) -> Scores:
    """Counts what is right, class by class."""
    labels, classes = predictions.labels, predictions.classes
    all_classes = np.arange(predictions.probabilities.shape[1])
    each, macro = (
        sklearn_metrics.precision_recall_fscore_support(
            labels, classes, labels=all_classes, average=average, zero_division=np.nan
        )
        for average in (None, "macro")
    )
    return Scores(
        accuracy=float(sklearn_metrics.accuracy_score(labels, classes)),
        confusion=sklearn_metrics.confusion_matrix(labels, classes, labels=all_classes),
        precision=each[0],
        recall=each[1],
        f1=each[2],
        support=each[3],
        macro=(float(macro[0]), float(macro[1]), float(macro[2])),
    )


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Tests whether two networks differ.

    McNemar, Psychometrika 12 (1947); the exact binomial form of it.

    Args:
      first: bool [N], whether the first network is right on each image.
      second: bool [N], likewise.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differing = only_first + only_second
    p_value = stats.binomtest(only_first, differing, 0.5).pvalue if differing else 1.0
    return McNemar(only_first, only_second, float(p_value))
