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
    assert len(validation) <= max(1, round(portion * episodes))
    again = hold_out(episodes, portion, seed)
    assert all((a == b).all() for a, b in zip((training, validation), again, strict=True))


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match="there are 0 episodes"):
        hold_out(0, 0.1)
    with pytest.raises(ValueError, match="portion held out is 1"):
        hold_out(3, 1.0)
