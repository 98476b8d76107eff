"""A Franka reaches a point in front of it with its gripper, pointing down if it can.

Nothing is touched and nothing can be lost. Lengths in m in the frame of the robot's base.
"""

from __future__ import annotations

import jax.numpy as jnp
import mujoco
from flax import struct

from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.episode import ArmTask, Arrangement, away_from, start_arm
from mjx_policies.envs.franka.kinematics import tcp_pose
from mjx_policies.envs.physics.base import Data
from mjx_policies.envs.progress import metric_names
from mjx_policies.spec import Table
from mjx_policies.types import Array

EPISODE_SECONDS = 3.0
GOAL = ((0.35, -0.25, 0.1), (0.65, 0.25, 0.45))  # x, y, z, corners
NEAR, AT_GOAL = 0.05, 0.02
APART = 1.5 * NEAR  # of gripper and goal at the start

OBSERVATION: Table = (*sensing.ARM, sensing.GOAL)
PRIVILEGED: Table = ()
STAGES = ("near", "arrived")
METRICS = metric_names(STAGES)


@struct.dataclass
class ReachWeights:
    """Reward per second for one unit of each term of `reward_terms` and of `action_rate`, how much actions jump."""

    reach: float = 1.0
    close: float = 1.0
    point_down: float = 0.5
    success: float = 2.0
    action_rate: float = -1.0


DENSE = ReachWeights()
SPARSE = ReachWeights(reach=0.0, close=0.0, point_down=0.0, success=1.0, action_rate=0.0)


def succeeded(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether the tool centre point is within `AT_GOAL` of the goal."""
    return _to_goal(model, data) < AT_GOAL


def reached(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """Whether the condition of each stage holds."""
    return {"near": _to_goal(model, data) < NEAR, "arrived": succeeded(model, data)}


def reward_terms(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """The terms of the reward, each from 0 to 1; `ReachWeights` holds their weights."""
    distance = _to_goal(model, data)
    down = -tcp_pose(data.qpos[: sensing.NUM_JOINTS])[1][2, 2]
    return {
        "reach": sensing.closeness(distance),
        "close": sensing.closeness(distance, scale=AT_GOAL),
        "point_down": 0.5 * (1 + down),
        "success": jnp.where(succeeded(model, data), 1.0, 0.0),
    }


def _to_goal(model: mujoco.MjModel, data: Data) -> Array:  # -> []
    return jnp.linalg.norm(sensing.tcp_position(model, data) - sensing.mocap_position(model, data, "goal"))


@struct.dataclass
class FrankaReach(ArmTask):
    """The task of reaching a point. Build it with `envs.load`."""

    OBSERVATION, PRIVILEGED, STAGES = OBSERVATION, PRIVILEGED, STAGES
    EPISODE_SECONDS, DENSE, DRAWS = EPISODE_SECONDS, DENSE, 10
    reached, reward_terms = staticmethod(reached), staticmethod(reward_terms)

    def arrange(self, uniform: Array) -> Arrangement:
        """The goal anywhere in front that is at least `APART` away."""
        arm = start_arm(uniform[:7])
        return Arrangement(arm, {"goal": away_from(tcp_pose(arm[:7])[0], APART, uniform[7:10], *GOAL)})

    def sense(self, data: Data) -> dict[str, Array]:
        """The observation beside the arm."""
        model = self.physics.model
        return {
            "goal": sensing.from_tcp(model, data, sensing.mocap_position(model, data, "goal")),
        }
