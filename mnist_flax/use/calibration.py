"""Whether a network is as often right as it says: NumPy alone."""

from dataclasses import dataclass

import numpy as np

BINS = 15  # as in the paper


@dataclass(frozen=True, eq=False)
class Calibration:
    """Predictions sorted by confidence, the probability of the predicted class, into equal bins.

    Bin m of M holds the confidences in ((m - 1) / M, m / M].

    Attributes:
      counts: int64 [M], images in each bin.
      confidence: float64 [M], its mean confidence; NaN in an empty bin.
      accuracy: float64 [M], the share of right predictions; NaN in an empty bin.
      error: the expected calibration error, sum over m of counts[m] / N · |accuracy - confidence|.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Calibration:
    """Measures the calibration of predictions.

    Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, eq. 3.

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
    return Calibration(counts, confidence, accuracy, float(error))
