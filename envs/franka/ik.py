"""Inverse kinematics of the arm by damped least squares, within the joint ranges. Axes: J = 7 joints.

`follow` goes downhill from where it starts, so it moves little and continuously: for a pose nearby. `solve_ik` also
starts from poses spread over the workspace: for any pose that can be reached. Both take a fixed number of steps.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.envs.franka.kinematics import tcp_pose_and_jacobian
from mjx_policies.envs.franka.robot import HOME, LIMITS, JointLimits
from mjx_policies.rotations import from_matrix, to_rotation_vector
from mjx_policies.types import Array

LENGTH = 0.4  # m, weighs an error in rotation against one in position: that far from the TCP both move points alike
DAMPING = 1e-5  # m^2, left where the error is zero
POSTURE = 0.3  # share of the way to the middle of the ranges that a step 1 m off goes, without moving the TCP
MAX_STEP = 0.5  # rad, of any joint
STARTS = np.array(
    [
        HOME,
        (0.0, 0.4, 0.4, -2.6, -2.2, 1.4, -1.9),
        (0.0, 0.5, 1.0, -2.4, -2.4, 1.0, 2.4),
        (0.0, 0.5, -1.8, -1.9, -2.4, 1.1, -1.5),
        (0.0, 1.0, -1.1, -2.2, 0.7, 2.9, 2.4),
        (0.0, 1.4, 0.2, -1.0, 0.1, 2.4, -2.4),
    ],
    np.float32,
)
"""Chosen among 60 random poses, one after the other, to leave the fewest of 2000 goals unsolved."""
WRIST = 0.107 + 0.1034  # m from the TCP to where the last joint's axis meets the hand's frame


class Gap(NamedTuple):
    """The error between the pose reached and the one wanted: `position` [] in m, `rotation` [] in rad."""

    position: Array
    rotation: Array


def solve_ik(
    q: Array, position: Array, rotation: Array, limits: JointLimits = LIMITS["fr3"], steps: int = 30
) -> tuple[Array, Gap]:  # [J], [3], [3, 3] -> [J]
    """Joint angles within `limits` that put the TCP at `position` (m) and `rotation`, and the gap that remains.

    Of the solutions found the one nearest to `q` is taken; if there is none, the angles that come nearest to the pose.
    """
    wrist = position - WRIST * rotation[:, 2]
    facing = jnp.asarray(STARTS).at[:, 0].set(jnp.arctan2(wrist[1], wrist[0]))
    starts = jnp.concatenate([q[None], facing])
    found, gap = jax.vmap(lambda start: follow(start, position, rotation, limits, steps))(starts)
    error = gap.position + LENGTH * gap.rotation
    solved = (gap.position < 1e-4) & (gap.rotation < 1e-3)
    far = jnp.sum(jnp.square(found - q), axis=1)
    best = jnp.where(jnp.any(solved), jnp.argmin(jnp.where(solved, far, jnp.inf)), jnp.argmin(error))
    return found[best], jax.tree.map(lambda x: x[best], gap)


def follow(
    q: Array, position: Array, rotation: Array, limits: JointLimits = LIMITS["fr3"], steps: int = 3
) -> tuple[Array, Gap]:  # [J], [3], [3, 3] -> [J]
    """Joint angles close to `q`, within `limits`, that bring the TCP towards the pose, and the gap that remains.

    Three steps reach a pose some centimetres and tenths of a radian away to some 0.1 mm where nothing limits them.
    """
    lower, upper = jnp.asarray(limits.lower), jnp.asarray(limits.upper)

    def step(_: Array, q: Array) -> Array:
        error, jacobian = _linearise(q, position, rotation)
        move = _move(error, jacobian)
        stuck = ((q <= lower) & (move < 0)) | ((q >= upper) & (move > 0))
        free = jacobian * ~stuck  # the others do the work of joints that cannot move on
        relaxed = POSTURE * jnp.minimum(jnp.linalg.norm(error), 1.0) * ~stuck * ((lower + upper) / 2 - q)
        move = relaxed + _move(error - free @ relaxed, free, error)
        move = move * jnp.minimum(MAX_STEP / jnp.maximum(jnp.max(jnp.abs(move)), 1e-6), 1.0)
        return jnp.clip(q + move, lower, upper)

    q = jax.lax.fori_loop(0, steps, step, jnp.clip(q, lower, upper))
    error, _ = _linearise(q, position, rotation)
    return q, Gap(jnp.linalg.norm(error[:3]), jnp.linalg.norm(error[3:]) / LENGTH)


def _linearise(q: Array, position: Array, rotation: Array) -> tuple[Array, Array]:  # -> [6], [6, J]
    """Error of the pose in metres, rotations weighed with `LENGTH`, and how joints reduce it."""
    at, turned, jacobian = tcp_pose_and_jacobian(q)
    turn = to_rotation_vector(from_matrix(rotation @ turned.T))
    weight = jnp.repeat(jnp.asarray([1.0, LENGTH]), 3)
    return weight * jnp.concatenate([position - at, turn]), weight[:, None] * jacobian


def _move(error: Array, jacobian: Array, scale: Array | None = None) -> Array:  # [6], [6, J] -> [J]
    """J^T (J J^T + d I)^-1 e, with damping d that grows with the square of the error (Sugihara 2011)."""
    damping = DAMPING + jnp.sum(jnp.square(error if scale is None else scale)) / 2
    return jacobian.T @ _solve(jacobian @ jacobian.T + damping * jnp.eye(6), error)


def _solve(matrix: Array, vector: Array) -> Array:  # [6, 6], [6] -> [6]
    """Gauss-Jordan elimination of a symmetric positive definite system, which needs no pivots; elementary operations
    only, so that it vectorises over robots and exports."""
    rows = jnp.concatenate([matrix, vector[:, None]], axis=1)
    for k in range(6):
        pivot = rows[k] / rows[k, k]
        rows = (rows - jnp.outer(rows[:, k], pivot)).at[k].set(pivot)
    return rows[:, -1]
