"""Networks that see a noisy action and predict the noise in it.

All are called `net(x, time, embedding)`, where `time` is one number or several, such as a time and the size of a step,
and answer with the shape of x: what it predicts, noise or action or velocity, the head decides. Axes: E
embedding, M tokens of it, H horizon, A action, T times, W width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.networks.initializers import small
from mjx_policies.networks.mlp import ResidualMLP
from mjx_policies.networks.time_embedding import TimeEmbedding
from mjx_policies.networks.transformer import Block
from mjx_policies.types import Array


class MLPDenoiser(nn.Module):
    """A residual perceptron on everything side by side, for states: a laptop trains it in minutes.

    Each layer is told the time again: what is to be done differs between noise and an almost clean action.

    Attributes:
      width: W.
      depth: hidden layers after the first.
      time_features: of each time.
    """

    width: int = 512
    depth: int = 3
    time_features: int = 32

    @nn.compact
    def __call__(self, x: Array, time: Array, embedding: Array) -> Array:  # [(H), A], [] or [T], [E] -> [(H), A]
        """The network's prediction, shaped like x."""
        told = TimeEmbedding(self.time_features)(time).astype(x.dtype)
        trunk = ResidualMLP(self.width, self.depth, x.size)
        nn.share_scope(self, trunk)
        return trunk(jnp.concatenate([x.ravel(), embedding]), told).reshape(x.shape)


class TransformerDenoiser(nn.Module):
    """A token for each step of the chunk, which attend to one another, to the embedding and to the time.

    After the transformer of Chi et al. 2023 (arXiv:2303.04137), section 4.2, but every step sees every other: a chunk
    is made all at once.

    Attributes:
      width: W.
      num_heads, depth: of the transformer; the paper's are 4 and 8, with a width of 256.
      time_features: of each time.
    """

    width: int = 128
    num_heads: int = 4
    depth: int = 4
    time_features: int = 32

    @nn.compact
    def __call__(self, x: Array, time: Array, embedding: Array) -> Array:  # [H, A], [] or [T], [E] or [M, E] -> [H, A]
        """The network's prediction, shaped like x."""
        told = nn.Dense(self.width)(TimeEmbedding(self.time_features)(time).astype(x.dtype))
        seen = nn.Dense(self.width)(jnp.atleast_2d(embedding))
        memory = jnp.concatenate([nn.Dense(self.width)(jax.nn.silu(told))[None], seen])
        memory = nn.LayerNorm()(memory + self.param("kind", nn.initializers.normal(0.02), memory.shape))
        tokens = nn.Dense(self.width)(jnp.atleast_2d(x))
        tokens = tokens + self.param("position", nn.initializers.normal(0.02), tokens.shape)
        for _ in range(self.depth):
            tokens = Block(self.width, self.num_heads, cross=True)(tokens, memory)
        return nn.Dense(x.shape[-1], kernel_init=small)(nn.LayerNorm()(tokens)).reshape(x.shape)
