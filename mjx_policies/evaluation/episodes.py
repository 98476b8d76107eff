"""One whole episode of every environment, none counted twice. Axes: B environments, A actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.types import Array, Observation, PyTree, TimeStep


class Environments(Protocol):
    """What evaluation needs of vectorized environments."""

    num_envs: int
    episode_steps: int

    def init(self, key: Array, stagger: bool = True) -> tuple[Any, TimeStep]:
        """Starts B episodes; their time limits are spread out if `stagger`."""
        ...

    def step(self, state: Any, action: Array) -> tuple[Any, TimeStep]:
        """Advances all of them."""
        ...


@struct.dataclass
class Episodes:
    """The first episode of each environment.

    Attributes:
      terminated: [B] whether the task ended it, rather than the time limit.
      length: [B] its steps.
      reward: [B] its sum of rewards.
      metrics: {name: [B]} the mean of each metric over the steps that measured it, NaN if none did.
      recording: [T, ...] what `record` returned after each step, episode ends and restarts included.
    """

    terminated: Array
    length: Array
    reward: Array
    metrics: dict[str, Array]
    recording: PyTree


def run_episodes(
    envs: Environments,
    policy: Callable[[Observation], Array],
    key: Array,
    record: Callable[[Any], PyTree] = lambda state: None,
) -> Episodes:
    """Runs every environment to the end of its first episode.

    Every environment counts once: stopping when enough episodes have ended would over-count the short ones.

    Args:
      envs: vectorized environments.
      policy: one observation -> action [A].
      key: of the starts, the commands and the disturbances.
      record: what to keep of the state after each step, for a video or a plot.
    """
    state, timestep = envs.init(key, stagger=False)
    zeros = jnp.zeros(envs.num_envs)
    sums = {name: zeros for name in timestep.metrics}

    def step(carry, _):
        state, obs, running, terminated, length, reward, sums, counts = carry
        state, timestep = envs.step(state, jax.vmap(policy)(obs))
        measured = {name: running & ~jnp.isnan(value) for name, value in timestep.metrics.items()}
        carry = (
            state,
            timestep.obs,
            running & ~(timestep.terminated | timestep.truncated),
            terminated | (running & timestep.terminated),
            length + running,
            reward + jnp.where(running, timestep.reward, 0.0),
            {name: sums[name] + jnp.where(measured[name], value, 0.0) for name, value in timestep.metrics.items()},
            {name: counts[name] + measured[name] for name in measured},
        )
        return carry, record(state)

    false = jnp.zeros(envs.num_envs, bool)
    start = (state, timestep.obs, ~false, false, jnp.zeros(envs.num_envs, jnp.int32), zeros, sums, sums)
    carry, recording = jax.lax.scan(step, start, length=envs.episode_steps)
    *_, terminated, length, reward, sums, counts = carry
    metrics = {name: jnp.where(counts[name] > 0, total / counts[name], jnp.nan) for name, total in sums.items()}
    return Episodes(terminated, length, reward, metrics, recording)
