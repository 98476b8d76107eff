"""Cart-pole swing-up. The pole hangs at first; zero angle is upright; control at 50 Hz through a force on the cart.

Success: the pole stands upright, within `UPRIGHT`, for the last two seconds of the episode.
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
ACTION = ActionTable(names=("slider",), default=(0.0,), scale=(10.0,), lower=(-10.0,), upper=(10.0,))  # N
OBSERVATION = (
    Term("position", 1, unit="m", frame="rail", noise=0.005),
    Term("angle_cos_sin", 2, unit="1", noise=0.01),
    Term("cart_velocity", 1, unit="m/s", frame="rail", noise=0.05),
    Term("pole_velocity", 1, unit="rad/s", scale=0.2, noise=0.1),
)
METRICS = ("upright",)
UPRIGHT = 0.2  # rad off the vertical, at most
SPEC = EnvSpec(
    observation=OBSERVATION,
    privileged=(),
    action=ACTION,
    control_dt=CONTROL_DT,
    episode_seconds=10.0,
    criteria=(
        Criterion(f"pole within {UPRIGHT:g} rad of upright", "upright", 0.5 * (1 + math.cos(UPRIGHT)), seconds=2.0),
    ),
    bounded_metrics=METRICS,
    max_speed=100.0,
)


@struct.dataclass
class CartpoleWeights:
    """Reward per step for one unit of each term of `reward_terms`."""

    upright: float = 1.0  # per 1
    off_centre: float = -0.1  # per m^2
    effort: float = -0.01  # per square of an action, whose unit is 10 N


@struct.dataclass
class CartpoleState:
    """Physics, and the model fields replaced in this episode."""

    data: Data
    dynamics: Dynamics


@struct.dataclass
class CartpoleSwingup:
    """The cart-pole swing-up task. Build it with `envs.load`."""

    weights: CartpoleWeights
    physics: Physics = struct.field(pytree_node=False)
    spec: EnvSpec = struct.field(pytree_node=False, default=SPEC)

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[CartpoleState, TimeStep]:
        """The pole hangs, the cart is near the middle, both almost at rest."""
        noise = 0.1 * jax.random.normal(key, (4,))
        data = self.physics.init(jnp.stack([noise[0], jnp.pi + noise[1]]), noise[2:], dynamics)
        return CartpoleState(data, dynamics), restart(_observe(data), dict.fromkeys(METRICS, jnp.zeros(())))

    def step(self, state: CartpoleState, action: Array, applied: Array | None = None):
        """See `Env.step`."""
        rows = jnp.broadcast_to(action, (self.physics.substeps, 1)) if applied is None else applied
        data = self.physics.step(state.data, actuator_targets(self.spec.action, rows), state.dynamics)
        terms = reward_terms(data, action)
        reward = sum(getattr(self.weights, name) * term for name, term in terms.items())
        metrics = {name: terms[name] for name in METRICS}
        timestep = transition(_observe(data), reward, jnp.zeros((), bool), metrics)
        return dataclasses.replace(state, data=data), timestep

    def hold(self, state: CartpoleState) -> Array:
        """See `Env.hold`: no force."""
        return jnp.zeros(1)

    def data(self, state: CartpoleState) -> Data:
        """See `Env.data`."""
        return state.data

    def replace_data(self, state: CartpoleState, data: Data) -> CartpoleState:
        """See `Env.replace_data`."""
        return dataclasses.replace(state, data=data)


def reward_terms(data: Data, action: Array) -> dict[str, Array]:
    """The terms of the reward, each a scalar; `CartpoleWeights` holds their weights."""
    return {
        "upright": 0.5 * (1 + jnp.cos(data.qpos[1])),  # from 0, hanging, to 1
        "off_centre": jnp.square(data.qpos[0]),
        "effort": jnp.sum(jnp.square(action)),
    }


def _observe(data: Data) -> Observation:
    position, angle = data.qpos
    values = {
        "position": position[None],
        "angle_cos_sin": jnp.stack([jnp.cos(angle), jnp.sin(angle)]),
        "cart_velocity": data.qvel[:1],
        "pole_velocity": data.qvel[1:],
    }
    return {"state": assemble(OBSERVATION, values)}
