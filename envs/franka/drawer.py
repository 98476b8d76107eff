"""A Franka pulls a drawer open by its upright handle.

The cabinet stands on the far side of the table, not always in the same place; the open gripper starts in front of it.
Nothing can be lost. Lengths in m in the frame of the robot's base.
"""

from __future__ import annotations

import jax.numpy as jnp
import mujoco
from flax import struct

from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.episode import ArmTask, Arrangement, between, start_arm
from mjx_policies.envs.franka.scenes import HANDLE
from mjx_policies.envs.physics.base import Data
from mjx_policies.envs.progress import metric_names
from mjx_policies.spec import Table, Term
from mjx_policies.types import Array

EPISODE_SECONDS = 6.0
CABINET = ((0.58, -0.1), (0.68, 0.1))  # x, y of the foot of its front, corners
OPENED = 0.15  # of the 0.2 that the drawer runs

OBSERVATION: Table = (
    *sensing.ARM,
    Term("handle_position", 3, unit="m", frame=sensing.FROM_TCP, noise=0.002, bias=0.003),
    Term("cabinet_position", 3, unit="m", frame=sensing.FROM_TCP, bias=0.003),
)
PRIVILEGED: Table = (
    Term("drawer_velocity", 1, unit="m/s"),
    Term("touch", 2, unit="N", frame="left and right pad", scale=0.1),
)
STAGES = ("reached", "grasped", "ajar", "open")
METRICS = metric_names(STAGES)


@struct.dataclass
class DrawerWeights:
    """Reward per second for one unit of each term of `reward_terms` and of `action_rate`, how much actions jump."""

    reach: float = 1.0
    grasp: float = 1.0
    open: float = 2.0
    success: float = 1.0
    action_rate: float = -0.5


DENSE = DrawerWeights()
SPARSE = DrawerWeights(reach=0.0, grasp=0.0, open=0.0, success=1.0, action_rate=0.0)


def opening(model: mujoco.MjModel, data: Data) -> Array:  # -> []
    """The distance by which the drawer is pulled out."""
    return data.qpos[int(model.joint("drawer").qposadr[0])]


def handle(model: mujoco.MjModel, data: Data) -> Array:  # -> [3]
    """The position of the middle of the handle."""
    pulled = jnp.stack([-opening(model, data), jnp.zeros(()), jnp.zeros(())])
    return sensing.mocap_position(model, data, "cabinet") + jnp.asarray(HANDLE) + pulled


def succeeded(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether the drawer is at least `OPENED` open."""
    return opening(model, data) > OPENED


def reached(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """The condition of each stage."""
    return {
        "reached": jnp.linalg.norm(sensing.tcp_position(model, data) - handle(model, data)) < 0.02,
        "grasped": sensing.grasped(model, data, handle(model, data)),
        "ajar": opening(model, data) > 0.02,
        "open": succeeded(model, data),
    }


def reward_terms(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """The terms of the reward, each from 0 to 1; `DrawerWeights` holds their weights."""
    return {
        "reach": sensing.closeness(jnp.linalg.norm(sensing.tcp_position(model, data) - handle(model, data))),
        "grasp": jnp.where(sensing.grasped(model, data, handle(model, data)), 1.0, 0.0),
        "open": jnp.clip(opening(model, data) / OPENED, 0.0, 1.0),
        "success": jnp.where(succeeded(model, data), 1.0, 0.0),
    }


@struct.dataclass
class FrankaDrawer(ArmTask):
    """The task of pulling a drawer open. Build it with `envs.load`."""

    OBSERVATION, PRIVILEGED, STAGES = OBSERVATION, PRIVILEGED, STAGES
    EPISODE_SECONDS, DENSE, DRAWS = EPISODE_SECONDS, DENSE, 9
    reached, reward_terms = staticmethod(reached), staticmethod(reward_terms)

    def arrange(self, uniform: Array) -> Arrangement:
        """The gripper open, the drawer closed."""
        qpos = jnp.append(start_arm(uniform[:7]), 0.0)
        return Arrangement(qpos, {"cabinet": jnp.append(between(uniform[7:9], *CABINET), 0.0)})

    def sense(self, data: Data) -> dict[str, Array]:
        """The observation beside the arm."""
        model = self.physics.model
        return {
            "handle_position": sensing.from_tcp(model, data, handle(model, data)),
            "cabinet_position": sensing.from_tcp(model, data, sensing.mocap_position(model, data, "cabinet")),
            "drawer_velocity": data.qvel[model.joint("drawer").dofadr],
            "touch": sensing.touch(model, data),
        }
