"""Rays against a whole model: what is nearest, what lies between a point and the light, and how the surface is turned.

The geometries of one type are traced together, a block of them against all rays: that vectorises, where a chain over
geometries does not. Axes: N rays, G geometries of a block, ngeom geometries of the model. World frame, lengths in m.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjtGeom

from mjx_policies.envs.rendering import hfield
from mjx_policies.envs.rendering.hfield import HeightField
from mjx_policies.envs.rendering.primitives import NORMALS, TRACERS, Vec, columns, normalise, to_local, to_world
from mjx_policies.types import Array

BLOCK = 4  # geometries traced at once; more of them fall out of a CPU's cache, fewer make longer loops


class Layout(NamedTuple):
    """The geometries of a model that are drawn; fixes the shape of the computation.

    Attributes:
      ngeom: number of geometries of the model, drawn or not.
      batches: type and indices of the primitives.
      hfields: of each height field geometry its index and that of its height field.
    """

    ngeom: int
    batches: tuple[tuple[mjtGeom, np.ndarray], ...]
    hfields: tuple[tuple[int, int], ...]


class Geoms(NamedTuple):
    """The geometries: `xpos` [ngeom, 3], `xmat` [ngeom, 3, 3], `size` [ngeom, 3], and the model's height fields."""

    xpos: Array
    xmat: Array
    size: Array
    hfields: tuple[HeightField, ...]


def scene_layout(model: mujoco.MjModel, groups: Sequence[int]) -> Layout:
    """The geometries of `groups` whose alpha is not 0. Raises ValueError for one that cannot be traced, by name."""
    visible = [g for g in range(model.ngeom) if model.geom_group[g] in groups and geom_rgba(model, g)[3] > 0]
    for geom in visible:
        kind = mjtGeom(model.geom_type[geom])
        if kind not in TRACERS and kind != mjtGeom.mjGEOM_HFIELD:
            name = model.geom(geom).name or f"number {geom}"
            supported = ", ".join(sorted(_type_name(kind) for kind in (*TRACERS, mjtGeom.mjGEOM_HFIELD)))
            raise ValueError(
                f"geom {name!r} is of type {_type_name(kind)}, which cannot be drawn: replace it by {supported}, "
                f"or hide it in a group other than {tuple(groups)}"
            )
    kinds = model.geom_type[visible] if visible else np.zeros(0, int)
    batches = tuple((kind, np.asarray(visible)[kinds == kind]) for kind in TRACERS if (kinds == kind).any())
    hfields = tuple((g, int(model.geom_dataid[g])) for g in visible if model.geom_type[g] == mjtGeom.mjGEOM_HFIELD)
    return Layout(model.ngeom, batches, hfields)


def height_fields(model: mujoco.MjModel) -> tuple[HeightField, ...]:
    """The height fields of a model, ready to trace."""
    fields = []
    for field in range(model.nhfield):
        first, shape = model.hfield_adr[field], (model.hfield_nrow[field], model.hfield_ncol[field])
        data = model.hfield_data[first : first + np.prod(shape)].reshape(shape)
        size = jnp.asarray(model.hfield_size[field], jnp.float32)
        fields.append(hfield.height_field(jnp.asarray(data, jnp.float32), size))
    return tuple(fields)


def geom_rgba(model: mujoco.MjModel, geom: int) -> np.ndarray:  # [4]
    """The colour MuJoCo shows: the material's, unless the geometry has one of its own."""
    own, material = model.geom_rgba[geom], model.geom_matid[geom]
    return model.mat_rgba[material] if material >= 0 and (own == np.float32(0.5))[:3].all() and own[3] == 1 else own


def _type_name(kind: mjtGeom) -> str:
    return kind.name.removeprefix("mjGEOM_").lower()


def _local(xpos: Array, xmat: Array, origin: Vec, direction: Vec) -> tuple[Vec, Vec]:
    """Rays [1, N] (or [1, 1] where shared) in the frames of geometries, [G, 3] and [G, 3, 3]."""
    first, second, third = ((x[:, None], y[:, None], z[:, None]) for x, y, z in columns(xmat))
    axes = first, second, third
    relative = (origin[0] - xpos[:, 0, None], origin[1] - xpos[:, 1, None], origin[2] - xpos[:, 2, None])
    return to_local(relative, axes), to_local(direction, axes)


