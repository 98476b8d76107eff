"""Scenes of the Go2: flat ground, and a height field whose tiles grow harder along x.

Axes: L difficulty levels, K kinds of tile, R rows of the height grid (along y), C columns (along x). Lengths in m,
world frame: x forward, y left, z up, the origin at the centre of the ground.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from scipy import ndimage

from mjx_policies.envs.sensors import add_contact_sensor

GO2_XML = pathlib.Path(__file__).parents[1] / "models" / "go2.xml"
LEGS = ("FL", "FR", "RL", "RR")
ACTUATORS = tuple(f"{leg}_{part}" for leg in LEGS for part in ("hip", "thigh", "calf"))
JOINTS = tuple(f"{name}_joint" for name in ACTUATORS)
TRUNK_GEOMS = ("trunk_box", "head")
"""Geometries of the trunk's body that collide: any of them on the floor is a fall."""

SENSORS: dict[str, int] = {
    **{f"{leg}_foot_{quantity}": 3 for quantity in ("pos", "linvel") for leg in LEGS},
    **{f"{leg}_foot_contact": 4 for leg in LEGS},  # number of contacts, force (normal, two tangents) of the deepest
    **{f"{geom}_contact": 1 for geom in TRUNK_GEOMS},  # number of contacts
}
"""Sensors that Go2 tasks read, and their sizes. The trunk is not among them, see `sensing`."""

KINDS = ("bumps", "slope_down", "slope_up", "stairs_down", "stairs_up")
"""Kinds of tile. From the middle outwards a `slope_down` descends (a pyramid) and a `slope_up` rises (a pit)."""

BUMP = 0.08  # m, highest bump of the hardest level: above a quarter of the 0.29 m leg
BUMP_WIDTH = 0.2  # m, standard deviation of the smoothing that makes bumps out of noise
SLOPE = 0.4  # rise over run of the hardest level, 22 degrees
STEP = 0.15  # m, step of the hardest level: an indoor stair has 0.15 to 0.19
TREAD = 0.3  # m, depth of a step
PLATFORM = 1.0  # m, half the side of the flat square where a robot starts
RIM = 0.25  # m, flat edge of each tile, at height zero so that all tiles join
MARGIN = 2.0  # m, flat ground around the tiles


@struct.dataclass
class Terrain:
    """A height grid and where robots start on it.

    Attributes:
      heights: [R, C], z of the grid points.
      origins: [L, K, 3], a start on each tile: the middle, at the highest ground within `PLATFORM` / 2 of it.
      resolution: distance between grid points.
      tile_size: side of a tile.
    """

    heights: jax.Array | np.ndarray
    origins: jax.Array | np.ndarray
    resolution: float = struct.field(pytree_node=False)
    tile_size: float = struct.field(pytree_node=False)

    @property
    def num_levels(self) -> int:
        """L; level 0 is flat, level L - 1 is the hardest."""
        return self.origins.shape[0]

    @property
    def half_size(self) -> tuple[float, float]:
        """Half the length of the ground along x and y."""
        rows, cols = self.heights.shape
        return (cols - 1) * self.resolution / 2, (rows - 1) * self.resolution / 2

    def inside(self, xy: Any) -> jax.Array:  # [..., 2] -> [...] bool
        """Whether a point lies on one of the tiles, which end `MARGIN` before the ground does."""
        limit = jnp.array(self.half_size) - MARGIN
        return jnp.all(jnp.abs(jnp.asarray(xy)) <= limit, axis=-1)

    def height(self, xy: Any) -> jax.Array:  # [..., 2] -> [...]
        """z of the surface that MuJoCo collides with; beyond the edge, that of the nearest edge.

        MuJoCo splits each cell from its lowest to its highest (x, y) corner into two triangles.
        """
        heights = jnp.asarray(self.heights)
        rows, cols = heights.shape
        last = jnp.array([cols - 1, rows - 1], jnp.float32)
        cell = jnp.clip((jnp.asarray(xy) + jnp.array(self.half_size)) / self.resolution, 0.0, last)
        corner = jnp.minimum(jnp.floor(cell), last - 1)
        u, v = jnp.moveaxis(cell - corner, -1, 0)
        c, r = jnp.moveaxis(corner.astype(int), -1, 0)
        h00, h11 = heights[r, c], heights[r + 1, c + 1]
        above = h00 + v * (heights[r + 1, c] - h00) + u * (h11 - heights[r + 1, c])
        below = h00 + u * (heights[r, c + 1] - h00) + v * (h11 - heights[r, c + 1])
        return jnp.where(v > u, above, below)


