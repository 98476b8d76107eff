"""Exact intersection of a ray with a MuJoCo height field, and the surface normal there.

The ray walks through a quadtree that knows the highest point of each of its nodes (Tevs, Ihrke and Seidel 2008,
"Maximum mipmaps for fast, accurate, and scalable dynamic height field rendering") and jumps over nodes that it passes
above. In the cells of the grid that it reaches, MuJoCo's surface is two triangles that share the diagonal from the
first corner to the last, so the gap between ray and ground is linear up to the diagonal and linear after it, and its
first zero has a closed form.

Vectors are triples of arrays [N] in the frame of the geometry, N rays; lengths in m; R rows (y) and C columns (x) of
the field. The field is solid: sides and base can be hit, from outside.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mjx_policies.envs.rendering.primitives import Vec, away_from_zero, normalise, slab
from mjx_policies.types import Array


class HeightField(NamedTuple):
    """One height field, ready to trace.

    Attributes:
      heights: [R, C], heights at the grid points.
      highest: of each level of the quadtree the highest point of each node, the cells first: [R - 1, C - 1], then half
        as many nodes along each axis, rounded up, until one is left.
      half: [2], half sizes along x and y.
      base: [], thickness of the solid below height zero.
    """

    heights: Array
    highest: tuple[Array, ...]
    half: Array
    base: Array


def height_field(data: Array, size: Array) -> HeightField:  # [R, C] in 0..1, MuJoCo's hfield_size [4]
    """Prepares a field from normalised heights and the sizes (radius x, radius y, elevation, base)."""
    heights = data * size[2]
    level = jnp.maximum(heights[:-1], heights[1:])
    level = jnp.maximum(level[:, :-1], level[:, 1:])
    highest = [level]
    while level.size > 1:
        rows, columns = level.shape
        level = jnp.pad(level, ((0, rows % 2), (0, columns % 2)), mode="edge")
        level = jnp.max(level.reshape(-(-rows // 2), 2, -(-columns // 2), 2), axis=(1, 3))
        highest.append(level)
    return HeightField(heights, tuple(highest), size[:2], size[3])


def _cell_size(field: HeightField) -> tuple[Array, Array]:
    rows, columns = field.heights.shape
    return 2 * field.half[0] / (columns - 1), 2 * field.half[1] / (rows - 1)


def _corners(field: HeightField, column: Array, row: Array) -> tuple[Array, Array, Array, Array]:  # [N], [N]
    """Heights at (x, y), (x + 1, y), (x, y + 1) and (x + 1, y + 1) of cells of the grid."""
    rows, columns = field.heights.shape
    flat = field.heights.reshape(-1)
    index = jnp.clip(row, 0, rows - 2) * columns + jnp.clip(column, 0, columns - 2)
    return flat[index], flat[index + 1], flat[index + columns], flat[index + columns + 1]


def _height(corners: tuple[Array, Array, Array, Array], u: Array, v: Array) -> Array:  # [N]
    """Ground height at (u, v) in 0..1 within a cell."""
    low, right, back, high = corners
    return low + jnp.where(u >= v, u * (right - low) + v * (high - right), v * (back - low) + u * (high - back))


def trace(field: HeightField, origin: Vec, direction: Vec) -> Array:  # [N]
    """Distance at which rays of unit direction enter the solid; infinity for none or for a start inside."""
    rows, columns = (n - 1 for n in field.heights.shape)
    cell_x, cell_y = _cell_size(field)
    u0, du = (origin[0] + field.half[0]) / cell_x, direction[0] / cell_x  # in cells
    v0, dv = (origin[1] + field.half[1]) / cell_y, direction[1] / cell_y
    z0, dz = origin[2], direction[2]
    slope_u, slope_v, slope_diagonal = (1 / away_from_zero(d) for d in (du, dv, du - dv))

    def gap(t, corners, column, row):
        return z0 + t * dz - _height(corners, u0 + t * du - column, v0 + t * dv - row)

    u_in, u_out = slab(u0, du, jnp.zeros(()), jnp.full((), columns, jnp.float32))
    v_in, v_out = slab(v0, dv, jnp.zeros(()), jnp.full((), rows, jnp.float32))
    z_in, z_out = slab(z0, dz, -field.base, jnp.max(field.highest[-1]))
    t_in = jnp.maximum(jnp.maximum(u_in, v_in), z_in)
    t_out = jnp.minimum(jnp.minimum(u_out, v_out), z_out)
    start = jnp.maximum(t_in, 0.0)
    column = jnp.clip(jnp.floor(u0 + start * du).astype(jnp.int32), 0, columns - 1)
    row = jnp.clip(jnp.floor(v0 + start * dv).astype(jnp.int32), 0, rows - 1)
    below = gap(start, _corners(field, column, row), column, row) <= 0
    enters = start <= t_out
    result = jnp.where(enters & below & (t_in > 0), t_in, jnp.inf)  # through a side, the base or a highest point

    flat = jnp.concatenate([level.reshape(-1) for level in field.highest])
    widths = jnp.array([level.shape[1] for level in field.highest], jnp.int32)
    starts = jnp.array([sum(level.size for level in field.highest[:i]) for i in range(len(field.highest))], jnp.int32)
    top = len(field.highest) - 1
    limit = 4 * (rows + columns) + 4 * top

    def unfinished(carry):
        count, *_, active, _ = carry
        return (count < limit) & jnp.any(active)

    def visit(carry):
        count, t, level, column, row, active, result = carry  # column and row count nodes of the level
        size = jnp.left_shift(1, level)
        next_u = ((column + (du > 0)) * size - u0) * slope_u
        next_v = ((row + (dv > 0)) * size - v0) * slope_v
        end = jnp.maximum(jnp.minimum(jnp.minimum(next_u, next_v), t_out), t)
        highest = flat[starts[level] + row * widths[level] + column]
        above = z0 + jnp.where(dz < 0, end, t) * dz > highest

        corners = _corners(field, column, row)
        middle = jnp.clip(((v0 - row) - (u0 - column)) * slope_diagonal, t, end)
        gap_start = jnp.maximum(gap(t, corners, column, row), 0.0)
        gap_middle, gap_end = gap(middle, corners, column, row), gap(end, corners, column, row)
        zero_first = t + (middle - t) * gap_start / away_from_zero(gap_start - gap_middle)
        zero_second = middle + (end - middle) * gap_middle / away_from_zero(gap_middle - gap_end)
        hit = (level == 0) & ~above & ((gap_middle <= 0) | (gap_end <= 0))
        result = jnp.where(active & hit, jnp.where(gap_middle <= 0, zero_first, zero_second), result)

        descend = ~above & (level > 0)
        active = active & ~hit & (descend | (end < t_out))
        # Down: the half in which the ray is at t, told by the very numbers that t was set from.
        half = size // 2
        past_u = t >= ((2 * column + 1) * half - u0) * slope_u
        past_v = t >= ((2 * row + 1) * half - v0) * slope_v
        column_down, row_down = 2 * column + (past_u == (du > 0)), 2 * row + (past_v == (dv > 0))
        # Onwards: the neighbour, or its parent if that is new too.
        along_u = next_u <= next_v
        column_next = column + jnp.where(along_u, jnp.where(du > 0, 1, -1), 0)
        row_next = row + jnp.where(along_u, 0, jnp.where(dv > 0, 1, -1))
        climb = ((column_next // 2 != column // 2) | (row_next // 2 != row // 2)) & (level < top)
        column = jnp.where(descend, column_down, jnp.where(climb, column_next // 2, column_next))
        row = jnp.where(descend, row_down, jnp.where(climb, row_next // 2, row_next))
        level = level + jnp.where(descend, -1, climb.astype(jnp.int32))
        return count + 1, jnp.where(descend, t, end), level, column, row, active, result

    level = jnp.full_like(column, min(3, top))
    carry = (jnp.zeros((), jnp.int32), start, level, column >> level, row >> level, enters & ~below, result)
    return jax.lax.while_loop(unfinished, visit, carry)[-1]


def normal(field: HeightField, point: Vec) -> Vec:  # [N]
    """Outward unit normals at points of the surface: of the triangle, or of a side or the base below it."""
    rows, columns = field.heights.shape
    cell_x, cell_y = _cell_size(field)
    x, y, z = point
    u, v = (x + field.half[0]) / cell_x, (y + field.half[1]) / cell_y
    column = jnp.clip(jnp.floor(u).astype(jnp.int32), 0, columns - 2)
    row = jnp.clip(jnp.floor(v).astype(jnp.int32), 0, rows - 2)
    corners = _corners(field, column, row)
    u, v = u - column, v - row
    low, right, back, high = corners
    rise_x = jnp.where(u >= v, right - low, high - back) / cell_x
    rise_y = jnp.where(u >= v, high - right, back - low) / cell_y
    top = normalise((-rise_x, -rise_y, jnp.ones_like(z)))

    depth_x, depth_y, depth_z = field.half[0] - jnp.abs(x), field.half[1] - jnp.abs(y), z + field.base
    below = _height(corners, u, v) - z > 1e-3 * (jnp.abs(z) + field.base)
    on_x = below & (depth_x <= depth_y) & (depth_x <= depth_z)
    on_y = below & ~on_x & (depth_y <= depth_z)
    on_base = below & ~on_x & ~on_y
    zero = jnp.zeros_like(z)
    return (
        jnp.where(below, jnp.where(on_x, jnp.sign(x), zero), top[0]),
        jnp.where(below, jnp.where(on_y, jnp.sign(y), zero), top[1]),
        jnp.where(below, jnp.where(on_base, -1.0, zero), top[2]),
    )
