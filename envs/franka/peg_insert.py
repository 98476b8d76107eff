"""A Franka puts a peg of 8 mm into a hole of 8.5 mm.

The hand holds the peg from the start, upright, over the table; the socket stands somewhere below. What it may let go of
it cannot pick up again: the task is lost when the peg has left the hand. Lengths in m in the frame of the robot's base.
"""

from __future__ import annotations

import jax.numpy as jnp
import mujoco
from flax import struct

from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.episode import ArmTask, Arrangement, between, start_arm
from mjx_policies.envs.franka.kinematics import tcp_pose
from mjx_policies.envs.franka.scenes import HOLE_DEPTH, HOLE_WIDTH, PEG_HANDLE, PEG_LENGTH
from mjx_policies.envs.physics.base import Data
from mjx_policies.envs.progress import metric_names
from mjx_policies.rotations import from_matrix, rotate
from mjx_policies.spec import Table, Term
from mjx_policies.types import Array

EPISODE_SECONDS = 8.0
SOCKET = ((0.43, -0.07), (0.57, 0.07))  # x, y, corners
INSERTED = 0.025  # of the 0.03 that the hole is deep
DROPPED = 0.03  # from the tool centre point to the peg's handle
TIP = -PEG_HANDLE[2] - PEG_LENGTH  # z in the frame of the peg

# A fixture is measured once, and the hand knows how it holds the peg: more precise than a tracker.
OBSERVATION: Table = (
    *sensing.ARM,
    *sensing.object_terms("peg", noise=0.0003, bias=0.0005),
    Term("socket_position", 3, unit="m", frame=sensing.FROM_TCP, bias=0.0005),
)
PRIVILEGED: Table = (
    Term("peg_velocity", 6, unit="m/s, rad/s"),
    Term("touch", 2, unit="N", frame="left and right pad", scale=0.1),
    Term("depth", 1, unit="m", frame="of the tip in the hole", scale=30.0),
)
STAGES = ("above", "entered", "halfway", "inserted")
METRICS = metric_names(STAGES)


@struct.dataclass
class PegInsertWeights:
    """Reward per second for one unit of each term of `reward_terms` and of `action_rate`, how much actions jump."""

    near: float = 1.0
    aligned: float = 1.0
    upright: float = 0.5
    depth: float = 1.5
    success: float = 1.0
    action_rate: float = -0.5


DENSE = PegInsertWeights()
SPARSE = PegInsertWeights(near=0.0, aligned=0.0, upright=0.0, depth=0.0, success=1.0, action_rate=0.0)


def depth(model: mujoco.MjModel, data: Data) -> Array:  # -> []
    """The depth of the tip in the hole: 0 beside it or above it, `HOLE_DEPTH` on its ground."""
    offset = tip(model, data) - sensing.mocap_position(model, data, "socket")
    inside = jnp.all(jnp.abs(offset[:2]) < HOLE_WIDTH / 2)
    return jnp.where(inside, jnp.clip(HOLE_DEPTH - offset[2], 0.0, HOLE_DEPTH), 0.0)


def succeeded(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether the tip is at least `INSERTED` deep in the hole."""
    return depth(model, data) > INSERTED


def reached(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """Whether the condition of each stage holds."""
    offset = tip(model, data) - sensing.mocap_position(model, data, "socket")
    deep = depth(model, data)
    return {
        "above": jnp.linalg.norm(offset[:2]) < HOLE_WIDTH / 2,
        "entered": deep > 0.005,
        "halfway": deep > HOLE_DEPTH / 2,
        "inserted": succeeded(model, data),
    }


def reward_terms(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """The terms of the reward, each from 0 to 1; `PegInsertWeights` holds their weights."""
    offset = tip(model, data) - sensing.mocap_position(model, data, "socket")
    _, quat = sensing.object_pose(model, data, "peg")
    return {
        "near": sensing.closeness(jnp.linalg.norm(offset)),
        "aligned": sensing.closeness(jnp.linalg.norm(offset[:2]), scale=0.01),
        "upright": 0.5 * (1 + rotate(jnp.asarray([0.0, 0.0, 1.0]), quat)[2]),
        "depth": depth(model, data) / HOLE_DEPTH,
        "success": jnp.where(succeeded(model, data), 1.0, 0.0),
    }


def tip(model: mujoco.MjModel, data: Data) -> Array:  # -> [3]
    """The lower end of the shaft."""
    position, quat = sensing.object_pose(model, data, "peg")
    return position + rotate(jnp.asarray([0.0, 0.0, TIP]), quat)


def lost(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether the peg has left the hand."""
    peg, _ = sensing.object_pose(model, data, "peg")
    return jnp.linalg.norm(peg - sensing.tcp_position(model, data)) > DROPPED


@struct.dataclass
class FrankaPegInsert(ArmTask):
    """The task of inserting a peg. Build it with `envs.load`."""

    OBSERVATION, PRIVILEGED, STAGES = OBSERVATION, PRIVILEGED, STAGES
    EPISODE_SECONDS, DENSE, DRAWS = EPISODE_SECONDS, DENSE, 9
    reached, reward_terms = staticmethod(reached), staticmethod(reward_terms)
    lost = staticmethod(lost)

    def arrange(self, uniform: Array) -> Arrangement:
        """The peg in the closed hand, upright as far as the hand is."""
        arm = start_arm(uniform[:7], opening=PEG_HANDLE[1])
        position, rotation = tcp_pose(arm[:7])
        upside_down = rotation * jnp.asarray([1.0, -1.0, -1.0])  # the hand points down, the peg's z axis up
        qpos = jnp.concatenate([arm, position, from_matrix(upside_down)])
        return Arrangement(qpos, {"socket": jnp.append(between(uniform[7:9], *SOCKET), 0.0)}, width=0.0)

    def sense(self, data: Data) -> dict[str, Array]:
        """The observation beside the arm."""
        model = self.physics.model
        return {
            **sensing.object_values(model, data, "peg"),
            "socket_position": sensing.from_tcp(model, data, sensing.mocap_position(model, data, "socket")),
            "peg_velocity": sensing.object_velocity(model, data, "peg"),
            "touch": sensing.touch(model, data),
            "depth": depth(model, data)[None],
        }
