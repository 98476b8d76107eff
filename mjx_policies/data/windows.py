"""Windows of episodes: what a policy saw, and the actions that followed.

The window of step t of an episode of T steps has the observations t-O+1 .. t and the actions t+first .. t+first+H-1.
What lies before the first step is a copy of the first, what lies after the last a copy of the last (Chi et al. 2023,
arXiv:2303.04137), and the masks are false there. A copy of an action goes on holding a target that is absolute; an
action that is a step from where the robot is would go on moving it, so there a loss has to heed the mask.

Axes: E episodes, W windows, N examples, O observations, H horizon, A actions.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from flax import struct

from mjx_policies.data.store import Store
from mjx_policies.errors import UserError
from mjx_policies.training.config import at_least

Array = Any
"""NumPy's or JAX's."""


@struct.dataclass
class Window:
    """The windows of a batch.

    Attributes:
      observation: {name: [N, O, ...]}, the newest last.
      action: [N, H, A].
      observation_mask: [N, O] bool, false for copies.
      action_mask: [N, H] bool, false for copies.
      task: [N] int32, index into `Store.tasks`.
    """

    observation: dict[str, Array]
    action: Array
    observation_mask: Array
    action_mask: Array
    task: Array


@dataclasses.dataclass(frozen=True)
class WindowConfig:
    """The shape of windows.

    Attributes:
      observations: O.
      horizon: H.
      first: step of the first action, counted from that of the newest observation: 0 for the action chosen on it, 1 - O
        for plans that begin with the oldest observation, as in Chi et al. 2023.
      copies_before: observations that may be copies; O - 1 by default, so that an episode's first step has a window.
      copies_after: actions that may be copies at the end; by default all but one, so that its last step has one.
    """

    observations: int = 2
    horizon: int = 16
    first: int = 0
    copies_before: int | None = None
    copies_after: int | None = None

    def __post_init__(self) -> None:
        at_least(self, observations=1, horizon=1)
        if not 1 - self.observations <= self.first <= 0:
            raise ValueError(f"first is {self.first}, it must be from 1 - observations to 0")
        if not 0 <= self.before < self.observations:
            raise ValueError(f"copies_before is {self.before}, it must be from 0 to observations - 1")
        if not 0 <= self.after < self.horizon:
            raise ValueError(f"copies_after is {self.after}, it must be from 0 to horizon - 1")

    @property
    def before(self) -> int:
        """The most copies of the first observation."""
        return self.observations - 1 if self.copies_before is None else self.copies_before

    @property
    def after(self) -> int:
        """The most copies of the last action."""
        return self.horizon - 1 if self.copies_after is None else self.copies_after

    @property
    def first_step(self) -> int:
        """The first step of an episode that has a window."""
        return self.observations - 1 - self.before

    def last_step(self, length: np.ndarray) -> np.ndarray:  # [E] -> [E]
        """The last step that has one; below `first_step` where an episode is too short for any."""
        return np.minimum(length - 1, length - self.horizon + self.after - self.first)


class Windows:
    """All windows of a store, numbered through the episodes in order.

    Args:
      store: the episodes.
      config: shape of the windows.

    Raises:
      UserError: no episode is long enough for a window.
    """

    def __init__(self, store: Store, config: WindowConfig):
        self.store, self.config = store, config
        counts = np.maximum(config.last_step(store.lengths) - config.first_step + 1, 0)
        self._starts = store.starts
        self._ends = np.cumsum(counts)  # [E]
        if not counts.sum():
            raise UserError(
                f"no episode is long enough for {config.observations} observations and {config.horizon} actions: the "
                f"longest has {store.lengths.max()} steps. Allow more copies, or ask for less."
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def place(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [N] -> [N], [N]
        """The episode and the first step of windows."""
        index = np.asarray(index)
        if index.size and not (index.min() >= 0 and index.max() < len(self)):
            raise IndexError(f"windows are numbered from 0 to {len(self) - 1}")
        episode = np.searchsorted(self._ends, index, side="right")
        before = np.where(episode > 0, self._ends[episode - 1], 0)
        return episode, index - before + self.config.first_step

    def take(self, index: np.ndarray) -> Window:  # [N]
        """Cuts windows out."""
        episode, step = self.place(index)
        start, length = self._starts[episode], self.store.lengths[episode]
        seen = step[:, None] + np.arange(1 - self.config.observations, 1)  # [N, O]
        done = step[:, None] + self.config.first + np.arange(self.config.horizon)  # [N, H]
        last = length[:, None] - 1
        rows = start[:, None] + np.maximum(seen, 0)
        arrays = self.store.arrays
        return Window(
            observation={name: np.take(array, rows, axis=0) for name, array in arrays.items() if name != "action"},
            action=np.take(arrays["action"], start[:, None] + np.clip(done, 0, last), axis=0),
            observation_mask=seen >= 0,
            action_mask=(done >= 0) & (done <= last),
            task=self.store.task[episode].astype(np.int32),
        )
