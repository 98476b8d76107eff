"""A quadruped gets up from any pose and stands. Control at 50 Hz through joint position servos. Axes: J joints (12).

Success: it stands for the last two seconds of the episode, however it got there.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.envs.base import EnvSpec, restart, transition
from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.envs.quadruped.robot import SOFT_LIMIT, joint_limits
from mjx_policies.envs.quadruped.scenes import ACTUATORS
from mjx_policies.envs.quadruped.sensing import trunk_motion
from mjx_policies.rotations import uniform_quaternion
from mjx_policies.spec import Criterion, Term
from mjx_policies.types import Array, Observation, TimeStep, actuator_targets, assemble

CONTROL_DT = 0.02
STANDING_HEIGHT = 0.32  # m, of the imu above the ground
LEAST_HEIGHT = 0.8  # of that, for a robot to count as standing
DROP_HEIGHT = 0.62  # m, of the trunk: a foot can be at most 0.615 m away from its middle
ACTION_SCALE = 0.6  # rad: rolling over takes larger moves than walking

OBSERVATION = (
    Term("gyro", 3, unit="rad/s", frame="imu", kind="pseudovector", scale=0.25, noise=0.2, bias=0.02),
    Term("gravity", 3, unit="1", frame="imu", kind="vector", noise=0.05, bias=0.01),
    Term("joint_position", 12, unit="rad", frame="relative to the default pose", kind="joints", noise=0.01, bias=0.02),
    Term("joint_velocity", 12, unit="rad/s", kind="joints", scale=0.05, noise=1.0),
    Term("last_action", 12, unit="1", kind="joints", measured=False),
)
PRIVILEGED = (
    Term("linear_velocity", 3, unit="m/s", frame="imu", kind="vector"),
    Term("height", 1, unit="m", frame="above the ground"),
)
METRICS = ("standing", "upright")
CRITERIA = (Criterion(f"upright at {LEAST_HEIGHT:g} of the nominal height or more", "standing", 1.0, seconds=2.0),)


@struct.dataclass
class GetupWeights:
    """Reward per second for one unit of each term of `reward_terms`."""

    upright: float = 1.0
    height: float = 1.0
    posture: float = 1.0
    still: float = 0.5
    action_rate: float = -0.01
    torque: float = -1e-5
    joint_limit: float = -0.2


@struct.dataclass
class GetupState:
    """Physics, the model fields replaced in this episode, and the action before this one [J]."""

    data: Data
    dynamics: Dynamics
    last_action: Array


@struct.dataclass
class Go2Getup:
    """The task of getting up. Build it with `envs.load`."""

    weights: GetupWeights
    physics: Physics = struct.field(pytree_node=False)
    spec: EnvSpec = struct.field(pytree_node=False)

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[GetupState, TimeStep]:
        """Drops the robot from `DROP_HEIGHT` in any orientation, its joints anywhere within their soft limits."""
        key_quat, key_joints, key_velocity = jax.random.split(key, 3)
        lower, upper = joint_limits(self.physics.model, SOFT_LIMIT)
        quat = uniform_quaternion(jax.random.normal(key_quat, (4,)))
        joints = jax.random.uniform(key_joints, lower.shape, minval=lower, maxval=upper)
        velocity = 0.5 * jax.random.normal(key_velocity, (self.physics.model.nv,))
        qpos = jnp.concatenate([jnp.asarray([0.0, 0.0, DROP_HEIGHT]), quat, joints])
        state = GetupState(self.physics.init(qpos, velocity, dynamics), dynamics, jnp.zeros(len(ACTUATORS)))
        now = self._measure(state.data)
        return state, restart(self._observe(state, now), dict.fromkeys(METRICS, jnp.zeros(())))

    def step(self, state: GetupState, action: Array, applied: Array | None = None):
        """See `Env.step`."""
        rows = jnp.broadcast_to(action, (self.physics.substeps, len(ACTUATORS))) if applied is None else applied
        data = self.physics.step(state.data, actuator_targets(self.spec.action, rows), state.dynamics)
        now = self._measure(data)
        terms = reward_terms(self, state, now, data, action)
        reward = sum(getattr(self.weights, name) * term for name, term in terms.items()) * CONTROL_DT
        standing = (terms["upright"] > 0.95) & (now["height"] > LEAST_HEIGHT * STANDING_HEIGHT)
        known = terms | {"standing": jnp.where(standing, 1.0, 0.0)}
        metrics = {name: known[name] for name in METRICS}
        state = dataclasses.replace(state, data=data, last_action=action)
        return state, transition(self._observe(state, now), reward, jnp.zeros((), bool), metrics)

    def hold(self, state: GetupState) -> Array:
        """See `Env.hold`: the pose that it has, for it falls from anywhere with its joints anywhere."""
        table = self.spec.action
        return (state.data.qpos[7:] - jnp.asarray(table.default)) / jnp.asarray(table.scale)

    def data(self, state: GetupState) -> Data:
        """See `Env.data`."""
        return state.data

    def replace_data(self, state: GetupState, data: Data) -> GetupState:
        """See `Env.replace_data`."""
        return dataclasses.replace(state, data=data)

    def _measure(self, data: Data) -> dict[str, Array]:
        trunk = trunk_motion(self.physics.model, data)
        return {
            "gyro": trunk.gyro,
            "gravity": trunk.gravity,
            "velocity": trunk.velocity,
            "height": trunk.position[2],
        }

    def _observe(self, state: GetupState, now: dict[str, Array]) -> Observation:
        sensed = {
            "gyro": now["gyro"],
            "gravity": now["gravity"],
            "joint_position": state.data.qpos[7:] - jnp.asarray(self.spec.action.default),
            "joint_velocity": state.data.qvel[6:],
            "last_action": state.last_action,
        }
        privileged = {"linear_velocity": now["velocity"], "height": now["height"][None]}
        return {"state": assemble(OBSERVATION, sensed), "privileged": assemble(PRIVILEGED, privileged)}


def reward_terms(task: Go2Getup, state: GetupState, now: dict[str, Array], data: Data, action: Array):
    """The terms of the reward; `GetupWeights` holds their weights. Posture and stillness count once upright."""
    joints = data.qpos[7:]
    lower, upper = joint_limits(task.physics.model, SOFT_LIMIT)
    from_home = joints - jnp.asarray(task.physics.model.key("home").qpos[7:], jnp.float32)
    upright = 0.5 * (1 - now["gravity"][2])
    gate = jnp.where(upright > 0.9, 1.0, 0.0)
    return {
        "upright": jnp.square(upright),
        "height": gate * jnp.clip(now["height"] / STANDING_HEIGHT, 0.0, 1.0),
        "posture": gate * jnp.exp(-0.5 * jnp.sum(jnp.square(from_home))),
        "still": gate * jnp.exp(-0.1 * jnp.sum(jnp.square(data.qvel[6:]))),
        "action_rate": jnp.sum(jnp.square(action - state.last_action)),
        "torque": jnp.sum(jnp.square(data.actuator_force)),
        "joint_limit": jnp.sum(jnp.maximum(joints - upper, 0) + jnp.maximum(lower - joints, 0)),
    }
