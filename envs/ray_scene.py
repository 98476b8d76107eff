"""Rays against a whole model: what is nearest, what lies between a point and the light, and how the surface is turned.

Each geometry type is one batch, all its geometries against all rays: that vectorises, where a chain over geometries
does not. Axes: N rays, G geometries of one type, ngeom geometries of the model. World frame, lengths in m.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjtGeom

from mjx_policies.envs import ray_hfield
from mjx_policies.envs.ray_primitives import NORMALS, TRACERS, Vec, columns, normalise, to_local, to_world
from mjx_policies.types import Array


class HfieldGeom(NamedTuple):
    """A height field geometry: its index, where its heights lie in `hfield_data`, rows and columns, MuJoCo's sizes."""

    geom: int
    data: slice
    shape: tuple[int, int]
    size: np.ndarray


class Layout(NamedTuple):
    """Which geometries of a model are shown; fixes the shape of the computation.

    Attributes:
      ngeom: number of geometries of the model, shown or not.
      batches: type and indices of the primitives.
      hfields: the height fields.
    """

    ngeom: int
    batches: tuple[tuple[mjtGeom, np.ndarray], ...]
    hfields: tuple[HfieldGeom, ...]


class Geoms(NamedTuple):
    """The moving part: `xpos` [ngeom, 3], `xmat` [ngeom, 3, 3], `size` [ngeom, 3], `hfield_data` [nhfielddata]."""

    xpos: Array
    xmat: Array
    size: Array
    hfield_data: Array


def layout(model: mujoco.MjModel, groups: Sequence[int]) -> Layout:
    """The geometries of `groups` whose alpha is not 0. Raises ValueError for one that cannot be traced, by name."""
    shown = [g for g in range(model.ngeom) if model.geom_group[g] in groups and geom_rgba(model, g)[3] > 0]
    for geom in shown:
        kind = mjtGeom(model.geom_type[geom])
        if kind not in TRACERS and kind != mjtGeom.mjGEOM_HFIELD:
            name = model.geom(geom).name or f"number {geom}"
            supported = ", ".join(sorted(_type_name(kind) for kind in (*TRACERS, mjtGeom.mjGEOM_HFIELD)))
            raise ValueError(
                f"geom {name!r} is of type {_type_name(kind)}, which cannot be drawn: replace it by {supported}, "
                f"or hide it in a group other than {tuple(groups)}"
            )
    kinds = model.geom_type[shown] if shown else np.zeros(0, int)
    batches = tuple((kind, np.asarray(shown)[kinds == kind]) for kind in TRACERS if (kinds == kind).any())
    hfields = []
    for geom in shown:
        if model.geom_type[geom] == mjtGeom.mjGEOM_HFIELD:
            field = model.geom_dataid[geom]
            shape = (int(model.hfield_nrow[field]), int(model.hfield_ncol[field]))
            first = int(model.hfield_adr[field])
            data = slice(first, first + shape[0] * shape[1])
            hfields.append(HfieldGeom(geom, data, shape, model.hfield_size[field].copy()))
    return Layout(model.ngeom, batches, tuple(hfields))


def geom_rgba(model: mujoco.MjModel, geom: int) -> np.ndarray:  # [4]
    """The colour MuJoCo shows: the material's, unless the geometry has one of its own."""
    own, material = model.geom_rgba[geom], model.geom_matid[geom]
    return model.mat_rgba[material] if material >= 0 and (own == np.float32(0.5))[:3].all() and own[3] == 1 else own


def _type_name(kind: mjtGeom) -> str:
    return kind.name.removeprefix("mjGEOM_").lower()


def _field(hfield: HfieldGeom, geoms: Geoms) -> ray_hfield.HeightField:
    data = geoms.hfield_data[hfield.data].reshape(hfield.shape)
    return ray_hfield.height_field(data, jnp.asarray(hfield.size, jnp.float32))


def _local(geoms: Geoms, index: np.ndarray, origin: Vec, direction: Vec) -> tuple[Vec, Vec]:
    """Rays [1, N] (or [1, 1] where shared) in the frames of the geometries `index` [G]."""
    pos = geoms.xpos[index]
    axes = tuple(tuple(x[:, None] for x in axis) for axis in columns(geoms.xmat[index]))
    relative = tuple(origin[i] - pos[:, i, None] for i in range(3))
    return to_local(relative, axes), to_local(direction, axes)


