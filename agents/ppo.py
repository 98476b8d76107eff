"""Proximal policy optimisation, Schulman et al. 2017 (arXiv:1707.06347).

An action is made in K decisions (see `ActionHead`), each with a probability ratio of its own: one of a Gaussian, the
tuned steps of a denoising chain (DPPO, Ren et al. 2024, arXiv:2409.00588). On-policy: `update` is wrong on data that
another policy, or an older version of this one, collected. Axes: T time, B environments, N samples, K decisions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mjx_policies.actor import begin, recall
from mjx_policies.agents.base import Info, Learner
from mjx_policies.agents.critic import Critic
from mjx_policies.agents.optimizer import adam
from mjx_policies.agents.ppo_config import PPOConfig, PPOHyper, Symmetry
from mjx_policies.agents.ppo_losses import Batch, densities, flat, losses, prepare, with_memory
from mjx_policies.agents.rollout import Transition
from mjx_policies.heads.base import ActionHead
from mjx_policies.normalize import Normalizer, init_normalizer, merge, moments, scale_of, without_outliers
from mjx_policies.policy import Policy, acting
from mjx_policies.types import Array, Observation, PyTree

ADAM_EPS = 1e-5


@struct.dataclass
class PPOState:
    """The state of the learner.

    Attributes:
      params: `{"actor": ..., "critic": ...}`, with the scales by which they normalise.
      opt_state: of Adam.
      normalizer: moments, up to the last update, of the entries of observations that actor and critic normalise.
      learning_rate: [] the current one.
      updates: [] int32, calls of `update` so far.
      hyper: numbers of the run.
    """

    params: PyTree
    opt_state: optax.OptState
    normalizer: Normalizer
    learning_rate: Array
    updates: Array
    hyper: PPOHyper


def anneal(updates: Array, hyper: PPOHyper) -> PPOHyper:
    """The numbers of this update: `desired_kl` and `entropy` on their way to their final values."""
    part = jnp.clip(updates / jnp.maximum(hyper.anneal_updates, 1.0), 0.0, 1.0)
    progress = jnp.where(hyper.anneal_updates > 0, part, 0.0)
    desired_kl = hyper.desired_kl ** (1 - progress) * hyper.final_desired_kl**progress
    return dataclasses.replace(
        hyper,
        desired_kl=jnp.where(hyper.desired_kl > 0, desired_kl, 0.0),
        entropy=(1 - progress) * hyper.entropy + progress * hyper.final_entropy,
    )


def adapt_learning_rate(learning_rate: Array, kl: Array, hyper: PPOHyper) -> Array:  # [] -> []
    """Steers the learning rate so that the gradient steps of an update change the policy by about `desired_kl`."""
    down = kl > 2 * hyper.desired_kl
    up = kl < hyper.desired_kl / 2
    adapted = jnp.where(down, learning_rate / 1.5, jnp.where(up, learning_rate * 1.5, learning_rate))
    bounded = jnp.clip(adapted, hyper.min_learning_rate, hyper.max_learning_rate)
    return jnp.where(hyper.desired_kl > 0, bounded, learning_rate)


def mirror_moments(seen: Normalizer, symmetry: Symmetry) -> Normalizer:
    """The moments of the mirror images."""
    variance = jax.tree.map(jnp.abs, symmetry.observation(seen.variance))  # changes places, but no sign
    return dataclasses.replace(seen, mean=symmetry.observation(seen.mean), variance=variance)


def seen_moments(normalizer: Normalizer, obs: Observation, symmetry: Symmetry | None) -> Normalizer:  # [T, B, ...]
    """The moments with those of a rollout and of its mirror images: normalising and reflecting have to commute."""
    seen = moments(without_outliers(normalizer, flat({name: obs[name] for name in normalizer.mean})))
    if symmetry is not None:
        seen = merge(seen, mirror_moments(seen, symmetry))
    return merge(normalizer, seen)


def with_scales(params: PyTree, normalizer: Normalizer, config: PPOConfig) -> PyTree:
    """Parameters that normalise by these moments."""

    def one(part: PyTree) -> PyTree:
        scales = part["scales"]
        observation = {name: scale_of(normalizer.part(name)) for name in scales.observation}
        return part | {"scales": dataclasses.replace(scales, observation=observation)}

    return {name: one(part) if name == "critic" or config.normalize else part for name, part in params.items()}


def exploring(actor: ActionHead, params: PyTree) -> Policy:
    """The behaviour policy: samples, with the trace of each and the log densities of its decisions."""
    memory = actor.memory

    def act(kept: PyTree, key: Array, obs: Observation, clock: Any) -> tuple[tuple[Array, PyTree], PyTree]:
        key_memory, key_sample = jax.random.split(key)
        obs, kept = recall(actor, params, kept, key_memory, obs, clock)
        action, trace = actor.sample(params, key_sample, obs)
        extras = {"trace": trace, "log_prob": densities(actor, params, obs, trace)}
        if memory is not None and not memory.learned:
            extras |= {"memory": obs[memory.name]}
        return (action, extras), kept

    return Policy(lambda key, obs: begin(actor, params, key, obs), act, 1 if memory is None else memory.period)


class Descent(NamedTuple):
    """The state that gradient steps of an update pass on.

    Attributes:
      params, opt_state, learning_rate: see `PPOState`.
      moved: [] bool, whether a step has changed the policy since the rollout.
    """

    params: PyTree
    opt_state: optax.OptState
    learning_rate: Array
    moved: Array


Loss = Callable[[PyTree, Batch, PyTree], tuple[Array, Info]]
"""`(params, minibatch, memory before it) -> (loss, info)`."""


def descend(now: Descent, loss: Loss, batch: Batch, memory: PyTree, hyper: PPOHyper) -> tuple[Descent, Info]:
    """Takes one gradient step."""
    grads, info = jax.grad(loss, has_aux=True)(now.params, batch, memory)
    # Before the first step the policy is the one that acted: what it diverges by is rounding, and not all machines
    # round to 0.
    steered = adapt_learning_rate(now.learning_rate, info["policy/kl"], hyper)
    rate = jnp.where(now.moved, steered, now.learning_rate)
    info |= {f"gradient/{name}": optax.tree.norm(tree) for name, tree in grads.items()}
    optimizer = adam(rate, hyper.max_grad_norm, eps=ADAM_EPS, parts=tuple(now.params))
    updates, opt_state = optimizer.update(grads, now.opt_state, now.params)
    return Descent(optax.apply_updates(now.params, updates), opt_state, rate, jnp.asarray(True)), info


def epochs(
    now: Descent, key: Array, loss: Loss, batch: Batch, memory: PyTree, hyper: PPOHyper, config: PPOConfig
) -> tuple[Descent, Info]:  # info [epochs, minibatches]
    """Takes all gradient steps of an update."""

    def step(now: Descent, columns: Array) -> tuple[Descent, Info]:
        part = jax.tree.map(lambda x: x[:, columns], batch)
        return descend(now, loss, part, jax.tree.map(lambda x: x[columns], memory), hyper)

    def epoch(now: Descent, key: Array) -> tuple[Descent, Info]:
        # Whole environments are permuted: a permutation of B is far cheaper than one of T * B, and mixes as well.
        columns = jax.random.permutation(key, batch.returns.shape[1])
        return jax.lax.scan(step, now, columns.reshape(config.num_minibatches, -1))

    return jax.lax.scan(epoch, now, jax.random.split(key, config.num_epochs))


def ppo(
    actor: ActionHead,
    critic: Critic,
    config: PPOConfig,
    symmetry: Symmetry | None = None,
    deployed: ActionHead | None = None,
) -> Learner:
    """Builds the PPO learner.

    Args:
      actor: what acts; its decisions have a density.
      critic: estimates returns, also from what only a simulator knows.
      config: sizes.
      symmetry: reflection for the mirror loss and for scales that treat left and right alike.
      deployed: what acts in the end, by the same parameters; `actor` by default. For a head that explores by noise in
        its steps, the same head without.

    Raises:
      ValueError: the head has no density, or what the mirror loss needs.
    """
    check(actor, symmetry)

    def init(key: Array, obs: Observation, hyper: PPOHyper) -> PPOState:
        key_actor, key_critic = jax.random.split(key)
        params = {"actor": actor.init(key_actor, obs), "critic": critic.init(key_critic, obs)}
        hyper = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hyper)
        opt_state = adam(0.0, 1.0, eps=ADAM_EPS, parts=tuple(params)).init(params)
        names = sorted({name for part in params.values() for name in part["scales"].observation})
        normalizer, updates = init_normalizer({name: obs[name] for name in names}), jnp.zeros((), jnp.int32)
        return PPOState(params, opt_state, normalizer, jnp.asarray(hyper.learning_rate), updates, hyper)

    def update(state: PPOState, key: Array, rollout: Transition) -> tuple[PPOState, Info]:
        check_divides(rollout.reward.shape[1], config)
        hyper = anneal(state.updates, state.hyper)
        batch, value = prepare(actor, critic, state.params, rollout, hyper)

        def loss(params: PyTree, batch: Batch, memory: PyTree) -> tuple[Array, Info]:
            return losses(params, batch, memory, actor, critic, config, symmetry, hyper)

        now = Descent(state.params, state.opt_state, state.learning_rate, jnp.asarray(False))
        now, info = epochs(now, key, loss, batch, rollout.memory, hyper, config)
        info = jax.tree.map(jnp.mean, info) | {"learning_rate": now.learning_rate}
        info |= {"value/explained": 1 - jnp.var(batch.returns - value) / (jnp.var(batch.returns) + 1e-8)}
        info |= deviation(actor, now.params["actor"], batch, rollout.memory)
        # Scales move only now: during the rollout and all gradient steps the policy saw one normalisation, so the first
        # ratio is one.
        normalizer = seen_moments(state.normalizer, rollout.obs, symmetry)
        params = with_scales(now.params, normalizer, config)
        return PPOState(params, now.opt_state, normalizer, now.learning_rate, state.updates + 1, state.hyper), info

    return Learner(
        init=init,
        act=lambda state: exploring(actor, state.params["actor"]),
        update=update,
        policy=lambda state: acting(deployed or actor, state.params["actor"]),
    )


def deviation(actor: ActionHead, params: PyTree, batch: Batch, memory: PyTree) -> Info:
    """The standard deviation of a policy that has one, in the first of its observations."""
    if actor.distribution is None:
        return {}
    first, memory = jax.tree.map(lambda x: x[:1, :1], batch), jax.tree.map(lambda x: x[:1], memory)
    obs = jax.tree.map(lambda x: x[0, 0], with_memory(actor, params, first, memory))
    try:
        return {"policy/std": jnp.mean(actor.distribution(params, obs).stddev())}
    except NotImplementedError:  # of bins
        return {}


def check(actor: ActionHead, symmetry: Symmetry | None) -> None:
    """Refuses what PPO cannot learn with."""
    if actor.log_prob is None:
        raise ValueError(
            "ppo needs a head with log_prob; this one has none. Use gaussian_head, or give a diffusion_head (eta or "
            "min_std) or a flow_head (step_std) noise in its steps."
        )
    if symmetry is not None and symmetry.loss and (actor.mode is None or actor.memory is not None):
        raise ValueError("the mirror loss needs a head with a mode and no memory: use no symmetry loss")


def check_divides(num_envs: int, config: PPOConfig) -> None:
    """Refuses minibatches of different sizes."""
    if num_envs % config.num_minibatches:
        raise ValueError(
            f"{num_envs} environments do not divide into {config.num_minibatches} minibatches: "
            f"choose num_envs as a multiple of num_minibatches"
        )
