"""The colours that rays see: one light with a hard shadow, floor patterns, sky and fog.

Colours are display colours in 0..1, lit without gamma as in MuJoCo's own renderer. Axes: N rays, ngeom geometries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from mujoco import mjtGeom

from mjx_policies.envs.rendering.hfield import HeightField
from mjx_policies.envs.rendering.primitives import Vec, advance, dot, normalise, to_local
from mjx_policies.envs.rendering.scene import (
    Geoms,
    Layout,
    Surface,
    geom_rgba,
    height_fields,
    nearest,
    occluded,
    surface,
)
from mjx_policies.types import Array

Floor = Literal["checker", "grid", "plain"]
FLOORS = (mjtGeom.mjGEOM_PLANE, mjtGeom.mjGEOM_HFIELD)
GRID_LINE = 0.04  # width of a grid line over the side of a square
DEFAULT_LIGHT = (-0.35, -0.5, 1.0)  # towards the light of a model that has none


@struct.dataclass
class Appearance:
    """The appearance of the scene: leaves that visual randomisation may change and `vmap` may batch.

    Attributes:
      geom_size: [ngeom, 3], MuJoCo's.
      geom_rgb: [ngeom, 3].
      geom_accent: [ngeom, 3], the other colour of a patterned floor; unused by other geometries.
      geom_specular, geom_shininess: [ngeom], strength and concentration of the highlight, as in MuJoCo's materials.
      hfields: the model's height fields, see `hfield.height_field`.
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
    hfields: tuple[HeightField, ...]
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
        "square": 0.5,
        "light": _model_light(model),
        "ambient": 0.42,
        "diffuse": 0.62,
        "fill": 0.12,
        "horizon": (0.86, 0.91, 0.96),
        "zenith": (0.36, 0.58, 0.86),
        "fog": 40.0,
    }
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in leaves.items()}
    return Appearance(hfields=height_fields(model), **arrays)


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
    layout: Layout,
    geoms: Geoms,
    appearance: Appearance,
    origin: Array,
    ray: Vec,
    pixel: Array,
    shadows: bool,
    floor: Floor,
) -> tuple[Array, Array, Array]:
    """Colours seen by rays of unit direction `ray` [N] from `origin` [3]; `pixel` [] is the angle between two, rad.

    Returns colour [3, N], distance [N] and geometry [N]; infinity and -1 for the sky.
    """
    eye = (origin[0].reshape(1, 1), origin[1].reshape(1, 1), origin[2].reshape(1, 1))
    distance, geom = nearest(layout, geoms, eye, _row(ray))
    hit = geom >= 0
    t, index = jnp.where(hit, distance, 0.0), jnp.maximum(geom, 0)
    sky = _sky(appearance, ray[2])
    if not layout.batches and not layout.hfields:
        return sky, distance, geom

    point = advance((origin[0], origin[1], origin[2]), ray, t)
    at = surface(layout, geoms, index, point)
    towards_eye = -dot(at.normal, ray)  # cosine
    to_light, far = _light(appearance, point)
    cosine = jnp.maximum(dot(at.normal, to_light), 0.0)
    if shadows:
        start = advance(point, at.normal, 2e-5 * (1 + t))  # further than `point` is rounded
        cosine = jnp.where(occluded(layout, geoms, _row(start), _row(to_light), far), 0.0, cosine)

    albedo = _albedo(layout, appearance, at, index, ray, pixel * t, towards_eye, floor)
    everywhere = appearance.ambient * (0.8 + 0.2 * at.normal[2])  # a little less from below
    brightness = everywhere + appearance.fill * jnp.maximum(towards_eye, 0.0) + appearance.diffuse * cosine
    halfway = normalise((to_light[0] - ray[0], to_light[1] - ray[1], to_light[2] - ray[2]))
    gloss = jnp.maximum(dot(at.normal, halfway), 0.0) ** (1 + 127 * appearance.geom_shininess[index])  # Blinn 1977
    highlight = jnp.where(cosine > 0, appearance.geom_specular[index] * gloss, 0.0)
    haze = 1 - jnp.exp(-((t / appearance.fog) ** 2))
    lit = albedo * brightness[None] + highlight[None]
    lit = lit + haze[None] * (appearance.horizon[:, None] - lit)
    return jnp.where(hit[None], lit, sky), distance, geom


def _row(vector: Vec) -> Vec:  # [N] -> [1, N]
    return vector[0][None], vector[1][None], vector[2][None]


def _light(appearance: Appearance, point: Vec) -> tuple[Vec, Array]:
    """Unit vector towards the light and its distance, [N]."""
    positional = appearance.light[3]
    x, y, z = (appearance.light[i] - positional * point[i] for i in range(3))
    return normalise((x, y, z)), jnp.where(positional > 0, jnp.sqrt(dot((x, y, z), (x, y, z))), jnp.inf)


def _sky(appearance: Appearance, upward: Array) -> Array:  # [N] -> [3, N]
    """A gradient from horizon to zenith; below the horizon everything is haze."""
    height = jnp.sqrt(jnp.clip(upward, 0.0, 1.0))
    return appearance.horizon[:, None] + height[None] * (appearance.zenith - appearance.horizon)[:, None]


def _albedo(
    layout: Layout,
    appearance: Appearance,
    at: Surface,
    index: Array,
    ray: Vec,
    width: Array,
    towards_eye: Array,
    floor: Floor,
) -> Array:  # [3, N]
    """Colours of the geometries `index` [N], the floors with their pattern.

    The pattern is averaged over the footprint of the pixel, so that it fades in the distance instead of flickering.
    `width` [N]: of the pixel across the ray, in m.
    """
    rgb = appearance.geom_rgb[index].T
    floors = [g for kind, batch in layout.batches if kind in FLOORS for g in batch] + [g for g, _ in layout.hfields]
    if floor == "plain" or not floors:
        return rgb
    patterned = np.isin(np.arange(layout.ngeom), floors)
    x, y, _ = to_local(ray, at.axes)
    length = jnp.sqrt(jnp.maximum(x**2 + y**2, 1e-12))
    stretch = 1 / jnp.maximum(towards_eye, 0.02) - 1  # where the ray grazes, its footprint is longer along it
    wave = square_wave_integral if floor == "checker" else lines_integral
    mean_x, mean_y = (
        mean_over(
            wave, at.local[i] / appearance.square, width * (1 + jnp.abs(d) / length * stretch) / appearance.square
        )
        for i, d in enumerate((x, y))
    )
    share = 0.5 + 0.5 * mean_x * mean_y if floor == "checker" else 1 - (1 - mean_x) * (1 - mean_y)
    share = jnp.where(jnp.asarray(patterned)[index], share, 0.0)
    return rgb + share[None] * (appearance.geom_accent[index].T - rgb)


def mean_over(antiderivative: Callable[[Array], Array], x: Array, width: Array) -> Array:
    """Mean of a wave over an interval of this width around x."""
    width = jnp.maximum(width, 1e-3)
    return (antiderivative(x + width / 2) - antiderivative(x - width / 2)) / width


def square_wave_integral(x: Array) -> Array:
    """Antiderivative of the wave that is -1 on [0, 1), 1 on [1, 2) and so on."""
    return jnp.abs(x - 2 * jnp.floor(x / 2) - 1)


def lines_integral(x: Array) -> Array:
    """Antiderivative of the wave that is 1 on a line at every whole number and 0 between."""
    x = x + GRID_LINE / 2
    whole = jnp.floor(x)
    return whole * GRID_LINE + jnp.minimum(x - whole, GRID_LINE)
