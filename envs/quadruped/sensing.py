"""The motion of a quadruped's trunk, computed from the coordinates.

`sensordata` is that of before the last substep, see `Physics`, while joint angles are read after it. What a policy
observes must be of one instant, as a robot's own message is, so the trunk is not read from sensors. Contacts and feet
are, by rewards and by what only a simulator knows: to have them anew would take one more collision detection.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import mujoco

from mjx_policies.envs.physics.base import Data
from mjx_policies.rotations import rotate, rotate_inverse
from mjx_policies.types import Array


class Trunk(NamedTuple):
    """Measurements at the site `imu`, whose axes are the trunk's.

    Attributes:
      gyro: [3] rad/s, in its frame.
      gravity: [3] the unit vector that points down, in its frame.
      velocity: [3] m/s, in its frame.
      position: [3] m, in the world.
    """

    gyro: Array
    gravity: Array
    velocity: Array
    position: Array


def trunk_motion(model: mujoco.MjModel, data: Data) -> Trunk:
    """The trunk, which is the first body and floats freely, at the instant of `qpos` and `qvel`."""
    place = jnp.asarray(model.site("imu").pos, jnp.float32)
    quat = data.qpos[3:7] / jnp.linalg.norm(data.qpos[3:7])
    gyro = data.qvel[3:6]  # of a free joint: in the body's own axes
    return Trunk(
        gyro=gyro,
        gravity=rotate_inverse(jnp.asarray([0.0, 0.0, -1.0]), quat),
        velocity=rotate_inverse(data.qvel[:3], quat) + jnp.cross(gyro, place),
        position=data.qpos[:3] + rotate(place, quat),
    )
