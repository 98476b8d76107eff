"""An expert for `FrankaReach`: straight to the goal, in an arc over it, or over to it first and then up or down.

The first approach sometimes goes to a place beside the goal; once there, the hand goes on to where the goal is.
"""

from __future__ import annotations

import jax.numpy as jnp

from mjx_policies.envs.experts.arm import Aim, Seen, arm_expert
from mjx_policies.envs.experts.base import Expert
from mjx_policies.envs.experts.human import Habits, length
from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.episode import FrankaState
from mjx_policies.envs.franka.kinematics import pointing_down
from mjx_policies.envs.franka.reach import FrankaReach
from mjx_policies.types import Array

STRATEGIES = ("direct", "arc", "corner")
HABITS = Habits(pace=0.15, slowest=0.8)  # three seconds leave no time to dawdle
SPEED = 0.45  # m/s
RISE = 0.7  # of the arc: m that it aims above the goal, per m to go sideways
CORNER = (0.015, 0.05)  # m sideways: at the first, height is all that is left to go; before the second it is kept


def reach_expert(task: FrankaReach) -> Expert:
    """Builds the expert; the three ways are equally likely."""
    model = task.physics.model

    def plan(state: FrankaState, hand: Seen, strategy: Array, mistake: Array) -> Aim:
        rotation = pointing_down(jnp.zeros(()))
        place = sensing.mocap_position(model, state.data, "goal") + rotation @ mistake
        return Aim(
            position=ways(hand.position, place)[strategy],
            rotation=rotation,
            opening=hand.opening,
            speed=jnp.asarray(SPEED),
            noticed=length(hand.position - place) < 0.012,
        )

    return arm_expert(task, plan, STRATEGIES, habits=HABITS)


def ways(position: Array, goal: Array) -> Array:  # [3], [3] -> [3, 3]
    """The next point of each strategy: every one of them leads to the goal from anywhere."""
    sideways = length(goal[:2] - position[:2])
    arc = goal.at[2].add(RISE * sideways)
    inner, outer = CORNER
    turned = jnp.clip((outer - sideways) / (outer - inner), 0.0, 1.0)
    corner = goal.at[2].set(position[2] + turned * (goal[2] - position[2]))
    return jnp.stack([goal, arc, corner])
