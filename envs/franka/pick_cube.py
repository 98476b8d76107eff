"""A Franka picks up a cube and holds it at a goal in the air.

The cube lies on the table, turned anywhere; the open gripper starts above. The task is lost when the cube leaves the
table. Lengths in m in the frame of the robot's base.
"""

from __future__ import annotations

import jax.numpy as jnp
import mujoco
from flax import struct

from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.episode import ArmTask, Arrangement, between, start_arm
from mjx_policies.envs.franka.robot import OPENING
from mjx_policies.envs.franka.scenes import CUBE
from mjx_policies.envs.physics.base import Data
from mjx_policies.envs.progress import metric_names
from mjx_policies.rotations import from_yaw
from mjx_policies.spec import Table, Term
from mjx_policies.types import Array

EPISODE_SECONDS = 5.0
CUBE_START = ((0.4, -0.12), (0.6, 0.12))  # x, y, corners
GOAL = ((0.4, -0.15, 0.1), (0.6, 0.15, 0.3))
GOAL_RADIUS = 0.025  # as in ManiSkill's PickCube
LIFT = 0.03  # above where the cube lies

OBSERVATION: Table = (*sensing.ARM, *sensing.object_terms("cube"), sensing.GOAL)
PRIVILEGED: Table = (
    Term("cube_velocity", 6, unit="m/s, rad/s"),
    Term("touch", 2, unit="N", frame="left and right pad", scale=0.1),
)
STAGES = ("reached", "grasped", "lifted", "placed")
METRICS = metric_names(STAGES)


@struct.dataclass
class PickCubeWeights:
    """Reward per second for one unit of each term of `reward_terms` and of `action_rate`, how much actions jump."""

    reach: float = 0.8
    grasp: float = 0.8
    lift: float = 0.6
    carry: float = 1.4
    success: float = 1.4
    action_rate: float = -0.5


DENSE = PickCubeWeights()
SPARSE = PickCubeWeights(reach=0.0, grasp=0.0, lift=0.0, carry=0.0, success=1.0, action_rate=0.0)


def succeeded(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether the cube's centre is within `GOAL_RADIUS` of the goal."""
    return _to_goal(model, data) < GOAL_RADIUS


def reached(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """Whether the condition of each stage holds."""
    cube, _ = sensing.object_pose(model, data, "cube")
    held = sensing.grasped(model, data, cube)
    return {
        "reached": jnp.linalg.norm(sensing.tcp_position(model, data) - cube) < CUBE,
        "grasped": held,
        "lifted": held & (cube[2] > CUBE + LIFT),
        "placed": succeeded(model, data),
    }


def reward_terms(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """The terms of the reward, each from 0 to 1; `PickCubeWeights` holds their weights."""
    cube, _ = sensing.object_pose(model, data, "cube")
    held = sensing.grasped(model, data, cube)
    around = jnp.linalg.norm(sensing.tcp_position(model, data) - cube) < CUBE
    # Half of the grasp is for closing in the right place, a step on the way that both pads pressing is not.
    closing = jnp.where(around, jnp.clip((OPENING - sensing.finger_opening(data)) / (OPENING - CUBE), 0.0, 1.0), 0.0)
    return {
        "reach": sensing.closeness(jnp.linalg.norm(sensing.tcp_position(model, data) - cube)),
        "grasp": jnp.where(held, 1.0, 0.5 * closing),
        "lift": jnp.where(held, jnp.clip((cube[2] - CUBE) / LIFT, 0.0, 1.0), 0.0),
        "carry": jnp.where(held, sensing.closeness(_to_goal(model, data)), 0.0),
        "success": jnp.where(succeeded(model, data), 1.0, 0.0),
    }


def lost(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether the cube has left the table."""
    return sensing.off_table(sensing.object_pose(model, data, "cube")[0])


def _to_goal(model: mujoco.MjModel, data: Data) -> Array:  # -> []
    cube, _ = sensing.object_pose(model, data, "cube")
    return jnp.linalg.norm(cube - sensing.mocap_position(model, data, "goal"))


@struct.dataclass
class FrankaPickCube(ArmTask):
    """The task of picking up a cube. Build it with `envs.load`."""

    OBSERVATION, PRIVILEGED, STAGES = OBSERVATION, PRIVILEGED, STAGES
    EPISODE_SECONDS, DENSE, DRAWS = EPISODE_SECONDS, DENSE, 13
    reached, reward_terms = staticmethod(reached), staticmethod(reward_terms)
    lost = staticmethod(lost)

    def arrange(self, uniform: Array) -> Arrangement:
        """The gripper open, the cube somewhere below it."""
        cube = jnp.append(between(uniform[7:9], *CUBE_START), CUBE)
        yaw = from_yaw(jnp.pi * (2 * uniform[9] - 1))
        qpos = jnp.concatenate([start_arm(uniform[:7]), cube, yaw])
        return Arrangement(qpos, {"goal": between(uniform[10:13], *GOAL)})

    def sense(self, data: Data) -> dict[str, Array]:
        """The observation beside the arm."""
        model = self.physics.model
        return {
            **sensing.object_values(model, data, "cube"),
            "goal": sensing.from_tcp(model, data, sensing.mocap_position(model, data, "goal")),
            "cube_velocity": sensing.object_velocity(model, data, "cube"),
            "touch": sensing.touch(model, data),
        }
