"""An expert for `FrankaDrawer`: grasps the handle from above or from the front, or hooks closed fingers behind it.

The first grasp sometimes closes the fingers beside the handle, or reaches over it; then the hand repeats it.
Lengths in m, angles in rad.
"""

from __future__ import annotations

import jax.numpy as jnp

from mjx_policies.envs.experts.arm import Aim, Seen, arm_expert, come_down, rotation_between
from mjx_policies.envs.experts.base import Expert
from mjx_policies.envs.experts.human import Habits, length
from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.drawer import OPENED, FrankaDrawer, handle, opening
from mjx_policies.envs.franka.episode import FrankaState
from mjx_policies.envs.franka.kinematics import pointing_down, tcp_pose
from mjx_policies.envs.franka.robot import OPENING
from mjx_policies.types import Array

STRATEGIES = ("above", "front", "hook")
HOOK = 2
HABITS = Habits(mistake=(0.025, 0.03))
SLANTS = (0.0, 0.7, 0.25)  # of the hand, forward from pointing down
PLACES = ((0.0, 0.0, 0.015), (0.0, 0.0, 0.005), (0.028, 0.0, 0.02))  # of the TCP, from the middle of the handle
CLOSED = 0.005  # each finger: closed further than on the handle
HEIGHT = 0.06  # before the handle, along the hand, that is free to move about in
PULLED = OPENED + 0.025  # to pull to
SPEED, CAREFUL, PULL = 0.35, 0.15, 0.2  # m/s


def drawer_expert(task: FrankaDrawer) -> Expert:
    """Builds the expert; the three ways to take the handle are equally likely."""
    model = task.physics.model

    def plan(state: FrankaState, hand: Seen, strategy: Array, mistake: Array) -> Aim:
        middle = handle(model, state.data)
        rotation = hand_rotations()[strategy]
        right = middle + jnp.asarray(PLACES)[strategy]
        place = right + rotation @ mistake
        above, error = come_down(hand, place, rotation, HEIGHT, slack=0.005)
        away = hand.position - middle
        hooks = strategy == HOOK
        there = length(hand.position - place) < 0.008
        behind = (jnp.abs(away[0] - 0.02) < 0.015) & (jnp.abs(away[1]) < 0.015) & (jnp.abs(away[2] - 0.02) < 0.012)
        holds = jnp.where(hooks, behind, hand.holds & (length(away) < 0.06))
        empty = jnp.where(hooks, there & ~behind, ~holds & (hand.opening < CLOSED))
        told, _ = tcp_pose(state.target[: sensing.NUM_JOINTS])
        blocked = (length(told - above) < 0.003) & (length(told - hand.position) > 0.008)
        left = jnp.maximum(PULLED - opening(model, state.data), 0.0)
        pull = jnp.stack([hand.position[0] - left, right[1], right[2]])
        closes = hooks | ((there | holds) & ~empty)
        return Aim(
            position=jnp.where(holds, pull, above),
            rotation=rotation,
            opening=jnp.where(closes, 0.0, OPENING),
            speed=jnp.where(holds, PULL, jnp.where(error > 0.02, SPEED, CAREFUL)),
            noticed=empty | blocked | holds,
        )

    def choose(state: FrankaState, hand: Seen) -> Array:
        angles = jnp.stack([length(rotation_between(hand.rotation, each)) for each in hand_rotations()])
        grasp = jnp.argmin(angles[:HOOK])
        return jnp.where((hand.opening < CLOSED) & ~hand.holds, HOOK, grasp)

    return arm_expert(task, plan, STRATEGIES, choose, HABITS)


def hand_rotations() -> Array:  # -> [3, 3, 3]
    """The hand's rotation for each strategy: pointing down, and turned forward about the axis of the fingers."""
    down = pointing_down(jnp.zeros(()))
    c, s = jnp.cos(jnp.asarray(SLANTS)), jnp.sin(jnp.asarray(SLANTS))
    zero, one = jnp.zeros_like(c), jnp.ones_like(c)
    turn = jnp.stack([jnp.stack([c, zero, s]), jnp.stack([zero, one, zero]), jnp.stack([-s, zero, c])])
    return jnp.moveaxis(jnp.einsum("ij,jkn->ikn", down, turn), -1, 0)
