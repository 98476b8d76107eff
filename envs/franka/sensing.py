"""Observation terms of the Franka tasks, of the arm and of objects: rows of observation tables, and their values.

World frame is that of the robot's base. Where objects and goals are is observed from the TCP, along the axes of the
base: what matters is a small difference of two large numbers, which a network whose inputs are scaled to the spread of
each resolves badly. Rotations are observed as the first two columns of their matrix, which are
continuous where angles and quaternions are not (Zhou et al. 2019, arXiv:1812.07035).

All that a policy observes is of one instant, that of `qpos` and `qvel`. So the TCP's pose is computed from the joint
angles, as a robot's controller computes it: a sensor's would be of before the last substep (see `Physics`), by when a
fast hand was millimetres elsewhere. The touch of the pads alone, which only a simulator knows, is read from sensors: it
is the force of the last substep, which led to this instant.
"""

from __future__ import annotations

import jax.numpy as jnp
import mujoco

from mjx_policies.envs.franka.kinematics import tcp_pose
from mjx_policies.envs.franka.robot import FINGERS, JOINTS
from mjx_policies.envs.mocap import mocap_id
from mjx_policies.envs.physics.base import Data
from mjx_policies.envs.sensors import read_sensor
from mjx_policies.rotations import to_matrix, to_sixd
from mjx_policies.spec import Table, Term
from mjx_policies.types import Array

NUM_JOINTS = len(JOINTS)
NUM_COORDINATES = len(JOINTS) + len(FINGERS)  # of the robot, which come first in `qpos` and `qvel`
BETWEEN = 0.025  # m, from the TCP; fingertips that stand on a cube of 4 cm leave it 3 cm away
GRASP_FORCE = 0.5  # N, of each pad: a cube of 64 g weighs 0.63 N
TABLE = ((-0.2, -0.6), (0.9, 0.6))  # m, corners

ARM: Table = (
    Term("joint_position", NUM_JOINTS, unit="rad", noise=0.001, bias=0.002),
    Term("joint_velocity", NUM_JOINTS, unit="rad/s", noise=0.02),
    Term("finger_opening", 1, unit="m", frame="of each finger", scale=25.0, noise=0.0005),
    Term("tcp_position", 3, unit="m", frame="base", noise=0.001, bias=0.002),
    Term("tcp_rotation", 6, unit="1", frame="base", noise=0.002, bias=0.004),
)
FROM_TCP = "from the TCP, axes of the base"
GOAL = Term("goal", 3, unit="m", frame=FROM_TCP)  # where it is is told, where the TCP is is measured


def object_terms(name: str, noise: float = 0.002, bias: float = 0.003) -> Table:
    """Pose of an object from a tracker: `noise` and `bias` in m, ten times that in the unit of a rotation.

    A marker or a depth camera at a metre's distance errs by millimetres, and by a degree or two.
    """
    return (
        Term(f"{name}_position", 3, unit="m", frame=FROM_TCP, noise=noise, bias=bias),
        Term(f"{name}_rotation", 6, unit="1", frame="base", noise=10 * noise, bias=10 * bias),
    )


def arm_values(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """The values of the rows in `ARM`."""
    position, rotation = tcp_pose(data.qpos[:NUM_JOINTS])
    return {
        "joint_position": data.qpos[:NUM_JOINTS],
        "joint_velocity": data.qvel[:NUM_JOINTS],
        "finger_opening": finger_opening(data)[None],
        "tcp_position": position,
        "tcp_rotation": to_sixd(rotation),
    }


def object_values(model: mujoco.MjModel, data: Data, name: str) -> dict[str, Array]:
    """The values of the rows in `object_terms`."""
    position, quat = object_pose(model, data, name)
    return {f"{name}_position": from_tcp(model, data, position), f"{name}_rotation": to_sixd(to_matrix(quat))}


def finger_opening(data: Data) -> Array:  # -> []
    """m, of each finger: the mean of both."""
    return jnp.mean(data.qpos[NUM_JOINTS:NUM_COORDINATES])


def tcp_position(model: mujoco.MjModel, data: Data) -> Array:  # -> [3]
    """The tool centre point, between the pads."""
    return tcp_pose(data.qpos[:NUM_JOINTS])[0]


def from_tcp(model: mujoco.MjModel, data: Data, position: Array) -> Array:  # [3] -> [3]
    """A place in the world frame as it is observed, see `FROM_TCP`."""
    return position - tcp_position(model, data)


def object_pose(model: mujoco.MjModel, data: Data, name: str) -> tuple[Array, Array]:  # -> [3], [4]
    """Position and orientation of a free object."""
    start = int(model.joint(name).qposadr[0])
    return data.qpos[start : start + 3], data.qpos[start + 3 : start + 7]


def object_velocity(model: mujoco.MjModel, data: Data, name: str) -> Array:  # -> [6]
    """m/s in the world frame, rad/s in its own."""
    start = int(model.joint(name).dofadr[0])
    return data.qvel[start : start + 6]


def mocap_position(model: mujoco.MjModel, data: Data, name: str) -> Array:  # -> [3]
    """The position of a goal, a socket or a cabinet."""
    return data.mocap_pos[mocap_id(model, name)]


def touch(model: mujoco.MjModel, data: Data) -> Array:  # -> [2]
    """N, by which the left and the right pad press on the object at the contact that is deepest."""
    return jnp.stack([jnp.abs(read_sensor(model, data.sensordata, f"{side}_touch")[1]) for side in ("left", "right")])


def pressed(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether both pads press on the object, from whatever side."""
    return jnp.all(touch(model, data) > GRASP_FORCE)


def grasped(model: mujoco.MjModel, data: Data, position: Array) -> Array:  # [3] -> [] bool
    """Whether both pads press on an object whose middle, `position`, lies between them.

    A closed hand that stands on a cube presses on it with both pads too, and a policy that is paid for that stays.
    """
    between = jnp.linalg.norm(tcp_position(model, data) - position) < BETWEEN
    return pressed(model, data) & between


def off_table(position: Array) -> Array:  # [3] -> [] bool
    """Whether an object is where no table is."""
    low, high = jnp.asarray(TABLE)
    return jnp.any((position[:2] < low) | (position[:2] > high))


def closeness(distance: Array, scale: float = 0.2) -> Array:  # [] -> []
    """A reward from 1 at the place to 0 far away, steepest there: 0.24 at `scale` m."""
    return 1 - jnp.tanh(distance / scale)
