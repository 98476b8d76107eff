import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mjx_policies.data.mixture import Mixture, Shuffled, temperature_weights


@given(count=st.integers(1, 40), size=st.integers(1, 60), seed=st.integers(0, 3))
def test_every_window_comes_once_an_epoch(count, size, seed):
    sampler = Shuffled(count, seed)
    batches = -(-3 * count // size)  # three epochs, and the rest of a batch
    drawn = np.concatenate([sampler(batch, size) for batch in range(batches)])
    epochs = [drawn[start : start + count] for start in range(0, 3 * count, count)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(count))
    if count > 20:
        assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[0], np.arange(count))


def test_a_batch_depends_on_its_number_alone():
    for sampler in (Shuffled(1000, 3), Mixture([np.arange(5), np.arange(5, 9)], np.array([0.5, 0.5]), seed=3)):
        forward = [sampler(batch, 32) for batch in range(40)]
        for batch in reversed(range(40)):
            np.testing.assert_array_equal(sampler(batch, 32), forward[batch])
    assert not np.array_equal(Shuffled(1000, 3)(0, 32), Shuffled(1000, 4)(0, 32))


def test_groups_come_as_often_as_their_weights_say():
    groups = [np.arange(10), np.arange(10, 13), np.arange(13, 1000)]
    weights = np.array([0.2, 0.5, 0.3])
    drawn = np.concatenate([Mixture(groups, weights, seed=1)(batch, 256) for batch in range(100)])
    counts = [np.isin(drawn, group).sum() for group in groups]
    assert stats.chisquare(counts, weights * len(drawn)).pvalue > 1e-3
    inside = np.bincount(drawn[drawn < 10], minlength=10)
    assert stats.chisquare(inside).pvalue > 1e-3  # all windows of a group alike


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=6).filter(any), st.floats(0.01, 1e6))
def test_temperatures(counts, temperature):
    weights = temperature_weights(counts, temperature)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-9)
    assert all((weight == 0) == (count == 0) or temperature < 1 for weight, count in zip(weights, counts, strict=True))
    order = np.argsort(counts)
    assert (np.diff(weights[order]) >= -1e-12).all()
    at_one, at_infinity = temperature_weights(counts), temperature_weights(counts, float("inf"))
    np.testing.assert_allclose(at_one, np.array(counts) / sum(counts), rtol=1e-9)
    np.testing.assert_allclose(at_infinity, (np.array(counts) > 0) / np.count_nonzero(counts))


def test_what_means_nothing_is_refused():
    for counts, temperature, words in (([0, 0], 1, "not all zero"), ([1], 0, "above zero"), ([-1, 2], 1, "counts are")):
        with pytest.raises(ValueError, match=words):
            temperature_weights(counts, temperature)
    with pytest.raises(ValueError, match="1 weights for 2 groups"):
        Mixture([np.arange(2)] * 2, np.array([1.0]))
    with pytest.raises(ValueError, match="without windows"):
        Mixture([np.arange(2), np.arange(0)], np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match="at least one window"):
        Shuffled(0)
