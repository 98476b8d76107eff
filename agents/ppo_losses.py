"""The losses of PPO, Schulman et al. 2017 (arXiv:1707.06347), for actions that are made in K decisions.

Axes: T time, B environments, N samples, K decisions.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.agents.base import Info
from mjx_policies.agents.critic import Critic
from mjx_policies.agents.gae import gae
from mjx_policies.agents.ppo_config import PPOConfig, PPOHyper, Symmetry
from mjx_policies.agents.rollout import Transition
from mjx_policies.heads.base import ActionHead
from mjx_policies.losses import kl_from_samples
from mjx_policies.memory import replay
from mjx_policies.types import Array, Number, Observation, PyTree


@struct.dataclass
class Batch:
    """The data of an update, [T, B, ...] each.

    Attributes:
      obs: what was acted on.
      begins: whether an episode begins with the step.
      extras: of `Learner.act`: the trace of K decisions, the log density of each, and what an unlearned memory held.
      advantage: normalised.
      returns: targets of the critic.
    """

    obs: Observation
    begins: Array
    extras: dict[str, Any]
    advantage: Array
    returns: Array


def flat(tree: PyTree) -> PyTree:  # [T, B, ...] -> [N, ...]
    """All samples of a rollout along one axis."""
    return jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), tree)


def clipped_surrogate(log_ratio: Array, advantage: Array, clip: Number) -> Array:  # [N, K], [N, K], [] or [K] -> [N, K]
    """Equation 7, negated because we minimise."""
    ratio = jnp.exp(log_ratio)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def densities(actor: ActionHead, params: PyTree, obs: Observation, trace: PyTree) -> Array:  # one example -> [K, ...]
    """The log density of each decision."""
    assert actor.log_prob is not None
    return jax.vmap(actor.log_prob, in_axes=(None, None, 0))(params, obs, trace)


def reduced(log_prob: Array, config: PPOConfig) -> Array:  # [N, K, ...] -> [N, K]
    """The log density of each decision as one number."""
    if config.density_bounds is not None:
        log_prob = jnp.clip(log_prob, *config.density_bounds)
    numbers = log_prob.reshape(*log_prob.shape[:2], -1)
    return numbers.sum(axis=-1) if config.density == "sum" else numbers.mean(axis=-1)


def with_memory(actor: ActionHead, params: PyTree, batch: Batch, memory: PyTree) -> Observation:  # -> [T, B, ...]
    """The observations with the actor's memory in them, through which gradients flow if that is learned."""
    if actor.memory is None:
        return batch.obs
    if not actor.memory.learned:
        return batch.obs | {actor.memory.name: batch.extras["memory"]}
    of = actor.memory
    run = jax.vmap(lambda *inputs: replay(of, params, *inputs), in_axes=(0, 1, 1), out_axes=1)
    return batch.obs | {of.name: run(memory, batch.obs, batch.begins)}


def prepare(
    actor: ActionHead, critic: Critic, params: PyTree, rollout: Transition, hyper: PPOHyper
) -> tuple[Batch, Array]:  # values [T, B]
    """The advantages, the returns and the values of a rollout."""
    done = rollout.terminated | rollout.truncated
    begins = jnp.concatenate([jnp.zeros_like(done[:1]), done[:-1]])
    batch = Batch(rollout.obs, begins, rollout.extras, rollout.reward, rollout.reward)
    of = jax.vmap(jax.vmap(critic.value, in_axes=(None, 0)), in_axes=(None, 0))
    value = of(params["critic"], rollout.obs)
    next_value = of(params["critic"], rollout.final_obs)
    advantage = gae(
        rollout.reward, value, next_value, rollout.terminated, rollout.truncated, hyper.discount, hyper.trace_decay
    )
    normalised = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)
    return dataclasses.replace(batch, advantage=normalised, returns=advantage + value), value


def losses(
    params: PyTree,
    batch: Batch,
    memory: PyTree,
    actor: ActionHead,
    critic: Critic,
    config: PPOConfig,
    symmetry: Symmetry | None,
    hyper: PPOHyper,
) -> tuple[Array, Info]:
    """The loss of a minibatch and what there is to know of it; `memory` [B, ...] is that before its first step."""
    obs = flat(with_memory(actor, params["actor"], batch, memory))
    batch = flat(batch)
    new = jax.vmap(densities, in_axes=(None, None, 0, 0))(actor, params["actor"], obs, batch.extras["trace"])
    log_ratio = reduced(new, config) - reduced(batch.extras["log_prob"], config)
    surrogate = clipped_surrogate(log_ratio, batch.advantage[:, None] * hyper.decision_weight, hyper.clip)
    value = jax.vmap(critic.value, in_axes=(None, 0))(params["critic"], batch.obs)
    value_error = jnp.mean(jnp.square(value - batch.returns))
    info = {
        "loss/policy": jnp.mean(surrogate),
        "loss/value": value_error,
        "policy/kl": jnp.mean(kl_from_samples(log_ratio)),
        "policy/clip_fraction": jnp.mean(jnp.abs(jnp.exp(log_ratio) - 1) > hyper.clip),
    }
    total = jnp.mean(surrogate) + hyper.value * value_error
    if actor.distribution is not None:
        of = actor.distribution
        entropy = jnp.mean(jax.vmap(lambda obs: of(params["actor"], obs).entropy())(obs))
        info |= {"policy/entropy": entropy}
        total -= hyper.entropy * entropy
    if symmetry is not None and symmetry.loss:
        assert actor.mode is not None
        mode = jax.vmap(actor.mode, in_axes=(None, 0))
        wanted = symmetry.action(jax.lax.stop_gradient(mode(params["actor"], obs)))
        mirror_error = jnp.mean(jnp.square(mode(params["actor"], symmetry.observation(obs)) - wanted))
        info |= {"loss/mirror": mirror_error}
        total += hyper.symmetry * mirror_error
    return total, info
