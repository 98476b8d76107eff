"""Rotations: unit quaternions `(w, x, y, z)` in MuJoCo's order, matrices, rotation vectors, six numbers for networks.

Each function is for one rotation; batches come from `vmap`. Values and gradients stay finite at the identity, at half
turns, and where six numbers determine no rotation.
"""

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
    """The rotation about the vertical."""
    return jnp.stack([jnp.cos(yaw / 2), jnp.zeros_like(yaw), jnp.zeros_like(yaw), jnp.sin(yaw / 2)])


def uniform_quaternion(normal: Array) -> Array:  # [4] -> [4]
    """A uniformly distributed rotation from four standard normal draws."""
    return normal / jnp.linalg.norm(normal)


def to_matrix(quat: Array) -> Array:  # [4] -> [3, 3]
    """The matrix that turns a vector of the rotated frame into one of the parent frame."""
    w, x, y, z = quat
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return jnp.stack([jnp.stack(row) for row in rows])


def from_matrix(matrix: Array) -> Array:  # [3, 3] -> [4]
    """The quaternion of a rotation matrix, of the two the one with w >= 0.

    Shepperd 1978: the matrix gives all products of two components; those with the largest component are divided by it.
    """
    xx, yy, zz = jnp.diagonal(matrix)
    a, b, c = matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]
    d, e, f = matrix[0, 1] + matrix[1, 0], matrix[0, 2] + matrix[2, 0], matrix[1, 2] + matrix[2, 1]
    products = jnp.stack(  # row i is 4 q_i q
        [
            jnp.stack([1 + xx + yy + zz, a, b, c]),
            jnp.stack([a, 1 + xx - yy - zz, d, e]),
            jnp.stack([b, d, 1 - xx + yy - zz, f]),
            jnp.stack([c, e, f, 1 - xx - yy + zz]),
        ]
    )
    quat = products[jnp.argmax(jnp.diagonal(products))]
    quat = quat / jnp.linalg.norm(quat)
    return jnp.where(quat[0] < 0, -quat, quat)


def from_rotation_vector(vector: Array) -> Array:  # [3] -> [4]
    """The exponential map: a turn by |vector| rad about its direction."""
    square = jnp.dot(vector, vector)
    small = square < 1e-6  # rad^2: there the series is exact in float32, and the root's gradient is not needed
    angle = jnp.sqrt(jnp.where(small, 1.0, square))
    w = jnp.where(small, 1 - square / 8, jnp.cos(angle / 2))
    return jnp.concatenate([w[None], jnp.where(small, 0.5 - square / 48, jnp.sin(angle / 2) / angle) * vector])


def to_rotation_vector(quat: Array) -> Array:  # [4] -> [3]
    """The logarithm: axis times angle, the shorter way round, so at most pi long."""
    quat = jnp.where(quat[0] < 0, -quat, quat)
    w, xyz = quat[0], quat[1:]
    square = jnp.dot(xyz, xyz)
    small = square < 1e-6
    sine = jnp.sqrt(jnp.where(small, 1.0, square))
    return jnp.where(small, 2 / jnp.where(small, w, 1.0), 2 * jnp.arctan2(sine, w) / sine) * xyz


def to_sixd(matrix: Array) -> Array:  # [3, 3] -> [6]
    """The first two columns: a continuous representation, Zhou et al. 2019 (arXiv:1812.07035)."""
    return jnp.concatenate([matrix[:, 0], matrix[:, 1]])


def from_sixd(sixd: Array) -> Array:  # [6] -> [3, 3]
    """The rotation matrix nearest in the sense of Gram and Schmidt, for any six numbers.

    Equation 15 of Zhou et al. 2019. Where the first three are zero they stand for the x axis; where the last three add
    no direction to them, any perpendicular is taken.
    """
    x = _unit(sixd[:3], jnp.asarray([1.0, 0.0, 0.0]))
    spare = jnp.eye(3)[jnp.argmin(jnp.abs(x))]  # at least 54 degrees from x
    spare = spare - jnp.dot(x, spare) * x
    y = _unit(sixd[3:], spare)
    y = _unit(y - jnp.dot(x, y) * x, spare)
    y = _unit(y - jnp.dot(x, y) * x, spare)  # once more, for where the first difference was mostly rounding
    return jnp.stack([x, y, jnp.cross(x, y)], axis=1)


def _unit(vector: Array, fallback: Array) -> Array:  # [3], [3] -> [3]
    """The direction of a vector, of `fallback` where the vector has none."""
    square = jnp.dot(vector, vector)
    vector = jnp.where(square > 1e-8, vector, fallback)
    return vector / jnp.sqrt(jnp.dot(vector, vector))
