"""The Go2 as tasks see it: joint order, action table, contacts and starting poses.

One joint order everywhere: legs FL, FR, RL, RR, each hip, thigh, calf.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from mjx_policies.draws import draw_uniform
from mjx_policies.envs.quadruped.scenes import ACTUATORS, LEGS, TRUNK_GEOMS, Terrain
from mjx_policies.envs.sensors import read_sensor
from mjx_policies.rotations import from_yaw
from mjx_policies.spec import ActionTable
from mjx_policies.types import Array

SOFT_LIMIT = 0.9  # of each joint's range: targets stay within it, in training as on the robot
VELOCITY = (30.1, 30.1, 15.7)  # rad/s, of hip, thigh and calf in the URDF of unitreerobotics/unitree_ros


def action_table(model: mujoco.MjModel, scale: float) -> ActionTable:
    """Joint position targets, `scale` rad for one unit, limited to `SOFT_LIMIT` of the joint ranges.

    A zero action holds the `home` pose: its targets lie below the joints by what the weight takes, torque / stiffness.
    """
    home = model.key("home").ctrl
    ids = [model.actuator(name).id for name in ACTUATORS]
    lower, upper = joint_limits(model, SOFT_LIMIT)
    return ActionTable(
        names=ACTUATORS,
        default=tuple(home.tolist()),
        scale=(scale,) * len(ACTUATORS),
        lower=tuple(lower.tolist()),
        upper=tuple(upper.tolist()),
        stiffness=tuple(model.actuator_gainprm[ids, 0].tolist()),
        damping=tuple((-model.actuator_biasprm[ids, 2]).tolist()),
        velocity=VELOCITY * len(LEGS),
    )


def joint_limits(model: mujoco.MjModel, soft: float) -> tuple[np.ndarray, np.ndarray]:  # [J], [J]
    """Joint ranges (rad) shrunk about their middle by the factor `soft`."""
    lower, upper = model.jnt_range[1:].T
    middle, half = (lower + upper) / 2, (upper - lower) / 2
    return (middle - soft * half).astype(np.float32), (middle + soft * half).astype(np.float32)


def foot_contacts(model: mujoco.MjModel, sensordata: Array) -> Array:  # -> [F] bool
    """Whether each foot touches the ground."""
    return jnp.stack([read_sensor(model, sensordata, f"{leg}_foot_contact")[0] > 0 for leg in LEGS])


def trunk_contact(model: mujoco.MjModel, sensordata: Array) -> Array:  # -> [] bool
    """Whether any geometry of the trunk's body touches the ground."""
    return jnp.stack([read_sensor(model, sensordata, f"{geom}_contact")[0] > 0 for geom in TRUNK_GEOMS]).any()


def spawn(key: Array, model: mujoco.MjModel, terrain: Terrain | None, difficulty: Array) -> tuple[Array, Array]:
    """A start [nq], [nv] near the `home` pose: any heading, joints and velocities slightly off."""
    # One draw for all, because each one more takes a tenth of a second to compile.
    uniform, key_place = draw_uniform(key, 13 + model.nv)
    yaw, *offsets = jnp.split(2 * uniform - 1, [1, 13])
    home = jnp.asarray(model.key("home").qpos, jnp.float32)
    place = jnp.zeros(3) if terrain is None else _origin(key_place, terrain, difficulty)
    joints, velocity = home[7:] + 0.1 * offsets[0], 0.2 * offsets[1]
    quat = from_yaw(jnp.pi * yaw[0])
    return jnp.concatenate([home[:3] + place + jnp.asarray([0.0, 0.0, 0.01]), quat, joints]), velocity


def _origin(key: Array, terrain: Terrain, difficulty: Array) -> Array:  # -> [3]
    """The middle of a tile of any kind, no harder than `difficulty`."""
    key_level, key_kind = jax.random.split(key)
    origins = jnp.asarray(terrain.origins)
    hardest = jnp.round(difficulty * (terrain.num_levels - 1)).astype(jnp.int32)
    level = jax.random.randint(key_level, (), 0, hardest + 1)
    return origins[level, jax.random.randint(key_kind, (), 0, origins.shape[1])]
