"""Unit quaternions `(w, x, y, z)`, MuJoCo's order. Each function is for one rotation; batches come from `vmap`."""

from __future__ import annotations

import jax.numpy as jnp

from mjx_policies.types import Array


def rotate(vector: Array, quat: Array) -> Array:  # [3], [4] -> [3]
    """The vector, given in the rotated frame, in the parent frame."""
    w, axis = quat[0], quat[1:]
    turn = 2 * jnp.cross(axis, vector)
    return vector + w * turn + jnp.cross(axis, turn)


def rotate_inverse(vector: Array, quat: Array) -> Array:  # [3], [4] -> [3]
    """The vector, given in the parent frame, in the rotated frame."""
    return rotate(vector, quat * jnp.asarray([1.0, -1.0, -1.0, -1.0]))


def multiply(a: Array, b: Array) -> Array:  # [4], [4] -> [4]
    """The rotation `b` followed, in the frame it leads to, by nothing else than `a` before it: R(ab) = R(a) R(b)."""
    w = a[0] * b[0] - jnp.dot(a[1:], b[1:])
    xyz = a[0] * b[1:] + b[0] * a[1:] + jnp.cross(a[1:], b[1:])
    return jnp.concatenate([w[None], xyz])


def from_yaw(yaw: Array) -> Array:  # [] -> [4]
    """Rotation about the vertical."""
    return jnp.stack([jnp.cos(yaw / 2), jnp.zeros_like(yaw), jnp.zeros_like(yaw), jnp.sin(yaw / 2)])


def uniform_quaternion(normal: Array) -> Array:  # [4] -> [4]
    """A uniformly distributed rotation from four standard normal draws."""
    return normal / jnp.linalg.norm(normal)