def _distances(kind: mjtGeom, index: np.ndarray, geoms: Geoms, origin: Vec, direction: Vec) -> Array:  # [G, N]
    size = geoms.size[index]
    local = _local(geoms, index, origin, direction)
    return TRACERS[kind](*local, (size[:, 0, None], size[:, 1, None], size[:, 2, None]))


def _hfield_distance(hfield: HfieldGeom, geoms: Geoms, origin: Vec, direction: Vec) -> Array:  # [N]
    count = direction[0].shape[1]
    local = _local(geoms, np.array([hfield.geom]), origin, direction)
    start, ray = (tuple(jnp.broadcast_to(x, (1, count))[0] for x in vector) for vector in local)
    return ray_hfield.trace(_field(hfield, geoms), start, ray)


def nearest(layout: Layout, geoms: Geoms, origin: Vec, direction: Vec) -> tuple[Array, Array]:
    """Distance [N] to the first surface and its geometry [N]; infinity and -1 where there is none.

    `origin` and `direction` are triples of [1, N], or of [1, 1] where shared; at least the direction must be [1, N].
    """
    count = direction[0].shape[1]
    distances, owners = [jnp.full(count, jnp.inf)], [jnp.full(count, -1, jnp.int32)]
    for kind, index in layout.batches:
        t = _distances(kind, index, geoms, origin, direction)
        closest = jnp.min(t, axis=0)
        # Twice a minimum instead of an argmin, which compilers for CPUs do not vectorise.
        owner = jnp.where(t == closest[None], jnp.asarray(index, jnp.int32)[:, None], layout.ngeom)
        distances.append(closest)
        owners.append(jnp.min(owner, axis=0))
    for hfield in layout.hfields:
        distances.append(_hfield_distance(hfield, geoms, origin, direction))
        owners.append(jnp.full(count, hfield.geom, jnp.int32))
    candidates, owners = jnp.stack(distances), jnp.stack(owners)
    distance = jnp.min(candidates, axis=0)
    return distance, jnp.min(jnp.where(candidates == distance[None], owners, layout.ngeom), axis=0)


def occluded(layout: Layout, geoms: Geoms, origin: Vec, direction: Vec, far: Array) -> Array:  # [N] bool
    """Whether anything but a plane is nearer than `far` [N]. Vectors as for `nearest`."""
    distance = jnp.full(direction[0].shape[1], jnp.inf)
    for kind, index in layout.batches:
        if kind != mjtGeom.mjGEOM_PLANE:
            t = _distances(kind, index, geoms, origin, direction)
            distance = jnp.minimum(distance, jnp.min(t, axis=0))
    for hfield in layout.hfields:
        distance = jnp.minimum(distance, _hfield_distance(hfield, geoms, origin, direction))
    return distance < far


class Surface(NamedTuple):
    """Where rays meet a surface, all [N]: world normal, and the point and the axes of the geometry's own frame."""

    normal: Vec
    local: Vec
    axes: tuple[Vec, Vec, Vec]


def surface(layout: Layout, geoms: Geoms, geom: Array, point: Vec) -> Surface:
    """The surface of the geometries `geom` [N] at `point` [N]; outward normals of unit length."""
    pos, size = geoms.xpos[geom], geoms.size[geom]
    axes = columns(geoms.xmat.reshape(-1, 9)[geom].reshape(-1, 3, 3))
    local = to_local(tuple(point[i] - pos[:, i] for i in range(3)), axes)
    size = (size[:, 0], size[:, 1], size[:, 2])

    normal = (jnp.zeros_like(local[0]), jnp.zeros_like(local[0]), jnp.ones_like(local[0]))
    kinds = np.zeros(layout.ngeom, np.int32)
    for kind, index in layout.batches:
        kinds[index] = int(kind)
    kind_of_ray = jnp.asarray(kinds)[geom]
    for kind, _ in layout.batches:
        normal = _choose(kind_of_ray == int(kind), NORMALS[kind](local, size), normal)
    for hfield in layout.hfields:
        normal = _choose(geom == hfield.geom, ray_hfield.normal(_field(hfield, geoms), local), normal)
    return Surface(normalise(to_world(normal, axes)), local, axes)


def _choose(mask: Array, a: Vec, b: Vec) -> Vec:
    return jnp.where(mask, a[0], b[0]), jnp.where(mask, a[1], b[1]), jnp.where(mask, a[2], b[2])
