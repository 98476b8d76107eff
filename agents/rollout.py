"""Rollouts: a policy with its memory acts in vectorized environments.

Axes: T steps, B environments, P resets in the pool, M metrics, A action, E extrinsics.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.envs.vectorize import EXTRINSICS, EpisodeStatistics, VectorEnv, VectorState, where_rows
from mjx_policies.policy import Policy
from mjx_policies.types import Array, Observation, PyTree


@struct.dataclass
class Transition:
    """The transitions of T steps of B environments.

    Attributes:
      obs: [T, B, ...] what was acted on.
      action: [T, B, A], or [T, B, H, A] of chunks.
      extras: [T, B, ...] what the behaviour policy returned beside the action.
      reward, terminated, truncated: [T, B].
      final_obs: [T, B, ...] what the step really led to, see `TimeStep`.
      memory: [B, ...] the policy's memory before the first step; memories of later steps follow from it.
    """

    obs: Observation
    action: Array
    extras: PyTree
    reward: Array
    terminated: Array
    truncated: Array
    final_obs: Observation
    memory: PyTree


@struct.dataclass
class Metrics:
    """Metrics of a step or a rollout in one array, which compiles sooner than an array of each.

    Attributes:
      values: [..., M, B].
      names: M names.
    """

    values: Array
    names: tuple[str, ...] = struct.field(pytree_node=False)


@struct.dataclass
class EndedEpisodes:
    """The episodes that ended in a rollout, one by one, each in the place of the step that ended it.

    Attributes:
      ended: [T, B] bool. Elsewhere the other attributes are those of an episode so far.
      cut_off: [T, B] bool, nobody knows how this episode would have gone on, see `EpisodeStatistics`.
      score: [T, B] mean of the metric `EnvSpec.score` over the episode; NaN if it was not measured.
      length: [T, B] int32, steps of the episode.
      step_score: [T, B] the same metric in every step, for what cannot wait for an episode to end.
      extrinsics: [T, B, E] the draw of its robot, see `Draw`; E is 0 where the sampler does not tell.
    """

    ended: Array
    cut_off: Array
    score: Array
    length: Array
    step_score: Array
    extrinsics: Array


@struct.dataclass
class Acting:
    """Environments and what acts in them, between two steps.

    Attributes:
      envs: of `VectorEnv`.
      memory: [B, ...] of the policy.
    """

    envs: VectorState
    memory: PyTree


def start(policy: Policy, envs: VectorState, key: Array) -> Acting:
    """A policy at the beginning of every episode."""
    keys = jax.random.split(key, len(envs.steps))
    return Acting(envs, jax.vmap(policy.init)(keys, envs.obs))


def collect(
    policy: Policy, envs: VectorEnv, state: Acting, key: Array, length: int
) -> tuple[Acting, Transition, Metrics, EndedEpisodes]:
    """Takes `length` steps of every environment.

    A robot whose episode ends gets its memory, a first plan included, with its new initial state: both come from
    the reset pool that is drawn here. The clock of the policy is the number of the step, which no `vmap` over seeds
    batches.

    Args:
      policy: a behaviour policy, whose action is `(action, extras)`.
      envs: B environments.
      state: of `start` or `collect`.
      key: of all that is drawn.
      length: T, a multiple of `policy.period`.

    Raises:
      ValueError: T is no multiple of the period, so the batch would plan anew before its plans are executed.
    """
    if length % policy.period:
        raise ValueError(
            f"a rollout of {length} steps is no multiple of the {policy.period} steps after which the policy plans "
            f"again: choose rollout_length as a multiple of {policy.period}"
        )
    key_pool, key_steps = jax.random.split(key)
    vectors = envs.refresh(state.envs)
    fresh = jax.vmap(policy.init)(jax.random.split(key_pool, envs.pool_size), vectors.pool[1])

    def advance(
        carry: Acting, inputs: tuple[Array, Array]
    ) -> tuple[Acting, tuple[Transition, Metrics, EpisodeStatistics]]:
        clock, key = inputs
        keys = jax.random.split(key, envs.num_envs)
        obs = carry.envs.obs
        (action, extras), memory = jax.vmap(policy.act, in_axes=(0, 0, 0, None))(carry.memory, keys, obs, clock)
        vectors, timestep = envs.step(carry.envs, action)
        assert timestep.final_obs is not None  # these environments reset themselves
        ended = timestep.terminated | timestep.truncated
        memory = where_rows(ended, jax.tree.map(lambda x: x[vectors.reset_row], fresh), memory)
        row = Transition(
            obs=obs,
            action=action,
            extras=extras,
            reward=timestep.reward,
            terminated=timestep.terminated,
            truncated=timestep.truncated,
            final_obs=timestep.final_obs,
            memory=(),
        )
        metrics = Metrics(jnp.stack(list(timestep.metrics.values())), tuple(timestep.metrics))
        return Acting(vectors, memory), (row, metrics, vectors.episodes)

    inputs = (jnp.arange(length), jax.random.split(key_steps, length))
    after, (rows, metrics, episodes) = jax.lax.scan(advance, Acting(vectors, state.memory), inputs)
    rollout = dataclasses.replace(rows, memory=state.memory)
    none, name = jnp.full(episodes.ended.shape, jnp.nan), envs.spec.score
    outcomes = EndedEpisodes(
        ended=episodes.ended,
        cut_off=episodes.cut_off,
        score=episodes.score,
        length=episodes.length,
        step_score=metrics.values[:, metrics.names.index(name)] if name else none,
        extrinsics=rollout.final_obs.get(EXTRINSICS, none[..., None][..., :0]),
    )
    return after, rollout, metrics, outcomes
