"""An expert for `FrankaPickCube`: comes down on the cube, grasps it across either pair of faces or slanted, carries it.

The first grasp sometimes closes the fingers beside the cube or above it; then the hand opens and repeats it.
"""

from __future__ import annotations

import jax.numpy as jnp

from mjx_policies.envs.experts.arm import (
    Aim,
    Seen,
    arm_expert,
    come_down,
    nearest_yaw,
    rotation_between,
    yaw_of,
)
from mjx_policies.envs.experts.base import Expert
from mjx_policies.envs.experts.human import length
from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.episode import FrankaState
from mjx_policies.envs.franka.kinematics import pointing_down
from mjx_policies.envs.franka.pick_cube import FrankaPickCube
from mjx_policies.envs.franka.robot import OPENING
from mjx_policies.envs.franka.scenes import CUBE
from mjx_policies.types import Array

STRATEGIES = ("straight", "turned", "slanted")
SLANT = 0.4  # rad, by which the slanted hand reaches forward
HEIGHT = 0.08  # m above the cube that is free to move about in
SPEED, CAREFUL = 0.35, 0.15  # m/s
EMPTY = CUBE - 0.004  # m, each finger: closed further than on the cube


def pick_cube_expert(task: FrankaPickCube) -> Expert:
    """Builds the expert; the three grasps are equally likely."""
    model = task.physics.model

    def plan(state: FrankaState, hand: Seen, strategy: Array, mistake: Array) -> Aim:
        cube, quat = sensing.object_pose(model, state.data, "cube")
        goal = sensing.mocap_position(model, state.data, "goal")
        holds = hand.holds & (length(hand.position - cube) < 0.03)
        rotation = grasp_rotations(quat)[strategy]
        place = cube + rotation @ mistake
        above, error = come_down(hand, place, rotation, HEIGHT, slack=0.006)
        there = length(hand.position - place) < 0.008
        empty = ~holds & (hand.opening < EMPTY)
        return Aim(
            position=jnp.where(holds, goal + hand.position - cube, above),
            rotation=jnp.where(holds, hand.told, rotation),
            opening=jnp.where((there | holds) & ~empty, 0.0, OPENING),
            speed=jnp.where(holds | (error > 0.02), SPEED, CAREFUL),
            noticed=empty | holds,
        )

    def choose(state: FrankaState, hand: Seen) -> Array:
        _, quat = sensing.object_pose(model, state.data, "cube")
        angles = jnp.stack([length(rotation_between(hand.rotation, each)) for each in grasp_rotations(quat)])
        return jnp.argmin(angles)

    return arm_expert(task, plan, STRATEGIES, choose)


def grasp_rotations(quat: Array) -> Array:  # [4] -> [3, 3, 3]
    """The hand's rotation for each strategy, for a cube turned by `quat`: the arm turns as little as it can."""
    yaw = nearest_yaw(yaw_of(quat), jnp.pi / 2)
    straight = pointing_down(yaw)
    other = pointing_down(yaw - jnp.where(yaw > 0, jnp.pi / 2, -jnp.pi / 2))
    c, s = jnp.cos(SLANT), jnp.sin(SLANT)
    about_fingers = jnp.asarray([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
    return jnp.stack([straight, other, straight @ about_fingers])
