"""Transformer blocks, Vaswani et al. 2017 (arXiv:1706.03762), with layer norms before each part.

That place makes learning stable without a warm-up, Xiong et al. 2020 (arXiv:2002.04745). A stack of such blocks wants
one more norm after the last. Axes: L tokens, M tokens of a memory, P positions of a sequence, N heads, W width, D width
of a head.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.types import Array

HIDDEN = -1e9
"""The number added to the score of a token that is not attended to: its weight is then 0."""

Cache = tuple[Array, Array]
"""Keys and values [P, N, D] of the tokens that a causal block has seen."""


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be kept.

    Attributes:
      width: W, a multiple of `num_heads`.
      num_heads: N.
    """

    width: int
    num_heads: int = 4

    def setup(self) -> None:  # noqa: D102
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is no multiple of {self.num_heads} heads")
        heads = (self.num_heads, self.width // self.num_heads)
        self.query = nn.DenseGeneral(heads)
        self.key = nn.DenseGeneral(heads)
        self.value = nn.DenseGeneral(heads)
        self.out = nn.DenseGeneral(self.width, axis=(-2, -1))

    def project(self, context: Array) -> Cache:  # [M, W]
        """Keys and values of the tokens attended to."""
        return self.key(context), self.value(context)

    def __call__(self, x: Array, memory: Cache, mask: Array | None = None) -> Array:  # [L, W], [L, M] -> [L, W]
        """Attends from `x` to `memory`, where `mask` is true."""
        key, value = memory
        # Added rather than chosen: a choice that does not depend on the input is what jax2onnx gets wrong in a batch.
        bias = None if mask is None else jnp.where(mask[None], 0.0, HIDDEN).astype(x.dtype)
        return self.out(nn.dot_product_attention(self.query(x), key, value, bias=bias))


class Block(nn.Module):
    """Self-attention, attention to a memory if there is to be one, and a perceptron, each added to what came in.

    Attributes:
      width: W.
      num_heads: of the attentions.
      expansion: width of the perceptron's hidden layer, as a multiple of W.
      cross: attend to a memory.
    """

    width: int
    num_heads: int = 4
    expansion: int = 4
    cross: bool = False

    def setup(self) -> None:  # noqa: D102
        self.self_norm, self.self_attention = nn.LayerNorm(), Attention(self.width, self.num_heads)
        if self.cross:
            self.cross_norm, self.cross_attention = nn.LayerNorm(), Attention(self.width, self.num_heads)
        self.mlp_norm = nn.LayerNorm()
        self.hidden, self.out = nn.Dense(self.expansion * self.width), nn.Dense(self.width)

    def __call__(self, x: Array, memory: Array | None = None, mask: Array | None = None) -> Array:
        """[L, W], [M, W], [L, L] -> [L, W]; a token attends to the tokens where its row of `mask` is true."""
        normed = self.self_norm(x)
        x = x + self.self_attention(normed, self.self_attention.project(normed), mask)
        return self._after_self_attention(x, memory)

    def step(self, x: Array, cache: Cache, position: Array | int) -> tuple[Array, Cache]:  # [1, W] -> [1, W]
        """The row of `__call__` with a causal mask for the token at `position`, given the cache of those before it."""
        normed = self.self_norm(x)
        index = jnp.arange(len(cache[0]))
        # A sum rather than an update in place, which ONNX has no plain operator for; see `Attention` for why no choice.
        write = (index == position).astype(x.dtype)[:, None, None]
        new = self.self_attention.project(normed)
        cache = jax.tree.map(lambda old, new: (1 - write) * old + write * new, cache, new)
        x = x + self.self_attention(normed, cache, (index <= position)[None])
        return self._after_self_attention(x, None), cache

    def empty_cache(self, length: int) -> Cache:
        """An empty cache for `length` tokens."""
        zeros = jnp.zeros((length, self.num_heads, self.width // self.num_heads))
        return zeros, zeros

    def _after_self_attention(self, x: Array, memory: Array | None) -> Array:
        if self.cross:
            assert memory is not None, "a block with cross-attention needs a memory"
            x = x + self.cross_attention(self.cross_norm(x), self.cross_attention.project(memory))
        return x + self.out(nn.gelu(self.hidden(self.mlp_norm(x))))


def causal_mask(length: int) -> Array:  # [L, L]
    """True where a token may attend: to itself and to those before it."""
    return jnp.tril(jnp.ones((length, length), bool))