def _nearest_primitive(
    kind: mjtGeom, index: np.ndarray, geoms: Geoms, origin: Vec, direction: Vec
) -> tuple[Array, Array]:  # [N], [N]
    """Distance and geometry, of one type.

    Blocks of geometries, not all of them at once, so that what a block needs stays in the cache. In a block twice a
    minimum instead of an argmin, which compilers for CPUs do not vectorise.
    """
    block = min(BLOCK, len(index))
    index = np.pad(index, (0, -len(index) % block), mode="edge").reshape(-1, block)  # the last one fills its block

    def visit(carry: tuple[Array, Array], geometry: tuple[Array, Array, Array, Array]):
        distance, geom = carry
        xpos, xmat, size, which = geometry
        start, ray = _local(xpos, xmat, origin, direction)
        t = TRACERS[kind](start, ray, (size[:, 0, None], size[:, 1, None], size[:, 2, None]))
        closest = jnp.min(t, axis=0)
        owner = jnp.min(jnp.where(t == closest[None], which[:, None], len(geoms.xpos)), axis=0)
        return (jnp.minimum(closest, distance), jnp.where(closest < distance, owner, geom)), None

    count = direction[0].shape[1]
    carry = jnp.full(count, jnp.inf), jnp.full(count, -1, jnp.int32)
    table = geoms.xpos[index], geoms.xmat[index], geoms.size[index], jnp.asarray(index, jnp.int32)
    return jax.lax.scan(visit, carry, table)[0]


def _hfield_distance(geom: int, field: HeightField, geoms: Geoms, origin: Vec, direction: Vec) -> Array:  # [N]
    count = direction[0].shape[1]
    local = _local(geoms.xpos[geom : geom + 1], geoms.xmat[geom : geom + 1], origin, direction)

    def flat(vector: Vec) -> Vec:
        x, y, z = (jnp.broadcast_to(component, (1, count))[0] for component in vector)
        return x, y, z

    return hfield.trace(field, flat(local[0]), flat(local[1]))


def nearest(layout: Layout, geoms: Geoms, origin: Vec, direction: Vec) -> tuple[Array, Array]:
    """Distance [N] to the first surface and its geometry [N]; infinity and -1 where there is none.

    `origin` and `direction` are triples of [1, N], or of [1, 1] where shared; at least the direction must be [1, N].
    """
    count = direction[0].shape[1]
    distance, geom = jnp.full(count, jnp.inf), jnp.full(count, -1, jnp.int32)
    candidates = [(distance, geom)]
    for kind, index in layout.batches:
        candidates.append(_nearest_primitive(kind, index, geoms, origin, direction))
    for hfield_geom, field in layout.hfields:
        t = _hfield_distance(hfield_geom, geoms.hfields[field], geoms, origin, direction)
        candidates.append((t, jnp.full_like(geom, hfield_geom)))
    distances, owners = (jnp.stack(x) for x in zip(*candidates, strict=True))
    distance = jnp.min(distances, axis=0)
    return distance, jnp.min(jnp.where(distances == distance[None], owners, layout.ngeom), axis=0)


def occluded(layout: Layout, geoms: Geoms, origin: Vec, direction: Vec, far: Array) -> Array:  # [N] bool
    """Whether anything but a plane is nearer than `far` [N]. Vectors as for `nearest`."""
    distance = jnp.full(direction[0].shape[1], jnp.inf)
    for kind, index in layout.batches:
        if kind != mjtGeom.mjGEOM_PLANE:
            distance = jnp.minimum(distance, _nearest_primitive(kind, index, geoms, origin, direction)[0])
    for geom, field in layout.hfields:
        distance = jnp.minimum(distance, _hfield_distance(geom, geoms.hfields[field], geoms, origin, direction))
    return distance < far


class Surface(NamedTuple):
    """Intersections of rays with surfaces, all [N]: world normal, point and axes of the geometry's own frame."""

    normal: Vec
    local: Vec
    axes: tuple[Vec, Vec, Vec]


def surface(layout: Layout, geoms: Geoms, geom: Array, point: Vec) -> Surface:
    """The surface of the geometries `geom` [N] at `point` [N]; outward normals of unit length."""
    pos, sizes = geoms.xpos[geom], geoms.size[geom]
    axes = columns(geoms.xmat.reshape(-1, 9)[geom].reshape(-1, 3, 3))
    local = to_local((point[0] - pos[:, 0], point[1] - pos[:, 1], point[2] - pos[:, 2]), axes)
    size = (sizes[:, 0], sizes[:, 1], sizes[:, 2])

    normal = (jnp.zeros_like(local[0]), jnp.zeros_like(local[0]), jnp.ones_like(local[0]))
    kinds = np.zeros(layout.ngeom, np.int32)
    for kind, index in layout.batches:
        kinds[index] = int(kind)
    kind_of_ray = jnp.asarray(kinds)[geom]
    for kind, _ in layout.batches:
        normal = _choose(kind_of_ray == int(kind), NORMALS[kind](local, size), normal)
    for hfield_geom, field in layout.hfields:
        normal = _choose(geom == hfield_geom, hfield.normal(geoms.hfields[field], local), normal)
    return Surface(normalise(to_world(normal, axes)), local, axes)


def _choose(mask: Array, a: Vec, b: Vec) -> Vec:
    return jnp.where(mask, a[0], b[0]), jnp.where(mask, a[1], b[1]), jnp.where(mask, a[2], b[2])
