"""Forward kinematics of the tool centre point (TCP), and its Jacobian: the arm alone, in closed form.

Both generations have the same link lengths. World frame: that of link 0, x forward, z up; m, rad. The TCP's z axis
points out of the hand, its y axis along the fingers' motion. Axes: J = 7 joints.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.types import Array

# Origin of each joint's frame in the one before it (m), and its roll about the common x axis in quarter turns:
# frankarobotics/franka_description, robots/fr3/kinematics.yaml.
_ORIGINS = np.array(
    [
        [0.0, 0.0, 0.333],
        [0.0, 0.0, 0.0],
        [0.0, -0.316, 0.0],
        [0.0825, 0.0, 0.0],
        [-0.0825, 0.384, 0.0],
        [0.0, 0.0, 0.0],
        [0.088, 0.0, 0.0],
    ],
    np.float32,
)
_ROLLS = (0, -1, 1, 1, -1, 1, 1)
_TOOL = 0.107 + 0.1034  # m, flange, then TCP of the hand, along the last axis
_TOOL_YAW = -math.pi / 4  # of the hand on the flange


@jax.jit  # traced once, however many terms of a task ask where the TCP is
def tcp_pose(q: Array) -> tuple[Array, Array]:  # [J] -> [3], [3, 3]
    """Position (m) and rotation matrix of the TCP."""
    position, rotation, _, _ = _chain(q)
    return position, rotation


def tcp_pose_and_jacobian(q: Array) -> tuple[Array, Array, Array]:  # [J] -> [3], [3, 3], [6, J]
    """The TCP's pose, and its geometric Jacobian: linear velocity above angular velocity, both in the world frame."""
    position, rotation, anchors, axes = _chain(q)
    return position, rotation, jnp.concatenate([jnp.cross(axes, position - anchors).T, axes.T])


def pointing_down(turn: Array) -> Array:  # [] -> [3, 3]
    """The rotation of a hand that points down, its x axis turned by so much (rad) from forward."""
    cos, sin, zero, one = jnp.cos(turn), jnp.sin(turn), jnp.zeros_like(turn), jnp.ones_like(turn)
    return jnp.stack([jnp.stack([cos, sin, zero]), jnp.stack([sin, -cos, zero]), jnp.stack([zero, zero, -one])])


def turn_of(rotation: Array) -> Array:  # [3, 3] -> []
    """rad, of the hand's x axis about the vertical."""
    return jnp.arctan2(rotation[1, 0], rotation[0, 0])


def _chain(q: Array) -> tuple[Array, Array, Array, Array]:  # -> [3], [3, 3], anchors [J, 3], axes [J, 3]
    x, y, z = jnp.eye(3)  # of the frame reached so far, in the world
    position = jnp.zeros(3)
    # The hand turns with the last joint.
    cosines, sines = jnp.cos(q.at[-1].add(_TOOL_YAW)), jnp.sin(q.at[-1].add(_TOOL_YAW))
    anchors, axes = [], []
    for origin, roll, cosine, sine in zip(_ORIGINS, _ROLLS, cosines, sines, strict=True):
        for along, distance in zip((x, y, z), origin, strict=True):
            if distance:
                position = position + distance * along
        if roll:
            y, z = (z, -y) if roll > 0 else (-z, y)
        x, y = cosine * x + sine * y, cosine * y - sine * x
        anchors.append(position)
        axes.append(z)
    return position + _TOOL * z, jnp.stack([x, y, z], axis=1), jnp.stack(anchors), jnp.stack(axes)
