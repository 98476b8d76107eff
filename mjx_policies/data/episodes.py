"""An episode in memory, the one thing that every format of this package reads and writes. Axes: T steps, A actions."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mjx_policies.errors import UserError
from mjx_policies.text import show

NAME = re.compile(r"[\w-]{1,80}|observation(\.[\w-]{1,40}){2,4}", re.ASCII)
"""What an observation may be called: `state`, or the whole name of a foreign feature, `observation.images.wrist`."""

LARGEST = np.finfo(np.float32).max  # what learning can hold

_ARRAYS = ("observation", "action", "reward", "final_observation")


class NotFiniteError(UserError):
    """An episode holds a number that is not finite, which is a fault of the data rather than of the file."""


@dataclasses.dataclass(frozen=True)
class Episode:
    """An episode: observations, actions and rewards from a reset to an end. A pytree whose leaves are the arrays.

    Attributes:
      observation: {name: [T, ...]} numbers or truth values, at least one in a step; pixels uint8 [T, H, W, C]; row t is
        what action t was chosen on.
      action: [T, A] float32.
      reward: [T] float32, row t for action t; zeros where there is none.
      terminated: whether the task ended, which makes what follows worth nothing; False for a time limit.
      success: whether the task was solved; None if nobody says.
      task: its name, or the instruction in words.
      fps: steps per second.
      final_observation: {name: [...]}, what the last action led to; None if it was not kept.
      seed: of the episode; None if unknown.
      strategy: of the expert that acted; empty if unknown.

    Raises:
      UserError: a name, type or length does not fit, or a number is not finite.
    """

    observation: dict[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    terminated: bool
    success: bool | None
    task: str
    fps: float
    final_observation: dict[str, np.ndarray] | None = None
    seed: int | None = None
    strategy: str = ""

    def __post_init__(self) -> None:
        for name in ("observation", "final_observation"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(
                    self, name, {key: _numbers(value, f"{name}[{key!r}]") for key, value in values.items()}
                )
        for name in ("action", "reward"):
            values = _numbers(getattr(self, name), name)
            learnt = values.astype(np.float32, copy=False)
            if values.dtype.kind in "iu" and (learnt != values).any():
                where = [int(index) for index in np.argwhere(learnt != values)[0]]
                raise UserError(
                    f"{name} holds {values[tuple(where)]} at {where}, which float32 cannot hold exactly: divide it."
                )
            object.__setattr__(self, name, learnt)
        self._check()

    def __len__(self) -> int:
        return len(self.action)

    def _check(self) -> None:
        if self.action.ndim != 2 or not self.action.size:
            raise UserError(
                f"action has the shape {list(self.action.shape)}, it must be [T, A] with T and A at least 1."
            )
        steps = len(self.action)
        if self.reward.shape != (steps,):
            raise UserError(
                f"reward has the shape {list(self.reward.shape)} for {steps} actions, it must be [{steps}]."
            )
        if not self.observation:
            raise UserError("observation is empty: an episode needs at least one, such as 'state'.")
        for key, value in self.observation.items():
            if not NAME.fullmatch(key) or key == "action":
                raise UserError(
                    f"the observation {show(key)} cannot be called so: use letters, digits, _ and -, or the name of a "
                    "foreign feature such as observation.images.wrist."
                )
            if value.ndim < 2 or len(value) != steps or not value.size:
                raise UserError(
                    f"observation[{key!r}] has the shape {list(value.shape)} for {steps} actions, it must be "
                    f"[{steps}, ...]: at least one number in each step."
                )
        if self.final_observation is not None:
            _check_final(self.final_observation, self.observation)
        if not (isinstance(self.fps, int | float) and math.isfinite(self.fps) and self.fps > 0):
            raise UserError(f"fps is {show(self.fps)}, it must be a number above zero.")
        if not isinstance(self.task, str) or not isinstance(self.strategy, str):
            raise UserError("task and strategy must be text.")


def _numbers(value: Any, name: str) -> np.ndarray:
    """An array of plain, finite numbers."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise UserError(f"{name} has the type {array.dtype}, it must hold plain numbers.")
    fits = np.abs(array) <= LARGEST if array.dtype.kind == "f" else np.ones(1, bool)
    if not fits.all():
        where = [int(index) for index in np.argwhere(~fits)[0]]
        raise NotFiniteError(f"{name} holds {array[tuple(where)]} at {where}, every number must be finite in float32.")
    return array


def _check_final(final: Mapping[str, np.ndarray], observation: Mapping[str, np.ndarray]) -> None:
    if final.keys() != observation.keys():
        raise UserError(
            f"final_observation has {sorted(final)}, the observation {sorted(observation)}: they must agree."
        )
    for key, value in final.items():
        expected = observation[key]
        if value.shape != expected.shape[1:] or value.dtype != expected.dtype:
            raise UserError(
                f"final_observation[{key!r}] is {value.dtype} {list(value.shape)}, a row of the observation is "
                f"{expected.dtype} {list(expected.shape[1:])}: they must agree."
            )


def _flatten(episode: Episode) -> tuple[list[tuple[Any, Any]], tuple]:
    arrays = [(jax.tree_util.GetAttrKey(name), getattr(episode, name)) for name in _ARRAYS]
    return arrays, tuple(
        (f.name, getattr(episode, f.name)) for f in dataclasses.fields(episode) if f.name not in _ARRAYS
    )


def _unflatten(rest: tuple, arrays: Any) -> Episode:
    # Past the checks, because a transformation may put anything in the place of an array.
    episode = object.__new__(Episode)
    for name, value in (*zip(_ARRAYS, arrays, strict=True), *rest):
        object.__setattr__(episode, name, value)
    return episode


jax.tree_util.register_pytree_with_keys(Episode, _flatten, _unflatten)
