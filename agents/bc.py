"""Behaviour cloning: a head learns to do what a demonstrator did in the same place.

What decides whether it works (Chi et al. 2023, arXiv:2303.04137, and its code): observations and actions are scaled by
statistics of the data, an average of the weights acts rather than the weights themselves, the learning rate warms up
and then falls along a cosine.

Axes: N examples of a batch, O observations remembered, H horizon, A action.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from mjx_policies.agents.base import Info
from mjx_policies.data.statistics import Scale
from mjx_policies.data.windows import Window
from mjx_policies.heads.base import ActionHead, Noise
from mjx_policies.heads.inpainting import Prefix
from mjx_policies.types import Array, Number, Observation, PyTree

ADAM_B1, ADAM_B2 = 0.95, 0.999  # of Chi et al.
DECAYING, FIXED = ("kernel", "embedding"), ("codebook", "frozen")
"""Names of the parameters that decay, and of parts that no gradient reaches, where none does."""


@struct.dataclass
class BCHyper:
    """Numbers of a run: leaves, so a batch of them is a batch of runs.

    Attributes:
      learning_rate: after the warm-up.
      warmup_steps: in which it rises from zero.
      total_steps: after which it is zero again, along half a cosine.
      weight_decay: of AdamW, for kernels and embeddings alone.
      max_grad_norm: gradients are scaled down to it.
      ema_power, max_ema: in a step the average keeps min(max_ema, 1 - (1 + step)^-ema_power) of itself.
      observation_dropout: probability that an example shows zeros in the place of its scaled observations (the mean of
        the data, if their scale is `standard`), or of those that `bc` was told to hide, so that a policy cannot learn
        to repeat what it sees it just did.
      observation_noise: standard deviation of what is added to scaled observations, so that a policy knows its way a
        little beside the demonstrated one.
    """

    learning_rate: Number = 1e-3
    warmup_steps: Number = 200.0
    total_steps: Number = 10_000.0
    weight_decay: Number = 1e-6
    max_grad_norm: Number = 1.0
    ema_power: Number = 0.75
    max_ema: Number = 0.999
    observation_dropout: Number = 0.0
    observation_noise: Number = 0.0

    def __post_init__(self) -> None:
        for name, least, most in HYPER_RANGES:
            value = getattr(self, name)
            # Anything else is a leaf: traced, batched or a placeholder of a tree transformation.
            if isinstance(value, int | float) and not least <= value <= most:
                raise ValueError(f"hyper.{name} is {value:g}, it must lie between {least:g} and {most:g}")


HUGE = 1e12  # "finite"
HYPER_RANGES = (
    ("learning_rate", 0.0, HUGE),
    ("warmup_steps", 0.0, HUGE),
    ("total_steps", 1.0, HUGE),
    ("weight_decay", 0.0, HUGE),
    ("max_grad_norm", 1e-12, HUGE),
    ("ema_power", 0.0, HUGE),
    ("max_ema", 0.0, 1.0),
    ("observation_dropout", 0.0, 1.0),
    ("observation_noise", 0.0, HUGE),
)


@struct.dataclass
class Scales:
    """How the network sees data.

    Attributes:
      observation: {name: its scale}.
      action: of [A] or, where every step of a chunk has one of its own, [H, A].
    """

    observation: dict[str, Scale]
    action: Scale


Reference = Callable[[Observation], Array]
"""`observation {name: [O, ...]} -> [A]`, what actions are learnt relative to, both in the units of the data."""


def relative(window: Window, reference: Reference | None) -> Array:  # [N, ...] -> [N, H, A]
    """The chunks that heads learn, before they are scaled: padding holds the last real action, whatever it held.

    To be done in the units of the data, since the steps of a chunk may have scales of their own.
    """

    def one(observation: Observation, action: Array, mask: Array) -> Array:
        steps = jnp.arange(len(mask))
        first, last = jnp.argmax(mask > 0), jnp.max(jnp.where(mask > 0, steps, 0))
        action = action[jnp.clip(steps, first, last)]
        return action if reference is None else action - reference(observation)

    return jax.vmap(one)(window.observation, jnp.asarray(window.action), jnp.asarray(window.action_mask))


@struct.dataclass
class BCState:
    """What learning carries on.

    Attributes:
      params: `{"encoder": ..., "head": ...}`, float32.
      average: of the parameters: what acts.
      opt_state: of Adam.
      step: [] int32, gradient steps so far.
      scales: of observations and actions.
      hyper: numbers of the run.
    """

    params: PyTree
    average: PyTree
    opt_state: optax.OptState
    step: Array
    scales: Scales
    hyper: BCHyper


class Cloner(NamedTuple):
    """Behaviour cloning as pure functions.

    Attributes:
      init: `(key, observation {name: [O, ...]}, scales, hyper) -> state`.
      update: `(state, key, batch) -> (state, info)`, one gradient step.
      loss: `(state, key, batch) -> []` of the averaged parameters, for validation.
      plan: `(state, key, observation {name: [O, ...]}) -> actions [H, A]`, a sample, in the units of the data.
      mode: `(state, observation) -> actions [H, A]`, or None where the head has only samples.
      act: `(state, observation, noise) -> actions [H, A]`, the sample of given random numbers, or None.
      noise: what `act` wants.
      inpaint: `(state, key, observation, prefix) -> actions [H, A]`, a sample that continues an `inpainting.Prefix` in
        the units of the data, or None.
    """

    init: Callable[[Array, Observation, Scales, BCHyper], BCState]
    update: Callable[[BCState, Array, Window], tuple[BCState, Info]]
    loss: Callable[[BCState, Array, Window], Array]
    plan: Callable[[BCState, Array, Observation], Array]
    mode: Callable[[BCState, Observation], Array] | None
    act: Callable[[BCState, Observation, Array], Array] | None
    noise: Noise | None
    inpaint: Callable[[BCState, Array, Observation, Prefix], Array] | None


def learning_rate(step: Array, hyper: BCHyper) -> Array:  # [] -> []
    """Linear warm-up, then half a cosine to zero."""
    warm = (step + 1) / jnp.maximum(hyper.warmup_steps, 1.0)
    progress = (step - hyper.warmup_steps) / jnp.maximum(hyper.total_steps - hyper.warmup_steps, 1.0)
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))
    return hyper.learning_rate * jnp.minimum(jnp.minimum(warm, 1.0), cosine)


def ema_decay(step: Array, hyper: BCHyper) -> Array:  # [] -> []
    """What the average keeps of itself: nothing in the first step, `max_ema` in the end."""
    return jnp.minimum(hyper.max_ema, 1 - (1.0 + step) ** -hyper.ema_power)


def bc(
    encoder: nn.Module,
    head: ActionHead,
    dtype: Literal["float32", "bfloat16"] = "float32",
    hidden: Mapping[str, np.ndarray] | None = None,
    limit: float = math.inf,
    reference: Reference | None = None,
) -> Cloner:
    """Builds the learner.

    Args:
      encoder: {name: [O, ...]} -> embedding, from scaled observations.
      head: makes chunks [H, A] of scaled actions.
      dtype: of the network's arithmetic; parameters, their average and the optimizer stay float32.
      hidden: {name: [D] bool} which numbers of an observation its dropout hides, such as what a robot senses of itself;
        observations that are not named stay whole. By default all is hidden.
      limit: what acts keeps scaled actions within; 1 where data do not go beyond, for a network may wherever it sees
        what it has never seen.
      reference: what actions are learnt relative to; their scale is then that of the difference.
    """
    optimizer = optax.flatten(optax.scale_by_adam(ADAM_B1, ADAM_B2))
    mode_of, act_of, inpaint_of = head.mode, head.act, head.inpaint

    def encode(params: PyTree, seen: Observation) -> Array:
        return cast(Array, encoder.apply(params, seen))  # a pair only where something is mutable

    def init(key: Array, observation: Observation, scales: Scales, hyper: BCHyper) -> BCState:
        key_encoder, key_head = jax.random.split(key)
        seen = scale(scales, observation)
        encoder_params = encoder.init(key_encoder, seen)
        params = {
            "encoder": encoder_params,
            "head": head.init(key_head, encode(encoder_params, seen)),
        }
        hyper = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hyper)
        # Copies: a step that gives its input's memory away must not give the same memory away twice.
        average = jax.tree.map(jnp.copy, params)
        scales = jax.tree.map(jnp.asarray, scales)
        return BCState(params, average, optimizer.init(params), jnp.zeros((), jnp.int32), scales, hyper)

    def scale(scales: Scales, observation: Mapping[str, Any]) -> Observation:
        return {name: scales.observation[name].apply(observation[name]) for name in scales.observation}

    def base(observation: Observation) -> Array:  # -> [1, A]
        return jnp.zeros((1, 1)) if reference is None else reference(observation)[None]

    def hide(name: str, x: Array, kept: Array) -> Array:  # [N, O, D], [N] -> [N, O, D]
        kept = kept.reshape(-1, *(1,) * (x.ndim - 1))
        if hidden is not None:
            kept = kept | ~jnp.asarray(hidden.get(name, False))
        return jnp.where(kept, x, 0.0)

    def example_loss(params: PyTree, key: Array, observation: Observation, action: Array, mask: Array) -> Array:
        params, observation, action = _cast((params, observation, action), dtype)
        embedding = encode(params["encoder"], observation)
        return head.loss(params["head"], key, embedding, action, mask).astype(jnp.float32)

    def batch_loss(params: PyTree, key: Array, scales: Scales, batch: Window, dropout: Number, noise: Number) -> Array:
        count = len(batch.action)
        key_loss, key_dropout, key_noise = jax.random.split(key, 3)
        action = scales.action.apply(relative(batch, reference))
        observation = scale(scales, batch.observation)
        kept = jax.random.uniform(key_dropout, (count,)) >= dropout
        observation = {
            name: hide(name, x + noise * jax.random.normal(key, x.shape), kept)
            for key, (name, x) in zip(jax.random.split(key_noise, len(observation)), observation.items(), strict=True)
        }
        keys = jax.random.split(key_loss, count)
        losses = jax.vmap(example_loss, in_axes=(None, 0, 0, 0, 0))(
            params, keys, observation, action, batch.action_mask.astype(jnp.float32)
        )
        # Every step of a demonstration counts alike, also those at its end, whose chunks are mostly padding.
        steps = batch.action_mask.sum(axis=1)
        return (losses * steps).sum() / jnp.maximum(steps.sum(), 1)

    def update(state: BCState, key: Array, batch: Window) -> tuple[BCState, Info]:
        hyper = state.hyper
        value, grads = jax.value_and_grad(batch_loss)(
            state.params, key, state.scales, batch, hyper.observation_dropout, hyper.observation_noise
        )
        norm = optax.tree.norm(grads)
        grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, hyper.max_grad_norm / (norm + 1e-6)), grads)
        steps, opt_state = optimizer.update(grads, state.opt_state, state.params)
        rate = learning_rate(state.step, hyper)

        def descend(path, parameter, step):
            names = [getattr(entry, "key", None) for entry in path]
            decays = names[-1] in DECAYING and not set(names) & set(FIXED)
            return parameter - rate * (step + (hyper.weight_decay * parameter if decays else 0.0))

        params = jax.tree_util.tree_map_with_path(descend, state.params, steps)
        keep = ema_decay(state.step, hyper)
        average = jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, state.average, params)
        state = dataclasses.replace(state, params=params, average=average, opt_state=opt_state, step=state.step + 1)
        return state, {"loss/train": value, "gradient/norm": norm, "learning_rate": rate}

    def loss(state: BCState, key: Array, batch: Window) -> Array:
        return batch_loss(state.average, key, state.scales, batch, 0.0, 0.0)

    def embed(state: BCState, observation: Observation) -> Array:
        return encode(state.average["encoder"], scale(state.scales, observation))

    def unscale(state: BCState, action: Array, observation: Observation) -> Array:
        return cast(Array, state.scales.action.invert(jnp.clip(action, -limit, limit))) + base(observation)

    def plan(state: BCState, key: Array, observation: Observation) -> Array:
        action, _ = head.sample(state.average["head"], key, embed(state, observation))
        return unscale(state, action, observation)

    def mode(state: BCState, observation: Observation) -> Array:
        assert mode_of is not None
        return unscale(state, mode_of(state.average["head"], embed(state, observation)), observation)

    def act(state: BCState, observation: Observation, noise: Array) -> Array:
        assert act_of is not None
        return unscale(state, act_of(state.average["head"], embed(state, observation), noise), observation)

    def inpaint(state: BCState, key: Array, observation: Observation, prefix: Prefix) -> Array:
        assert inpaint_of is not None and head.noise is not None
        prefix = prefix._replace(action=state.scales.action.apply(prefix.action - base(observation)))
        embedding, noise = embed(state, observation), head.noise.draw(key)
        return unscale(state, inpaint_of(state.average["head"], embedding, noise, prefix), observation)

    return Cloner(
        init,
        update,
        loss,
        plan,
        mode if mode_of else None,
        act if act_of else None,
        head.noise,
        inpaint if inpaint_of else None,
    )


def _cast(tree: PyTree, dtype: str) -> PyTree:
    """Floats as `dtype`."""
    kind = jnp.dtype(dtype)
    return jax.tree.map(lambda x: x.astype(kind) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
