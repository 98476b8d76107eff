"""Statistics of numbers too many for memory, and the scales made of them. Axes: N rows, D numbers.

A scale is `y = (x - offset) / size` and its inverse, so a policy can carry it. A number that hardly varies has no
size of its own: divided by a spread near zero, the least deviation that the robot meets would fill the network's input.
Such a number is only shifted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flax import struct

from mjx_policies.data.episodes import Episode
from mjx_policies.errors import UserError
from mjx_policies.normalize import MIN_STD, Scale

Array = Any
"""NumPy's or JAX's: statistics are taken with the one, and carried by a policy as the other."""

MIN_RANGE = 1e-4  # a number that varies less is taken to be constant, as in Chi et al. 2023 (arXiv:2303.04137), code
SAMPLE = 65_536  # rows that quantiles are taken from: a rank of 1 % is then off by 0.04 % on average


@struct.dataclass
class DatasetStatistics:
    """The statistics of one array, by number.

    Attributes:
      count: [] rows.
      minimum, maximum, mean, std: [D]; all rows count.
      q01, q99: [D] quantiles, of all rows up to `SAMPLE`, of a uniform sample of them beyond.
    """

    count: Array
    minimum: Array
    maximum: Array
    mean: Array
    std: Array
    q01: Array
    q99: Array


def min_max(statistics: DatasetStatistics) -> Scale:
    """The scale to [-1, 1] over all that was seen, which samplers that clip to it require."""
    return _interval(statistics.minimum, statistics.maximum)


def quantiles(statistics: DatasetStatistics) -> Scale:
    """The middle 98 % to [-1, 1]: a few outliers do not squeeze the rest, and come out beyond."""
    return _interval(statistics.q01, statistics.q99)


def standard(statistics: DatasetStatistics) -> Scale:
    """The scale to mean zero and deviation one."""
    return Scale(
        np.asarray(statistics.mean, np.float32), np.maximum(np.asarray(statistics.std, np.float32), np.float32(MIN_STD))
    )


def _interval(low: Array, high: Array) -> Scale:
    ends = np.asarray([low, high], np.float64)
    middle, half = ends.mean(axis=0), (ends[1] - ends[0]) / 2
    return Scale(middle.astype(np.float32), np.where(2 * half < MIN_RANGE, 1.0, half).astype(np.float32))


@dataclasses.dataclass
class Accumulator:
    """Statistics as rows come in, in memory that does not grow. The order of rows within a call does not matter.

    Moments: Chan, Golub, LeVeque 1979, in float64. Quantiles: a uniform sample (Vitter 1985, algorithm R), which is
    everything as long as there are at most `sample` rows.
    """

    sample: int = SAMPLE
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._count = 0
        self._kept: np.ndarray | None = None

    def add(self, rows: np.ndarray) -> None:  # [N, D]
        """Adds rows to the statistics.

        Raises:
          ValueError: they are no matrix, are not finite, or have another width than before.
        """
        rows = np.asarray(rows, np.float64)
        if rows.ndim != 2 or (self._kept is not None and rows.shape[1] != self._kept.shape[1]):
            width = "D" if self._kept is None else self._kept.shape[1]
            raise ValueError(f"rows have the shape {list(rows.shape)}, they must be [N, {width}]")
        if not np.isfinite(rows).all():
            raise ValueError("rows hold a number that is not finite")
        if not len(rows):
            return
        if self._kept is None:
            self._kept = np.empty((self.sample, rows.shape[1]))
            self._mean, self._square = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
            self._low, self._high = rows[0].copy(), rows[0].copy()
        self._low = np.minimum(self._low, rows.min(0))
        self._high = np.maximum(self._high, rows.max(0))
        count = self._count + len(rows)
        mean = rows.mean(0)
        delta = mean - self._mean
        self._mean = self._mean + delta * len(rows) / count
        self._square += ((rows - mean) ** 2).sum(0) + delta**2 * self._count * len(rows) / count
        order = self._count + np.arange(len(rows))  # of each row among all
        place = np.where(order < self.sample, order, self._random.integers(0, order + 1))
        chosen = place < self.sample
        self._kept[place[chosen]] = rows[chosen]
        self._count = count

    def result(self) -> DatasetStatistics:
        """The statistics of all rows so far.

        Raises:
          ValueError: there are none.
        """
        if self._kept is None:
            raise ValueError("there are no rows to take statistics of")
        low, high = np.quantile(self._kept[: self._count], (0.01, 0.99), axis=0)
        values = (self._low, self._high, self._mean, np.sqrt(self._square / self._count), low, high)
        return DatasetStatistics(np.float32(self._count), *(value.astype(np.float32) for value in values))


def statistics_of(episodes: Iterable[Episode]) -> Mapping[str, DatasetStatistics]:
    """The statistics of actions and of each observation that is a vector of numbers, in one pass over episodes.

    Returns:
      By name, the actions as `action`.
    """
    found: dict[str, Accumulator] = {}
    for episode in episodes:
        vectors = {"action": episode.action}
        vectors |= {name: values for name, values in episode.observation.items() if values.ndim == 2}
        for name, values in vectors.items():
            found.setdefault(name, Accumulator()).add(values)
    if not found:
        raise UserError("there are no episodes to take statistics of. Check the dataset.")
    return {name: accumulator.result() for name, accumulator in found.items()}
