"""Numbers with the interval that their sample allows."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special  # not scipy.stats, which takes half a second to import


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value and its 95 % confidence interval, from `count` independent samples."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if not self.count:
            return "–"
        if not math.isfinite(self.high - self.low):  # of one sample, or of equal ones
            return f"{self.value:.{self._decimals(self.value)}f}"
        decimals = self._decimals(self.value, self.low, self.high)
        return f"{self.value:.{decimals}f} [{self.low:.{decimals}f}, {self.high:.{decimals}f}]"

    @staticmethod
    def _decimals(*numbers: float) -> int:
        """The number of decimals: three of rates, fewer of large numbers, which keeps tables within a terminal."""
        largest = max(map(abs, numbers))
        return 3 if largest < 10 else 2 if largest < 100 else 1 if largest < 1000 else 0


def proportion(successes: int, count: int, confidence: float = 0.95) -> Estimate:
    """A success rate with Wilson's score interval (Wilson 1927), which stays in [0, 1] and is sound near both ends."""
    if not 0 <= successes <= count or count < 1:
        raise ValueError(f"{successes} successes of {count}: need 0 <= successes <= count and a count of at least 1")
    rate = successes / count
    return Estimate(rate, *_wilson(rate, count, confidence), count)


def mean(
    samples: ArrayLike, confidence: float = 0.95, lowest: float = -math.inf, highest: float = math.inf
) -> Estimate:
    """A mean with Student's interval; samples that are NaN (nothing to measure) are left out.

    Samples that are all equal do not say how much they vary: the interval is infinite then, or Wilson's where samples
    are bounded, since of all numbers in a range those at its two ends vary most.

    Args:
      samples: independent ones.
      confidence: of the interval.
      lowest, highest: what a sample can be; the mean cannot lie beyond them, so neither does its interval.
    """
    measured = np.asarray(samples, float)
    measured = measured[~np.isnan(measured)]
    if measured.size == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = float(measured.mean())
    if measured.size == 1:
        return Estimate(value, lowest, highest, 1)
    if measured.min() == measured.max():
        width = highest - lowest
        if not math.isfinite(width):
            return Estimate(value, lowest, highest, measured.size)
        low, high = _wilson((value - lowest) / width, measured.size, confidence)
        return Estimate(value, lowest + width * low, lowest + width * high, measured.size)
    half = float(
        special.stdtrit(measured.size - 1, (1 + confidence) / 2) * measured.std(ddof=1) / math.sqrt(measured.size)
    )
    return Estimate(value, max(lowest, value - half), min(highest, value + half), measured.size)


def _wilson(rate: float, count: int, confidence: float) -> tuple[float, float]:
    z = special.ndtri((1 + confidence) / 2)
    middle = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    return 0.0 if rate == 0 else middle - half, 1.0 if rate == 1 else middle + half
