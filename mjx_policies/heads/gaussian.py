"""Gaussian with a mean from a network and a standard deviation of its own for each action.

Axes: E embedding, H horizon, A action; an action is [A] or [H, A].

The deviation does not depend on the observation (as in rsl_rl) unless a second network says so, and has a floor: with
an entropy bonus or a long run it otherwise drifts away or collapses. Equal bounds fix it.
"""

from __future__ import annotations

import math
from typing import cast

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.heads.base import ActionHead, Noise, masked_mean, one_decision
from mjx_policies.types import Array, PyTree


@jax.custom_vjp
def _bounded(x: Array, low: float, high: float) -> Array:  # [...] -> [...]
    return jnp.clip(x, low, high)


def _bounded_forward(x, low, high):
    return jnp.clip(x, low, high), (x, low, high)


def _bounded_backward(saved, gradient):
    x, low, high = saved
    outward = (x <= low) & (gradient > 0) | (x >= high) & (gradient < 0)  # where a descent step would lead
    return jnp.where(outward, 0.0, gradient).astype(x.dtype), None, None


_bounded.defvjp(_bounded_forward, _bounded_backward)


def bounded_std(log_std: Array, min_std: float, max_std: float) -> Array:  # [...] -> [...]
    """The standard deviation, within bounds that it neither sticks to nor winds up behind.

    At a bound and beyond, the gradient of a loss, which is minimised, passes as if there were no bound where a descent
    step leads back, and is zero where it leads farther out: steps that change nothing would have to be undone one by
    one before the deviation could move again. The bound acts on the logarithm: far below the floor, the gradient of
    exp(log_std) itself would be too small to return.
    """
    return jnp.exp(_bounded(log_std, math.log(min_std), math.log(max_std)))


def gaussian_head(
    net: nn.Module,
    shape: int | tuple[int, ...],
    init_std: float = 1.0,
    min_std: float = 0.1,
    max_std: float = 2.0,
    std_net: nn.Module | None = None,
) -> ActionHead:
    """Builds the Gaussian head.

    Args:
      net: embedding [E] -> mean.
      shape: of the action; A for [A].
      init_std: standard deviation before learning.
      min_std, max_std: bounds of the standard deviation.
      std_net: embedding [E] -> what is added to the logarithm of the standard deviation; None: it is the same
        everywhere.

    Raises:
      ValueError: unless `0 < min_std <= init_std <= max_std`.
    """
    if not 0 < min_std <= init_std <= max_std:
        raise ValueError(f"standard deviations must satisfy 0 < {min_std=} <= {init_std=} <= {max_std=}")

    shape = (shape,) if isinstance(shape, int) else shape

    def init(key: Array, embedding: Array) -> PyTree:
        log_std = jnp.full(shape, jnp.log(init_std), jnp.float32)
        if std_net is None:
            return {"net": net.init(key, embedding), "log_std": log_std}
        key_net, key_std = jax.random.split(key)
        return {
            "net": net.init(key_net, embedding),
            "log_std": log_std,
            "std_net": std_net.init(key_std, embedding),
        }

    def distribution(params: PyTree, embedding: Array) -> distrax.Distribution:
        log_std = params["log_std"]
        if std_net is not None:
            log_std = log_std + cast(Array, std_net.apply(params["std_net"], embedding)).reshape(shape)
        return distrax.Independent(
            distrax.Normal(mode(params, embedding), bounded_std(log_std, min_std, max_std)), len(shape)
        )

    def loss(params: PyTree, key: Array, embedding: Array, action: Array, mask: Array | None = None) -> Array:
        """Minus the log density of one control step; of a chunk, the mean over its steps."""
        del key
        pi = distribution(params, embedding)
        if len(shape) == 1:
            return -pi.log_prob(action)
        return masked_mean(-pi.distribution.log_prob(action).sum(axis=-1), mask)

    def sample(params: PyTree, key: Array, embedding: Array) -> tuple[Array, Array]:
        action = distribution(params, embedding).sample(seed=key)
        return action, one_decision(action)

    def log_prob(params: PyTree, embedding: Array, decision: Array) -> Array:
        return distribution(params, embedding).distribution.log_prob(decision)

    def action_log_prob(params: PyTree, embedding: Array, trace: Array) -> Array:
        return distribution(params, embedding).log_prob(trace[0])

    def mode(params: PyTree, embedding: Array) -> Array:
        # The cast: flax returns a pair only where something is mutable.
        return cast(Array, net.apply(params["net"], embedding)).reshape(*embedding.shape[:-1], *shape)

    def sample_from_noise(params: PyTree, embedding: Array, noise: Array) -> Array:
        pi = distribution(params, embedding)
        return pi.mean() + pi.stddev() * noise

    return ActionHead(
        init, loss, sample, log_prob, action_log_prob, mode, distribution, Noise(shape), sample_from_noise
    )
