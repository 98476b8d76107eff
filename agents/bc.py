"""Behaviour cloning (BC): an actor learns to do what a demonstrator did in the same place.

What decides whether it works (Chi et al. 2023, arXiv:2303.04137, and its code): observations and actions are scaled by
statistics of the data, an average of the weights acts rather than the weights themselves, the learning rate warms up
and then falls along a cosine.

Axes: N examples of a batch, O stacked observations, H horizon, A action.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from mjx_policies.actor import Reference, Scales
from mjx_policies.agents.base import Info, Learner, check_hyper
from mjx_policies.agents.optimizer import adam, ema_decay, warmup_cosine
from mjx_policies.data.windows import Window
from mjx_policies.heads.base import ActionHead
from mjx_policies.policy import Policy
from mjx_policies.types import Array, Number, Observation, PyTree

ADAM_B1, ADAM_B2 = 0.95, 0.999  # of Chi et al.


@struct.dataclass
class BCHyper:
    """Numbers of a run: leaves, so a batch of them is a batch of runs."""

    learning_rate: Number = 1e-3  # peak, after the warm-up
    warmup_steps: Number = 200.0  # gradient steps in which the learning rate rises from zero
    total_steps: Number = 10_000.0  # gradient steps after which it is zero again, along half a cosine
    weight_decay: Number = 1e-6  # of AdamW, for kernels and embeddings alone
    max_grad_norm: Number = 1.0  # gradients are clipped to this norm
    ema_power: Number = 0.75  # in a step the EMA of the weights keeps min(max_ema, 1 - (1 + step)^-ema_power) of itself
    max_ema: Number = 0.999  # upper bound of the same
    # probability that an example hides its observations behind the mean of the data, or those that `bc` was told to
    # hide, so that a policy cannot learn to repeat its last action
    observation_dropout: Number = 0.0
    observation_noise: Number = 0.0  # standard deviation of noise that is added to scaled observations

    def __post_init__(self) -> None:
        check_hyper(self, positive=("total_steps", "max_grad_norm"), portions=("max_ema", "observation_dropout"))


def hold_padding(action: Array, mask: Array) -> Array:  # [H, A], [H] -> [H, A]
    """A chunk whose padding holds the nearest real action, whatever it held.

    To be done in the units of the data, since the steps of a chunk may have scales of their own.
    """
    steps = jnp.arange(len(mask))
    first, last = jnp.argmax(mask > 0), jnp.max(jnp.where(mask > 0, steps, 0))
    return action[jnp.clip(steps, first, last)]


def relative(window: Window, reference: Reference | None) -> Array:  # [N, ...] -> [N, H, A]
    """The chunks that heads learn, before they are scaled."""

    def one(observation: Observation, action: Array, mask: Array) -> Array:
        action = hold_padding(action, mask)
        return action if reference is None else action - reference(observation)

    return jax.vmap(one)(window.observation, jnp.asarray(window.action), jnp.asarray(window.action_mask))


@struct.dataclass
class BCState:
    """The state of the learner.

    Attributes:
      params: of the actor, float32.
      average: of the parameters: what acts.
      opt_state: of Adam.
      step: [] int32, gradient steps so far.
      hyper: numbers of the run.
    """

    params: PyTree
    average: PyTree
    opt_state: optax.OptState
    step: Array
    hyper: BCHyper


def augment(
    scales: Scales,
    key: Array,
    observation: Observation,
    hidden: Mapping[str, np.ndarray] | None,
    dropout: Number,
    noise: Number,
) -> Observation:  # {name: [O, ...]}
    """One example's observations with noise, and perhaps without some of their numbers, see `BCHyper`.

    Args:
      scales: noise is in scaled units, and what is hidden is where its scale has zero.
      key: of what is drawn.
      observation: in its own units; an entry without a scale stays as it is.
      hidden: {name: bools} which numbers are hidden; those of an entry not named stay. None: all are hidden.
      dropout: probability that they are.
      noise: standard deviation.
    """
    key_dropout, key_noise = jax.random.split(key)
    kept = jax.random.uniform(key_dropout) >= dropout
    found = dict(observation)
    for key, name in zip(jax.random.split(key_noise, len(observation)), observation, strict=True):
        if name in scales.observation:
            x, scale = observation[name], scales.observation[name]
            stays = kept if hidden is None else kept | ~jnp.asarray(hidden.get(name, False))
            x = x + scale.size * noise * jax.random.normal(key, x.shape)
            found[name] = jnp.where(stays, x, scale.offset)
    return found


def imitation_loss(
    actor: ActionHead,
    params: PyTree,
    key: Array,
    batch: Window,
    hidden: Mapping[str, np.ndarray] | None = None,
    dropout: Number = 0.0,
    noise: Number = 0.0,
    reference: Reference | None = None,
) -> Array:  # -> []
    """The mean over the demonstrated steps of a batch: all count alike, also those whose chunks are mostly padding."""

    def one(key: Array, observation: Observation, action: Array, mask: Array) -> Array:
        key_loss, key_augment = jax.random.split(key)
        scales = jax.lax.stop_gradient(params["scales"])
        seen, action = augment(scales, key_augment, observation, hidden, dropout, noise), hold_padding(action, mask)
        if reference is not None:  # what is learnt is relative to the real observation, whatever is masked of it
            action = action + reference(seen) - reference(observation)
        return actor.loss(params, key_loss, seen, action, mask.astype(jnp.float32))

    keys = jax.random.split(key, len(batch.action))
    losses = jax.vmap(one)(keys, batch.observation, jnp.asarray(batch.action), jnp.asarray(batch.action_mask))
    steps = batch.action_mask.sum(axis=1)
    return (losses * steps).sum() / jnp.maximum(steps.sum(), 1)


def bc(
    actor: ActionHead,
    policy: Callable[[PyTree], Policy],
    hidden: Mapping[str, np.ndarray] | None = None,
    reference: Reference | None = None,
) -> Learner:
    """Builds the BC learner. Its batches are windows of demonstrations.

    Args:
      actor: {name: [O, ...]} -> chunks [H, A], with the scales of the data in its `Units`.
      policy: parameters -> what acts, one action at a time, such as a function of `chunking`.
      hidden: {name: [D] bool} which numbers of an observation its dropout hides, such as what a robot senses of itself;
        observations that are not named stay whole. By default all is hidden.
      reference: of the actor's `Units`.
    """

    def init(key: Array, obs: Observation, hyper: BCHyper) -> BCState:
        params = actor.init(key, obs)
        hyper = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hyper)
        average = jax.tree.map(jnp.copy, params)  # a step that gives its input's memory away must not do so twice
        opt_state = adam(0.0, 1.0, b1=ADAM_B1, b2=ADAM_B2).init(params)
        return BCState(params, average, opt_state, jnp.zeros((), jnp.int32), hyper)

    def act(state: BCState) -> Policy:
        """Acts as it is evaluated: who collects for DAgger wants the policy's own states."""
        inner = policy(state.average)

        def step(memory: PyTree, key: Array, obs: Observation, clock: Any) -> tuple[tuple[Array, PyTree], PyTree]:
            action, memory = inner.act(memory, key, obs, clock)
            return (action, ()), memory

        return Policy(inner.init, step, inner.period)

    def update(state: BCState, key: Array, batch: Window) -> tuple[BCState, Info]:
        hyper = state.hyper
        value, grads = jax.value_and_grad(imitation_loss, argnums=1)(
            actor, state.params, key, batch, hidden, hyper.observation_dropout, hyper.observation_noise, reference
        )
        rate = warmup_cosine(state.step, hyper.learning_rate, hyper.warmup_steps, hyper.total_steps)
        optimizer = adam(rate, hyper.max_grad_norm, hyper.weight_decay, ADAM_B1, ADAM_B2)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        keep = ema_decay(state.step, hyper.ema_power, hyper.max_ema)
        average = optax.incremental_update(params, state.average, 1 - keep)
        state = dataclasses.replace(state, params=params, average=average, opt_state=opt_state, step=state.step + 1)
        return state, {"loss/train": value, "gradient/norm": optax.tree.norm(grads), "learning_rate": rate}

    return Learner(init, act, update, lambda state: policy(state.average))
