"""Shortcut models, Frans et al. 2024 (arXiv:2410.12557): flow matching that also learns to take long steps.

The network is told the size of the step and predicts the mean velocity over it. For size 0 that is flow matching; a
step of any other size learns to lead where two of half the size lead. So one network, trained once, acts in one step
or in many: distilling a trained flow into another network, as FQL does (Park et al. 2025, arXiv:2502.02538), takes a
second training for every number of steps, and is of use where the distilled one is then improved by another objective.

Teaching takes about 1.7 times as long as flow matching: both teachers answer for every example, though a quarter asks.

The paper's sizes are powers of two and its own targets come from an average of the weights. Here sizes are 1 / S of any
S, so that 5 and 10 steps are taught too, and targets come from the weights themselves: a head has no others.
Axes: E embedding, H horizon, A action, S steps; an action is [A] or [H, A].
"""

from __future__ import annotations

import math
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.heads.base import ActionHead, Noise, masked_mean, one_decision
from mjx_policies.heads.flow import MIN_LEFT, FlowPrediction, on_the_line
from mjx_policies.heads.inpainting import Prefix, pull
from mjx_policies.networks.apply import apply
from mjx_policies.types import Array, PyTree

MAX_STEPS = round(0.5 / MIN_LEFT)  # the last half step is then as long as a velocity is made of an action for


def shortcut_head(
    net: nn.Module,
    shape: int | tuple[int, ...],
    num_steps: int = 1,
    max_steps: int = 128,
    consistency: float = 0.25,
    prediction_type: FlowPrediction = "velocity",
) -> ActionHead:
    """Builds the shortcut head. The same parameters serve any number of steps: build it again.

    Args:
      net: one of `networks.denoiser` or a `TemporalUNet`, told [time, size of the step]; answers with the prediction.
      shape: of the action; A for [A].
      num_steps: S when acting.
      max_steps: the smallest steps that are taught are 1 / max_steps long; below, the size is called 0.
      consistency: share of the examples that teach long steps, the others flow matching; the paper's is 1/4.
      prediction_type: the mean velocity v over the step, as in the paper, or where it would lead if kept up to the
        end, x + (1 - t) v: the action itself of a single step, and of a step of no size the action of `flow_head`.

    Raises:
      ValueError: a number out of its range, or no such prediction type.
    """
    if not 1 <= num_steps <= max_steps:
        raise ValueError(f"num_steps is {num_steps}, it must be from 1 to max_steps, {max_steps}")
    if max_steps > MAX_STEPS:
        raise ValueError(f"max_steps is {max_steps}, it must be at most {MAX_STEPS}")
    if not 0 < consistency < 1:
        raise ValueError(f"consistency is {consistency:g}, it must lie between 0 and 1")
    if prediction_type not in get_args(FlowPrediction):
        known = ", ".join(get_args(FlowPrediction))
        raise ValueError(f"prediction_type is {prediction_type!r}, it must be one of {known}")
    shape = (shape,) if isinstance(shape, int) else shape
    noise = Noise(shape)
    starts = np.arange(num_steps, dtype=np.float32) / num_steps

    def init(key: Array, embedding: Array) -> PyTree:
        return net.init(key, jnp.zeros(shape), jnp.zeros(2), embedding)

    def answer(params: PyTree, x: Array, time: Any, size: Any, embedding: Array) -> Array:
        return apply(net, params, x, jnp.stack([jnp.asarray(time), jnp.asarray(size)]), embedding)

    def velocity(params: PyTree, x: Array, time: Any, size: Any, embedding: Array) -> Array:
        found = answer(params, x, time, size, embedding)
        return found if prediction_type == "velocity" else (found - x) / jnp.maximum(1 - time, MIN_LEFT)

    def loss(params: PyTree, key: Array, embedding: Array, action: Array, mask: Array | None = None) -> Array:
        """Mean squared error of the prediction, either the line's or that of two half steps, equation 5."""
        key_kind, key_steps, key_time, key_noise = jax.random.split(key, 4)
        long = jax.random.uniform(key_kind) < consistency
        # As many of 1 step as of 2 or 3, of 4 to 7, ...
        steps = jnp.floor(2 ** (math.log2(max_steps + 1) * jax.random.uniform(key_steps)))
        time = jax.random.uniform(key_time)
        time = jnp.where(long, jnp.floor(time * steps) / steps, time)
        x, target = on_the_line(key_noise, action, time)
        half = 0.5 / steps
        told = jnp.where(2 * steps > max_steps, 0.0, half)
        fixed = jax.lax.stop_gradient(params)
        first = velocity(fixed, x, time, told, embedding)
        second = velocity(fixed, (x + half * first).astype(x.dtype), time + half, told, embedding)
        target = jnp.where(long, jax.lax.stop_gradient(first + second) / 2, target)
        if prediction_type == "action":
            target = x + (1 - time) * target
        found = answer(params, x, time, jnp.where(long, 2 * half, 0.0), embedding)
        return masked_mean((found - target) ** 2, mask)

    def sample_from_noise(params: PyTree, embedding: Array, noise: Array, prefix: Prefix | None = None) -> Array:
        def step(x: Array, time: Any) -> Array:
            def estimate(x: Array) -> tuple[Array, Array]:
                found = velocity(params, x, time, 1 / num_steps, embedding)
                return x + (1 - time) * found, found

            if prefix is None:
                return x + estimate(x)[1] / num_steps
            _, change, found = pull(estimate, x, time, prefix)
            return x + (found + change) / num_steps

        return jax.lax.scan(lambda x, time: (step(x, time), None), noise, starts)[0]

    def sample(params: PyTree, key: Array, embedding: Array) -> tuple[Array, Array]:
        action = sample_from_noise(params, embedding, noise.draw(key))
        return action, one_decision(action)

    inpaint = sample_from_noise if len(shape) == 2 else None
    return ActionHead(init, loss, sample, noise=noise, sample_from_noise=sample_from_noise, inpaint=inpaint)
