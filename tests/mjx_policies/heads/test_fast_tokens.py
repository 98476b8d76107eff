"""Byte pairs and FAST's tokens against slow Python and SciPy. Axes: N chunks, H horizon, A action, K frequency.

The ratios of Pertsch et al. 2025 (arXiv:2501.09747), table I, are of other robots' data: what is asked for here is that
a ratio rises with the rate as theirs do, on motion of the same second, and is no smaller.
"""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mjx_policies.envs.experts.obstacle2d import obstacle2d_expert
from mjx_policies.envs.registry import load
from mjx_policies.errors import UserError
from mjx_policies.experiments.collection.demonstrators import expert_demonstrator
from mjx_policies.experiments.collection.rollouts import make_recorder
from mjx_policies.heads.fast import byte_pairs
from mjx_policies.heads.fast.tokens import (
    FastTokenizer,
    cosine_transform,
    fit_tokenizer,
    most_tokens,
    read_tokenizer,
)

H, A = 10, 3


def reaches(rate, count=300, actions=7, seed=0):  # -> [N, H, A]
    """A second of minimum-jerk reaches of 1 to 3 s, each joint's begun at another time (Flash and Hogan 1985)."""
    rng = np.random.default_rng(seed)
    duration = rng.uniform(1, 3, (count, 1, actions))
    begun = rng.uniform(0, 1, duration.shape) * duration
    start, end = rng.uniform(-1, 1, (2, count, 1, actions))
    s = np.clip((begun + np.arange(rate)[:, None] / rate) / duration, 0, 1)
    return (start + (end - start) * (10 * s**3 - 15 * s**4 + 6 * s**5)).astype(np.float32)


@pytest.fixture(scope="module")
def tokenizer():
    return fit_tokenizer(reaches(H, actions=A), 160)


@pytest.fixture(scope="module")
def encode(tokenizer):
    return jax.jit(tokenizer.encode)


@pytest.fixture(scope="module")
def decode(tokenizer):
    return jax.jit(tokenizer.decode)


def slow_encode(symbols, merges, num_symbols):
    """One pair at a time: of those that may be merged the one learnt first, the leftmost of several."""
    rank = {tuple(pair): m for m, pair in enumerate(merges)}
    symbols = list(symbols)
    while True:
        ranks = [rank.get(pair, len(merges)) for pair in itertools.pairwise(symbols)]
        if not ranks or min(ranks) == len(merges):
            return symbols
        at = ranks.index(min(ranks))
        symbols[at : at + 2] = [num_symbols + ranks[at]]


def test_the_transform_is_scipy_s():
    x = np.random.default_rng(0).normal(size=(16, 3))
    np.testing.assert_allclose(cosine_transform(16) @ x, scipy.fft.dct(x, axis=0, norm="ortho"), atol=1e-12)


def test_the_most_frequent_pair_is_merged_first():
    # "1 2" five times; then "3 0" and "0 3" thrice each, of which the smaller is first; then nothing occurs twice.
    sequences = np.array([[1, 2, 1, 2, 1, 2], [1, 2, 0, 3, 0, 3], [1, 2, 0, 3, 3, 0]])
    merges = byte_pairs.learn_merges(sequences, 4, 8)
    assert merges.tolist()[:3] == [[1, 2], [0, 3], [4, 4]]
    assert byte_pairs.expansions(merges, 4)[6] == [1, 2, 1, 2]
    assert len(byte_pairs.learn_merges(np.array([[0, 1, 2, 3]]), 4, 8)) == 0


def test_of_a_run_every_other_pair_is_merged_and_no_pair_spans_two_sequences():
    assert byte_pairs.learn_merges(np.array([[5, 5, 5, 5, 5], [5, 5, 1, 0, 2]]), 6, 7).tolist() == [[5, 5]]
    assert byte_pairs.learn_merges(np.array([[0, 1], [2, 0], [1, 3]]), 4, 8).tolist() == []
    table = byte_pairs.pair_table(np.array([[5, 5]]), 6)
    found, count = byte_pairs.encode(jnp.asarray([5, 5, 5, 5, 5]), jnp.asarray(table))
    assert found[:count].tolist() == [6, 6, 5]


