"""Noise and bias of sensors, as the observation table states them. Axes: D observations, K noisy ones."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import struct

from mjx_policies.draws import draw_words
from mjx_policies.envs.base import Env, EnvSpec, EnvState
from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.spec import table_column
from mjx_policies.types import Array, TimeStep


@struct.dataclass
class SensorNoiseState:
    """An episode with its sensor errors.

    Attributes:
      inner: state of the environment inside.
      bias: [D] error of this episode, in the units of the observation, at level 1.
      key: random key of the noise to come.
    """

    inner: EnvState
    bias: Array
    key: Array


@struct.dataclass
class SensorNoise:
    """`obs["state"]` with the uniform noise and the per-episode bias of its table. `obs["privileged"]` stays exact.

    Attributes:
      env: the environment inside.
      level: multiplies all noise and bias; 0 leaves the observation as it is.
    """

    env: Env
    level: Array | float = 1.0

    @property
    def spec(self) -> EnvSpec:
        """See `Env.spec`."""
        return self.env.spec

    @property
    def physics(self) -> Physics:
        """See `Env.physics`."""
        return self.env.physics

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[SensorNoiseState, TimeStep]:
        """See `Env.reset`."""
        if self.env.spec.n_obs_steps:
            raise ValueError("SensorNoise belongs inside History: History(SensorNoise(env), O)")
        bias, key_env, key_next = _spread(key, self._half_widths("bias"), num_keys=2)
        inner, timestep = self.env.reset(key_env, dynamics)
        return self._disturb(SensorNoiseState(inner, bias, key_next), timestep)

    def step(
        self, state: SensorNoiseState, action: Array, applied: Array | None = None
    ) -> tuple[SensorNoiseState, TimeStep]:
        """See `Env.step`."""
        inner, timestep = self.env.step(state.inner, action, applied)
        return self._disturb(dataclasses.replace(state, inner=inner), timestep)

    def hold(self, state: SensorNoiseState) -> Array:
        """See `Env.hold`."""
        return self.env.hold(state.inner)

    def data(self, state: SensorNoiseState) -> Data:
        """See `Env.data`."""
        return self.env.data(state.inner)

    def replace_data(self, state: SensorNoiseState, data: Data) -> SensorNoiseState:
        """See `Env.replace_data`."""
        return dataclasses.replace(state, inner=self.env.replace_data(state.inner, data))

    def _half_widths(self, column) -> np.ndarray:  # [D]
        table = self.spec.observation
        measured = table_column(table, "measured") > 0
        return np.where(measured, table_column(table, column) * np.abs(table_column(table, "scale")), 0.0)

    def _disturb(self, state: SensorNoiseState, timestep: TimeStep) -> tuple[SensorNoiseState, TimeStep]:
        noise, key_next = _spread(state.key, self._half_widths("noise"))
        obs = timestep.obs | {"state": timestep.obs["state"] + self.level * (state.bias + noise)}
        return dataclasses.replace(state, key=key_next), dataclasses.replace(timestep, obs=obs)


def _spread(key: Array, half_widths: np.ndarray, num_keys: int = 1) -> tuple[Array, ...]:  # [D] -> [D], then keys
    """Uniform in plus and minus `half_widths`, which are known while tracing; then the keys of what comes later.

    Random bits are most of what a noisy sensor costs on a CPU, so exact sensors draw none and two noisy ones share a
    32-bit word: 65536 steps are finer than any encoder.
    """
    noisy = np.flatnonzero(half_widths)
    words, *keys = draw_words(key, (noisy.size + 1) // 2, num_keys)
    halves = jnp.concatenate([words & 0xFFFF, words >> 16])[: noisy.size]  # [K]
    unit = (halves.astype(jnp.float32) + 0.5) / 32768.0 - 1.0  # in (-1, 1), symmetric
    # A gather from a constant index beats a scatter; exact sensors read the zero at the end.
    source = np.full(half_widths.size, noisy.size)
    source[noisy] = np.arange(noisy.size)
    return jnp.append(unit, 0.0)[source] * half_widths.astype(np.float32), *keys