def make_terrain(num_levels: int = 6, tile_size: float = 8.0, resolution: float = 0.05, seed: int = 0) -> Terrain:
    """Lays `num_levels` tiles along x and one tile of each of `KINDS` along y.

    Difficulty is level / (num_levels - 1): every height of level l is that fraction of the hardest level's.

    Raises:
      ValueError: fewer than two levels, a tile without room for its platform, or a resolution that does not divide it.
    """
    cells = round(tile_size / resolution)
    if num_levels < 2:
        raise ValueError(f"num_levels is {num_levels}: a terrain needs at least 2 levels, of which level 0 is flat")
    if tile_size < 2 * (PLATFORM + TREAD + RIM):
        raise ValueError(f"tile_size is {tile_size}: a tile needs at least {2 * (PLATFORM + TREAD + RIM):g} m")
    if not np.isclose(cells * resolution, tile_size):
        raise ValueError(f"tile_size {tile_size} is not a multiple of the resolution {resolution}")
    margin = round(MARGIN / resolution)
    heights = np.zeros((len(KINDS) * cells + 2 * margin + 1, num_levels * cells + 2 * margin + 1))
    origins = np.zeros((num_levels, len(KINDS), 3))
    middle = np.array([num_levels, len(KINDS)]) * tile_size / 2
    start = slice((cells - round(PLATFORM / resolution)) // 2, (cells + round(PLATFORM / resolution)) // 2 + 1)
    rng = np.random.default_rng(seed)
    for k, kind in enumerate(KINDS):
        hardest = _tile(kind, cells, resolution, rng)
        for level in range(num_levels):
            tile = np.rot90(hardest, level) * level / (num_levels - 1)  # turned, or the levels would be alike
            row, col = margin + k * cells, margin + level * cells
            heights[row : row + cells + 1, col : col + cells + 1] = tile
            xy = (np.array([level, k]) + 0.5) * tile_size - middle
            origins[level, k] = *xy, tile[start, start].max() + 0.0  # no negative zero
    return Terrain(heights.astype(np.float32), origins.astype(np.float32), resolution, tile_size)


def _tile(kind: str, cells: int, resolution: float, rng: np.random.Generator) -> np.ndarray:
    """The hardest tile of a kind, [cells + 1, cells + 1], zero along its edge."""
    axis = np.abs(np.arange(cells + 1) - cells / 2) * resolution
    radius = np.maximum(*np.meshgrid(axis, axis))  # of squares around the middle
    edge = cells * resolution / 2
    outside = np.clip(edge - RIM - radius, 0.0, edge - RIM - PLATFORM)  # distance from the rim, as far as the platform
    if kind == "bumps":
        noise = ndimage.gaussian_filter(rng.normal(size=radius.shape), BUMP_WIDTH / resolution)
        bumps = noise * np.clip((edge - radius) / RIM - 1, 0.0, 1.0)  # fades out over one rim's width
        return BUMP * bumps / np.abs(bumps).max()
    sign = 1.0 if kind.endswith("down") else -1.0
    if kind.startswith("slope"):
        return sign * SLOPE * outside
    return sign * STEP * np.floor(outside / TREAD + 1e-6)


def flat(lean: bool = False) -> mujoco.MjModel:
    """The Go2 on an endless plane.

    Args:
      lean: leave out what a task does not read, decoration and the sensors that are not in `SENSORS`: the robot moves
        the same, about a seventh faster.
    """
    spec = _robot(lean)
    spec.worldbody.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[0, 0, 0.05],
        material="ground",
        contype=0,
        conaffinity=1,
    )
    return _compile(spec)


def rough(terrain: Terrain | None = None, lean: bool = False) -> mujoco.MjModel:
    """The Go2 on a height field, `make_terrain()` unless another is given; `lean` as in `flat`.

    MJX tests each geom against every height field cell under its bounding sphere, so large geoms are replaced here:
    `trunk_box` by the capsule that fits in it, the thighs by a sphere at the knee. On a CPU this
    makes a step about three times as fast. The home keyframe stands between tiles; begin at `Terrain.origins`.
    """
    terrain = make_terrain() if terrain is None else terrain
    heights = np.asarray(terrain.heights)
    low, high = float(heights.min()), float(heights.max())
    spec = _robot(lean)
    trunk = spec.geom("trunk_box")
    half_length, _, radius = trunk.size
    trunk.type = mujoco.mjtGeom.mjGEOM_CAPSULE
    trunk.size = [radius, half_length - radius, 0]
    trunk.quat = [np.sqrt(0.5), 0, np.sqrt(0.5), 0]
    for leg in LEGS:
        thigh = spec.geom(f"{leg}_thigh")
        thigh.type = mujoco.mjtGeom.mjGEOM_SPHERE
        thigh.pos = thigh.fromto[3:]
        thigh.fromto = np.full(6, np.nan)
        thigh.size = [0.02, 0, 0]
    spec.add_hfield(
        name="terrain",
        nrow=heights.shape[0],
        ncol=heights.shape[1],
        size=[*terrain.half_size, high - low, 0.5],
        userdata=heights.ravel(),  # the compiler scales it to [0, 1]
    )
    spec.worldbody.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_HFIELD,
        hfieldname="terrain",
        pos=[0, 0, low],
        material="ground",
        contype=0,
        conaffinity=1,
    )
    return _compile(spec)


