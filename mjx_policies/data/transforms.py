"""Actions relative to where the hand is, and streams that are late.

A pose is 9 numbers: position [3] and the first two columns of the rotation matrix [6], see `rotations.to_sixd`.
Functions of poses are for one example; batches come from `vmap`. Axes: H horizon, T steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.data.episodes import Episode
from mjx_policies.errors import UserError
from mjx_policies.rotations import from_sixd, to_sixd
from mjx_policies.types import Array


def relative_pose(pose: Array, base: Array) -> Array:  # [9], [9] -> [9]
    """`base^-1 pose`: a pose as seen from another, Chi et al. 2024 (arXiv:2402.10329), section IV-B."""
    rotation = from_sixd(base[3:])
    position = rotation.T @ (pose[:3] - base[:3])
    return jnp.concatenate([position, to_sixd(rotation.T @ from_sixd(pose[3:]))])


def absolute_pose(relative: Array, base: Array) -> Array:  # [9], [9] -> [9]
    """`base relative`, the inverse of `relative_pose`."""
    rotation = from_sixd(base[3:])
    position = base[:3] + rotation @ relative[:3]
    return jnp.concatenate([position, to_sixd(rotation @ from_sixd(relative[3:]))])


def relative_actions(action: Array, base: Array) -> Array:  # [H, 9 + G], [9] -> [H, 9 + G]
    """Every pose of a plan relative to the pose at its beginning; the G numbers after it, of a gripper, stay.

    All are relative to the same pose and not each to the one before, so errors do not add up along the plan, and what
    the robot does does not depend on where the world's origin is.
    """
    return _with_poses(action, jax.vmap(relative_pose, in_axes=(0, None))(action[:, :9], base))


def absolute_actions(relative: Array, base: Array) -> Array:  # [H, 9 + G], [9] -> [H, 9 + G]
    """The inverse of `relative_actions`, with the pose that was measured when the plan was made."""
    return _with_poses(relative, jax.vmap(absolute_pose, in_axes=(0, None))(relative[:, :9], base))


def _with_poses(action: Array, poses: Array) -> Array:
    return jnp.concatenate([poses, action[:, 9:]], axis=1)


def shift_latency(episode: Episode, late: Mapping[str, int]) -> Episode:
    """An episode as if each stream were as late, or as little late, as it is on the robot.

    Args:
      episode: recorded without delay, or with one that is to be taken out.
      late: {name: steps}, of observations or `action`. An observation that is d steps late shows in row t what was
        true in row t - d. An action that is d steps late takes effect d steps after it is sent, so row t holds what has
        to be sent then: the action of row t + d. Below zero, rows move the other way.

    Returns:
      Only the rows for which every stream has a value, with the rewards of the actions in them, and without a final
      observation. It ends where the old one ended only if that was kept, else it does not count as terminated.

    Raises:
      UserError: a name is unknown, or nothing is left.
    """
    unknown = set(late) - set(episode.observation) - {"action"}
    if unknown:
        raise UserError(
            f"the episode has no stream {min(unknown)!r}, only {', '.join(episode.observation)} and action."
        )
    steps = len(episode)
    moved = {name: late.get(name, 0) for name in episode.observation}  # row t shows row t - moved
    ahead = late.get("action", 0)
    first = max(0, -ahead, *moved.values())
    last = min(steps, steps - ahead, *(steps + shift for shift in moved.values()))
    if last <= first:
        raise UserError(f"an episode of {steps} steps has nothing left when its streams are shifted by {dict(late)}.")

    def rows(values: np.ndarray, shift: int) -> np.ndarray:
        return values[first - shift : last - shift]

    return dataclasses.replace(
        episode,
        observation={name: rows(values, moved[name]) for name, values in episode.observation.items()},
        action=rows(episode.action, -ahead),
        reward=rows(episode.reward, -ahead),
        terminated=episode.terminated and last + ahead == steps,
        final_observation=None,
    )
