"""One whole episode of every environment, none counted twice. Axes: B environments, A actions, M metrics."""

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
    names = tuple(timestep.metrics)
    empty = jnp.zeros((len(names), envs.num_envs))  # [M, B]: one array of all metrics compiles sooner than one of each

    def step(carry, _):
        state, obs, running, terminated, length, reward, sums, counts = carry
        state, timestep = envs.step(state, jax.vmap(policy)(obs))
        values = jnp.stack([timestep.metrics[name] for name in names])
        measured = running & ~jnp.isnan(values)
        carry = (
            state,
            timestep.obs,
            running & ~(timestep.terminated | timestep.truncated),
            terminated | (running & timestep.terminated),
            length + running,
            reward + jnp.where(running, timestep.reward, 0.0),
            sums + jnp.where(measured, values, 0.0),
            counts + measured,
        )
        return carry, record(state)

    false = jnp.zeros(envs.num_envs, bool)
    start = (state, timestep.obs, ~false, false, jnp.zeros(envs.num_envs, jnp.int32), zeros, empty, empty)
    carry, recording = jax.lax.scan(step, start, length=envs.episode_steps)
    *_, terminated, length, reward, sums, counts = carry
    means = jnp.where(counts > 0, sums / counts, jnp.nan)
    metrics = dict(zip(names, means, strict=True))
    return Episodes(terminated, length, reward, metrics, recording)
