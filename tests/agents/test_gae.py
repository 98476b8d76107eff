"""Advantages against their definition, written as a double loop. Axes: T time, B environments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.agents.gae import gae

T, B = 12, 3
ROUNDING = dict(rtol=1e-4, atol=1e-4)  # float32 sums of a dozen numbers of order ten
compiled = jax.jit(gae)


def double_loop(reward, value, next_value, terminated, truncated, discount, trace_decay):
    """Every advantage on its own: the discounted deltas from its step to the end of its episode."""
    advantage = np.zeros(reward.shape)
    for t, b in np.ndindex(*reward.shape):
        for k in range(t, len(reward)):
            follows = 0.0 if terminated[k, b] else next_value[k, b]
            delta = reward[k, b] + discount * follows - value[k, b]
            advantage[t, b] += (discount * trace_decay) ** (k - t) * delta
            if terminated[k, b] or truncated[k, b]:
                break
    return advantage


def draw(seed, ends=0.3, steps=T):
    """Rewards, values and episode ends, a portion `ends` of all steps; half of them are truncations."""
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(0, 3, (3, steps, B)).astype(np.float32)
    ended, which = rng.random((steps, B)) < ends, rng.random((steps, B)) < 0.5
    return reward, value, next_value, ended & which, ended & ~which


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    ends=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    discount=st.floats(0, 1),
    trace_decay=st.floats(0, 1),
)
def test_the_definition(seed, ends, discount, trace_decay):
    rollout = draw(seed, ends)
    got = compiled(*rollout, discount, trace_decay)
    np.testing.assert_allclose(got, double_loop(*rollout, discount, trace_decay), **ROUNDING)


def test_the_last_step_of_a_rollout_is_valued_by_what_follows():
    reward, value, next_value = (jnp.full((1, 1), x) for x in (1.0, 2.0, 10.0))
    no = jnp.zeros((1, 1), bool)
    assert float(gae(reward, value, next_value, no, no, 0.5, 0.9)[0, 0]) == 1 + 0.5 * 10 - 2


def test_a_truncation_is_valued_by_what_would_have_followed_and_a_termination_is_not():
    reward, value, next_value = (jnp.full((2, 1), x) for x in (1.0, 2.0, 10.0))
    first, no = jnp.asarray([[True], [False]]), jnp.zeros((2, 1), bool)
    terminated = gae(reward, value, next_value, first, no, 0.5, 0.9)
    truncated = gae(reward, value, next_value, no, first, 0.5, 0.9)
    assert float(terminated[0, 0]) == 1 - 2
    assert float(truncated[0, 0]) == 1 + 0.5 * 10 - 2


def test_what_follows_a_termination_may_be_anything():
    reward, value, next_value, terminated, truncated = draw(0)
    assert terminated.any()
    doctored = np.where(terminated, np.nan, next_value)
    a = compiled(reward, value, next_value, terminated, truncated, 0.97, 0.95)
    b = compiled(reward, value, doctored, terminated, truncated, 0.97, 0.95)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", ["terminated", "truncated"])
def test_nothing_leaks_over_the_end_of_an_episode(how):
    reward, value, next_value, terminated, truncated = draw(1, ends=0.0)
    (terminated if how == "terminated" else truncated)[4] = True
    before = compiled(reward, value, next_value, terminated, truncated, 0.97, 0.95)
    for array in (reward, value, next_value):
        array[5:] += 100.0
    terminated[5:] ^= True
    after = compiled(reward, value, next_value, terminated, truncated, 0.97, 0.95)
    np.testing.assert_array_equal(before[:5], after[:5])
    assert not np.isclose(before[5:], after[5:]).any()


def test_without_traces_it_is_the_temporal_difference():
    reward, value, next_value, terminated, _ = draw(2)
    expected = reward + 0.9 * np.where(terminated, 0, next_value) - value
    np.testing.assert_allclose(compiled(*draw(2), 0.9, 0.0), expected, **ROUNDING)


def test_with_full_traces_it_is_the_return_minus_the_value():
    reward, value, next_value, terminated, truncated = draw(3)
    # With full traces the values between cancel only where each step leads to the next one's observation.
    next_value[:-1] = np.where(terminated[:-1] | truncated[:-1], next_value[:-1], value[1:])
    returns = np.zeros((T + 1, B))
    returns[T] = next_value[-1]
    for t in reversed(range(T)):
        ended = terminated[t] | truncated[t]
        follows = np.where(ended, next_value[t], returns[t + 1])
        returns[t] = reward[t] + 0.9 * np.where(terminated[t], 0.0, follows)
    got = compiled(reward, value, next_value, terminated, truncated, 0.9, 1.0)
    np.testing.assert_allclose(got, returns[:-1] - value, **ROUNDING)


def test_shapes_that_differ_are_refused():
    reward, value, next_value, terminated, truncated = draw(0)
    with pytest.raises(AssertionError, match="shape"):
        gae(reward, value[:, :1], next_value, terminated, truncated, 0.9, 0.9)