def _robot(lean: bool = False) -> mujoco.MjSpec:
    """The robot with light, camera and floor material, and contact sensors for a geom `floor` still to be added."""
    spec = mujoco.MjSpec.from_file(str(GO2_XML))
    spec.stat.extent, spec.stat.center = 1.5, [0, 0, 0.3]
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.headlight.diffuse = [0.4, 0.4, 0.4]
    spec.add_texture(
        name="ground",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        mark=mujoco.mjtMark.mjMARK_EDGE,
        rgb1=[1.0, 1.0, 1.0],
        rgb2=[0.85, 0.85, 0.85],
        markrgb=[0.95, 0.95, 0.95],
        width=128,
        height=128,
    )
    ground = spec.add_material(name="ground", texuniform=True, texrepeat=[2, 2], rgba=[0.52, 0.55, 0.58, 1])
    ground.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "ground"
    trunk = spec.body("trunk")
    trunk.add_light(
        name="sun",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM,  # goes along, or the shadow would be left behind
        pos=[-0.9, -1.2, 3],
        dir=[0.3, 0.4, -1],
        diffuse=[0.6, 0.6, 0.6],
    )
    camera = trunk.add_camera(name="track", mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM, pos=[0.9, -1.2, 0.5])
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = [0.8, 0.6, 0.0, -0.198, 0.264, 0.944]  # back at the robot from its front right, from above
    for leg in LEGS:
        add_contact_sensor(spec, f"{leg}_foot_contact", f"{leg}_foot", "floor", force=True)
    for geom in TRUNK_GEOMS:
        add_contact_sensor(spec, f"{geom}_contact", geom, "floor")
    for part in ("thigh", "calf"):
        for leg in LEGS:
            add_contact_sensor(spec, f"{leg}_{part}_contact", f"{leg}_{part}", "floor")
    if lean:
        spec.compiler.discardvisual = True
        for sensor in list(spec.sensors):
            if sensor.name not in SENSORS:
                spec.delete(sensor)
    return spec


def _compile(spec: mujoco.MjSpec) -> mujoco.MjModel:
    model = spec.compile()
    check_model(model)
    return model


def check_model(model: mujoco.MjModel) -> None:
    """Raises ValueError unless the model has what a Go2 task reads and drives, under these names and in this order.

    Checked are `JOINTS` behind one free joint, `ACTUATORS` (the i-th drives the i-th joint), `SENSORS` with their
    sizes, and the keyframe `home`.
    """
    joints = [model.joint(i).name for i in range(model.njnt)]
    actuators = [model.actuator(i).name for i in range(model.nu)]
    sensors = {model.sensor(i).name: int(model.sensor_dim[i]) for i in range(model.nsensor)}
    keyframes = [model.key(i).name for i in range(model.nkey)]
    for kind, needed, present in (
        ("joint", JOINTS, joints),
        ("actuator", ACTUATORS, actuators),
        ("sensor", SENSORS, sensors),
        ("keyframe", ("home",), keyframes),
    ):
        for name in needed:
            if name not in present:
                have = ", ".join(present) or "none"
                raise ValueError(f"the model lacks {kind} {name!r}, which Go2 tasks use; it has: {have}")
    if not joints or model.jnt_type[0] != mujoco.mjtJoint.mjJNT_FREE:
        raise ValueError(
            f"the model's first joint is {joints[0]!r}, Go2 tasks expect the free joint of the trunk there"
        )
    if tuple(joints[1:]) != JOINTS:
        raise ValueError(f"the model's joints are {joints[1:]}, Go2 tasks expect them in the order {list(JOINTS)}")
    if tuple(actuators) != ACTUATORS:
        raise ValueError(f"the model's actuators are {actuators}, Go2 tasks expect the order {list(ACTUATORS)}")
    for i, name in enumerate(ACTUATORS):
        on_joint = model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_JOINT
        joint = model.joint(model.actuator_trnid[i, 0]).name if on_joint else "no joint"
        if joint != JOINTS[i]:
            raise ValueError(f"actuator {name!r} drives {joint!r}, Go2 tasks expect {JOINTS[i]!r}")
    for name, size in SENSORS.items():
        if sensors[name] != size:
            raise ValueError(f"sensor {name!r} has {sensors[name]} values, Go2 tasks read {size}")
