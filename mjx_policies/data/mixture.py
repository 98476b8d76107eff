"""Which windows come when: a function of a seed and the number of the batch alone, so that reading can go on anywhere.

Axes: K groups (tasks or datasets), N examples of a batch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Sampler(Protocol):
    """Draws the windows of a batch."""

    def __call__(self, batch: int, size: int) -> np.ndarray:
        """[N] numbers of windows, for the batch of this number."""
        ...


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

    def __call__(self, batch: int, size: int) -> np.ndarray:
        """See `Sampler`."""
        place = np.arange(batch * size, (batch + 1) * size)
        found = np.empty(size, np.int64)
        for epoch in range(int(place[0] // self.count), int(place[-1] // self.count) + 1):
            here = place // self.count == epoch
            found[here] = _order(self.count, self.seed, epoch)[place[here] % self.count]
        return found


@functools.lru_cache(maxsize=4)  # two that batches go across, for a training and a validation set
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Windows of several groups, each group as often as its weight says; drawn with replacement.

    Attributes:
      groups: [K] numbers of the windows of each group.
      weights: [K] probabilities of the groups, see `temperature_weights`.
      seed: of the draws.
    """

    groups: Sequence[np.ndarray]
    weights: np.ndarray
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.groups) != len(self.weights) or not len(self.groups):
            raise ValueError(f"there are {len(self.weights)} weights for {len(self.groups)} groups of windows")
        if any(weight > 0 and not len(group) for group, weight in zip(self.groups, self.weights, strict=True)):
            raise ValueError("a group without windows must have the weight 0")

    def __call__(self, batch: int, size: int) -> np.ndarray:
        """See `Sampler`."""
        random = np.random.default_rng((self.seed, batch))
        chosen = random.choice(len(self.groups), size, p=self.weights)
        share = random.random(size)
        found = np.empty(size, np.int64)
        for number, group in enumerate(self.groups):
            here = chosen == number
            found[here] = np.asarray(group)[(share[here] * len(group)).astype(np.int64)]
        return found


def temperature_weights(counts: Sequence[int] | np.ndarray, temperature: float = 1.0) -> np.ndarray:  # [K] -> [K]
    """`p_k = n_k^(1/temperature) / sum_j n_j^(1/temperature)`, Arivazhagan et al. 2019 (arXiv:1907.05019).

    At 1 every window is as likely as any other, above it small groups are drawn more often, at infinity all groups
    alike. A group without windows is never drawn.

    Example:
      >>> temperature_weights([9000, 1000]).round(2), temperature_weights([9000, 1000], temperature=2).round(2)
      (array([0.9, 0.1]), array([0.75, 0.25]))
    """
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 1 or (counts < 0).any() or not counts.sum() > 0:
        raise ValueError(f"counts are {counts.tolist()}, they must be numbers of windows, not all zero")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, it must be above zero")
    weights = np.where(counts > 0, (counts / counts.max()) ** (1 / temperature), 0.0)  # no overflow at a low one
    return weights / weights.sum()
