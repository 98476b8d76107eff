"""Mixture of Gaussians, Bishop 1994 (Mixture density networks); for robots Mandlekar et al. 2021 (arXiv:2108.03298).

A chunk is drawn from one component as a whole: its steps agree on the way around an obstacle. Axes: E embedding, K
components, H horizon, A action; an action is [A] or [H, A].
"""

from __future__ import annotations

import math

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.heads.base import ActionHead, Noise, one_decision
from mjx_policies.heads.gaussian import bounded_std
from mjx_policies.networks.apply import apply
from mjx_policies.networks.outputs import Outputs
from mjx_policies.types import Array, PyTree

APART = 0.2


def choose(probabilities: Array, normal: Array) -> Array:  # [K], [...] -> [..., K]
    """One of K, one-hot, by what share of a standard normal distribution lies below `normal`.

    So that one array of normal noise holds all that a sampler draws.
    """
    below = jax.scipy.stats.norm.cdf(normal)[..., None]
    starts = jnp.concatenate([jnp.zeros(1), jnp.cumsum(probabilities)[:-1]])
    index = (starts <= below).sum(axis=-1) - 1
    return jax.nn.one_hot(index, len(probabilities))


def mixture_head(
    net: nn.Module,
    shape: int | tuple[int, ...],
    num_components: int = 5,
    init_std: float = 0.5,
    min_std: float = 0.01,
    max_std: float = 2.0,
) -> ActionHead:
    """Builds the Gaussian mixture head.

    `mode` is the mean of the heaviest component: not the mean of all, which may be where nobody ever went.

    Args:
      net: embedding [E] -> features, of any size.
      shape: of the action; A for [A].
      num_components: K.
      init_std: standard deviation of each component before learning, when all means lie within `APART` of it from 0.
      min_std, max_std: bounds of the standard deviation. Without a floor a component closes in on a single action, and
        its density goes to infinity.

    Raises:
      ValueError: unless `0 < min_std <= init_std <= max_std`, and there is a component.
    """
    if num_components < 1:
        raise ValueError(f"num_components is {num_components}, it must be at least 1")
    if not 0 < min_std <= init_std <= max_std:
        raise ValueError(f"standard deviations must satisfy 0 < {min_std=} <= {init_std=} <= {max_std=}")
    shape = (shape,) if isinstance(shape, int) else shape
    each = (num_components, *shape)
    outputs = Outputs(net, {"logits": (num_components,), "mean": each, "log_std": each})

    def init(key: Array, embedding: Array) -> PyTree:
        key_net, key_center = jax.random.split(key)
        # Components that begin alike would stay alike. If they began far apart, one would be nearest to all chunks, by
        # so much in density, a product over H A numbers, that no other would ever learn.
        size = (num_components, *(1,) * (len(shape) - 1), shape[-1])
        center = APART * init_std * jax.random.uniform(key_center, size, minval=-1.0)
        return {"net": outputs.init(key_net, embedding), "center": center}

    def components(params: PyTree, embedding: Array) -> tuple[Array, distrax.Normal]:  # [K], [K, (H), A]
        found = apply(outputs, params["net"], embedding)
        std = bounded_std(math.log(init_std) + found["log_std"], min_std, max_std)
        return found["logits"], distrax.Normal(params["center"] + found["mean"], std)

    def distribution(params: PyTree, embedding: Array) -> distrax.Distribution:
        logits, normal = components(params, embedding)
        return distrax.MixtureSameFamily(distrax.Categorical(logits), distrax.Independent(normal, len(shape)))

    def loss(params: PyTree, key: Array, embedding: Array, action: Array, mask: Array | None = None) -> Array:
        """Minus the log density of one control step; of a chunk, that of all its steps, divided by their number."""
        del key
        logits, normal = components(params, embedding)
        per_step = normal.log_prob(action).sum(axis=-1)  # [K] or [K, H]
        if len(shape) == 1:
            per_step = per_step[:, None]
        mask = jnp.ones(per_step.shape[1]) if mask is None else mask
        steps = mask.sum()
        joint = jax.nn.logsumexp(jax.nn.log_softmax(logits) + per_step @ mask)
        return -joint / jnp.where(steps > 0, steps, 1.0)

    def sample_from_noise(params: PyTree, embedding: Array, noise: Array) -> Array:
        logits, normal = components(params, embedding)
        chosen = choose(jax.nn.softmax(logits), noise[0])
        mean, std = (jnp.tensordot(chosen, x, 1) for x in (normal.loc, normal.scale))
        return mean + std * noise[1:].reshape(shape)

    noise = Noise((1 + math.prod(shape),))

    def sample(params: PyTree, key: Array, embedding: Array) -> tuple[Array, Array]:
        action = sample_from_noise(params, embedding, noise.draw(key))
        return action, one_decision(action)

    def log_prob(params: PyTree, embedding: Array, decision: Array) -> Array:
        """Log density of all numbers together, which the choice of a component ties to each other."""
        return distribution(params, embedding).log_prob(decision)

    def action_log_prob(params: PyTree, embedding: Array, trace: Array) -> Array:
        return log_prob(params, embedding, trace[0])

    def mode(params: PyTree, embedding: Array) -> Array:
        logits, normal = components(params, embedding)
        return jnp.tensordot(jax.nn.one_hot(jnp.argmax(logits), num_components), normal.loc, 1)

    return ActionHead(
        init, loss, sample, log_prob, action_log_prob, mode, noise=noise, sample_from_noise=sample_from_noise
    )
