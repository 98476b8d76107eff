import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mjx_policies.data.holdout import hold_out


@given(st.integers(1, 300), st.floats(0, 0.999), st.integers(0, 2**32))
def test_every_episode_is_in_one_part_and_there_is_something_to_learn_from(episodes, portion, seed):
    training, validation = hold_out(episodes, portion, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([training, validation])), np.arange(episodes))
    assert len(training) >= 1 and (len(validation) > 0) == (portion > 0 and episodes > 1)
    again = hold_out(episodes, portion, seed)
    assert all((a == b).all() for a, b in zip((training, validation), again, strict=True))


@given(st.integers(30, 300), st.integers(0, 100), st.floats(0.01, 0.5), st.integers(0, 2**32))
def test_what_was_learnt_from_is_never_held_out_later(episodes, more, portion, seed):
    before, after = hold_out(episodes, portion, seed), hold_out(episodes + more, portion, seed)
    assert not set(before.training) & set(after.validation)


def test_as_many_are_held_out_as_asked():
    counts = [len(hold_out(200, 0.1, seed).validation) for seed in range(200)]
    assert abs(np.mean(counts) - 20) < 4 * np.sqrt(200 * 0.1 * 0.9 / 200)


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match="there are 0 episodes"):
        hold_out(0, 0.1)
    with pytest.raises(ValueError, match="portion held out is 1"):
        hold_out(3, 1.0)
