"""Intersection of a ray with a primitive geometry, and the surface normal there.

Vectors are triples of arrays, one for each coordinate, because compilers fuse and vectorise that; everything is in the
frame of the geometry. Axes: G geometries of one type, N rays. Coordinates of a ray are [G, N], or [G, 1] where all rays
share an origin or a direction; sizes are MuJoCo's `geom_size` as three columns [G, 1].

A tracer returns the distance [G, N] in m at which a ray of unit direction enters the solid, infinity if it never does.
Unlike `mj_ray` it does not see a solid from inside, as a rasteriser that culls back faces: a camera may sit in a
robot's head, and a shadow ray does not hit the surface that it starts from.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from mujoco import mjtGeom

from mjx_policies.types import Array

Vec = tuple[Array, Array, Array]

TINY = 1e-9  # a slope or length that stands for zero


def dot(a: Vec, b: Vec) -> Array:
    """The inner product of two vectors."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def advance(origin: Vec, direction: Vec, t: Array) -> Vec:
    """The point at distance `t` along a ray."""
    x, y, z = (o + t * d for o, d in zip(origin, direction, strict=True))
    return x, y, z


def normalise(v: Vec) -> Vec:
    """The vector divided by its length.

    Divides instead of multiplying by a reciprocal: XLA keeps the result of a division, where it would repeat everything
    that leads to a product in every loop that reads it.
    """
    length = jnp.sqrt(jnp.maximum(dot(v, v), TINY**2))
    return v[0] / length, v[1] / length, v[2] / length


def columns(mat: Array) -> tuple[Vec, Vec, Vec]:  # [K, 3, 3] -> nine arrays [K]
    """The columns of rotation matrices: the axes of frames."""
    first, second, third = ((mat[:, 0, j], mat[:, 1, j], mat[:, 2, j]) for j in range(3))
    return first, second, third


def to_local(vector: Vec, axes: tuple[Vec, Vec, Vec]) -> Vec:
    """A world vector in the frame that has these axes."""
    return dot(vector, axes[0]), dot(vector, axes[1]), dot(vector, axes[2])


def to_world(vector: Vec, axes: tuple[Vec, Vec, Vec]) -> Vec:
    """A local vector of the frame that has these axes in the world."""
    x, y, z = (vector[0] * axes[0][i] + vector[1] * axes[1][i] + vector[2] * axes[2][i] for i in range(3))
    return x, y, z


def _entered(t: Array, hit: Array) -> Array:
    return jnp.where(hit & (t > 0), t, jnp.inf)


def away_from_zero(x: Array) -> Array:
    """`x`, or a tiny number of its sign, to divide by."""
    return jnp.where(jnp.abs(x) < TINY, jnp.where(x < 0, -TINY, TINY), x)


