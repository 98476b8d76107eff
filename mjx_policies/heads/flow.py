"""Flow matching, Lipman et al. 2023 (arXiv:2210.02747): a velocity field that carries noise to actions.

Noise and action are joined by straight lines, x_t = (1 - t) noise + t action, and the network learns the mean velocity
action - noise of the lines through a place; following it from time 0 (noise) to 1 (action) draws from the data. Some
papers count time the other way. The path is deterministic given the noise, and the density of where it ends is not
known here. With a `step_std` every step ends in noise, and so is a decision with a Gaussian density: what policy
gradients explore with (ReinFlow, Zhang et al. 2025, arXiv:2505.22094).
Axes: E embedding, H horizon, A action, S steps; an action is [A] or [H, A].
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.heads.base import ActionHead, ChainStep, Noise, chain_steps, masked_mean, one_decision
from mjx_policies.heads.inpainting import Prefix, pull
from mjx_policies.networks.apply import apply
from mjx_policies.types import Array, Number, PyTree

Times = Literal["uniform", "beta"]
Solver = Literal["euler", "heun"]
FlowPrediction = Literal["velocity", "action"]
BETA, LAST = 1.5, 0.999
MIN_LEFT = 1e-3  # of the time, where a velocity is made of an action: at the end there is no way left


def draw_time(key: Array, times: Times) -> Array:  # -> []
    """When to teach: at any time alike, or more often near the noise, where a policy decides what to do.

    The latter is 0.999 (1 - b) of b ~ Beta(1.5, 1), Black et al. 2024 (arXiv:2410.24164), section IV, in our direction
    of time.
    """
    uniform = jax.random.uniform(key)
    return uniform if times == "uniform" else LAST * (1 - uniform ** (1 / BETA))


def on_the_line(key: Array, action: Array, time: Number) -> tuple[Array, Array]:  # -> x_t, velocity
    """A noisy action and the velocity that leads from its noise to the action."""
    noise = jax.random.normal(key, action.shape).astype(action.dtype)
    return ((1 - time) * noise + time * action).astype(action.dtype), action - noise


def flow_head(
    net: nn.Module,
    shape: int | tuple[int, ...],
    num_steps: int = 10,
    solver: Solver = "euler",
    times: Times = "uniform",
    prediction_type: FlowPrediction = "velocity",
    step_std: float = 0.0,
) -> ActionHead:
    """Builds the flow-matching head. The same parameters serve any number of steps and either solver: build it again.

    Args:
      net: one of `networks.denoiser` or a `TemporalUNet`; answers with the prediction.
      shape: of the action; A for [A].
      num_steps: S.
      solver: `heun` averages the velocities at both ends of a step, for twice the work.
      times: see `draw_time`.
      prediction_type: what the network predicts. From the clean action follows the velocity, (action - x) / (1 - t);
        where an observation all but determines the action, a network knows it well before it can tell the noise in x
        from it, and the last step of Euler's leads to its prediction, free of noise.
      step_std: standard deviation of what is added in each step; 0 to evaluate.

    Raises:
      ValueError: no step, a deviation below 0, or no such solver, times or prediction type.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}, it must be at least 1")
    if not 0 <= step_std < math.inf:
        raise ValueError(f"step_std is {step_std:g}, it must be a number from 0 on")
    for name, value, known in (
        ("solver", solver, get_args(Solver)),
        ("times", times, get_args(Times)),
        ("prediction_type", prediction_type, get_args(FlowPrediction)),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}, it must be one of {', '.join(known)}")
    shape = (shape,) if isinstance(shape, int) else shape
    noise = Noise((1 + num_steps, *shape) if step_std else shape)
    starts = jnp.asarray(np.arange(num_steps, dtype=np.float32) / num_steps)

    def init(key: Array, embedding: Array) -> PyTree:
        return net.init(key, jnp.zeros(shape), jnp.zeros(()), embedding)

    def loss(params: PyTree, key: Array, embedding: Array, action: Array, mask: Array | None = None) -> Array:
        """Mean squared error of the prediction. Padding is seen, but counts for nothing."""
        key_time, key_noise = jax.random.split(key)
        time = draw_time(key_time, times)
        x, velocity = on_the_line(key_noise, action, time)
        target = velocity if prediction_type == "velocity" else action
        return masked_mean((apply(net, params, x, time, embedding) - target) ** 2, mask)

    def step(params: PyTree, embedding: Array, x: Array, time: Any, prefix: Prefix | None = None) -> Array:
        """The mean of a step."""

        def velocity(x: Array, time: Any) -> Array:
            def estimate(x: Array) -> tuple[Array, Array]:
                found = apply(net, params, x, time, embedding)
                if prediction_type == "velocity":
                    return x + (1 - time) * found, found
                return found, (found - x) / jnp.maximum(1 - time, MIN_LEFT)

            if prefix is None:
                return estimate(x)[1]
            _, change, found = pull(estimate, x, time, prefix)
            return found + change

        first = velocity(x, time)
        if solver == "euler":
            return x + first / num_steps
        after = time + 1 / num_steps
        second = velocity(x + first / num_steps, after)
        if prediction_type == "action":  # at the end its velocity is nothing by nothing
            second = jnp.where(after > 1 - MIN_LEFT, first, second)
        return x + (first + second) / (2 * num_steps)

    def run(params: PyTree, embedding: Array, noise: Array, prefix: Prefix | None = None) -> Array:  # -> [S, (H), A]
        def go(x: Array, inputs: tuple[Array, Array | None]) -> tuple[Array, Array]:
            time, numbers = inputs
            x = step(params, embedding, x, time, prefix)
            if numbers is not None:
                x = x + step_std * numbers
            return x, x

        first, later = (noise[0], noise[1:]) if step_std else (noise, None)
        return jax.lax.scan(go, first, (starts, later))[1]

    def sample_from_noise(params: PyTree, embedding: Array, noise: Array, prefix: Prefix | None = None) -> Array:
        return run(params, embedding, noise, prefix)[-1]

    def sample(params: PyTree, key: Array, embedding: Array) -> tuple[Array, PyTree]:
        numbers = noise.draw(key)
        states = run(params, embedding, numbers)
        if not step_std:
            return states[-1], one_decision(states[-1])
        return states[-1], chain_steps(jnp.concatenate([numbers[:1], states]))

    def log_prob(params: PyTree, embedding: Array, decision: ChainStep) -> Array:
        """Log density of each number of the state after a step, given the one before it."""
        mean = step(params, embedding, decision.before, starts[decision.step])
        return distrax.Normal(mean, step_std).log_prob(decision.after)

    return ActionHead(
        init,
        loss,
        sample,
        log_prob if step_std else None,
        noise=noise,
        sample_from_noise=sample_from_noise,
        inpaint=sample_from_noise if len(shape) == 2 else None,
        decisions=num_steps if step_std else 1,
    )
