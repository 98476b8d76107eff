"""Stacked observations. Axes: O observations."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.envs.base import Env, EnvSpec, EnvState
from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.types import Array, Observation, TimeStep


@struct.dataclass
class HistoryState:
    """An episode with its last observations.

    Attributes:
      inner: state of the environment inside.
      history: {name: [O, ...]}, the newest last.
    """

    inner: EnvState
    history: Observation


@struct.dataclass
class History:
    """Stacks the last O observations, each entry [O, ...], the newest last.

    At the start of an episode its first observation stands for those before it. Noise and delays belong inside, so that
    an observation stays as it was sensed.

    Attributes:
      env: the environment inside.
      n_obs_steps: O.
    """

    env: Env
    n_obs_steps: int = struct.field(pytree_node=False)

    def __post_init__(self) -> None:
        if self.n_obs_steps < 1:
            raise ValueError(f"History: n_obs_steps is {self.n_obs_steps}, it must be at least 1")

    @property
    def spec(self) -> EnvSpec:
        """See `Env.spec`. The tables are those of one observation."""
        return dataclasses.replace(self.env.spec, n_obs_steps=self.n_obs_steps)

    @property
    def physics(self) -> Physics:
        """See `Env.physics`."""
        return self.env.physics

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[HistoryState, TimeStep]:
        """See `Env.reset`.

        Raises:
          ValueError: the environment inside stacks observations already.
        """
        if self.env.spec.n_obs_steps:
            raise ValueError("History: the environment inside has a History already; ask for more n_obs_steps there")
        inner, timestep = self.env.reset(key, dynamics)
        history = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.n_obs_steps, *x.shape)), timestep.obs)
        return HistoryState(inner, history), dataclasses.replace(timestep, obs=history)

    def step(self, state: HistoryState, action: Array, applied: Array | None = None) -> tuple[HistoryState, TimeStep]:
        """See `Env.step`."""
        inner, timestep = self.env.step(state.inner, action, applied)
        history = jax.tree.map(lambda rows, x: jnp.concatenate([rows[1:], x[None]]), state.history, timestep.obs)
        return HistoryState(inner, history), dataclasses.replace(timestep, obs=history)

    def hold(self, state: HistoryState) -> Array:
        """See `Env.hold`."""
        return self.env.hold(state.inner)

    def data(self, state: HistoryState) -> Data:
        """See `Env.data`."""
        return self.env.data(state.inner)

    def replace_data(self, state: HistoryState, data: Data) -> HistoryState:
        """See `Env.replace_data`."""
        return dataclasses.replace(state, inner=self.env.replace_data(state.inner, data))
