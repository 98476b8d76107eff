"""A chunk of actions as one action. Axes: H rows of an action, K that are executed, A actions, M metrics."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mjx_policies.envs.base import Env, EnvSpec, EnvState, select
from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.envs.progress import metric_names
from mjx_policies.envs.vectorize import sound
from mjx_policies.types import Array, TimeStep


@struct.dataclass
class ActionChunk:
    """Executes the first K rows of each action [H, A], one a control period, as one step: what DPPO acts on.

    Rewards are summed, not discounted: a learner's discount is one of chunks. Where an episode ends within a chunk
    nothing after its end counts: rewards and metrics are of the steps before, the observation is that of the end.
    Metrics are means over the steps that measured them; those that stay reached (`success`, stages) are the last ones.
    Noise, delays and pushes belong inside, where a period is a control period. `ActionChunk(History(env, O), K)`
    stacks the last O control periods, `History(ActionChunk(env, K), O)` the ends of the last O chunks. The state is
    that of the environment inside, for nothing is kept from chunk to chunk.

    Attributes:
      env: the environment inside.
      n_action_steps: K.
    """

    env: Env
    n_action_steps: int = struct.field(pytree_node=False)

    def __post_init__(self) -> None:
        if self.n_action_steps < 1:
            raise ValueError(f"ActionChunk: n_action_steps is {self.n_action_steps}, it must be at least 1")

    @property
    def spec(self) -> EnvSpec:
        """See `Env.spec`. The table of the action is that of a row; the time limit is a whole number of chunks."""
        spec, chunk = self.env.spec, self.n_action_steps
        control_dt = chunk * spec.control_dt
        chunks = max(1, round(spec.episode_seconds / spec.control_dt) // chunk)
        return dataclasses.replace(
            spec, control_dt=control_dt, episode_seconds=chunks * control_dt, n_action_steps=chunk
        )

    @property
    def physics(self) -> Physics:
        """See `Env.physics`."""
        return self.env.physics

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[EnvState, TimeStep]:
        """See `Env.reset`."""
        return self.env.reset(key, dynamics)

    def step(self, state: EnvState, action: Array, applied: Array | None = None) -> tuple[EnvState, TimeStep]:
        """See `Env.step`. Rows from K on are ignored.

        A simulation that diverges within the chunk makes its reward NaN, so that `vectorize` quarantines the robot.

        Raises:
          ValueError: an action that is no chunk, or a delay around this wrapper.
        """
        size = self.env.spec.action.size
        if applied is not None:
            raise ValueError("ActionChunk: delays belong inside it, as in ActionChunk(ActionDelay(env, ...), K)")
        if action.ndim != 2 or len(action) < self.n_action_steps or action.shape[1] != size:
            raise ValueError(
                f"ActionChunk: an action has shape {action.shape}, it must be (H, {size}) with H at least "
                f"n_action_steps, {self.n_action_steps}"
            )
        _, shapes = jax.eval_shape(self.env.step, state, action[0])
        nothing: TimeStep = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        names = tuple(nothing.metrics)
        zeros = jnp.zeros(len(names))

        def advance(carry, row):
            state, timestep, running, broken, sums, counts, last = carry
            after, new = self.env.step(state, row)
            well = sound(self.env, state, after, new)
            counts_in = running & well
            values = jnp.array([new.metrics[name] for name in names], jnp.float32)
            measured = counts_in & ~jnp.isnan(values)
            state = select(self.env, counts_in, after, state)
            reward = timestep.reward + new.reward
            timestep = jax.tree.map(
                lambda x, y: jnp.where(counts_in, x, y), dataclasses.replace(new, reward=reward), timestep
            )
            sums, counts = jnp.where(measured, sums + values, sums), counts + measured
            last = jnp.where(counts_in, values, last)
            broken |= running & ~well
            running = counts_in & ~(new.terminated | new.truncated)
            return (state, timestep, running, broken, sums, counts, last), None

        false = jnp.zeros((), bool)
        start = (state, nothing, ~false, false, zeros, zeros, zeros)
        (state, timestep, _, broken, sums, counts, last), _ = jax.lax.scan(
            advance, start, action[: self.n_action_steps]
        )
        stays = np.isin(names, metric_names(self.env.spec.stages))
        values = jnp.where(stays, last, jnp.where(counts > 0, sums / counts, jnp.nan))
        metrics = {name: values[i] for i, name in enumerate(names)}
        reward = jnp.where(broken, jnp.nan, timestep.reward)
        return state, dataclasses.replace(timestep, reward=reward, metrics=metrics)

    def hold(self, state: EnvState) -> Array:  # -> [K, A]
        """See `Env.hold`."""
        row = self.env.hold(state)
        return jnp.broadcast_to(row, (self.n_action_steps, *row.shape))

    def data(self, state: EnvState) -> Data:
        """See `Env.data`."""
        return self.env.data(state)

    def replace_data(self, state: EnvState, data: Data) -> EnvState:
        """See `Env.replace_data`."""
        return self.env.replace_data(state, data)
