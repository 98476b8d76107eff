"""An expert for `FrankaStack`: grasps the cube across either pair of faces and sets it down from above or from a side.

The first grasp sometimes closes the fingers beside the cube or above it; then the hand opens and repeats it. The cube
is turned so that its faces are those of the base, and let go where it lies level.
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
from mjx_policies.envs.franka.kinematics import pointing_down, turn_of
from mjx_policies.envs.franka.scenes import CUBE
from mjx_policies.envs.franka.stack import LEVEL, FrankaStack, placed
from mjx_policies.types import Array

STRATEGIES = ("straight from above", "straight from a side", "turned from above", "turned from a side")
HEIGHT = 0.08  # m above the cube that is free to move about in
CARRY = (0.07, 0.03)  # m above the base that the cube is carried over, from above and from a side
WIDE = 0.034  # m, each finger: more could hit the base
FINGER = WIDE + 0.0076  # m, from the middle of the hand to the middle of an open finger
ROOM = 0.012  # m, half of what an open finger takes up
SPEED, CAREFUL, LOWER = 0.35, 0.15, 0.08  # m/s
EMPTY = CUBE - 0.004  # m, each finger: closed further than on the cube
OFF = CUBE + 0.006  # m, each finger: clear of the cube


def stack_expert(task: FrankaStack) -> Expert:
    """Builds the expert; both grasps and both heights to carry at are equally likely."""
    model = task.physics.model

    def plan(state: FrankaState, hand: Seen, strategy: Array, mistake: Array) -> Aim:
        cube, quat = sensing.object_pose(model, state.data, "cube")
        base, base_quat = sensing.object_pose(model, state.data, "base")
        near = length(hand.position - cube)
        holds = hand.holds & (near < 0.03)
        done = placed(model, state.data) & ~holds

        rotation = grasp_rotations(quat, cube, base)[strategy // 2]
        place = cube + rotation @ mistake
        grasp, grasp_error = come_down(hand, place, rotation, HEIGHT, slack=0.006)
        there = length(hand.position - place) < 0.008
        empty = ~holds & (hand.opening < EMPTY)

        top = base + jnp.asarray([0.0, 0.0, 2 * CUBE])
        aligned = squared(hand.told, quat, base_quat)
        carry, carry_error = come_down(
            hand._replace(position=cube), top, aligned, jnp.asarray(CARRY)[strategy % 2], slack=0.004
        )
        rests = (length(cube[:2] - top[:2]) < 0.008) & (jnp.abs(cube[2] - top[2]) < LEVEL / 2)

        # A cube that is let go stays where it is only if the fingers open before the hand leaves.
        leave = hand.position + jnp.asarray([0.0, 0.0, 0.1]) * ((hand.opening > OFF) & (near < 0.1))
        return Aim(
            position=jnp.where(done, leave, jnp.where(holds, carry + hand.position - cube, grasp)),
            rotation=jnp.where(done, hand.told, jnp.where(holds, aligned, rotation)),
            opening=jnp.where(done | (holds & rests), WIDE, jnp.where((there | holds) & ~empty, 0.0, WIDE)),
            speed=jnp.where(
                holds,
                jnp.where(carry_error > 0.02, SPEED, LOWER),
                jnp.where(done | (grasp_error > 0.02), SPEED, CAREFUL),
            ),
            noticed=empty | holds,
        )

    def choose(state: FrankaState, hand: Seen) -> Array:
        cube, quat = sensing.object_pose(model, state.data, "cube")
        base, _ = sensing.object_pose(model, state.data, "base")
        straight, turned = (length(rotation_between(hand.rotation, r)) for r in grasp_rotations(quat, cube, base))
        return jnp.where(straight <= turned, 0, 2)

    return arm_expert(task, plan, STRATEGIES, choose)


def grasp_rotations(quat: Array, cube: Array, base: Array) -> Array:  # [4], [3], [3] -> [2, 3, 3]
    """The hand's rotation for the straight and the turned grasp of a cube at `cube`, turned by `quat`.

    Straight turns the arm as little as it can, turned takes the other pair of faces. Where a finger would come down on
    the base, which lies at `base`, both are the other one.
    """
    yaw = nearest_yaw(yaw_of(quat), jnp.pi / 2)
    other = yaw - jnp.where(yaw > 0, jnp.pi / 2, -jnp.pi / 2)
    straight_fits, turned_fits = fits(yaw, cube, base), fits(other, cube, base)
    return jnp.stack(
        [
            pointing_down(jnp.where(straight_fits | ~turned_fits, yaw, other)),
            pointing_down(jnp.where(turned_fits | ~straight_fits, other, yaw)),
        ]
    )


def fits(yaw: Array, cube: Array, base: Array) -> Array:  # [], [3], [3] -> [] bool
    """Whether the open fingers of a hand turned by `yaw` about `cube` miss the base, whichever way that is turned."""
    finger = FINGER * jnp.stack([jnp.sin(yaw), -jnp.cos(yaw)])
    gap = jnp.minimum(length(cube[:2] + finger - base[:2]), length(cube[:2] - finger - base[:2]))
    return (gap > jnp.sqrt(2.0) * CUBE + ROOM) | (base[2] > 2 * CUBE)


def squared(rotation: Array, quat: Array, base_quat: Array) -> Array:  # [3, 3], [4], [4] -> [3, 3]
    """A hand that points down and has turned what it holds so that its faces are those of the base."""
    return pointing_down(turn_of(rotation) + nearest_yaw(yaw_of(base_quat) - yaw_of(quat), jnp.pi / 2))
