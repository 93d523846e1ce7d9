"""Whether a network is as often right as it says: NumPy alone."""

from dataclasses import dataclass

import numpy as np

BINS = 15  # as in the paper
_NORMAL_95 = 1.96  # standard deviations on either side hold 95 % of a normal distribution


@dataclass(frozen=True, eq=False)
class Calibration:
    """Predictions sorted by confidence, the probability of the predicted class, into equal bins.

    Bin m of M holds the confidences in ((m - 1) / M, m / M].

    Attributes:
      counts: int64 [M], images in each bin.
      confidence: float64 [M], its mean confidence; NaN in an empty bin.
      accuracy: float64 [M], the share of right predictions; NaN in an empty bin.
      error: the expected calibration error, sum over m of counts[m] / N · |accuracy - confidence|.
      mean_confidence: of all predictions.
      mean_accuracy: the share of all that is right.
      chance: how far apart the two may lie by chance, in 95 of 100 samples of images, where every
        prediction is as probably right as it says.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float
    mean_confidence: float
    mean_accuracy: float
    chance: float


def calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Calibration:
    """Measures the calibration of predictions.

    Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, eq. 3. The
    two means are held against each other as in Sadatsafavi and Petkau, arXiv 2307.09713 ("mean
    calibration"): if each prediction is right with its probability p, the number of right ones has
    the variance Σ p (1 - p).

    Args:
      probabilities: float32 [N, K], a distribution for each image; N is at least 1.
      labels: int32 [N].
      bins: how many.
    """
    confidences = probabilities.max(-1).astype(np.float64)
    right = probabilities.argmax(-1) == labels
    bin_of = np.digitize(confidences, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    counts = np.bincount(bin_of, minlength=bins)
    some = np.where(counts, counts, np.nan)  # of nothing there is no mean
    confidence = np.bincount(bin_of, confidences, bins) / some
    accuracy = np.bincount(bin_of, right, bins) / some
    error = np.nansum(counts / len(labels) * np.abs(accuracy - confidence))
    variance = (confidences * (1 - confidences)).clip(0).sum()  # a float32's sum may exceed 1
    return Calibration(
        counts=counts,
        confidence=confidence,
        accuracy=accuracy,
        error=float(error),
        mean_confidence=float(confidences.mean()),
        mean_accuracy=float(right.mean()),
        chance=_NORMAL_95 * float(np.sqrt(variance)) / len(labels),
    )