def slab(origin: Array, direction: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """The interval of t in which one coordinate of a ray lies between two bounds; reversed if that is never."""
    slope = 1 / away_from_zero(direction)
    a, b = (lower - origin) * slope, (upper - origin) * slope
    return jnp.minimum(a, b), jnp.maximum(a, b)


def plane(origin: Vec, direction: Vec, size: Vec) -> Array:
    """The half space below z = 0, cut to a rectangle where half sizes x and y are positive; seen from above only."""
    t = -origin[2] / jnp.minimum(direction[2], -TINY)
    x, y, _ = advance(origin, direction, t)
    inside_x = (size[0] <= 0) | (jnp.abs(x) <= size[0])
    inside_y = (size[1] <= 0) | (jnp.abs(y) <= size[1])
    return _entered(t, (direction[2] < -TINY) & inside_x & inside_y)


def sphere(origin: Vec, direction: Vec, size: Vec) -> Array:
    """The point where a ray enters a ball of radius `size[0]`."""
    middle = -dot(origin, direction)
    nearest = advance(origin, direction, middle)
    square = size[0] ** 2 - dot(nearest, nearest)  # of half the chord; from the nearest point, to cancel less
    return _entered(middle - jnp.sqrt(jnp.maximum(square, 0.0)), square >= 0)


def _infinite_cylinder(origin: Vec, direction: Vec, radius: Array) -> tuple[Array, Array, Array]:
    """Entry, exit and whether there is either, for a cylinder along z."""
    a = jnp.maximum(direction[0] ** 2 + direction[1] ** 2, TINY**2)
    middle = -(origin[0] * direction[0] + origin[1] * direction[1]) / a
    x, y, _ = advance(origin, direction, middle)
    square = (radius**2 - x**2 - y**2) / a
    half = jnp.sqrt(jnp.maximum(square, 0.0))
    return middle - half, middle + half, square >= 0


def capsule(origin: Vec, direction: Vec, size: Vec) -> Array:
    """A cylinder of radius `size[0]` and half length `size[1]` along z, with half balls at its ends."""
    side, _, hit = _infinite_cylinder(origin, direction, size[0])
    z = origin[2] + side * direction[2]
    end = jnp.clip(
        z, -size[1], size[1]
    )  # a ray that enters the infinite cylinder beyond an end can only enter that ball
    ball = sphere((origin[0], origin[1], origin[2] - end), direction, size)
    return jnp.where(jnp.abs(z) <= size[1], _entered(side, hit), jnp.where(hit, ball, jnp.inf))


def cylinder(origin: Vec, direction: Vec, size: Vec) -> Array:
    """A cylinder of radius `size[0]` and half length `size[1]` along z."""
    near, far, hit = _infinite_cylinder(origin, direction, size[0])
    near_end, far_end = slab(origin[2], direction[2], -size[1], size[1])
    t = jnp.maximum(near, near_end)
    return _entered(t, hit & (t <= jnp.minimum(far, far_end)))


def box(origin: Vec, direction: Vec, size: Vec) -> Array:
    """A box with half sizes `size`."""
    (near_x, far_x), (near_y, far_y), (near_z, far_z) = (
        slab(o, d, -half, half) for o, d, half in zip(origin, direction, size, strict=True)
    )
    t = jnp.maximum(jnp.maximum(near_x, near_y), near_z)
    return _entered(t, t <= jnp.minimum(jnp.minimum(far_x, far_y), far_z))


def ellipsoid(origin: Vec, direction: Vec, size: Vec) -> Array:
    """An ellipsoid with semi-axes `size`: a ball of radius 1 once each coordinate is divided by its semi-axis."""
    o = (origin[0] / size[0], origin[1] / size[1], origin[2] / size[2])
    d = (direction[0] / size[0], direction[1] / size[1], direction[2] / size[2])
    slowness = 1 / dot(d, d)
    middle = -dot(o, d) * slowness
    nearest = advance(o, d, middle)
    square = 1 - dot(nearest, nearest)
    return _entered(middle - jnp.sqrt(jnp.maximum(square, 0.0) * slowness), square >= 0)


TRACERS: dict[mjtGeom, Callable[[Vec, Vec, Vec], Array]] = {
    mjtGeom.mjGEOM_PLANE: plane,
    mjtGeom.mjGEOM_SPHERE: sphere,
    mjtGeom.mjGEOM_CAPSULE: capsule,
    mjtGeom.mjGEOM_ELLIPSOID: ellipsoid,
    mjtGeom.mjGEOM_CYLINDER: cylinder,
    mjtGeom.mjGEOM_BOX: box,
}


# Outward normals at a point of the surface, unit length. Same shapes as above, all coordinates alike.


def _normal_plane(point: Vec, size: Vec) -> Vec:
    return jnp.zeros_like(point[0]), jnp.zeros_like(point[0]), jnp.ones_like(point[0])


def _normal_sphere(point: Vec, size: Vec) -> Vec:
    return normalise(point)


def _normal_capsule(point: Vec, size: Vec) -> Vec:
    x, y, z = point
    return normalise((x, y, z - jnp.clip(z, -size[1], size[1])))


def _normal_cylinder(point: Vec, size: Vec) -> Vec:
    x, y, z = point
    depth_side = size[0] - jnp.sqrt(x**2 + y**2)
    at_end = size[1] - jnp.abs(z) < depth_side
    zero = jnp.zeros_like(x)
    return normalise((jnp.where(at_end, zero, x), jnp.where(at_end, zero, y), jnp.where(at_end, jnp.sign(z), zero)))


def _normal_box(point: Vec, size: Vec) -> Vec:
    depth = [half - jnp.abs(p) for p, half in zip(point, size, strict=True)]
    least = jnp.minimum(jnp.minimum(depth[0], depth[1]), depth[2])
    first = depth[0] == least
    second = ~first & (depth[1] == least)
    zero = jnp.zeros_like(point[0])
    return (
        jnp.where(first, jnp.sign(point[0]), zero),
        jnp.where(second, jnp.sign(point[1]), zero),
        jnp.where(first | second, zero, jnp.sign(point[2])),
    )


def _normal_ellipsoid(point: Vec, size: Vec) -> Vec:
    x, y, z = (p / half**2 for p, half in zip(point, size, strict=True))
    return normalise((x, y, z))


NORMALS: dict[mjtGeom, Callable[[Vec, Vec], Vec]] = {
    mjtGeom.mjGEOM_PLANE: _normal_plane,
    mjtGeom.mjGEOM_SPHERE: _normal_sphere,
    mjtGeom.mjGEOM_CAPSULE: _normal_capsule,
    mjtGeom.mjGEOM_ELLIPSOID: _normal_ellipsoid,
    mjtGeom.mjGEOM_CYLINDER: _normal_cylinder,
    mjtGeom.mjGEOM_BOX: _normal_box,
}
