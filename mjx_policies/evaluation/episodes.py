"""One whole episode of every environment, none counted twice. Axes: B environments, A actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.types import Array, Observation, TimeStep


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
      metrics: {name: [B]} each metric summed over its steps.
    """

    terminated: Array
    length: Array
    reward: Array
    metrics: dict[str, Array]


def run_episodes(envs: Environments, policy: Callable[[Observation], Array], key: Array) -> Episodes:
    """Runs every environment to the end of its first episode.

    Every environment counts once: stopping when enough episodes have ended would over-count the short ones.

    Args:
      envs: vectorized environments.
      policy: one observation -> action [A].
      key: of the starts, the commands and the disturbances.
    """
    state, timestep = envs.init(key, stagger=False)
    zeros = jnp.zeros(envs.num_envs)
    episodes = Episodes(
        terminated=jnp.zeros(envs.num_envs, bool),
        length=jnp.zeros(envs.num_envs, jnp.int32),
        reward=zeros,
        metrics={name: zeros for name in timestep.metrics},
    )

    def step(carry, _):
        state, obs, running, episodes = carry
        state, timestep = envs.step(state, jax.vmap(policy)(obs))

        def add(total, value):
            return total + jnp.where(running, value, 0).astype(total.dtype)

        episodes = Episodes(
            terminated=episodes.terminated | (running & timestep.terminated),
            length=add(episodes.length, jnp.ones_like(episodes.length)),
            reward=add(episodes.reward, timestep.reward),
            metrics={name: add(episodes.metrics[name], value) for name, value in timestep.metrics.items()},
        )
        running = running & ~(timestep.terminated | timestep.truncated)
        return (state, timestep.obs, running, episodes), None

    running = jnp.ones(envs.num_envs, bool)
    carry, _ = jax.lax.scan(step, (state, timestep.obs, running, episodes), length=envs.episode_steps)
    return carry[-1]
