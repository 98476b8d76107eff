"""Generalised advantage estimation, Schulman et al. 2016 (arXiv:1506.02438). Axes: T time, B environments."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from mjx_policies.types import Array, Number


def gae(
    reward: Array,
    value: Array,
    next_value: Array,
    terminated: Array,
    truncated: Array,
    discount: Number,
    trace_decay: Number,
) -> Array:  # [T, B] each, [], [] -> [T, B]
    """Equation 16, with episode ends told apart.

    `delta_t = r_t + discount * (1 - terminated_t) * next_value_t - value_t`, and the sum of later deltas is cut where
    an episode ended either way.

    Args:
      reward, value: of step t.
      next_value: value of the observation step t really led to: at a truncation the final one, never the next
        episode's first.
      terminated, truncated: whether the episode ended with step t, and how.
      discount, trace_decay: gamma and lambda.
    """
    chex.assert_equal_shape([reward, value, next_value, terminated, truncated])
    delta = reward + discount * jnp.where(terminated, 0.0, next_value) - value
    decay = discount * trace_decay * jnp.where(terminated | truncated, 0.0, 1.0)

    def backward(advantage, step):
        delta, decay = step
        advantage = delta + decay * advantage
        return advantage, advantage

    return jax.lax.scan(backward, jnp.zeros_like(delta[0]), (delta, decay), reverse=True)[1]
