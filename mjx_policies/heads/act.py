"""Action chunking with transformers, Zhao et al. 2023 (arXiv:2304.13705): a conditional variational autoencoder.

An encoder reads a demonstrated chunk and infers its style z; a decoder makes the chunk from the embedding and
z. At test z is 0, the middle of the prior (`mode`); `sample` draws z from the prior. Two slips of the authors' code are
not repeated: all layers of the decoder are used rather than the first, and padded steps count neither in the mean of
the errors nor as tokens of the encoder. Padding is read from the mask, never inferred from zeros, which are actions
too. Axes: E embedding, H horizon, A action, Z latent, W width.
"""

from __future__ import annotations

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.heads.base import ActionHead, Noise, masked_mean, one_decision
from mjx_policies.losses import absolute_error
from mjx_policies.networks.apply import apply
from mjx_policies.networks.transformer import Block
from mjx_policies.types import Array, PyTree


class StyleEncoder(nn.Module):
    """The posterior of the style, from a class token among the tokens of the embedding and of the actions.

    Attributes:
      latent: Z.
      width, num_heads, depth: of the transformer.
    """

    latent: int
    width: int
    num_heads: int
    depth: int

    @nn.compact
    def __call__(self, embedding: Array, action: Array, mask: Array) -> tuple[Array, Array]:
        """[E], [H, A], [H] -> mean and log standard deviation [Z]."""
        token = self.param("class", nn.initializers.normal(0.02), (1, self.width))
        # The network never sees what padding holds: a zero would still pass the layer's bias on.
        actions = nn.Dense(self.width)(jnp.where(mask[:, None] > 0, action, 0.0))
        x = jnp.concatenate([token, nn.Dense(self.width)(embedding)[None], actions])
        x = x + self.param("position", nn.initializers.normal(0.02), x.shape)
        attended = jnp.concatenate([jnp.ones(2, bool), mask > 0])
        attended = jnp.broadcast_to(attended, (len(x), len(x)))
        for _ in range(self.depth):
            x = Block(self.width, self.num_heads)(x, mask=attended)
        mean, log_std = jnp.split(nn.Dense(2 * self.latent)(nn.LayerNorm()(x[0])), 2)
        return mean, log_std


class ChunkDecoder(nn.Module):
    """A chunk from the embedding and the style: one learned query a step, which attends to both.

    Attributes:
      shape: (H, A).
      width, num_heads: of the transformers.
      encoder_depth: layers that embedding and style pass together.
      depth: layers that the queries pass.
    """

    shape: tuple[int, int]
    width: int
    num_heads: int
    encoder_depth: int
    depth: int

    @nn.compact
    def __call__(self, embedding: Array, style: Array) -> Array:  # [E], [Z] -> [H, A]
        """The chunk."""
        memory = jnp.stack([nn.Dense(self.width)(style), nn.Dense(self.width)(embedding)])
        memory = memory + self.param("kind", nn.initializers.normal(0.02), memory.shape)
        for _ in range(self.encoder_depth):
            memory = Block(self.width, self.num_heads)(memory)
        memory = nn.LayerNorm()(memory)
        x = self.param("query", nn.initializers.normal(0.02), (self.shape[0], self.width))
        for _ in range(self.depth):
            x = Block(self.width, self.num_heads, cross=True)(x, memory)
        return nn.Dense(self.shape[1])(nn.LayerNorm()(x))


def act_head(
    shape: tuple[int, int],
    latent: int = 32,
    width: int = 128,
    num_heads: int = 4,
    encoder_depth: int = 2,
    decoder_depth: int = 3,
    kl_weight: float = 10.0,
) -> ActionHead:
    """Builds the action chunking transformer.

    Args:
      shape: (H, A) of a chunk.
      latent: Z.
      width, num_heads: of all transformers; the paper's are 512 and 8.
      encoder_depth, decoder_depth: layers; the paper's are 4, and 7 of which the first was used.
      kl_weight: of KL(posterior || prior), the paper's. With actions in [-1, 1] and chunks of a few actions z carries
        nothing then, nor at 0.1; at 0.01 and below it carries which of two ways around an obstacle a chunk takes.

    Raises:
      ValueError: a shape without a horizon.
    """
    if len(shape) != 2:
        raise ValueError(f"act_head needs chunks, shape (horizon, actions), and has {shape}")
    encoder = StyleEncoder(latent, width, num_heads, encoder_depth)
    decoder = ChunkDecoder(shape, width, num_heads, encoder_depth, decoder_depth)
    noise = Noise((latent,))

    def init(key: Array, embedding: Array) -> PyTree:
        key_encoder, key_decoder = jax.random.split(key)
        return {
            "encoder": encoder.init(key_encoder, embedding, jnp.zeros(shape), jnp.ones(shape[0])),
            "decoder": decoder.init(key_decoder, embedding, jnp.zeros(latent)),
        }

    def loss(params: PyTree, key: Array, embedding: Array, action: Array, mask: Array | None = None) -> Array:
        """Mean absolute error of the real steps plus the weighted divergence of z, summed over its numbers."""
        mask = jnp.ones(shape[0]) if mask is None else mask
        mean, log_std = apply(encoder, params["encoder"], embedding, action, mask)
        posterior = distrax.MultivariateNormalDiag(mean, jnp.exp(log_std))
        prior = distrax.MultivariateNormalDiag(jnp.zeros(latent), jnp.ones(latent))
        style = mean + jnp.exp(log_std) * noise.draw(key)
        error = masked_mean(absolute_error(sample_from_noise(params, embedding, style), action), mask)
        return error + kl_weight * jnp.where(mask.any(), posterior.kl_divergence(prior), 0.0)

    def sample_from_noise(params: PyTree, embedding: Array, noise: Array) -> Array:
        return apply(decoder, params["decoder"], embedding, noise)

    def sample(params: PyTree, key: Array, embedding: Array) -> tuple[Array, Array]:
        action = sample_from_noise(params, embedding, noise.draw(key))
        return action, one_decision(action)

    def mode(params: PyTree, embedding: Array) -> Array:
        return sample_from_noise(params, embedding, jnp.zeros(latent))

    return ActionHead(init, loss, sample, mode=mode, noise=noise, sample_from_noise=sample_from_noise)
