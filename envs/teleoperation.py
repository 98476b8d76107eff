"""A person's hand on a robot: the velocity they want, as an action of the task.

World frame, for a Franka that of its base: x forward, y left, z up. Axes: D axes of motion, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from mjx_policies.envs.base import Env, EnvState
from mjx_policies.envs.control.obstacle2d import Obstacle2D
from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.actions import TCP_SPEED, TCP_TURN
from mjx_policies.envs.franka.episode import FrankaState
from mjx_policies.envs.franka.kinematics import tcp_pose
from mjx_policies.envs.franka.robot import OPENING
from mjx_policies.rotations import from_rotation_vector, to_matrix
from mjx_policies.types import Array

LEAD = 0.03  # m, by which the hand is told to be ahead of where it is: more winds up against a table


class MotionAxis(NamedTuple):
    """One axis: what moves along or about it, in which unit, and how fast it may."""

    name: str
    unit: str
    highest: float


class ActionMapping(NamedTuple):
    """The mapping from a person's input to a task's action.

    Attributes:
      motions: the D axes.
      gripper: whether there is one.
      action: `(env_state, velocity [D], closed []) -> action [A]`; `closed` is 0 or 1.
    """

    motions: tuple[MotionAxis, ...]
    gripper: bool
    action: Callable[[EnvState, Array, Array], Array]


def make_action_mapping(task: Env) -> ActionMapping:
    """Builds the action mapping of a task.

    Args:
      task: without wrappers.

    Raises:
      ValueError: a robot that a hand cannot move so.
    """
    if isinstance(task, Obstacle2D):
        return _point(task)
    if task.spec.robot == "franka":
        return _franka(task)
    raise ValueError("only a Franka, or the point of Obstacle2D, can be moved by hand: choose one of their tasks.")


def _point(task: Obstacle2D) -> ActionMapping:
    scale = jnp.asarray(task.spec.action.scale)

    def action(state: EnvState, velocity: Array, closed: Array) -> Array:
        del state, closed
        return jnp.clip(velocity / scale, -1.0, 1.0)

    names = ("forward", "left")
    limits = zip(names, task.spec.action.scale, strict=True)
    return ActionMapping(tuple(MotionAxis(name, "m/s", float(limit)) for name, limit in limits), False, action)


def _franka(task: Env) -> ActionMapping:
    dt, actions, model = task.spec.control_dt, task.actions, task.physics.model  # type: ignore[attr-defined]

    def action(state: FrankaState, velocity: Array, closed: Array) -> Array:
        position, rotation = tcp_pose(state.target[: sensing.NUM_JOINTS])
        lead = position - sensing.tcp_position(model, state.data)
        onward = (jnp.linalg.norm(lead) > LEAD) & (jnp.dot(lead, velocity[:3]) > 0)
        step = dt * jnp.where(onward, 0.0, velocity[:3])
        turned = to_matrix(from_rotation_vector(dt * velocity[3:])) @ rotation
        opening = jnp.where(closed > 0.5, 0.0, OPENING)
        return actions.toward(state.target, state.data.qpos[: sensing.NUM_JOINTS], position + step, turned, opening)

    motions = (
        *(MotionAxis(name, "m/s", TCP_SPEED) for name in ("forward", "left", "up")),
        *(MotionAxis(name, "rad/s", TCP_TURN) for name in ("roll", "pitch", "yaw")),
    )
    return ActionMapping(motions, True, action)
