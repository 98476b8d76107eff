"""The order of windows: a function of a seed and the number of the batch, so that reading can go on anywhere."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """Every window once in a random order, then all again in another; batches go on across the ends.

    Attributes:
      count: number of windows.
      seed: of the orders.
    """

    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count is {self.count}, there must be at least one window")

    def __call__(self, batch: int, size: int) -> np.ndarray:  # -> [size]
        """The numbers of the windows of a batch, by the number of the batch."""
        place = np.arange(batch * size, (batch + 1) * size)
        found = np.empty(size, np.int64)
        for epoch in range(int(place[0] // self.count), int(place[-1] // self.count) + 1):
            here = place // self.count == epoch
            found[here] = _order(self.count, self.seed, epoch)[place[here] % self.count]
        return found


@functools.lru_cache(maxsize=4)  # two that batches go across, for a training and a validation set
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)