STATES = np.random.default_rng(1).choice(4, (200, 24), p=[0.6, 0.2, 0.1, 0.1])
MERGES = byte_pairs.learn_merges(STATES, 4, 40)
fast_encode = jax.jit(byte_pairs.encode)


@settings(deadline=None, max_examples=100)
@given(hnp.arrays(np.int64, 24, elements=st.integers(0, 3)))
def test_encoding_is_that_of_a_slow_loop(symbols):
    found, count = fast_encode(jnp.asarray(symbols), jnp.asarray(byte_pairs.pair_table(MERGES, 4)))
    expected = slow_encode(symbols, MERGES.tolist(), 4)
    assert found[:count].tolist() == expected and set(found[count:].tolist()) <= {4 + len(MERGES)}
    spelt = byte_pairs.expansions(MERGES, 4)
    assert [s for token in expected for s in spelt[token]] == symbols.tolist()


@settings(deadline=None, max_examples=100)
@given(hnp.arrays(np.float32, (H, A), elements=st.floats(-3, 3, width=32)))
def test_any_chunk_comes_back_but_for_rounding(tokenizer, encode, decode, action):
    tokens, count = encode(action)
    found, valid = decode(tokens)
    assert valid and 1 <= count <= H * A
    error = found - np.clip(action, -tokenizer.limit, tokenizer.limit)
    # Each coefficient is off by half a step at most, and the transform keeps lengths.
    assert np.sqrt((error**2).mean(axis=0)).max() <= 0.5 / tokenizer.scale + 1e-5
    if np.abs(found).max() <= tokenizer.limit:
        np.testing.assert_array_equal(encode(found)[0], tokens)  # what was rounded is not rounded again


def test_the_lowest_frequencies_come_first_and_actions_lie_side_by_side():
    plain = FastTokenizer((4, 2), ())
    action = np.stack([np.full(4, 0.3), np.cos(np.pi * (np.arange(4) + 0.5) / 4)], axis=1).astype(np.float32)
    expected = np.round(10 * scipy.fft.dct(action, axis=0, norm="ortho")).astype(int)  # [K, A]
    assert expected.tolist() == [[6, 0], [0, 14], [0, 0], [0, 0]]
    tokens, count = plain.encode(action)
    assert count == 8 and (tokens - plain.bound).tolist() == expected.ravel().tolist()


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_tokens_that_make_no_chunk_are_never_a_command(tokenizer, encode, decode, data):
    tokens = np.asarray(encode(reaches(H, 1, A, data.draw(st.integers(0, 99)))[0])[0]).copy()
    for _ in range(data.draw(st.integers(0, 3))):
        tokens[data.draw(st.integers(0, H * A - 1))] = data.draw(st.integers(-2, tokenizer.vocabulary + 2))
    found, valid = decode(tokens)
    used = tokens.tolist()
    while used and used[-1] == tokenizer.vocabulary:
        used.pop()
    spelt = byte_pairs.expansions(np.array(tokenizer.merges), tokenizer.num_symbols)
    sound = all(0 <= token < tokenizer.vocabulary for token in used)
    symbols = [s for token in used for s in spelt[token]] if sound else []
    assert valid == (len(symbols) == H * A)
    if valid:
        coefficients = (np.array(symbols) - tokenizer.bound).reshape(H, A) / tokenizer.scale
        np.testing.assert_allclose(found, scipy.fft.idct(coefficients, axis=0, norm="ortho"), atol=1e-4)
    else:
        assert np.isnan(found).all()


def ratio(actions):  # [N, H, A] -> numbers of a chunk for each of its tokens, on chunks that were not seen
    half = len(actions) // 2
    tokenizer = fit_tokenizer(actions[:half], 300)
    count = jax.jit(jax.vmap(lambda action: tokenizer.encode(action)[1]))(actions[half:])
    return tokenizer.numbers / float(count.mean())


