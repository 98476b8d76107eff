"""A Franka pushes a block across the table to a goal, and turns it square to the robot.

The block is wider than the gripper opens, and a quarter turn leaves it as it was. The gripper starts closed, above.
The task is lost when the block leaves the table. Lengths in m in the frame of the robot's base.
"""

from __future__ import annotations

import jax.numpy as jnp
import mujoco
from flax import struct

from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.episode import ArmTask, Arrangement, away_from, between, start_arm
from mjx_policies.envs.franka.scenes import BLOCK
from mjx_policies.envs.physics.base import Data
from mjx_policies.envs.progress import metric_names
from mjx_policies.rotations import from_yaw, rotate
from mjx_policies.spec import Table, Term
from mjx_policies.types import Array

EPISODE_SECONDS = 10.0
BLOCK_START = ((0.45, -0.15), (0.55, 0.15))  # x, y, corners
TURN_START = 0.4  # rad, either way
GOAL = ((0.5, -0.2), (0.65, 0.2))
GOAL_RADIUS, GOAL_TURN = 0.02, 0.15  # m, rad
APART = 3 * GOAL_RADIUS  # of block and goal at the start: beyond what counts as close

OBSERVATION: Table = (*sensing.ARM, *sensing.object_terms("block"), sensing.GOAL)
PRIVILEGED: Table = (
    Term("block_velocity", 6, unit="m/s, rad/s"),
    Term("touch", 2, unit="N", frame="left and right pad", scale=0.1),
)
STAGES = ("touched", "close", "there", "aligned")
METRICS = metric_names(STAGES)


@struct.dataclass
class PushWeights:
    """Reward per second for one unit of each term of `reward_terms` and of `action_rate`, how much actions jump."""

    reach: float = 0.5
    near: float = 2.0
    aligned: float = 1.0
    success: float = 1.5
    action_rate: float = -0.5


DENSE = PushWeights()
SPARSE = PushWeights(reach=0.0, near=0.0, aligned=0.0, success=1.0, action_rate=0.0)


def succeeded(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether the block lies within `GOAL_RADIUS` and `GOAL_TURN` of the goal."""
    return (_to_goal(model, data) < GOAL_RADIUS) & (jnp.abs(turn(model, data)) < GOAL_TURN)


def reached(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """Whether the condition of each stage holds."""
    distance = _to_goal(model, data)
    return {
        "touched": jnp.any(sensing.touch(model, data) > 0),
        "close": distance < 2 * GOAL_RADIUS,
        "there": distance < GOAL_RADIUS,
        "aligned": succeeded(model, data),
    }


def reward_terms(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """The terms of the reward, each from 0 to 1; `PushWeights` holds their weights."""
    distance = _to_goal(model, data)
    near = sensing.closeness(distance)
    return {
        "reach": sensing.closeness(jnp.linalg.norm(sensing.tcp_position(model, data) - behind(model, data))),
        "near": near,
        "aligned": near * 0.5 * (1 + jnp.cos(4 * turn(model, data))),
        "success": jnp.where(succeeded(model, data), 1.0, 0.0),
    }


def lost(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether the block has left the table."""
    return sensing.off_table(sensing.object_pose(model, data, "block")[0])


def turn(model: mujoco.MjModel, data: Data) -> Array:  # -> [] rad
    """The yaw of the block from the nearest of its four equal poses."""
    _, quat = sensing.object_pose(model, data, "block")
    x, y, _ = rotate(jnp.asarray([1.0, 0.0, 0.0]), quat)
    return jnp.arctan2(jnp.sin(4 * jnp.arctan2(y, x)), jnp.cos(4 * jnp.arctan2(y, x))) / 4


def behind(model: mujoco.MjModel, data: Data) -> Array:  # -> [3]
    """The point that the gripper pushes from: at the edge of the block that is turned away from the goal."""
    block, _ = sensing.object_pose(model, data, "block")
    way = sensing.mocap_position(model, data, "goal")[:2] - block[:2]
    return block.at[:2].add(-BLOCK[0] * way / jnp.maximum(jnp.linalg.norm(way), 1e-3))


def _to_goal(model: mujoco.MjModel, data: Data) -> Array:  # -> []
    block, _ = sensing.object_pose(model, data, "block")
    return jnp.linalg.norm(block[:2] - sensing.mocap_position(model, data, "goal")[:2])


@struct.dataclass
class FrankaPush(ArmTask):
    """The task of pushing a block to its goal. Build it with `envs.load`."""

    OBSERVATION, PRIVILEGED, STAGES = OBSERVATION, PRIVILEGED, STAGES
    EPISODE_SECONDS, DENSE, DRAWS = EPISODE_SECONDS, DENSE, 12
    reached, reward_terms = staticmethod(reached), staticmethod(reward_terms)
    lost = staticmethod(lost)

    def arrange(self, uniform: Array) -> Arrangement:
        """The gripper closed, block and goal at least `APART` on the table."""
        block = jnp.append(between(uniform[7:9], *BLOCK_START), BLOCK[2])
        yaw = from_yaw(TURN_START * (2 * uniform[9] - 1))
        qpos = jnp.concatenate([start_arm(uniform[:7], opening=0.0), block, yaw])
        goal = away_from(block[:2], APART, uniform[10:12], *GOAL)
        return Arrangement(qpos, {"goal": jnp.append(goal, 0.0)})

    def sense(self, data: Data) -> dict[str, Array]:
        """The observation beside the arm."""
        model = self.physics.model
        return {
            **sensing.object_values(model, data, "block"),
            "goal": sensing.from_tcp(model, data, sensing.mocap_position(model, data, "goal")),
            "block_velocity": sensing.object_velocity(model, data, "block"),
            "touch": sensing.touch(model, data),
        }
