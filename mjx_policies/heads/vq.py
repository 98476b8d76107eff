"""Behaviour generation with latent actions (VQ-BeT), Lee et al. 2024 (arXiv:2403.03181): codes, then an offset.

Two stages. `fit_codebook` learns codes of chunks. The head then predicts them, each given the one before, with a focal
loss, and an offset for the codes, which makes up for what they are too coarse to encode (section 4.2). The codebook is
part of the parameters, so that a checkpoint is whole, but takes no gradient. Unlike the authors' code, which draws the
codes that the offset is learnt for, it is learnt for the true ones: an offset that makes up for the wrong choice leads
from one way to the other.
Axes: E embedding, Q codebooks, C codes of each, H horizon, A action; an action is [A] or [H, A].
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.heads.base import ActionHead, Noise, masked_mean, one_decision
from mjx_policies.heads.residual_vq import Codebook
from mjx_policies.losses import absolute_error, focal_cross_entropy
from mjx_policies.networks.apply import apply
from mjx_policies.networks.outputs import Outputs
from mjx_policies.types import Array, PyTree


def vq_head(
    net: nn.Module, codebook: Codebook, gamma: float = 2.0, later_weight: float = 0.5, offset_weight: float = 10.0
) -> ActionHead:
    """Builds the VQ-BeT head.

    Args:
      net: embedding [E] -> features, of any size.
      codebook: fitted to the demonstrations' actions.
      gamma: of the focal loss.
      later_weight: of the focal loss of all codes but the first, which encode less.
      offset_weight: of the absolute error of the whole; 1000 in the authors' code.
    """
    num_layers, num_codes, _ = codebook.codes.shape
    outputs = Outputs(
        net,
        {"code_0": (num_codes,), "offset": (num_layers, num_codes, *codebook.shape)}
        | {f"code_{q}": (num_codes, num_codes) for q in range(1, num_layers)},
    )

    def init(key: Array, embedding: Array) -> PyTree:
        return {"net": outputs.init(key, embedding), "codebook": codebook}

    def code_logits(found: dict[str, Array], one_hot: list[Array]) -> Array:  # -> [C]
        """Logits of the next code, given those before it."""
        q = len(one_hot)
        return found["code_0"] if q == 0 else one_hot[-1] @ found[f"code_{q}"]

    def action_of(params: PyTree, found: dict[str, Array], one_hot: Array) -> Array:  # [Q, C] -> [(H), A]
        fixed = jax.lax.stop_gradient(params["codebook"])
        return fixed.decode(one_hot) + jnp.tensordot(one_hot, found["offset"], 2)

    def loss(params: PyTree, key: Array, embedding: Array, action: Array, mask: Array | None = None) -> Array:
        del key
        codes = jax.lax.stop_gradient(params["codebook"]).encode(action)
        one_hot = jax.nn.one_hot(codes, num_codes)
        found = apply(outputs, params["net"], embedding)
        focal = [focal_cross_entropy(code_logits(found, list(one_hot[:q])), codes[q], gamma) for q in range(num_layers)]
        choice = focal[0] + later_weight * sum(focal[1:])
        error = masked_mean(absolute_error(action_of(params, found, one_hot), action), mask)
        return (choice if mask is None else jnp.where(mask.any(), choice, 0.0)) + offset_weight * error

    noise = Noise((num_layers, num_codes), "gumbel")

    def draw(params: PyTree, embedding: Array, noise: Array) -> tuple[Array, Array]:  # [Q, C] one-hot, [(H), A]
        found = apply(outputs, params["net"], embedding)
        one_hot: list[Array] = []
        for numbers in noise:
            chosen = jnp.argmax(code_logits(found, one_hot) + numbers)
            one_hot.append(jax.nn.one_hot(chosen, num_codes))
        return jnp.stack(one_hot), action_of(params, found, jnp.stack(one_hot))

    def sample_from_noise(params: PyTree, embedding: Array, noise: Array) -> Array:
        return draw(params, embedding, noise)[1]

    def sample(params: PyTree, key: Array, embedding: Array) -> tuple[Array, Array]:
        one_hot, action = draw(params, embedding, noise.draw(key))
        return action, one_decision(jnp.argmax(one_hot, axis=-1).astype(jnp.int32))

    def log_prob(params: PyTree, embedding: Array, decision: Array) -> Array:
        """Log probability of the codes [Q]; the action follows from them."""
        found = apply(outputs, params["net"], embedding)
        one_hot = jax.nn.one_hot(decision, num_codes)
        logits = jnp.stack([code_logits(found, list(one_hot[:q])) for q in range(num_layers)])
        return (jax.nn.log_softmax(logits) * one_hot).sum()

    def mode(params: PyTree, embedding: Array) -> Array:
        return sample_from_noise(params, embedding, jnp.zeros(noise.shape))

    return ActionHead(init, loss, sample, log_prob, mode=mode, noise=noise, sample_from_noise=sample_from_noise)
