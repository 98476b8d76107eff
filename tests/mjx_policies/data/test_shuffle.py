import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mjx_policies.data.shuffle import Shuffled


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
    forward = [Shuffled(1000, 3)(batch, 32) for batch in range(40)]
    for batch in reversed(range(40)):
        np.testing.assert_array_equal(Shuffled(1000, 3)(batch, 32), forward[batch])
    assert not np.array_equal(Shuffled(1000, 3)(0, 32), Shuffled(1000, 4)(0, 32))


def test_what_means_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one window"):
        Shuffled(0)
