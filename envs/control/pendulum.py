"""Pendulum swing-up. The angle is zero upright; control at 50 Hz; the motor is too weak to lift the rod directly.

Success: the rod stands upright, within `UPRIGHT`, for the last second of the episode.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.envs.base import EnvSpec, restart, transition
from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.spec import ActionTable, Criterion, Term
from mjx_policies.types import Array, Observation, TimeStep, actuator_targets, assemble

CONTROL_DT = 0.02
ACTION = ActionTable(names=("hinge",), default=(0.0,), scale=(2.0,), lower=(-2.0,), upper=(2.0,))  # N m
OBSERVATION = (
    Term("angle_cos_sin", 2, unit="1", noise=0.01),
    Term("velocity", 1, unit="rad/s", scale=0.2, noise=0.1),
)
METRICS = ("upright",)
UPRIGHT = 0.2  # rad off the vertical, at most
SPEC = EnvSpec(
    observation=OBSERVATION,
    privileged=(),
    action=ACTION,
    control_dt=CONTROL_DT,
    episode_seconds=4.0,
    criteria=(
        Criterion(f"rod within {UPRIGHT:g} rad of upright", "upright", 0.5 * (1 + math.cos(UPRIGHT)), seconds=1.0),
    ),
    bounded_metrics=METRICS,
    max_speed=100.0,
)


@struct.dataclass
class PendulumWeights:
    """Reward per step for one unit of each term of `reward_terms`."""

    upright: float = 1.0  # per 1
    effort: float = -0.01  # per square of an action, whose unit is 2 N m


@struct.dataclass
class PendulumState:
    """Physics, and the model fields replaced in this episode."""

    data: Data
    dynamics: Dynamics


@struct.dataclass
class Pendulum:
    """The pendulum swing-up task. Build it with `envs.load`."""

    weights: PendulumWeights
    physics: Physics = struct.field(pytree_node=False)
    spec: EnvSpec = struct.field(pytree_node=False, default=SPEC)

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[PendulumState, TimeStep]:
        """Any angle, any speed up to 1 rad/s."""
        key_angle, key_velocity = jax.random.split(key)
        angle = jax.random.uniform(key_angle, (1,), minval=-jnp.pi, maxval=jnp.pi)
        velocity = jax.random.uniform(key_velocity, (1,), minval=-1.0, maxval=1.0)
        data = self.physics.init(angle, velocity, dynamics)
        return PendulumState(data, dynamics), restart(_observe(data), dict.fromkeys(METRICS, jnp.zeros(())))

    def step(self, state: PendulumState, action: Array, applied: Array | None = None):
        """See `Env.step`."""
        rows = jnp.broadcast_to(action, (self.physics.substeps, 1)) if applied is None else applied
        data = self.physics.step(state.data, actuator_targets(self.spec.action, rows), state.dynamics)
        terms = reward_terms(data, action)
        reward = sum(getattr(self.weights, name) * term for name, term in terms.items())
        metrics = {name: terms[name] for name in METRICS}
        timestep = transition(_observe(data), reward, jnp.zeros((), bool), metrics)
        return dataclasses.replace(state, data=data), timestep

    def hold(self, state: PendulumState) -> Array:
        """See `Env.hold`: no torque."""
        return jnp.zeros(1)

    def data(self, state: PendulumState) -> Data:
        """See `Env.data`."""
        return state.data

    def replace_data(self, state: PendulumState, data: Data) -> PendulumState:
        """See `Env.replace_data`."""
        return dataclasses.replace(state, data=data)


def reward_terms(data: Data, action: Array) -> dict[str, Array]:
    """The terms of the reward, each a scalar; `PendulumWeights` holds their weights."""
    return {
        "upright": 0.5 * (1 + jnp.cos(data.qpos[0])),  # from 0, hanging, to 1
        "effort": jnp.sum(jnp.square(action)),
    }


def _observe(data: Data) -> Observation:
    angle = data.qpos[0]
    values = {"angle_cos_sin": jnp.stack([jnp.cos(angle), jnp.sin(angle)]), "velocity": data.qvel}
    return {"state": assemble(OBSERVATION, values)}
