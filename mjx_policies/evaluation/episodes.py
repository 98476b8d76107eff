"""One whole episode of every environment, none counted twice. Axes: B environments, A actions, M metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mjx_policies.policy import Policy, stateless
from mjx_policies.spec import Criterion
from mjx_policies.types import Array, Observation, PyTree, TimeStep

_POLICY = 0x706F6C69  # tells the policy's keys from those of the environments, which are split from the same


class Environments(Protocol):
    """The protocol of vectorized environments that evaluation needs."""

    num_envs: int
    episode_steps: int

    def init(self, key: Array, stagger: bool = True) -> tuple[Any, TimeStep]:
        """Starts B episodes; their time limits are spread out if `stagger`."""
        ...

    def step(self, state: Any, action: Array) -> tuple[Any, TimeStep]:
        """Advances all environments."""
        ...


@struct.dataclass
class Episodes:
    """The first episode of each environment.

    Attributes:
      terminated: [B] whether the task ended it, rather than the time limit.
      length: [B] its steps.
      reward: [B] its sum of rewards.
      metrics: {name: [B]} the mean of each metric over the steps that measured it, NaN if none did.
      final: {name: [B]} the value of each metric at the last step, which says what an episode achieved where a metric
        is latched; NaN if it was not measured there.
      held: {name: [B]} the steps in a row, up to the last, in which the metric of each criterion with a time was at
        least what it must be.
      cut_off: [B] whether it was truncated before its time limit, as where a robot leaves the terrain: nobody knows how
        it would have gone on.
      recording: [T, ...] what `record` returned after each step, episode ends and restarts included.
    """

    terminated: Array
    length: Array
    reward: Array
    metrics: dict[str, Array]
    final: dict[str, Array]
    held: dict[str, Array]
    cut_off: Array
    recording: PyTree


def run_episodes(
    envs: Environments,
    policy: Policy | Callable[[Observation], Array],
    key: Array,
    record: Callable[[Any, Array], PyTree] = lambda state, action: None,
    criteria: Sequence[Criterion] = (),
) -> Episodes:
    """Runs every environment to the end of its first episode.

    Every environment counts once: stopping when enough episodes have ended would over-count the short ones.

    Args:
      envs: vectorized environments.
      policy: one observation -> action [A], or a `Policy` with a memory or samples of its own.
      key: of initial states, commands, disturbances and the policy. With the same one every policy meets the same
        robots, so that two can be compared episode by episode.
      record: what to keep of the state after each step and the actions [B, A] that led to it, for a video or a plot.
      criteria: `EnvSpec.criteria`.

    Raises:
      ValueError: a criterion on a metric that the environments do not report.
    """
    policy = policy if isinstance(policy, Policy) else stateless(policy)
    key_init, key_act = jax.random.split(jax.random.fold_in(key, _POLICY))
    state, timestep = envs.init(key, stagger=False)
    memory = jax.vmap(policy.init)(jax.random.split(key_init, envs.num_envs), timestep.obs)
    zeros = jnp.zeros(envs.num_envs)
    names = tuple(timestep.metrics)
    unknown = [criterion.metric for criterion in criteria if criterion.metric not in names]
    if unknown:
        raise ValueError(f"there is no metric {unknown[0]!r} to evaluate episodes by; there are {', '.join(names)}")
    lasting = [criterion for criterion in criteria if criterion.seconds is not None]
    rows = np.asarray([names.index(criterion.metric) for criterion in lasting], int)
    least = np.asarray([criterion.least for criterion in lasting], np.float32)[:, None]
    empty = jnp.zeros((len(names), envs.num_envs))  # [M, B]: one array of all metrics compiles sooner than one of each

    def step(carry, index):
        state, memory, obs, running, terminated, length, reward, sums, counts, last, held = carry
        keys = jax.random.split(jax.random.fold_in(key_act, index), envs.num_envs)
        action, memory = jax.vmap(policy.act, in_axes=(0, 0, 0, None))(memory, keys, obs, index)
        state, timestep = envs.step(state, action)
        values = jnp.stack([timestep.metrics[name] for name in names])
        measured = running & ~jnp.isnan(values)
        carry = (
            state,
            memory,
            timestep.obs,
            running & ~(timestep.terminated | timestep.truncated),
            terminated | (running & timestep.terminated),
            length + running,
            reward + jnp.where(running, timestep.reward, 0.0),
            sums + jnp.where(measured, values, 0.0),
            counts + measured,
            jnp.where(running, values, last),
            jnp.where(running, jnp.where(values[rows] >= least, held + 1, 0), held),
        )
        return carry, record(state, action)

    false = jnp.zeros(envs.num_envs, bool)
    length = jnp.zeros(envs.num_envs, jnp.int32)
    none_held = jnp.zeros((len(lasting), envs.num_envs), jnp.int32)
    start = (state, memory, timestep.obs, ~false, false, length, zeros, empty, empty, empty, none_held)
    carry, recording = jax.lax.scan(step, start, jnp.arange(envs.episode_steps))
    *_, terminated, length, reward, sums, counts, last, held = carry
    means = jnp.where(counts > 0, sums / counts, jnp.nan)
    metrics, final = (dict(zip(names, values, strict=True)) for values in (means, last))
    return Episodes(
        terminated=terminated,
        length=length,
        reward=reward,
        metrics=metrics,
        final=final,
        held={criterion.metric: row for criterion, row in zip(lasting, held, strict=True)},
        cut_off=~terminated & (length < envs.episode_steps),
        recording=recording,
    )
