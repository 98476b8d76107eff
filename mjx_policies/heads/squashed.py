"""Gaussian whose samples pass a hyperbolic tangent, so that no action leaves [-1, 1], Haarnoja et al. 2018.

The decision is the action before squashing, and `log_prob` its density: ratios and divergences of two policies are the
same on either side of the tangent. `action_log_prob` is the density of the squashed action, of which the entropy of
soft actor-critic is made (arXiv:1812.05905, appendix C). Axes: E embedding, H horizon, A action.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.heads.base import ActionHead, masked_mean
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.types import Array, PyTree

LARGEST = 1 - 1e-6
"""An action of magnitude 1 comes from infinity; a demonstrated one is taken to be this instead."""


def tanh_log_slope(x: Array) -> Array:  # [...] -> [...]
    """log(1 - tanh(x)²) = 2 (log 2 - x - softplus(-2x)), also where tanh(x) rounds to 1."""
    return 2 * (math.log(2) - x - jax.nn.softplus(-2 * x))


def squashed_gaussian_head(
    net: nn.Module,
    shape: int | tuple[int, ...],
    init_std: float = 1.0,
    min_std: float = 1e-3,
    max_std: float = 2.0,
    std_net: nn.Module | None = None,
) -> ActionHead:
    """Builds the head; see `gaussian_head`, whose means and deviations are before squashing.

    `mode` is the squashed mean, which is the action's median, not its most likely value.
    """
    before = gaussian_head(net, shape, init_std, min_std, max_std, std_net)
    assert before.distribution is not None and before.mode is not None and before.sample_from_noise is not None
    density, median, draw = before.distribution, before.mode, before.sample_from_noise

    def loss(params: PyTree, key: Array, embedding: Array, action: Array, mask: Array | None = None) -> Array:
        """Minus the log density of the squashed action of one control step; of a chunk, the mean over its steps."""
        del key
        # In float32: the largest of bfloat16 below 1 is rounded to 1, whose arctanh is infinite.
        trace = jnp.arctanh(jnp.clip(action.astype(jnp.float32), -LARGEST, LARGEST))
        normal = density(params, embedding).distribution
        per_step = (tanh_log_slope(trace) - normal.log_prob(trace)).sum(axis=-1)
        return per_step if per_step.ndim == 0 else masked_mean(per_step, mask)

    def sample(params: PyTree, key: Array, embedding: Array) -> tuple[Array, Array]:
        decision, trace = before.sample(params, key, embedding)
        return jnp.tanh(decision), trace

    def action_log_prob(params: PyTree, embedding: Array, trace: Array) -> Array:
        return density(params, embedding).log_prob(trace[0]) - tanh_log_slope(trace[0]).sum()

    def mode(params: PyTree, embedding: Array) -> Array:
        return jnp.tanh(median(params, embedding))

    def sample_from_noise(params: PyTree, embedding: Array, noise: Array) -> Array:
        return jnp.tanh(draw(params, embedding, noise))

    return before._replace(
        loss=loss,
        sample=sample,
        action_log_prob=action_log_prob,
        mode=mode,
        sample_from_noise=sample_from_noise,
    )
