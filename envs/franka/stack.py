"""A Franka puts one cube on another and lets go.

Both lie on the table, turned anywhere; the open gripper starts above. The task is lost when a cube leaves the table.
Lengths in m in the frame of the robot's base.
"""

from __future__ import annotations

import jax.numpy as jnp
import mujoco
from flax import struct

from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.episode import ArmTask, Arrangement, between, start_arm
from mjx_policies.envs.franka.scenes import CUBE
from mjx_policies.envs.physics.base import Data
from mjx_policies.envs.progress import metric_names
from mjx_policies.rotations import from_yaw
from mjx_policies.spec import Table, Term
from mjx_policies.types import Array

EPISODE_SECONDS = 8.0
MIDDLE = ((0.45, -0.08), (0.55, 0.08))  # x, y, corners, of where the point between the two cubes is
APART = (0.07, 0.14)  # from the centre of one cube to that of the other
OFFSET = 0.02  # sideways: beyond that the upper cube's weight is not over the lower cube
LEVEL = 0.005  # of height
LIFT = 0.03  # above where the cube lies

OBSERVATION: Table = (*sensing.ARM, *sensing.object_terms("cube"), *sensing.object_terms("base"))
PRIVILEGED: Table = (
    Term("cube_velocity", 6, unit="m/s, rad/s"),
    Term("base_velocity", 6, unit="m/s, rad/s"),
    Term("touch", 2, unit="N", frame="left and right pad", scale=0.1),
)
STAGES = ("reached", "grasped", "lifted", "placed", "released")
METRICS = metric_names(STAGES)


@struct.dataclass
class StackWeights:
    """Reward per second for one unit of each term of `reward_terms` and of `action_rate`, how much actions jump."""

    reach: float = 0.6
    grasp: float = 0.6
    lift: float = 0.4
    carry: float = 1.2
    placed: float = 0.7
    success: float = 2.0
    action_rate: float = -0.5


DENSE = StackWeights()
SPARSE = StackWeights(reach=0.0, grasp=0.0, lift=0.0, carry=0.0, placed=0.0, success=1.0, action_rate=0.0)


def placed(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether the cube is on the base, held or not."""
    offset = _from_place(model, data)
    return (jnp.linalg.norm(offset[:2]) < OFFSET) & (jnp.abs(offset[2]) < LEVEL)


def succeeded(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether the cube is on the base and no pad touches it."""
    return placed(model, data) & jnp.all(sensing.touch(model, data) == 0)


def reached(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """Whether the condition of each stage holds."""
    cube, _ = sensing.object_pose(model, data, "cube")
    held = sensing.grasped(model, data, cube)
    return {
        "reached": jnp.linalg.norm(sensing.tcp_position(model, data) - cube) < CUBE,
        "grasped": held,
        "lifted": held & (cube[2] > CUBE + LIFT),
        "placed": placed(model, data),
        "released": succeeded(model, data),
    }


def reward_terms(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """The terms of the reward, each from 0 to 1; `StackWeights` holds their weights.

    What is done counts on: a cube in its place need not be held, nor be near the gripper.
    """
    cube, _ = sensing.object_pose(model, data, "cube")
    held, done = sensing.grasped(model, data, cube), placed(model, data)
    reach = sensing.closeness(jnp.linalg.norm(sensing.tcp_position(model, data) - cube))
    lift = jnp.clip((cube[2] - CUBE) / LIFT, 0.0, 1.0)
    return {
        "reach": jnp.where(done, 1.0, reach),
        "grasp": jnp.where(held | done, 1.0, 0.0),
        "lift": jnp.where(held | done, lift, 0.0),
        "carry": jnp.where(held | done, sensing.closeness(jnp.linalg.norm(_from_place(model, data))), 0.0),
        "placed": jnp.where(done, 1.0, 0.0),
        "success": jnp.where(succeeded(model, data), 1.0, 0.0),
    }


def lost(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether a cube has left the table."""
    cube, base = (sensing.object_pose(model, data, name)[0] for name in ("cube", "base"))
    return sensing.off_table(cube) | sensing.off_table(base)


def _from_place(model: mujoco.MjModel, data: Data) -> Array:  # -> [3]
    """The vector from the cube's place on the base to the cube."""
    cube, base = (sensing.object_pose(model, data, name)[0] for name in ("cube", "base"))
    return cube - base - jnp.asarray([0.0, 0.0, 2 * CUBE])


@struct.dataclass
class FrankaStack(ArmTask):
    """The task of stacking two cubes. Build it with `envs.load`."""

    OBSERVATION, PRIVILEGED, STAGES = OBSERVATION, PRIVILEGED, STAGES
    EPISODE_SECONDS, DENSE, DRAWS = EPISODE_SECONDS, DENSE, 13
    reached, reward_terms = staticmethod(reached), staticmethod(reward_terms)
    lost = staticmethod(lost)

    def arrange(self, uniform: Array) -> Arrangement:
        """The gripper open, two cubes below it that do not touch."""
        middle, angle = between(uniform[7:9], *MIDDLE), 2 * jnp.pi * uniform[9]
        half = 0.5 * between(uniform[10], *APART) * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        yaws = jnp.pi * (2 * uniform[11:13] - 1)
        cubes = [
            jnp.concatenate([middle + s * half, jnp.asarray([CUBE]), from_yaw(yaws[i])]) for i, s in ((0, 1), (1, -1))
        ]
        return Arrangement(jnp.concatenate([start_arm(uniform[:7]), *cubes]))

    def sense(self, data: Data) -> dict[str, Array]:
        """The observation beside the arm."""
        model = self.physics.model
        return {
            **sensing.object_values(model, data, "cube"),
            **sensing.object_values(model, data, "base"),
            "cube_velocity": sensing.object_velocity(model, data, "cube"),
            "base_velocity": sensing.object_velocity(model, data, "base"),
            "touch": sensing.touch(model, data),
        }
