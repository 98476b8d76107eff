"""Transformer blocks against slow loops. Axes: L tokens, M tokens of a memory, W width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from mjx_policies.networks.transformer import Attention, Block, causal_mask

L, M, W = 5, 3, 8
x, memory = (np.random.default_rng(i).normal(size=(n, W)).astype(np.float32) for i, n in enumerate((L, M)))


def test_attention_is_a_weighted_sum_of_values():
    attention = Attention(W, num_heads=2)
    run = lambda module, x, y, mask: module(x, module.project(y), mask)  # noqa: E731
    mask = np.array([[1, 0, 1]] * 4 + [[0, 1, 0]], bool)
    params = attention.init(jax.random.key(0), x, memory, mask, method=run)
    p = jax.tree.map(lambda a: np.asarray(a, float), params["params"])
    expected = np.zeros((L, W))
    for head in range(2):
        q, k, v = (
            (a @ p[n]["kernel"][:, head]) + p[n]["bias"][head]
            for a, n in ((x, "query"), (memory, "key"), (memory, "value"))
        )
        weights = softmax(np.where(mask, q @ k.T / np.sqrt(W / 2), -np.inf), axis=1)
        expected += weights @ v @ p["out"]["kernel"][head]
    got = attention.apply(params, x, memory, mask, method=run)
    np.testing.assert_allclose(got, expected + p["out"]["bias"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cross", [False, True])
def test_a_causal_block_sees_nothing_of_what_comes(cross):
    block = Block(W, num_heads=2, cross=cross)
    other = memory if cross else None
    params = block.init(jax.random.key(1), x, other)
    jacobian = jax.jacobian(lambda x: block.apply(params, x, other, causal_mask(L)))(x)
    seen = np.abs(jacobian).max(axis=(1, 3)) > 0
    np.testing.assert_array_equal(seen, np.tril(np.ones((L, L), bool)))
    without = block.apply(params, x, None if other is None else other + 1, causal_mask(L))
    assert np.allclose(without, block.apply(params, x, other, causal_mask(L))) != cross  # the memory is read


def test_step_by_step_equals_all_at_once():
    block = Block(W, num_heads=2)
    params = block.init(jax.random.key(1), x)
    expected = block.apply(params, x, None, causal_mask(L))
    cache = block.apply(params, L + 2, method="empty_cache")
    for i in range(L):
        got, cache = block.apply(params, x[i : i + 1], cache, i, method="step")
        np.testing.assert_allclose(got[0], expected[i], rtol=1e-4, atol=1e-5)


def test_heads_must_share_the_width():
    with pytest.raises(ValueError, match="width 6 is no multiple of 4 heads"):
        Block(6).init(jax.random.key(0), jnp.zeros((2, 6)))
