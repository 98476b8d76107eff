"""A person who moves a Franka by its hand: from a plan, which says where the hand should go next, to actions.

World frame: the robot's base. The hand's frame is that of the TCP: z out of the hand, y along the fingers' motion.
Lengths in m, angles in rad. Axes: A actions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco

from mjx_policies.envs.experts.base import Expert, ExpertState
from mjx_policies.envs.experts.human import (
    HABITS,
    Habits,
    HumanMotion,
    approach,
    draw_manner,
    length,
    misaim,
    move,
    rest,
    take_pause,
    wander,
)
from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.episode import FrankaState
from mjx_policies.envs.franka.kinematics import tcp_pose
from mjx_policies.rotations import from_matrix, from_rotation_vector, to_matrix, to_rotation_vector
from mjx_policies.types import Array

MOVE = HumanMotion(acceleration=1.5, jerk=4.0)  # m
TURN = HumanMotion(acceleration=6.0, jerk=16.0)  # rad
TURN_SPEED = 1.5  # rad/s
TURN_HABITS = Habits(tremor=0.01)  # rad/s, of a wrist at rest


class Seen(NamedTuple):
    """The robot's hand, as the plan sees it.

    Attributes:
      position, rotation: [3] and [3, 3] of the TCP, as they are.
      told: [3, 3] the rotation that the hand was told to have; to aim at it is to keep it.
      opening: [] m, of each finger from the middle.
      holds: [] bool, whether both fingers press on the object; never where there is none.
    """

    position: Array
    rotation: Array
    told: Array
    opening: Array
    holds: Array


class Aim(NamedTuple):
    """The next pose of the hand, its opening and its speed.

    Attributes:
      position: [3] of the TCP.
      rotation: [3, 3] of the hand.
      opening: [] m, of each finger from the middle.
      speed: [] m/s, at pace 1.
      noticed: [] bool, that the first approach went wrong; from then on there is no mistake any more.
    """

    position: Array
    rotation: Array
    opening: Array
    speed: Array
    noticed: Array


Plan = Callable[[FrankaState, Seen, Array, Array], Aim]
"""`(state, hand, strategy [], mistake [3]) -> aim`. The mistake is in m; the plan says in which frame: that of the hand
as it is to grasp or as it was told to hold, or that of the world where nothing is grasped."""


def arm_expert(
    task: Any,
    plan: Plan,
    strategies: Sequence[str],
    choose: Callable[[FrankaState, Seen], Array] = lambda state, hand: jnp.zeros((), jnp.int32),
    habits: Habits = HABITS,
) -> Expert:
    """Builds the expert of an arm task from its plan.

    Args:
      task: one of the Franka's.
      plan: see `Plan`.
      strategies: names of the ways that the plan knows.
      choose: the strategy that suits a state best, for labels.
      habits: how people differ.
    """
    dt, actions, model = task.spec.control_dt, task.actions, task.physics.model
    steady = jnp.zeros(3)

    def action(state: FrankaState, position: Array, rotation: Array, opening: Array) -> Array:
        return actions.toward(state.target, state.data.qpos[: sensing.NUM_JOINTS], position, rotation, opening)

    def init(key: Array, state: FrankaState) -> ExpertState:
        return ExpertState(draw_manner(key, len(strategies), habits), rest(6), jnp.zeros(actions.table.size))

    def act(expert: ExpertState, state: FrankaState, key: Array) -> tuple[Array, ExpertState]:
        manner, hand = expert.manner, expert.hand
        normal = jax.random.normal(key, (8,))
        noise = wander(hand.noise, normal[:6], dt, habits)
        pause = take_pause(hand.pause, jax.scipy.stats.norm.cdf(normal[6:]), dt, habits)
        aim = plan(state, see(model, state), manner.strategy, jnp.where(hand.fooled, manner.mistake, 0.0))
        position, rotation = tcp_pose(state.target[: sensing.NUM_JOINTS])
        offset, turn = to_go(position, rotation, aim)
        works = pause <= 0
        moves, moved = move(
            hand.velocity[:3], noise[:3], misaim(offset, manner.aim), works * aim.speed, MOVE, manner.pace, dt, habits
        )
        turns, turned = move(hand.velocity[3:], noise[3:], turn, works * TURN_SPEED, TURN, manner.pace, dt, TURN_HABITS)
        hand = dataclasses.replace(
            hand, velocity=jnp.concatenate([moves, turns]), noise=noise, pause=pause, fooled=hand.fooled & ~aim.noticed
        )
        steps = jnp.stack([jnp.concatenate([moved, turned]), hand.velocity]) * dt
        executed, intended = jax.vmap(
            lambda step: action(state, position + step[:3], _turn(rotation, step[3:]), aim.opening)
        )(steps)
        return executed, ExpertState(manner, hand, intended)

    def label(state: FrankaState) -> Array:
        seen = see(model, state)
        aim = plan(state, seen, choose(state, seen), steady)
        position, rotation = tcp_pose(state.target[: sensing.NUM_JOINTS])
        offset, turn = to_go(position, rotation, aim)
        step = dt * approach(offset, aim.speed, MOVE.jerk, dt)
        turning = dt * approach(turn, TURN_SPEED, TURN.jerk, dt)
        return action(state, position + step, _turn(rotation, turning), aim.opening)

    return Expert(init, act, label, tuple(strategies))


def see(model: mujoco.MjModel, state: FrankaState) -> Seen:
    """The hand in a state of a task."""
    data = state.data
    touches = any(model.sensor(i).name == "left_touch" for i in range(model.nsensor))
    position, rotation = tcp_pose(data.qpos[: sensing.NUM_JOINTS])
    return Seen(
        position=position,
        rotation=rotation,
        told=tcp_pose(state.target[: sensing.NUM_JOINTS])[1],
        opening=sensing.finger_opening(data),
        holds=sensing.pressed(model, data) if touches else jnp.zeros((), bool),
    )


def to_go(position: Array, rotation: Array, aim: Aim) -> tuple[Array, Array]:  # [3], [3, 3] -> [3], [3]
    """The way that is left to the aim: a vector, and a rotation vector in the world frame."""
    return aim.position - position, rotation_between(rotation, aim.rotation)


def rotation_between(a: Array, b: Array) -> Array:  # [3, 3], [3, 3] -> [3]
    """The rotation vector, in the world frame, that turns `a` into `b`."""
    return to_rotation_vector(from_matrix(b @ a.T))


def _turn(rotation: Array, vector: Array) -> Array:  # [3, 3], [3] -> [3, 3]
    return to_matrix(from_rotation_vector(vector)) @ rotation


def come_down(hand: Seen, place: Array, rotation: Array, height: Array | float, slack: float) -> tuple[Array, Array]:
    """The way to a place that has to be entered along the hand's z axis: beside it first up, then over, then down.

    Args:
      hand: as it is.
      place: [3] where the TCP is to arrive.
      rotation: [3, 3] of the hand there.
      height: [] m above the place that is free to move about in.
      slack: m sideways, and a tenth of it in rad, that do not matter.

    Returns:
      The position [3] to go to next, and the error [] that is left sideways, m.
    """
    away = rotation.T @ (hand.position - place)  # [3] in the hand's frame: -z is how far above
    tilt = length(rotation_between(hand.rotation, rotation))
    error = length(away[:2]) + 0.05 * tilt
    clearance = jnp.clip(5 * (error - slack), 0.0, height)
    # Sideways only as far as the height allows.
    free = jnp.clip((-away[2] - 0.5 * clearance) / (0.3 * clearance + 1e-3), 0.0, 1.0)
    return place + rotation @ jnp.append((1 - free) * away[:2], -clearance), error


def nearest_yaw(yaw: Array, symmetry: float) -> Array:  # [] -> []
    """The yaw nearest to zero that is the same after turns by `symmetry` rad."""
    return yaw - symmetry * jnp.round(yaw / symmetry)


def yaw_of(quat: Array) -> Array:  # [4] -> []
    """The yaw of an object's x axis."""
    w, x, y, z = quat
    return jnp.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
