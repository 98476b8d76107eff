"""A chunk generated token by token, Pertsch et al. 2025 (arXiv:2501.09747): a transformer over `FastTokenizer`.

The first tokens are the lowest frequencies, so where the motion goes is decided before how it goes there, and a chunk
goes one way. No token is ever drawn that stands for more coefficients than the chunk still lacks, so what is drawn can
only fail to be a chunk by being too short, when `max_tokens` are generated. The trace is then marked as not valid, and
the action is NaN rather than zeros or a part of a motion. What to do then only those know who know what was done last:
`chunking` goes on holding the last action, a robot stops the policy.
Axes: E embedding, M tokens, V vocabulary, H horizon, A action, L = H A, W width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.heads.base import ActionHead, Noise, masked_mean, one_decision
from mjx_policies.heads.fast.tokens import FastTokenizer
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

    Attributes:
      vocabulary: V.
      max_tokens: M.
      width, num_heads, depth: of the transformer.
    """

    vocabulary: int
    max_tokens: int
    width: int
    num_heads: int
    depth: int

    def setup(self) -> None:  # noqa: D102
        self.given, self.token = nn.Dense(self.width), nn.Embed(self.vocabulary + 1, self.width)
        self.position = self.param("position", nn.initializers.normal(0.02), (self.max_tokens, self.width))
        self.blocks = [Block(self.width, self.num_heads) for _ in range(self.depth)]
        self.norm = nn.LayerNorm()
        self.logits = nn.Dense(self.vocabulary, kernel_init=small)

    def __call__(self, embedding: Array, tokens: Array) -> Array:  # [E], [M] -> [M, V]
        """Predicts all tokens at once. The embedding stands where the first token has none before it."""
        x = jnp.concatenate([self.given(embedding)[None], self.token(tokens[:-1])]) + self.position
        for block in self.blocks:
            x = block(x, mask=causal_mask(self.max_tokens))
        return self.logits(self.norm(x))

    def step(
        self, embedding: Array, last: Array, position: Array, caches: tuple[Cache, ...]
    ) -> tuple[Array, tuple[Cache, ...]]:  # [E], [], [] -> [V]
        """The row of `__call__` at a position, given the token before it."""
        x = jnp.where(position == 0, self.given(embedding), self.token(last)) + self.position[position]
        x, kept = x[None], []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block.step(x, cache, position)
            kept.append(cache)
        return self.logits(self.norm(x[0])), tuple(kept)

    def empty_caches(self) -> tuple[Cache, ...]:
        """The caches before the first token."""
        return tuple(block.empty_cache(self.max_tokens) for block in self.blocks)


def fast_head(
    tokenizer: FastTokenizer,
    max_tokens: int | None = None,
    width: int = 128,
    num_heads: int = 4,
    depth: int = 3,
    temperature: float = 1.0,
) -> ActionHead:
    """Builds the autoregressive head. The tokenizer is no part of its parameters: keep its file beside the checkpoint.

    Args:
      tokenizer: fitted to the demonstrations' actions.
      max_tokens: M. `tokens.most_tokens` of the demonstrations and some more; by default L, with which every
        sample is a chunk, but takes L steps.
      width, num_heads, depth: of the transformer.
      temperature: of samples; `log_prob` is that of a sample.

    Raises:
      ValueError: a number that makes no sense.
    """
    vocabulary = tokenizer.vocabulary
    max_tokens = tokenizer.numbers if max_tokens is None else max_tokens
    if not 1 <= max_tokens <= tokenizer.numbers:
        raise ValueError(f"max_tokens is {max_tokens}, it must be from 1 to the {tokenizer.numbers} numbers of a chunk")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, it must be above 0; mode takes the likeliest tokens")
    net = TokenTransformer(vocabulary, max_tokens, width, num_heads, depth)
    lengths = jnp.asarray(tokenizer.lengths)

    def init(key: Array, embedding: Array) -> PyTree:
        return net.init(key, embedding, jnp.zeros(max_tokens, jnp.int32))

    def possible(logits: Array, left: Array) -> Array:  # [..., V], [...] -> [..., V]
        """Logits of the tokens that stand for no more than is left of the chunk."""
        return logits + IMPOSSIBLE * (lengths[:vocabulary] > left[..., None])

    def log_probs(params: PyTree, embedding: Array, tokens: Array, heat: float) -> tuple[Array, Array]:  # [M], [M]
        """Log probability of each token given those before it, and whether it is one rather than behind the end."""
        spans = lengths[tokens]
        logits = possible(apply(net, params, embedding, tokens) / heat, tokenizer.numbers - (jnp.cumsum(spans) - spans))
        is_token = tokens < vocabulary
        chosen = jnp.where(is_token, tokens, 0)[:, None]
        found = jnp.take_along_axis(jax.nn.log_softmax(logits.astype(jnp.float32)), chosen, axis=1)[:, 0]
        return jnp.where(is_token, found, 0.0), is_token

    def loss(params: PyTree, key: Array, embedding: Array, action: Array, mask: Array | None = None) -> Array:
        """Mean cross-entropy of the tokens, which encode the chunk as a whole, padding included."""
        del key
        tokens = tokenizer.encode(action)[0][:max_tokens]
        found, is_token = log_probs(params, embedding, tokens, 1.0)
        error = masked_mean(-found, is_token.astype(jnp.float32))
        return error if mask is None else jnp.where(mask.any(), error, 0.0)

    noise = Noise((max_tokens, vocabulary), "gumbel")

    def generate(params: PyTree, embedding: Array, carry: Any, numbers: Array, position: Array) -> tuple[Any, Array]:
        caches, last, left = carry
        logits, caches = apply(net, params, embedding, last, position, caches, method="step")
        drawn = jnp.argmax(possible(logits / temperature, left) + numbers).astype(jnp.int32)
        token = jnp.where(left > 0, drawn, vocabulary)
        return (caches, token, left - lengths[token]), token

    def empty(params: PyTree) -> Any:
        return (
            apply(net, params, method="empty_caches"),
            jnp.asarray(vocabulary, jnp.int32),
            jnp.asarray(tokenizer.numbers, jnp.int32),
        )

    def draw(params: PyTree, embedding: Array, noise: Array) -> tuple[Array, Tokens]:
        def step(carry: Any, inputs: tuple[Array, Array]) -> tuple[Any, Array]:
            return generate(params, embedding, carry, *inputs)

        _, tokens = jax.lax.scan(step, empty(params), (noise, jnp.arange(max_tokens)))
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
        return log_probs(params, embedding, decision.tokens, temperature)[0].sum()

    return ActionHead(init, loss, sample, log_prob, mode=mode, noise=noise, sample_from_noise=sample_from_noise)