def test_motion_sampled_faster_takes_few_tokens_more():
    """Their ratios are 1.75 at 5 Hz and 5.0 at 20 Hz, both of 7 actions, and 13.2 at 50 Hz of 14."""
    found = [ratio(reaches(rate)) for rate in (5, 20, 50)]
    assert (np.diff(found) > 0).all() and found[-1] / found[0] > 4
    assert (np.array(found) > [1.75, 5.0, 13.2]).all()


def test_demonstrations_sampled_faster_take_few_tokens_more():
    """Where the expert goes around the obstacle, in chunks of 1.6 s, at 2.5 and 10 Hz."""
    task = load("Obstacle2D", "cpu", num_envs=64)
    episodes = jax.device_get(make_recorder(task, expert_demonstrator(obstacle2d_expert(task)))(np.arange(64)))
    chunks = [
        episodes.qpos[t : t + 16, b] for b, length in enumerate(episodes.length) for t in range(0, int(length) - 16, 2)
    ]
    chunks = np.random.default_rng(0).permutation(np.array(chunks, np.float32))
    assert len(chunks) > 200
    low, high = np.quantile(chunks, (0.01, 0.99), axis=(0, 1))
    chunks = 2 * (chunks - low) / (high - low) - 1
    found = [ratio(chunks[:, ::every]) for every in (4, 1)]
    assert (np.diff(found) > 0).all() and found[0] > 1.2 and found[-1] > 3


def test_the_most_tokens_of_some_chunks(tokenizer, encode):
    actions = reaches(H, 20, A, seed=5)
    assert most_tokens(tokenizer, actions) == max(int(encode(action)[1]) for action in actions)


def test_a_file_holds_all_of_it(tokenizer, tmp_path):
    path = tmp_path / "tokens.json"
    tokenizer.save(path)
    assert read_tokenizer(path) == tokenizer


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "fast-tokens-9"}, "not a tokenizer of the format"),
        ({"more": 1}, "not a tokenizer of the format"),
        ({"shape": [10]}, "it must be .horizon, actions."),
        ({"shape": [10.0, 3]}, "lists of integers"),
        ({"shape": [2**40, 3]}, "4096 numbers at most"),
        ({"shape": [-1, 3]}, "it must be .horizon, actions."),
        ({"scale": 1e300}, "more than the 4096"),
        ({"scale": 10**400}, "Fit the tokenizer again"),
        ({"scale": True}, "must be numbers"),
        ({"limit": 0}, "limit is 0.0, it must be above 0"),
        ({"merges": [[0, 10**30]]}, "not of two earlier symbols"),
        ({"merges": [[0, 0, 0]]}, "not of two earlier symbols"),
        ({"merges": [[0, 0], [0, 0]]}, "merged twice"),
        ({"merges": [[0, -1]]}, "not of two earlier symbols"),
        ({"merges": "00"}, "lists of integers"),
        # Each twice as long as the one before: 2^40 symbols.
        ({"merges": [[0, 0], *([95 + n, 95 + n] for n in range(40))]}, "longer than a chunk"),
    ],
)
def test_a_file_that_anybody_may_have_written(tokenizer, tmp_path, changes, message):
    path = tmp_path / "tokens.json"
    tokenizer.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=message):
        read_tokenizer(path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_tokenizer(np.zeros((4, 3))), "N, H, A"),
        (lambda: fit_tokenizer(np.full((4, 3, 2), np.nan)), "finite"),
        (lambda: fit_tokenizer(np.zeros((4, 16, 2)), 20), "vocabulary is 20, it must be from 121 to 4096"),
        (lambda: byte_pairs.learn_merges(np.array([[0, 7]]), 4, 8), "from 0 to 3"),
    ],
)
def test_what_cannot_be_learnt_from(call, message):
    with pytest.raises(ValueError, match=message):
        call()
