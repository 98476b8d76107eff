"""The head of FAST's tokens where all that it can say is counted. Axes: M tokens, V vocabulary."""

import functools
import itertools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.compiler import compiler_options
from mjx_policies.heads.fast.head import Tokens, TokenTransformer, fast_head
from mjx_policies.heads.fast.tokens import FastTokenizer
from mjx_policies.networks.mlp import MLP

compiled = functools.partial(jax.jit, compiler_options=compiler_options(runs_once=True))
EMBEDDING = jnp.asarray([0.5, -1.0])
# Coefficients -1, 0, 1 as tokens 0, 1, 2; tokens 3 and 4 are pairs of them.
TOKENIZER = FastTokenizer((2, 1), ((1, 1), (2, 0)), scale=1.0, limit=1.0)
V = 5
CHUNKS = [*itertools.product(range(3), repeat=2), (3, V), (4, V)]


def make(tokenizer=TOKENIZER, scale=3.0, **options):
    head = fast_head(MLP((8,)), tokenizer, **({"width": 8, "num_heads": 2, "depth": 1} | options))
    params = compiled(head.init)(jax.random.key(0), EMBEDDING)
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))
    return head, jax.tree.map(lambda x: x + scale * jax.random.normal(next(keys), x.shape) / 8**0.5, params)


def log_probs(head, params, sequences):
    tokens = jnp.asarray(sequences)
    decisions = Tokens(tokens, jnp.ones(len(tokens), bool))
    return compiled(jax.vmap(head.log_prob, (None, None, 0)))(params, EMBEDDING, decisions)


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_the_probabilities_of_all_chunks_add_up_to_one_and_are_those_of_samples(temperature):
    head, params = make(temperature=temperature)
    p = np.exp(log_probs(head, params, CHUNKS))
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    assert p.max() < 0.95, "one chunk leaves nothing to compare"
    keys = jax.random.split(jax.random.key(2), 4_000)
    action, trace = compiled(jax.vmap(lambda key: head.sample(params, key, EMBEDDING)))(keys)
    assert trace.valid.all() and np.isfinite(action).all()
    counted = [(np.asarray(trace.tokens[:, 0]) == chunk).all(axis=1).mean() for chunk in np.array(CHUNKS)]
    np.testing.assert_allclose(counted, p, atol=5 * 0.5 / 4_000**0.5)


def test_the_loss_is_the_mean_over_the_decoded_tokens():
    head, params = make()
    actions, _ = jax.vmap(TOKENIZER.decode)(jnp.asarray(CHUNKS))
    tokens, count = compiled(jax.vmap(TOKENIZER.encode))(actions)
    loss = compiled(jax.vmap(head.loss, (None, None, None, 0)))(params, jax.random.key(0), EMBEDDING, actions)
    np.testing.assert_allclose(loss, -log_probs(head, params, tokens) / count, rtol=1e-5)


def test_spread_labels_are_those_of_a_slow_loop():
    """A label is a Gaussian over neighbours for a single coefficient, one merged token, and nothing behind the end."""
    spread, (head, params), (plain, _) = 0.7, make(spread=0.7), make()
    actions, _ = jax.vmap(TOKENIZER.decode)(jnp.asarray(CHUNKS))
    loss = compiled(jax.vmap(head.loss, (None, None, None, 0)))(params, jax.random.key(0), EMBEDDING, actions)
    starts = [(), *((a,) for a in range(V)), *itertools.product(range(V), repeat=2)]
    found = log_probs(plain, params, [[*start, *[V] * (2 - len(start))] for start in starts])
    joint = dict(zip(starts, map(float, found), strict=True))
    cdf = statistics.NormalDist(sigma=spread).cdf
    tokens = np.asarray(compiled(jax.vmap(TOKENIZER.encode))(actions)[0])
    for sequence, value in zip(tokens.tolist(), loss, strict=True):
        chosen, errors = [token for token in sequence if token < V], []
        for place, token in enumerate(chosen):
            label = [float(t == token) for t in range(V)]
            if token < 3:
                inside = cdf(2.5 - token) - cdf(-0.5 - token)
                label[:3] = [(cdf(t + 0.5 - token) - cdf(t - 0.5 - token)) / inside for t in range(3)]
            before = tuple(chosen[:place])
            errors.append(-sum(p * (joint[*before, t] - joint[before]) for t, p in enumerate(label) if p))
        np.testing.assert_allclose(value, np.mean(errors), rtol=1e-4)


