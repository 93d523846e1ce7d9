"""What can be said of a few numbers, one a seed. NumPy and SciPy; nothing of runs.

Both are of Student (Biometrika 6, 1908): the interval of a mean of normal numbers whose variance is
not known, and the test of paired differences. Such an interval may reach beyond what the mean can
be, above an accuracy of 1 where seeds are few. It is cut there, as R. G. Newcombe describes it for
shares (Statistics in Medicine 17, 1998, p. 857): what is cut off cannot hold the mean, so the
interval covers it as often as before.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """Of some numbers, one at least.

    Attributes:
      n: how many.
      mean: of them.
      deviation: the standard deviation of what they are drawn from, divided by n - 1; None for one.
      interval: that of the mean, of 95 %, cut at the bounds of the numbers; None for one number.
      smallest: of them.
      largest: of them.
    """

    n: int
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None
    smallest: float
    largest: float


@dataclass(frozen=True)
class Difference:
    """Of two points, at the seeds that both have.

    Attributes:
      n: how many seeds.
      mean: of the differences, the first's number less the second's.
      interval: that of the mean, of 95 %, cut likewise; None for one seed.
      p_value: how probable a mean difference of this size or a larger one would be if there were
        none: a paired t-test, two-sided. None for one seed, and where all differences are the same:
        there is no test of those.
    """

    n: int
    mean: float
    interval: tuple[float, float] | None
    p_value: float | None


def summarize(values: Sequence[float], bounds: Bounds | None = None) -> Summary:
    """Summarizes numbers, one at least.

    Args:
      values: the numbers.
      bounds: the least and the largest that they can be, where that is known.
    """
    numbers = np.asarray(values, np.float64)
    n, mean = len(numbers), float(numbers.mean())
    deviation = float(numbers.std(ddof=1)) if n > 1 else None
    interval = None
    if deviation is not None:
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / math.sqrt(n)
        low, high = bounds or (-math.inf, math.inf)
        interval = (max(low, mean - half), min(high, mean + half))
    return Summary(n, mean, deviation, interval, float(numbers.min()), float(numbers.max()))


def paired(
    first: Mapping[int, float], second: Mapping[int, float], bounds: Bounds | None = None
) -> Difference | None:
    """Compares numbers by seed; None where no seed has both. `bounds` are those of the numbers."""
    seeds = [seed for seed in first if seed in second]
    if not seeds:
        return None
    widest = (bounds[0] - bounds[1], bounds[1] - bounds[0]) if bounds else None
    of_both = summarize([first[seed] - second[seed] for seed in seeds], widest)
    p_value = None
    # Equal differences of numbers that are not exact in binary differ by their rounding.
    rounding = 1e-12 * max(abs(value) for seed in seeds for value in (first[seed], second[seed]))
    if of_both.deviation is not None and of_both.deviation > rounding:
        t = of_both.mean / (of_both.deviation / math.sqrt(of_both.n))
        p_value = 2 * float(stats.t.sf(abs(t), of_both.n - 1))
    return Difference(of_both.n, of_both.mean, of_both.interval, p_value)
