import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mjx_policies.draws import draw_uniform, draw_words


def test_numbers_are_uniform_and_independent_of_one_another():
    uniform, _ = jax.jit(jax.vmap(lambda key: draw_uniform(key, 5)))(jax.random.split(jax.random.key(0), 20_000))
    uniform = np.asarray(uniform)
    assert uniform.min() >= 0 and uniform.max() < 1
    for column in uniform.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(uniform.T) - np.eye(5)).max() < 4 / 20_000**0.5


def test_a_chain_of_keys_never_repeats_nor_correlates():
    """What a state does: it draws, keeps the key, draws again."""
    _, drawn = jax.lax.scan(lambda key, _: draw_uniform(key, 1)[::-1], jax.random.key(1), length=20_000)
    drawn = np.asarray(drawn)[:, 0]
    assert len(np.unique(drawn)) > 0.99 * len(drawn)  # 24 bits repeat now and then
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 4 / len(drawn) ** 0.5


@settings(max_examples=25, deadline=None)
@given(num=st.integers(0, 9), num_keys=st.integers(1, 4), impl=st.sampled_from(["threefry2x32", "rbg"]))
def test_words_and_keys_have_nothing_in_common(num, num_keys, impl):
    words, *keys = draw_words(jax.random.key(7, impl=impl), num, num_keys)
    assert words.shape == (num,) and len(keys) == num_keys
    used = [int(word) for key in keys for word in jax.random.key_data(key)[:2]] + words.tolist()
    assert len(set(used)) == len(used)


@pytest.mark.parametrize("num", [1, 4])
def test_a_batch_of_keys_draws_what_each_would(num):
    keys = jax.random.split(jax.random.key(2), 3)
    batch, _ = jax.vmap(lambda key: draw_uniform(key, num))(keys)
    np.testing.assert_array_equal(batch, np.stack([draw_uniform(key, num)[0] for key in keys]))
