"""Delay of commands on their way to the motors, and of measurements on their way to the policy.

Axes: S substeps in a control period, A actions, H rows of commands on their way, D observations, L stored observations.
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from flax import struct

from mjx_policies.draws import draw_uniform
from mjx_policies.envs.base import Env, EnvSpec, EnvState
from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.spec import table_column
from mjx_policies.types import Array, TimeStep


@struct.dataclass
class ActionDelayState:
    """An episode with commands on their way.

    Attributes:
      inner: state of the environment inside.
      delay: [] s, of this episode, before jitter.
      rows: [H, A] the last commands, oldest first, one row for each substep in which they were sent.
      arrivals: [H] int32, substep from the start of the coming period at which each row reaches the actuators.
      key: random key of the jitter to come.
    """

    inner: EnvState
    delay: Array
    rows: Array
    arrivals: Array
    key: Array


@struct.dataclass
class ActionDelay:
    """Commands reach the actuators late, at the resolution of a physics substep, and never overtake each other.

    A command sent at time t acts from the first substep that begins at or after `t + delay + jitter`, but not before
    the command sent ahead of it. Until the first arrives, the robot goes on with what it was told, see `Env.hold`.

    Attributes:
      env: the environment inside.
      low, high: s, range of the delay drawn for each episode.
      jitter: s, half-width of the uniform change of the delay in each control period.
      max_delay: s, what the buffer is made for; longer delays are cut to it.
    """

    env: Env
    low: Array | float
    high: Array | float
    jitter: Array | float = 0.0
    max_delay: float = struct.field(pytree_node=False, default=0.1)

    def __post_init__(self) -> None:
        _check_range("ActionDelay", self.low, self.high, self.max_delay, self.jitter)

    @property
    def spec(self) -> EnvSpec:
        """See `Env.spec`."""
        return self.env.spec

    @property
    def physics(self) -> Physics:
        """See `Env.physics`."""
        return self.env.physics

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[ActionDelayState, TimeStep]:
        """See `Env.reset`."""
        if self.env.spec.n_action_steps:
            raise ValueError("ActionDelay belongs inside ActionChunk: ActionChunk(ActionDelay(env, ...), K)")
        uniform, key_env, key_next = draw_uniform(key, 1, num_keys=2)
        inner, timestep = self.env.reset(key_env, dynamics)
        length = self._max_substeps()
        state = ActionDelayState(
            inner=inner,
            delay=_between(uniform[0], self.low, self.high),
            rows=jnp.broadcast_to(self.env.hold(inner), (length, self.spec.action.size)),
            arrivals=jnp.zeros(length, jnp.int32),
            key=key_next,
        )
        return state, timestep

    def step(
        self, state: ActionDelayState, action: Array, applied: Array | None = None
    ) -> tuple[ActionDelayState, TimeStep]:
        """See `Env.step`. Rows of `applied` are delayed like the action itself."""
        uniform, key_next = draw_uniform(state.key, 1)
        delay = state.delay + _between(uniform[0], -jnp.asarray(self.jitter), self.jitter)
        length, substeps = self._max_substeps(), self.physics.substeps
        # A thousandth of a substep forgives the rounding of a delay that is a whole number of substeps.
        delay = jnp.ceil(delay / self.physics.model.opt.timestep - 1e-3).astype(jnp.int32)
        sent = jnp.arange(substeps)
        arrivals = jnp.maximum(sent + jnp.clip(delay, 0, length), state.arrivals[-1])
        arrivals = jnp.concatenate([state.arrivals, arrivals])  # [H + S], never decreasing
        rows = jnp.broadcast_to(action, (substeps, action.shape[-1])) if applied is None else applied
        rows = jnp.concatenate([state.rows, rows])  # [H + S, A]
        # Rows arrive within H substeps, so the oldest kept row has always arrived and the index is never negative.
        latest = jnp.sum(arrivals <= sent[:, None], axis=1) - 1  # [S]
        inner, timestep = self.env.step(state.inner, action, rows[latest])
        state = dataclasses.replace(
            state, inner=inner, rows=rows[-length:], arrivals=arrivals[-length:] - substeps, key=key_next
        )
        return state, timestep

    def hold(self, state: ActionDelayState) -> Array:
        """See `Env.hold`."""
        return self.env.hold(state.inner)

    def data(self, state: ActionDelayState) -> Data:
        """See `Env.data`."""
        return self.env.data(state.inner)

    def replace_data(self, state: ActionDelayState, data: Data) -> ActionDelayState:
        """See `Env.replace_data`."""
        return dataclasses.replace(state, inner=self.env.replace_data(state.inner, data))

    def _max_substeps(self) -> int:
        return max(1, math.ceil(self.max_delay / self.physics.model.opt.timestep - 1e-3))


@struct.dataclass
class ObservationLatencyState:
    """An episode with the observations of its last periods.

    Attributes:
      inner: state of the environment inside.
      latency: [] s, of this episode.
      history: [L, D] the observations of the last control periods, newest first.
    """

    inner: EnvState
    latency: Array
    history: Array


@struct.dataclass
class ObservationLatency:
    """Measurements in `obs["state"]` are old; what the controller itself keeps (`measured=False`) is not.

    Between two control periods the observation is interpolated. Before an episode it was what it is at its start.
    Put `SensorNoise` around it, not inside: interpolation would average the noise of two periods, which at half a
    period between them takes away three tenths of it.

    Attributes:
      env: the environment inside.
      low, high: s, range of the latency drawn for each episode.
      max_latency: s, what the buffer is made for; longer latencies are cut to it.
    """

    env: Env
    low: Array | float
    high: Array | float
    max_latency: float = struct.field(pytree_node=False, default=0.1)

    def __post_init__(self) -> None:
        _check_range("ObservationLatency", self.low, self.high, self.max_latency)

    @property
    def spec(self) -> EnvSpec:
        """See `Env.spec`."""
        return self.env.spec

    @property
    def physics(self) -> Physics:
        """See `Env.physics`."""
        return self.env.physics

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[ObservationLatencyState, TimeStep]:
        """See `Env.reset`."""
        if self.env.spec.n_obs_steps:
            raise ValueError("ObservationLatency belongs inside History: History(ObservationLatency(env, ...), O)")
        uniform, key_env = draw_uniform(key, 1)
        inner, timestep = self.env.reset(key_env, dynamics)
        newest = timestep.obs["state"]
        history = jnp.broadcast_to(newest, (self._max_periods() + 1, *newest.shape))
        return ObservationLatencyState(inner, _between(uniform[0], self.low, self.high), history), timestep

    def step(
        self, state: ObservationLatencyState, action: Array, applied: Array | None = None
    ) -> tuple[ObservationLatencyState, TimeStep]:
        """See `Env.step`."""
        inner, timestep = self.env.step(state.inner, action, applied)
        newest = timestep.obs["state"]
        history = jnp.concatenate([newest[None], state.history[:-1]])  # [L, D]
        age = jnp.clip(state.latency / self.spec.control_dt, 0.0, self._max_periods())
        # Linear interpolation as a product with a hat function: one weight for each stored observation.
        weights = jnp.maximum(0.0, 1.0 - jnp.abs(jnp.arange(len(history)) - age))  # [L]
        late = jnp.sum(weights[:, None] * history, axis=0)
        measured = table_column(self.spec.observation, "measured") > 0
        obs = timestep.obs | {"state": jnp.where(measured & (age > 0), late, newest)}  # a sum makes 0.0 of -0.0
        return dataclasses.replace(state, inner=inner, history=history), dataclasses.replace(timestep, obs=obs)

    def hold(self, state: ObservationLatencyState) -> Array:
        """See `Env.hold`."""
        return self.env.hold(state.inner)

    def data(self, state: ObservationLatencyState) -> Data:
        """See `Env.data`."""
        return self.env.data(state.inner)

    def replace_data(self, state: ObservationLatencyState, data: Data) -> ObservationLatencyState:
        """See `Env.replace_data`."""
        return dataclasses.replace(state, inner=self.env.replace_data(state.inner, data))

    def _max_periods(self) -> int:
        return max(1, math.ceil(self.max_latency / self.spec.control_dt - 1e-3))


def _between(portion: Array, low: Array | float, high: Array | float) -> Array:  # []
    return jnp.clip(low + (jnp.asarray(high) - low) * portion, low, high)


def _check_range(what: str, low, high, longest: float, jitter: Array | float = 0.0) -> None:
    """Raises ValueError for a senseless range; checks plain numbers alone, not traced or batched leaves."""
    if not all(isinstance(x, (int, float, np.generic)) for x in (low, high, jitter)):
        return
    if not 0 <= low <= high or jitter < 0:
        raise ValueError(f"{what}: the range {low} to {high} s (jitter {jitter} s) must rise from zero or more")
    if high + jitter > longest:
        raise ValueError(
            f"{what}: a delay of up to {high + jitter:g} s is longer than its buffer of {longest:g} s; "
            "raise the maximum, which is given in seconds too"
        )
