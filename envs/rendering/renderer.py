"""A ray caster for MuJoCo models made of primitives: pictures from JAX, without OpenGL, jitted and vmappable.

One light, one hard shadow, a sky that is a gradient, fog, and a pattern on the floor. Surfaces are opaque and seen from
outside only.

    renderer = make_renderer(model, 240, 320, samples=2)
    rgb = renderer.render_qpos(qpos, orbit(qpos[:3], distance=1.5, azimuth=130.0, elevation=-20.0)).rgb

Axes: H rows and W columns of the picture, N rays, ngeom geometries. World frame, z up; lengths in m; colours in 0..1.
A batch of small pictures takes some 100 bytes for each ray; `jax.lax.map` with a `batch_size` of 16, or 2 with a height
field, keeps that in a CPU's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from mjx_policies.envs.rendering.kinematics import facing, forward_kinematics
from mjx_policies.envs.rendering.primitives import normalise
from mjx_policies.envs.rendering.scene import Geoms, scene_layout
from mjx_policies.envs.rendering.shading import Appearance, Floor, model_appearance, shade
from mjx_policies.types import Array

CHUNK = 8192  # rays of a picture traced at once, so that large pictures stay in a CPU's cache too


@struct.dataclass
class View:
    """A camera: `position` [3] in m, `rotation` [3, 3] with columns right, up and backward, `fovy` [] in degrees."""

    position: Array
    rotation: Array
    fovy: Array


@struct.dataclass
class Pixels:
    """The pictures of a camera.

    With several samples in a pixel, `rgb` is their mean, `depth` and `geom` are those of the nearest.

    Attributes:
      rgb: [H, W, 3] uint8.
      depth: [H, W] float32, m along the optical axis; infinity for the sky.
      geom: [H, W] int32, index of the geometry; -1 for the sky.
    """

    rgb: Array
    depth: Array
    geom: Array


class Renderer(NamedTuple):
    """Draws one model at one size. Both functions are pure and jitted.

    Attributes:
      appearance: what the model says, to be changed with `.replace`.
      render: `(geom_xpos [ngeom, 3], geom_xmat [ngeom, 3, 3] or [ngeom, 9], view, appearance) -> Pixels`.
      render_qpos: `(qpos [nq], view, appearance, mocap_pos [nmocap, 3]) -> Pixels`; a `view` of `None` is the
        renderer's camera, a `mocap_pos` of `None` is where the model puts its mocap bodies.
    """

    appearance: Appearance
    render: Callable[[Array, Array, View, Appearance], Pixels]
    render_qpos: Callable[..., Pixels]


def look_at(position: Array, target: Array, fovy: float | Array = 45.0) -> View:
    """A camera at `position` [3] that looks at `target` [3] with the horizon level."""
    position, target = jnp.asarray(position, jnp.float32), jnp.asarray(target, jnp.float32)
    return View(position, facing(target - position), jnp.asarray(fovy, jnp.float32))


def orbit(
    target: Array, distance: float | Array, azimuth: float | Array, elevation: float | Array, fovy: float | Array = 45.0
) -> View:
    """MuJoCo's free camera: looks at `target` [3] from `distance` m along `azimuth` and `elevation`, degrees.

    Azimuth 0 looks along x, 90 along y; elevation is negative from above. Follow a robot by passing its position.
    """
    a, e = jnp.deg2rad(azimuth), jnp.deg2rad(elevation)
    forward = jnp.stack([jnp.cos(e) * jnp.cos(a), jnp.cos(e) * jnp.sin(a), jnp.sin(e)])
    target = jnp.asarray(target, jnp.float32)
    return look_at(target - distance * forward, target, fovy)


def camera_view(model: mujoco.MjModel, camera: str | int, cam_xpos: Array, cam_xmat: Array) -> View:
    """A model camera where `cam_xpos` [ncam, 3] and `cam_xmat` [ncam, 3, 3] or [ncam, 9] of physics data put it."""
    index = _camera_index(model, camera)
    fovy = jnp.asarray(model.cam_fovy[index], jnp.float32)
    return View(cam_xpos[index], cam_xmat[index].reshape(3, 3), fovy)


def make_renderer(
    model: mujoco.MjModel,
    height: int,
    width: int,
    *,
    camera: str | int | None = None,
    shadows: bool = True,
    samples: int = 1,
    floor: Floor = "checker",
    groups: Sequence[int] = (0, 1, 2),
) -> Renderer:
    """Builds the renderer of a model.

    Args:
      model: planes, height fields, spheres, capsules, ellipsoids, cylinders and boxes. The first active light lights
        the scene. Geometries of alpha 0 are not drawn, other alphas are ignored; planes cast no shadow.
      height, width: size of the picture.
      camera: name or index of the camera that `render_qpos` uses; `None` for MuJoCo's default free camera.
      shadows: whether to trace a second ray to the light.
      samples: the picture is drawn this many times higher and wider and averaged, against jagged edges.
      floor: pattern of planes and height fields, in their colour and `Appearance.geom_accent`.
      groups: geometry groups to show.

    Raises:
      ValueError: for a visible geometry of another type, an unknown camera, or a size that is not positive.
    """
    if min(height, width, samples) < 1:
        raise ValueError(f"height {height}, width {width} and samples {samples} must each be at least 1")
    if floor not in ("checker", "grid", "plain"):
        raise ValueError(f"floor is {floor!r}, it must be 'checker', 'grid' or 'plain'")
    layout = scene_layout(model, groups)
    index = None if camera is None else _camera_index(model, camera)
    nominal = model_appearance(model)
    screen = _screen(height * samples, width * samples)

    def render(geom_xpos: Array, geom_xmat: Array, view: View, appearance: Appearance) -> Pixels:
        chex.assert_shape(geom_xpos, (model.ngeom, 3))
        geoms = Geoms(geom_xpos, geom_xmat.reshape(model.ngeom, 3, 3), appearance.geom_size, appearance.hfields)
        scale = jnp.tan(jnp.deg2rad(view.fovy) / 2)
        pixel = 2 * scale / (height * samples)

        def draw(screen: Array) -> tuple[Array, Array, Array]:  # [2, N / chunks]
            x, y = scale * screen[0], scale * screen[1]  # on the plane at depth 1
            a, b, c = (x * axis[0] + y * axis[1] - axis[2] for axis in view.rotation)
            rgb, distance, geom = shade(
                layout, geoms, appearance, view.position, normalise((a, b, c)), pixel, shadows, floor
            )
            return rgb.T, distance / jnp.sqrt(1 + x**2 + y**2), geom

        if len(screen) == 1:
            rgb, depth, geom = draw(screen[0])
        else:
            rgb, depth, geom = (
                x.reshape(-1, *x.shape[2:])[: height * width * samples**2] for x in jax.lax.map(draw, screen)
            )
        return _downsample(rgb, depth, geom, height, width, samples)

    render = jax.jit(render)

    @jax.jit
    def render_posed(qpos: Array, view: View | None, appearance: Appearance, mocap_pos: Array | None) -> Pixels:
        poses = forward_kinematics(model, qpos, mocap_pos)
        if view is None:
            view = _free_view(model) if index is None else camera_view(model, index, poses.cam_xpos, poses.cam_xmat)
        return render(poses.geom_xpos, poses.geom_xmat, view, appearance)

    def render_qpos(
        qpos: Array, view: View | None = None, appearance: Appearance | None = None, mocap_pos: Array | None = None
    ) -> Pixels:
        return render_posed(qpos, view, nominal if appearance is None else appearance, mocap_pos)

    return Renderer(nominal, render, render_qpos)


def _screen(height: int, width: int) -> Array:  # [chunks, 2, N / chunks]
    """Right and up of the pixels' centres, row by row, the picture being 2 high; the last pixel fills the chunks."""
    x, y = (np.arange(width) + 0.5) * 2 - width, height - (np.arange(height) + 0.5) * 2
    screen = np.stack(np.meshgrid(x, y)).reshape(2, -1) / height
    chunks = -(-screen.shape[1] // CHUNK)
    padded = np.pad(screen, ((0, 0), (0, -screen.shape[1] % chunks)), mode="edge")
    return jnp.asarray(padded.reshape(2, chunks, -1).swapaxes(0, 1), jnp.float32)


def _downsample(rgb: Array, depth: Array, geom: Array, height: int, width: int, samples: int) -> Pixels:
    """Averages colours and takes the nearest surface over the samples of each pixel."""

    def split(x: Array) -> Array:  # [N, ...] -> [H, W, samples ** 2, ...]
        x = x.reshape(height, samples, width, samples, *x.shape[1:])
        return jnp.swapaxes(x, 1, 2).reshape(height, width, samples**2, *x.shape[4:])

    rgb = jnp.mean(split(jnp.clip(rgb, 0.0, 1.0)), axis=2)
    depth, geom = split(depth), split(geom)
    nearest = jnp.argmin(depth, axis=2, keepdims=True)
    return Pixels(
        rgb=jnp.round(255 * rgb).astype(jnp.uint8),
        depth=jnp.take_along_axis(depth, nearest, axis=2)[..., 0],
        geom=jnp.take_along_axis(geom, nearest, axis=2)[..., 0],
    )


def _free_view(model: mujoco.MjModel) -> View:
    """The view in which MuJoCo's free camera starts."""
    screen = model.vis.global_
    return orbit(model.stat.center, 1.5 * model.stat.extent, screen.azimuth, screen.elevation, screen.fovy)


def _camera_index(model: mujoco.MjModel, camera: str | int) -> int:
    names = [model.camera(i).name for i in range(model.ncam)]
    index = names.index(camera) if camera in names else camera
    if not isinstance(index, int | np.integer) or not 0 <= index < model.ncam:
        raise ValueError(f"the model has no camera {camera!r}; it has {names}")
    if model.cam_projection[index] != mujoco.mjtProjection.mjPROJ_PERSPECTIVE or model.cam_sensorsize[index].any():
        raise ValueError(f"camera {names[index] or index!r}: only perspective cameras given by fovy can be drawn")
    return int(index)