def test_tokens_one_by_one_have_the_logits_of_all_at_once():
    """With places counted in coefficients: 17 and 16 stand for several, so places and positions differ."""
    tokenizer = FastTokenizer((3, 2), ((7, 7), (7, 8), (15, 7)), scale=4.0, limit=1.0)
    lengths, end = tokenizer.lengths, tokenizer.vocabulary
    tokens = jnp.asarray([end - 1, 15, 3, end, end, end])
    places = np.minimum(np.cumsum(lengths[np.asarray(tokens)]) - lengths[np.asarray(tokens)], tokenizer.numbers - 1)
    net = TokenTransformer(MLP((8,)), end, tokenizer.numbers, 8, 2, 2)
    params = net.init(jax.random.key(0), EMBEDDING, tokens, jnp.asarray(places))
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    together = net.apply(params, EMBEDDING, tokens, jnp.asarray(places))
    features, caches = net.apply(params, EMBEDDING, method="features"), net.apply(params, 6, method="empty_caches")
    for position in range(6):
        last = tokens[position - 1] if position else jnp.asarray(end)
        logits, caches = net.apply(params, features, last, position, places[position], caches, method="step")
        np.testing.assert_allclose(logits, together[position], rtol=1e-4, atol=1e-5)
    elsewhere, _ = net.apply(params, features, tokens[1], 2, 2, caches, method="step")
    assert places[2] > 2 and np.abs(elsewhere - together[2]).max() > 1e-2


@pytest.fixture(scope="module")
def short():
    return make(max_tokens=1, scale=1.0)


def test_a_chunk_that_is_not_decoded_to_its_end_is_no_command(short):
    head, params = short
    assert head.noise.shape == (1, V)
    act = compiled(head.sample_from_noise)
    for token in range(V):
        action = act(params, EMBEDDING, 1e6 * jax.nn.one_hot(jnp.asarray([token]), V))
        assert np.isfinite(action).all() if token >= 3 else np.isnan(action).all()
    keys = jax.random.split(jax.random.key(2), 500)
    action, trace = compiled(jax.vmap(lambda key: head.sample(params, key, EMBEDDING)))(keys)
    assert 0 < trace.valid.sum() < 500
    np.testing.assert_array_equal(trace.valid[:, 0], np.isfinite(action).all(axis=(1, 2)))


def test_the_same_numbers_make_the_same_chunk_on_both_paths():
    tokenizer = FastTokenizer((3, 2), ((7, 7), (7, 8), (15, 7)), scale=4.0, limit=1.0)
    head, params = make(tokenizer, scale=0.5)
    keys = jax.random.split(jax.random.key(3), 50)
    sampled, trace = compiled(jax.vmap(lambda key: head.sample(params, key, EMBEDDING)))(keys)
    noise = jax.vmap(head.noise.draw)(keys)
    np.testing.assert_array_equal(
        compiled(jax.vmap(lambda n: head.sample_from_noise(params, EMBEDDING, n)))(noise), sampled
    )
    assert trace.valid.all() and len(np.unique(sampled, axis=0)) > 10
    likeliest = compiled(head.mode)(params, EMBEDDING)
    np.testing.assert_array_equal(likeliest, compiled(head.sample_from_noise)(params, EMBEDDING, 0 * noise[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 3}, "max_tokens is 3, it must be from 1 to the 2 numbers"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"spread": -1.0}, "spread is -1.0"),
        ({"temperature": 0.0}, "temperature is 0.0, it must be above 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fast_head(MLP((8,)), TOKENIZER, **options)
