"""A chunk generated token by token, Pertsch et al. 2025 (arXiv:2501.09747): a transformer over `FastTokenizer`.

The first tokens are the lowest frequencies, so where the motion goes is decided before how it goes there, and a chunk
goes one way. No token is ever drawn that stands for more coefficients than the chunk still lacks, so what is drawn can
only fail to be a chunk by being too short, when `max_tokens` are generated. The trace is then marked as not valid, and
the action is NaN rather than zeros or a part of a motion. What to do then only those know who know what was done last:
`chunking` goes on holding the last action, a robot stops the policy.
Axes: E embedding, M tokens, V vocabulary, H horizon, A action, L = H A, W width.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.heads.base import ActionHead, Noise, masked_mean, one_decision
from mjx_policies.heads.fast.tokens import FastTokenizer
from mjx_policies.losses import gaussian_histogram
from mjx_policies.networks.apply import apply
from mjx_policies.networks.initializers import small
from mjx_policies.networks.transformer import Block, Cache, causal_mask
from mjx_policies.types import Array, PyTree

IMPOSSIBLE = -1e9  # added to a logit: finite, so that no gradient is NaN


class Tokens(NamedTuple):
    """The decision of this head: its tokens.

    Attributes:
      tokens: [M] int32, V behind their end; they have a probability.
      valid: [] bool, whether they make a chunk; the action is NaN if not.
    """

    tokens: Array
    valid: Array


class TokenTransformer(nn.Module):
    """Logits of each token, given the embedding and the tokens before it.

    A token stands for one or several coefficients, so its place among the tokens does not tell of which frequency and
    which joint it is. Positions therefore count coefficients: those that the tokens before it stand for.

    Attributes:
      net: [E] -> features of the embedding; they pass an activation, and are added to every token.
      vocabulary: V.
      numbers: L.
      width, num_heads, depth: of the transformer.
    """

    net: nn.Module
    vocabulary: int
    numbers: int
    width: int
    num_heads: int
    depth: int

    def setup(self) -> None:  # noqa: D102
        self.given, self.token = nn.Dense(self.width), nn.Embed(self.vocabulary + 1, self.width)
        self.position = self.param("position", nn.initializers.normal(0.02), (self.numbers, self.width))
        self.blocks = [Block(self.width, self.num_heads) for _ in range(self.depth)]
        self.norm = nn.LayerNorm()
        self.logits = nn.Dense(self.vocabulary, kernel_init=small)

    def __call__(self, embedding: Array, tokens: Array, coefficients: Array) -> Array:  # [E], [M], [M] -> [M, V]
        """Predicts all tokens at once; V stands before the first, whose place among coefficients is 0."""
        before = jnp.concatenate([jnp.full(1, self.vocabulary, tokens.dtype), tokens[:-1]])
        x = self.token(before) + self.position[jnp.minimum(coefficients, self.numbers - 1)] + self.features(embedding)
        for block in self.blocks:
            x = block(x, mask=causal_mask(len(tokens)))
        return self.logits(self.norm(x))

    def features(self, embedding: Array) -> Array:  # [E] -> [W]
        """Computes what all tokens are told of the embedding."""
        return self.given(nn.silu(self.net(embedding)))

    def step(
        self, features: Array, last: Array, position: Array, coefficient: Array, caches: tuple[Cache, ...]
    ) -> tuple[Array, tuple[Cache, ...]]:  # [W], [], [], [] -> [V]
        """The row of `__call__` at a position, given the token before it and its place among the coefficients."""
        # A product rather than a lookup, which jax2onnx gives a wrong shape in a batch.
        place = jax.nn.one_hot(coefficient, self.numbers) @ self.position
        x, kept = (self.token(last) + place + features)[None], []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block.step(x, cache, position)
            kept.append(cache)
        return self.logits(self.norm(x[0])), tuple(kept)

    def empty_caches(self, length: int) -> tuple[Cache, ...]:
        """The caches before the first of so many tokens."""
        return tuple(block.empty_cache(length) for block in self.blocks)


def fast_head(
    net: nn.Module,
    tokenizer: FastTokenizer,
    max_tokens: int | None = None,
    width: int = 128,
    num_heads: int = 4,
    depth: int = 3,
    temperature: float = 1.0,
    spread: float = 0.0,
) -> ActionHead:
    """Builds the autoregressive head. The tokenizer is no part of its parameters: keep its file beside the checkpoint.

    Args:
      net: embedding [E] -> features, of any size.
      tokenizer: fitted to the demonstrations' actions.
      max_tokens: M. `tokens.most_tokens` of the demonstrations and some more; by default L, with which every
        sample is a chunk, but takes L steps.
      width, num_heads, depth: of the transformer.
      temperature: of samples; `log_prob` is that of a sample.
      spread: standard deviation of the labels of single coefficients around their number, in rounding steps. Of few
        demonstrations the likeliest of many numbers is a matter of chance unless they learn of their neighbours. Its
        variance is added to that of samples, and `mode` prefers merged tokens, whose labels are not spread.

    Raises:
      ValueError: a number that makes no sense.
    """
    vocabulary = tokenizer.vocabulary
    max_tokens = tokenizer.numbers if max_tokens is None else max_tokens
    if not 1 <= max_tokens <= tokenizer.numbers:
        raise ValueError(f"max_tokens is {max_tokens}, it must be from 1 to the {tokenizer.numbers} numbers of a chunk")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, it must be above 0; mode takes the likeliest tokens")
    symbols = tokenizer.num_symbols
    edges = jnp.arange(symbols + 1) - 0.5
    if not 0 <= spread < math.inf:
        raise ValueError(f"spread is {spread}, it must be 0 or more")
    transformer = TokenTransformer(net, vocabulary, tokenizer.numbers, width, num_heads, depth)
    lengths = jnp.asarray(tokenizer.lengths)

    def init(key: Array, embedding: Array) -> PyTree:
        zeros = jnp.zeros(max_tokens, jnp.int32)
        return transformer.init(key, embedding, zeros, zeros)

    def possible(logits: Array, left: Array) -> Array:  # [..., V], [...] -> [..., V]
        """Logits of the tokens that stand for no more than is left of the chunk."""
        return logits + IMPOSSIBLE * (lengths[:vocabulary] > left[..., None])

    def log_probs(params: PyTree, embedding: Array, tokens: Array, heat: float) -> Array:  # [M] -> [M, V]
        """Log probabilities of all tokens at each place, given those before it."""
        spans = lengths[tokens]
        before = jnp.cumsum(spans) - spans
        logits = possible(apply(transformer, params, embedding, tokens, before) / heat, tokenizer.numbers - before)
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    def loss(params: PyTree, key: Array, embedding: Array, action: Array, mask: Array | None = None) -> Array:
        """Mean cross-entropy of the tokens, which encode the chunk as a whole, padding included."""
        del key
        tokens = tokenizer.encode(action)[0][:max_tokens]
        label = jax.nn.one_hot(tokens, vocabulary)
        if spread:
            near = gaussian_histogram(tokens, edges, spread)
            near = jnp.concatenate([near, jnp.zeros((max_tokens, vocabulary - symbols))], axis=1)
            label = jnp.where(tokens[:, None] < symbols, near, label)
        error = masked_mean(-(label * log_probs(params, embedding, tokens, 1.0)).sum(axis=1), tokens < vocabulary)
        return error if mask is None else jnp.where(mask.any(), error, 0.0)

    noise = Noise((max_tokens, vocabulary), "gumbel")

    def draw(params: PyTree, embedding: Array, noise: Array) -> tuple[Array, Tokens]:
        features = apply(transformer, params, embedding, method="features")

        def generate(carry: Any, inputs: tuple[Array, Array]) -> tuple[Any, Array]:
            (caches, last, left), (numbers, position) = carry, inputs
            place = jnp.minimum(tokenizer.numbers - left, tokenizer.numbers - 1)
            logits, caches = apply(transformer, params, features, last, position, place, caches, method="step")
            drawn = jnp.argmax(possible(logits / temperature, left) + numbers).astype(jnp.int32)
            token = jnp.where(left > 0, drawn, vocabulary)
            return (caches, token, left - lengths[token]), token

        caches = apply(transformer, params, max_tokens, method="empty_caches")
        start = (caches, jnp.asarray(vocabulary, jnp.int32), jnp.asarray(tokenizer.numbers, jnp.int32))
        _, tokens = jax.lax.scan(generate, start, (noise, jnp.arange(max_tokens)))
        action, valid = tokenizer.decode(tokens)
        return action, Tokens(tokens, valid)

    def sample(params: PyTree, key: Array, embedding: Array) -> tuple[Array, Tokens]:
        action, decision = draw(params, embedding, noise.draw(key))
        return action, one_decision(decision)

    def mode(params: PyTree, embedding: Array) -> Array:
        """The likeliest token at each place, which need not make the likeliest chunk."""
        return sample_from_noise(params, embedding, jnp.zeros(noise.shape))

    def sample_from_noise(params: PyTree, embedding: Array, noise: Array) -> Array:
        return draw(params, embedding, noise)[0]

    def log_prob(params: PyTree, embedding: Array, decision: Tokens) -> Array:
        """Log probability of the tokens, valid or not; the action follows from them."""
        label = jax.nn.one_hot(decision.tokens, vocabulary)  # none behind the end
        return (label * log_probs(params, embedding, decision.tokens, temperature)).sum()

    return ActionHead(init, loss, sample, log_prob, mode=mode, noise=noise, sample_from_noise=sample_from_noise)
