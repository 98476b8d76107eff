"""Diffusion policy, Chi et al. 2023 (arXiv:2303.04137): an action made of noise, a little less noisy in every step.

Each step of the chain of noisy actions is a decision with a Gaussian density, though that of the action is not known:
so policy gradients reach a diffusion policy (DPPO, Ren et al. 2024, arXiv:2409.00588). With `tuned_steps` K' the trace
begins with the first tuned step, and the steps before are those of the parameters that were frozen.

head = diffusion_head(Denoiser(MLPDenoiser(), (16, 7)))
tuned = diffusion_head(dataclasses.replace(denoiser, eta=1.0, min_std=0.1, tuned_steps=10)), denoising.freeze(params)

Axes: E embedding, H horizon, A action, K levels of noise, S steps, K' tuned steps.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mjx_policies.heads.base import ActionHead, ChainStep, Noise, chain_steps, masked_mean, one_decision
from mjx_policies.heads.denoising import Denoiser, DenoisingStep, add_noise, regression_target
from mjx_policies.heads.inpainting import Prefix
from mjx_policies.networks.apply import apply
from mjx_policies.types import Array, PyTree


def diffusion_head(denoiser: Denoiser) -> ActionHead:
    """Builds the diffusion head.

    `log_prob` is None where no step has noise; a step without a prefix is what has a density.

    Args:
      denoiser: network, schedule and sampler.
    """
    shape, early = denoiser.shape, denoiser.num_steps - denoiser.tuned
    alpha_bar = jnp.asarray(denoiser.alpha_bar, jnp.float32)
    noise = Noise((1 + denoiser.num_steps if denoiser.draws else 1, *shape))

    def loss(params: PyTree, key: Array, embedding: Array, action: Array, mask: Array | None = None) -> Array:
        """Mean squared error of the prediction. Padding is seen, but counts for nothing."""
        key_level, key_noise, key_dropout = jax.random.split(key, 3)
        level = jax.random.randint(key_level, (), 0, denoiser.levels)
        a = alpha_bar[level].astype(action.dtype)
        epsilon = jax.random.normal(key_noise, shape).astype(action.dtype)
        if denoiser.dropout:
            hidden = jax.random.uniform(key_dropout) < denoiser.dropout
            embedding = jnp.where(hidden, params["no_embedding"], embedding)
        found = apply(denoiser.net, params["net"], add_noise(action, epsilon, a), denoiser.time(level), embedding)
        return masked_mean((found - regression_target(denoiser.prediction_type, action, epsilon, a)) ** 2, mask)

    def run(
        params: PyTree, embedding: Array, noise: Array, prefix: Prefix | None = None
    ) -> Array:  # -> [K' + 1, (H), A]
        def go(params: PyTree, x: Array, rows: slice) -> Array:  # -> the states after the steps of these rows
            def step(x: Array, inputs: tuple[DenoisingStep, Array | None]) -> tuple[Array, Array]:
                constants, numbers = inputs
                x = denoiser.mean(params, embedding, x, constants, prefix)
                if numbers is not None:
                    x = denoiser.draw(x, constants, numbers)
                return x, x

            constants = DenoisingStep(*(table[rows] for table in denoiser.steps))
            return jax.lax.scan(step, x, (constants, noise[1:][rows] if denoiser.draws else None))[1]

        x = noise[0]
        if early:
            x = go(jax.lax.stop_gradient(params.get("frozen", params)), x, slice(early))[-1]
        return jnp.concatenate([x[None], go(params, x, slice(early, None))])

    def sample(params: PyTree, key: Array, embedding: Array) -> tuple[Array, PyTree]:
        chain = run(params, embedding, noise.draw(key))
        return chain[-1], chain_steps(chain) if denoiser.draws else one_decision(chain[-1])

    def sample_from_noise(params: PyTree, embedding: Array, noise: Array, prefix: Prefix | None = None) -> Array:
        return run(params, embedding, noise, prefix)[-1]

    def log_prob(params: PyTree, embedding: Array, decision: ChainStep) -> Array:
        """Log density of each number of the state after a step, given the one before it."""
        constants = DenoisingStep(*(jnp.asarray(column)[decision.step] for column in denoiser.tuned_rows))
        return denoiser.log_prob(params, embedding, decision.before, decision.after, constants)

    return ActionHead(
        denoiser.init,
        loss,
        sample,
        log_prob if denoiser.draws else None,
        noise=noise,
        sample_from_noise=sample_from_noise,
        inpaint=sample_from_noise if len(shape) == 2 else None,
        decisions=denoiser.tuned if denoiser.draws else 1,
    )
