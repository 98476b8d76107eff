"""Where a ray meets a MuJoCo height field, exactly, and the surface normal there.

The ray walks from grid cell to grid cell (Amanatides and Woo 1987, "A fast voxel traversal algorithm for ray tracing").
Inside a cell MuJoCo's surface is two triangles that share the diagonal from the first corner to the last, so the gap
between ray and ground is linear up to the diagonal and linear after it, and its first zero has a closed form.

Vectors are triples of arrays [N] in the frame of the geometry, N rays; lengths in m; R rows (y) and C columns (x) of
the field. The field is solid: sides and base can be hit, from outside.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mjx_policies.envs.ray_primitives import Vec, away_from_zero, normalise, slab
from mjx_policies.types import Array


class HeightField(NamedTuple):
    """One height field, ready to trace.

    Attributes:
      corners: [R - 1, C - 1, 4], heights at the corners (x, y), (x+1, y), (x, y+1), (x+1, y+1) of each cell.
      half: [2], half sizes along x and y.
      base: [], thickness of the solid below height zero.
    """

    corners: Array
    half: Array
    base: Array


def height_field(data: Array, size: Array) -> HeightField:  # [R, C] in 0..1, MuJoCo's hfield_size [4]
    """Prepares a field from normalised heights and the sizes (radius x, radius y, elevation, base)."""
    height = data * size[2]
    corners = jnp.stack([height[:-1, :-1], height[:-1, 1:], height[1:, :-1], height[1:, 1:]], axis=-1)
    return HeightField(corners, size[:2], size[3])


def _cell_size(field: HeightField) -> tuple[Array, Array]:
    rows, columns = field.corners.shape[:2]
    return 2 * field.half[0] / columns, 2 * field.half[1] / rows


def _corners(field: HeightField, column: Array, row: Array) -> Array:  # [N], [N] -> [N, 4]
    rows, columns = field.corners.shape[:2]
    index = jnp.clip(row, 0, rows - 1) * columns + jnp.clip(column, 0, columns - 1)
    return field.corners.reshape(-1, 4)[index]


def _height(corner: Array, u: Array, v: Array) -> Array:  # [N, 4], [N], [N] -> [N]
    """Ground height at (u, v) in 0..1 within a cell."""
    low, right, back, high = corner[:, 0], corner[:, 1], corner[:, 2], corner[:, 3]
    return low + jnp.where(u >= v, u * (right - low) + v * (high - right), v * (back - low) + u * (high - back))


def trace(field: HeightField, origin: Vec, direction: Vec) -> Array:  # [N]
    """Distance at which rays of unit direction enter the solid; infinity for none or for a start inside."""
    rows, columns = field.corners.shape[:2]
    cell_x, cell_y = _cell_size(field)
    u0, du = (origin[0] + field.half[0]) / cell_x, direction[0] / cell_x  # in cells
    v0, dv = (origin[1] + field.half[1]) / cell_y, direction[1] / cell_y
    z0, dz = origin[2], direction[2]

    u_in, u_out = slab(u0, du, jnp.zeros(()), jnp.full((), columns, jnp.float32))
    v_in, v_out = slab(v0, dv, jnp.zeros(()), jnp.full((), rows, jnp.float32))
    z_in, z_out = slab(z0, dz, -field.base, jnp.max(field.corners))
    t_in = jnp.maximum(jnp.maximum(u_in, v_in), z_in)
    t_out = jnp.minimum(jnp.minimum(u_out, v_out), z_out)
    start = jnp.maximum(t_in, 0.0)
    column = jnp.clip(jnp.floor(u0 + start * du).astype(jnp.int32), 0, columns - 1)
    row = jnp.clip(jnp.floor(v0 + start * dv).astype(jnp.int32), 0, rows - 1)

    def gap(t, corner, column, row):
        return z0 + t * dz - _height(corner, u0 + t * du - column, v0 + t * dv - row)

    below = gap(start, _corners(field, column, row), column, row) <= 0
    result = jnp.where(below & (t_in > 0), t_in, jnp.inf)  # through a side, the base or a highest point
    active = (start <= t_out) & ~below
    slope_u, slope_v, slope_diagonal = (1 / away_from_zero(d) for d in (du, dv, du - dv))

    def unfinished(carry):
        count, _, _, _, active, _ = carry
        return (count < rows + columns) & jnp.any(active)

    def visit(carry):
        count, t, column, row, active, result = carry
        corner = _corners(field, column, row)
        next_u = (column + (du > 0) - u0) * slope_u
        next_v = (row + (dv > 0) - v0) * slope_v
        end = jnp.maximum(jnp.minimum(jnp.minimum(next_u, next_v), t_out), t)
        middle = jnp.clip(((v0 - row) - (u0 - column)) * slope_diagonal, t, end)
        gap_start = jnp.maximum(gap(t, corner, column, row), 0.0)
        gap_middle, gap_end = gap(middle, corner, column, row), gap(end, corner, column, row)
        zero_first = t + (middle - t) * gap_start / away_from_zero(gap_start - gap_middle)
        zero_second = middle + (end - middle) * gap_middle / away_from_zero(gap_middle - gap_end)
        hit = (gap_middle <= 0) | (gap_end <= 0)
        result = jnp.where(active & hit, jnp.where(gap_middle <= 0, zero_first, zero_second), result)
        active = active & ~hit & (end < t_out)
        along_u = next_u <= next_v
        column = jnp.where(along_u, column + jnp.where(du > 0, 1, -1), column)
        row = jnp.where(along_u, row, row + jnp.where(dv > 0, 1, -1))
        return count + 1, end, column, row, active, result

    carry = (jnp.zeros((), jnp.int32), start, column, row, active, jnp.where(start <= t_out, result, jnp.inf))
    return jax.lax.while_loop(unfinished, visit, carry)[-1]


def normal(field: HeightField, point: Vec) -> Vec:  # [N]
    """Outward unit normals at points of the surface: of the triangle, or of a side or the base below it."""
    rows, columns = field.corners.shape[:2]
    cell_x, cell_y = _cell_size(field)
    x, y, z = point
    u, v = (x + field.half[0]) / cell_x, (y + field.half[1]) / cell_y
    column = jnp.clip(jnp.floor(u).astype(jnp.int32), 0, columns - 1)
    row = jnp.clip(jnp.floor(v).astype(jnp.int32), 0, rows - 1)
    corner = _corners(field, column, row)
    u, v = u - column, v - row
    low, right, back, high = corner[:, 0], corner[:, 1], corner[:, 2], corner[:, 3]
    rise_x = jnp.where(u >= v, right - low, high - back) / cell_x
    rise_y = jnp.where(u >= v, high - right, back - low) / cell_y
    top = normalise((-rise_x, -rise_y, jnp.ones_like(z)))

    depth_x, depth_y, depth_z = field.half[0] - jnp.abs(x), field.half[1] - jnp.abs(y), z + field.base
    below = _height(corner, u, v) - z > 1e-3 * (jnp.abs(z) + field.base)
    on_x = below & (depth_x <= depth_y) & (depth_x <= depth_z)
    on_y = below & ~on_x & (depth_y <= depth_z)
    on_base = below & ~on_x & ~on_y
    zero = jnp.zeros_like(z)
    return (
        jnp.where(below, jnp.where(on_x, jnp.sign(x), zero), top[0]),
        jnp.where(below, jnp.where(on_y, jnp.sign(y), zero), top[1]),
        jnp.where(below, jnp.where(on_base, -1.0, zero), top[2]),
    )
