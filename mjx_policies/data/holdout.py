"""Whole episodes kept apart from training, since windows of one episode are all but copies of one another.

Axes: E episodes, W windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from mjx_policies.data.statistics import Accumulator, DatasetStatistics
from mjx_policies.data.store import Store
from mjx_policies.data.windows import Windows


class Split(NamedTuple):
    """The episodes to train on and those held out.

    Attributes:
      training, validation: [E] numbers of the episodes, ascending; no episode is in both.
    """

    training: np.ndarray
    validation: np.ndarray


def hold_out(episodes: int, portion: float, seed: int = 0) -> Split:
    """Keeps about a portion of the episodes apart: at least one if there are two, unless the portion is zero.

    An episode's own number decides, so that none is held out once it was learnt from, however many are added after it.

    Raises:
      ValueError: there is no episode, or the portion leaves nothing to learn from.
    """
    if episodes < 1:
        raise ValueError(f"there are {episodes} episodes, there must be one at least")
    if not 0 <= portion < 1:
        raise ValueError(f"the portion held out is {portion:g}, it must be at least 0 and below 1")
    draws = np.random.default_rng(seed).random(episodes)
    held = draws < portion
    held[draws.argmin()] = portion > 0
    held[draws.argmax()] = False
    return Split(np.flatnonzero(~held), np.flatnonzero(held))


def windows_of(windows: Windows, episodes: np.ndarray) -> np.ndarray:  # [E] -> [W]
    """The numbers of the windows of some episodes."""
    of, _ = windows.place(np.arange(len(windows)))
    return np.flatnonzero(np.isin(of, episodes))


def statistics_of_episodes(store: Store, episodes: Iterable[int]) -> Mapping[str, DatasetStatistics]:
    """The statistics of each vector over some episodes of a store."""
    found: dict[str, Accumulator] = {}
    for episode in episodes:
        rows = slice(store.starts[episode], store.starts[episode] + store.lengths[episode])
        for name, array in store.arrays.items():
            if array.ndim == 2:
                found.setdefault(name, Accumulator()).add(array[rows])
    return {name: accumulator.result() for name, accumulator in found.items()}
