"""Pushes: sudden changes of the velocity of a floating base."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from mjx_policies.draws import draw_uniform
from mjx_policies.envs.base import Env, EnvSpec, EnvState
from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.types import Array, TimeStep


@struct.dataclass
class PushesState:
    """An episode with a push to come.

    Attributes:
      inner: state of the environment inside.
      wait: [] s, until the next push.
      key: random key of the pushes to come.
    """

    inner: EnvState
    wait: Array
    key: Array


@struct.dataclass
class Pushes:
    """Adds a horizontal velocity in a random direction to the free joint, at random intervals.

    Attributes:
      env: the environment inside; its model has a free joint, the first of which is pushed.
      low, high: s, range of the time to the next push, drawn at the start and after every push.
      velocity: m/s, largest speed added; each push draws a portion of it.
      yaw_rate: rad/s, largest turn added about the base's own z axis, either way.
    """

    env: Env
    low: Array | float
    high: Array | float
    velocity: Array | float
    yaw_rate: Array | float = 0.0

    def __post_init__(self) -> None:
        numbers = (self.low, self.high, self.velocity, self.yaw_rate)
        if not all(isinstance(x, (int, float, np.generic)) for x in numbers):
            return  # traced or batched
        if not 0 < self.low <= self.high:
            raise ValueError(f"Pushes: the interval {self.low} to {self.high} s must rise from above zero")
        if self.velocity < 0 or self.yaw_rate < 0:
            raise ValueError(f"Pushes: velocity {self.velocity} and yaw_rate {self.yaw_rate} must not be negative")

    @property
    def spec(self) -> EnvSpec:
        """See `Env.spec`."""
        return self.env.spec

    @property
    def physics(self) -> Physics:
        """See `Env.physics`."""
        return self.env.physics

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[PushesState, TimeStep]:
        """See `Env.reset`."""
        draw_wait, key_env, key_next = draw_uniform(key, 1, num_keys=2)
        _free_joint(self.physics.model)
        inner, timestep = self.env.reset(key_env, dynamics)
        return PushesState(inner, self._interval(draw_wait[0]), key_next), timestep

    def step(self, state: PushesState, action: Array, applied: Array | None = None) -> tuple[PushesState, TimeStep]:
        """See `Env.step`. A push comes before the physics of the period in which it is due."""
        (draw_interval, draw_direction, draw_speed, draw_yaw), key_next = draw_uniform(state.key, 4)
        due = state.wait <= 0.5 * self.spec.control_dt  # half a period forgives the rounding of many subtractions
        direction = 2 * jnp.pi * draw_direction
        planar = self.velocity * draw_speed * jnp.stack([jnp.cos(direction), jnp.sin(direction)])
        yaw = self.yaw_rate * (2 * draw_yaw - 1)

        data = self.env.data(state.inner)
        start = _free_joint(self.physics.model)
        kick = jnp.zeros_like(data.qvel).at[start : start + 2].set(planar).at[start + 5].set(yaw)
        data = data.replace(qvel=jnp.where(due, data.qvel + kick, data.qvel))
        inner, timestep = self.env.step(self.env.replace_data(state.inner, data), action, applied)
        wait = jnp.where(due, self._interval(draw_interval), state.wait) - self.spec.control_dt
        return PushesState(inner, wait, key_next), timestep

    def hold(self, state: PushesState) -> Array:
        """See `Env.hold`."""
        return self.env.hold(state.inner)

    def data(self, state: PushesState) -> Data:
        """See `Env.data`."""
        return self.env.data(state.inner)

    def replace_data(self, state: PushesState, data: Data) -> PushesState:
        """See `Env.replace_data`."""
        return dataclasses.replace(state, inner=self.env.replace_data(state.inner, data))

    def _interval(self, u: Array) -> Array:  # [] -> []
        return jnp.asarray(self.low + (jnp.asarray(self.high) - self.low) * u, jnp.float32)


def _free_joint(model: mujoco.MjModel) -> int:
    """The place of the velocity of the first free joint: three linear in the world, three angular in the body."""
    joints = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
    if joints.size == 0:
        raise ValueError("Pushes: the model has no free joint, so there is no floating base to push")
    return int(model.jnt_dofadr[joints[0]])
