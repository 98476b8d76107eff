"""What colour a ray sees: one light with a hard shadow, floor patterns, sky and fog.

Colours are display colours in 0..1, lit without gamma as in MuJoCo's own renderer. Axes: N rays, ngeom geometries.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from mujoco import mjtGeom

from mjx_policies.envs.ray_primitives import Vec, advance, columns, dot, normalise, to_local, to_world
from mjx_policies.envs.ray_scene import Geoms, Layout, geom_rgba, local_normal, nearest, occluded
from mjx_policies.types import Array

Floor = Literal["checker", "grid", "plain"]
FLOORS = (mjtGeom.mjGEOM_PLANE, mjtGeom.mjGEOM_HFIELD)
GRID_LINE = 0.04  # width of a grid line over the side of a square
DEFAULT_LIGHT = (-0.35, -0.5, 1.0)  # towards the light of a model that has none


@struct.dataclass
class Appearance:
    """How the scene looks: leaves that visual randomisation may change and `vmap` may batch.

    Attributes:
      geom_size: [ngeom, 3], MuJoCo's.
      geom_rgb: [ngeom, 3].
      geom_accent: [ngeom, 3], the other colour of a patterned floor; unused by other geometries.
      geom_specular, geom_shininess: [ngeom], strength and concentration of the highlight, as in MuJoCo's materials.
      hfield_data: [nhfielddata], normalised heights, MuJoCo's.
      square: [], side of the squares of the floor pattern in m.
      light: [4]; a direction towards the light and 0, or the position of the light and 1.
      ambient, diffuse, fill: [], strength of light from everywhere, from the light, and from the camera.
      horizon, zenith: [3], colours of the sky; the horizon is also the colour of fog.
      fog: [], distance in m at which fog hides 63 % of a surface; infinity for none.
    """

    geom_size: Array
    geom_rgb: Array
    geom_accent: Array
    geom_specular: Array
    geom_shininess: Array
    hfield_data: Array
    square: Array
    light: Array
    ambient: Array
    diffuse: Array
    fill: Array
    horizon: Array
    zenith: Array
    fog: Array


def model_appearance(model: mujoco.MjModel) -> Appearance:
    """Sizes, colours, materials and first light of a model, in a daylight of our own choice."""
    rgb = np.array([geom_rgba(model, g)[:3] for g in range(model.ngeom)], np.float32).reshape(-1, 3)
    accent = rgb * 0.82
    specular, shininess = np.zeros(model.ngeom), np.full(model.ngeom, 0.5)
    for geom in range(model.ngeom):
        material = model.geom_matid[geom]
        if material < 0:
            specular[geom] = 0.0 if model.geom_type[geom] in FLOORS else 0.2
            continue
        specular[geom], shininess[geom] = model.mat_specular[material], model.mat_shininess[material]
        colours = _texture_colours(model, material)
        if colours is not None and model.geom_type[geom] in FLOORS:
            rgb[geom], accent[geom] = colours[0] * rgb[geom], colours[1] * rgb[geom]
    leaves = {
        "geom_size": model.geom_size,
        "geom_rgb": rgb,
        "geom_accent": accent,
        "geom_specular": specular,
        "geom_shininess": shininess,
        "hfield_data": model.hfield_data,
        "square": 0.5,
        "light": _model_light(model),
        "ambient": 0.42,
        "diffuse": 0.62,
        "fill": 0.12,
        "horizon": (0.86, 0.91, 0.96),
        "zenith": (0.36, 0.58, 0.86),
        "fog": 40.0,
    }
    return Appearance(**{name: jnp.asarray(value, jnp.float32) for name, value in leaves.items()})


def _texture_colours(model: mujoco.MjModel, material: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The colours in the middle of two quadrants of a material's texture, which are those of a built-in checker."""
    texture = model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB]
    if texture < 0 or model.tex_type[texture] != mujoco.mjtTexture.mjTEXTURE_2D:
        return None
    height, width, channels = (int(x[texture]) for x in (model.tex_height, model.tex_width, model.tex_nchannel))
    first = model.tex_adr[texture]
    image = model.tex_data[first : first + height * width * channels].reshape(height, width, channels)[..., :3] / 255
    return image[height // 4, width // 4], image[height // 4, 3 * width // 4]


def _model_light(model: mujoco.MjModel) -> np.ndarray:  # [4]
    active = np.flatnonzero(model.light_active)
    if not active.size:
        return np.array([*DEFAULT_LIGHT, 0.0])
    light = active[0]
    directional = model.light_type[light] == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    if directional or model.light_bodyid[light] != 0:  # a light that a robot carries would need its pose
        return np.array([*-model.light_dir0[light], 0.0])
    return np.array([*model.light_pos[light], 1.0])


def shade(
    layout: Layout, geoms: Geoms, look: Appearance, origin: Array, ray: Vec, pixel: Array, shadows: bool, floor: Floor
) -> tuple[Array, Array, Array]:
    """What rays of unit direction `ray` [N] from `origin` [3] see; `pixel` [] is the angle between neighbours in rad.

    Returns colour [N, 3], distance [N] and geometry [N]; infinity and -1 for the sky.
    """
    eye = tuple(origin[i].reshape(1, 1) for i in range(3))
    distance, geom = jax.lax.optimization_barrier(nearest(layout, geoms, eye, tuple(d[None] for d in ray)))
    sky = _sky(look, ray)
    if not layout.batches and not layout.hfields:
        return jnp.stack(sky, axis=-1), distance, geom

    hit = geom >= 0
    t, index = jnp.where(hit, distance, 0.0), jnp.maximum(geom, 0)
    surface = _surface(geoms, look, index)
    point = advance(tuple(origin), ray, t)
    relative = tuple(p - q for p, q in zip(point, surface.pos, strict=True))
    local = to_local(relative, surface.axes)
    normal = to_world(local_normal(layout, geoms, index, surface.size, local), surface.axes)
    facing = -dot(normal, ray)  # cosine towards the camera

    rgb = surface.rgb
    if floor != "plain":
        rgb = _pattern(layout, look, surface, local, to_local(ray, surface.axes), index, pixel * t, facing, floor)

    to_light, far = _light(look, point)
    cosine = jnp.maximum(dot(normal, to_light), 0.0)
    if shadows:
        margin = 2e-5 * (1 + t)  # beyond the rounding of `point`
        start = tuple((p + margin * n)[None] for p, n in zip(point, normal, strict=True))
        dark = jax.lax.optimization_barrier(occluded(layout, geoms, start, tuple(x[None] for x in to_light), far))
        cosine = jnp.where(dark, 0.0, cosine)
    brightness = look.ambient * (0.8 + 0.2 * normal[2]) + look.fill * jnp.maximum(facing, 0.0) + look.diffuse * cosine
    halfway = normalise(tuple(x - d for x, d in zip(to_light, ray, strict=True)))
    gloss = jnp.maximum(dot(normal, halfway), 0.0) ** (1 + 127 * surface.shininess)
    highlight = jnp.where(cosine > 0, surface.specular * gloss, 0.0)

    haze = 1 - jnp.exp(-((t / look.fog) ** 2))
    lit = tuple((1 - haze) * (c * brightness + highlight) + haze * look.horizon[i] for i, c in enumerate(rgb))
    colour = [jnp.where(hit, a, b) for a, b in zip(lit, sky, strict=True)]
    return jnp.stack(jax.lax.optimization_barrier(colour), axis=-1), distance, geom


class _Surface(NamedTuple):
    """What is known of the geometry that each ray hits, all [N]."""

    pos: Vec
    axes: tuple[Vec, Vec, Vec]
    size: Vec
    rgb: Vec
    accent: Vec
    specular: Array
    shininess: Array


def _surface(geoms: Geoms, look: Appearance, index: Array) -> _Surface:
    """Looks everything up at once: gathering whole rows costs little."""
    parts = (geoms.xpos, geoms.xmat.reshape(-1, 9), geoms.size, look.geom_rgb, look.geom_accent)
    table = jnp.concatenate([*parts, look.geom_specular[:, None], look.geom_shininess[:, None]], axis=1)  # [ngeom, 23]
    row = jax.lax.optimization_barrier(jax.lax.optimization_barrier(table)[index])
    column = [row[:, i] for i in range(23)]
    vector = [tuple(column[i : i + 3]) for i in (0, 12, 15, 18)]
    return _Surface(vector[0], columns(row[:, 3:12].reshape(-1, 3, 3)), *vector[1:], column[21], column[22])


def _light(look: Appearance, point: Vec) -> tuple[Vec, Array]:
    """Unit vector towards the light and its distance, [N]."""
    positional = look.light[3]
    towards = tuple(look.light[i] - positional * point[i] for i in range(3))
    distance = jnp.sqrt(dot(towards, towards))
    return normalise(towards), jnp.where(positional > 0, distance, jnp.inf)


def _sky(look: Appearance, ray: Vec) -> Vec:
    """A gradient from horizon to zenith; below the horizon everything is haze."""
    height = jnp.sqrt(jnp.clip(ray[2], 0.0, 1.0))
    red, green, blue = (look.horizon[i] + height * (look.zenith[i] - look.horizon[i]) for i in range(3))
    return red, green, blue


def _pattern(
    layout: Layout,
    look: Appearance,
    surface: _Surface,
    local: Vec,
    ray: Vec,
    index: Array,
    width: Array,
    facing: Array,
    floor: Floor,
) -> Vec:
    """Colours with the floor pattern, averaged over the footprint of the pixel so that it fades instead of flickering.

    `local`, `ray`: point and ray in the frame of the geometry; `width`: of the pixel across the ray, in m.
    """
    kinds = [g for kind, batch in layout.batches if kind in FLOORS for g in batch] + [g for g, *_ in layout.hfields]
    patterned = np.zeros(layout.ngeom, bool)
    patterned[kinds] = True
    if not kinds:
        return surface.rgb
    stretch = 1 / jnp.maximum(facing, 0.02)  # a footprint is longer along the ray, where that grazes
    length = jnp.sqrt(jnp.maximum(ray[0] ** 2 + ray[1] ** 2, 1e-12))
    wave = []
    for x, d in ((local[0], ray[0]), (local[1], ray[1])):
        footprint = jnp.maximum(width * (1 + jnp.abs(d) / length * (stretch - 1)), 1e-4) / look.square
        wave.append((x / look.square, footprint))
    if floor == "checker":
        share = 0.5 + 0.5 * _mean(_square_wave_integral, *wave[0]) * _mean(_square_wave_integral, *wave[1])
    else:
        share = 1 - (1 - _mean(_line_integral, *wave[0])) * (1 - _mean(_line_integral, *wave[1]))
    share = jnp.where(jnp.asarray(patterned)[index], share, 0.0)
    red, green, blue = (a + share * (b - a) for a, b in zip(surface.rgb, surface.accent, strict=True))
    return red, green, blue


def _mean(integral, x: Array, width: Array) -> Array:
    """Mean over an interval of this width around x, from an antiderivative."""
    return (integral(x + width / 2) - integral(x - width / 2)) / width


def _square_wave_integral(x: Array) -> Array:
    """Antiderivative of the wave that is -1 on [0, 1), 1 on [1, 2) and so on."""
    return jnp.abs(x - 2 * jnp.floor(x / 2) - 1)


def _line_integral(x: Array) -> Array:
    """Antiderivative of the wave that is 1 on a line at every whole number and 0 between."""
    x = x + GRID_LINE / 2
    whole = jnp.floor(x)
    return whole * GRID_LINE + jnp.minimum(x - whole, GRID_LINE)
