"""Chunk execution against a plain loop. Axes: T steps, H horizon, A action."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.chunking import ensemble_weights, real_time, receding_horizon, temporal_ensemble
from mjx_policies.heads.inpainting import soft_mask

HORIZON = 8
EXAMPLE = {"state": jnp.zeros(1)}


def plan(key, history):
    """Action i of the plan made in step s is (100 s + i, the oldest remembered step)."""
    del key
    newest, oldest = history["state"][-1, 0], history["state"][0, 0]
    return jnp.stack([100 * newest + jnp.arange(HORIZON), jnp.full(HORIZON, oldest)], axis=1)


def run(policy, steps=25):  # -> [T, 2]
    def advance(carry, step):
        action, carry = policy.act(carry, jax.random.key(0), {"state": step[None].astype(jnp.float32)}, step)
        return carry, action

    return np.asarray(jax.jit(lambda: jax.lax.scan(advance, policy.init(jax.random.key(0)), jnp.arange(steps))[1])())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, HORIZON), st.integers(0, HORIZON), st.integers(1, 4))
def test_receding_horizon_equals_a_loop(execute, latency, remember):
    if execute + latency > HORIZON or latency >= execute:
        with pytest.raises(ValueError, match="latency"):
            receding_horizon(plan, EXAMPLE, (HORIZON, 2), execute, remember, latency)
        return
    found = run(receding_horizon(plan, EXAMPLE, (HORIZON, 2), execute, remember, latency))
    made = 0  # the step in which the plan that is executed was asked for
    for step, (action, oldest) in enumerate(found):
        asked = step // execute * execute
        if step - asked >= latency or asked == 0:
            made = asked
        assert action == 100 * made + (step - made)
        assert oldest == max(0, made - remember + 1)


def test_the_ensemble_equals_a_loop():
    found = run(temporal_ensemble(plan, EXAMPLE, (HORIZON, 2), decay=0.3))
    for step, (action, _) in enumerate(found):
        made = range(max(0, step - HORIZON + 1), step + 1)  # oldest first
        weights = np.exp(-0.3 * np.arange(len(made)))
        values = [100 * s + (step - s) for s in made]
        np.testing.assert_allclose(action, weights @ values / weights.sum(), rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.booleans(), min_size=4, max_size=4).filter(any),
    st.integers(1, 4),
)
def test_weights_of_an_ensemble_are_finite_for_every_finite_decay(decay, usable, plans):
    usable = np.array(usable) & (np.arange(4) < plans)
    rank = plans - 1 - np.arange(4)
    weights = np.asarray(ensemble_weights(rank, usable, decay))
    assert np.isfinite(weights).all() and (weights[~usable] == 0).all()
    if usable.any():
        assert weights.max() == 1
        if abs(decay) < 80:  # what float64 holds without any care
            expected = np.where(usable, np.exp(-decay * rank), 0.0)
            np.testing.assert_allclose(weights, expected / expected.max(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("decay", [np.nan, np.inf, -np.inf])
def test_a_decay_that_is_not_finite_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay is .*, it must be finite"):
        temporal_ensemble(plan, EXAMPLE, (HORIZON, 2), decay)


def failing(*steps):
    """`plan`, which makes none in these steps."""
    return lambda key, history: jnp.where(
        jnp.isin(history["state"][-1, 0], jnp.asarray(steps)), jnp.nan, plan(key, history)
    )


@pytest.mark.parametrize(("execute", "latency"), [(3, 0), (3, 2), (5, 1), (1, 0)])
def test_where_a_plan_fails_the_last_action_goes_on(execute, latency):
    failed = (execute * 2, execute * 3)
    policy = receding_horizon(failing(*failed), EXAMPLE, (HORIZON, 2), execute, latency=latency)
    found = run(policy)
    expected = run(receding_horizon(plan, EXAMPLE, (HORIZON, 2), execute, latency=latency))
    for step in range(len(found)):
        if 2 * execute + latency <= step < 4 * execute + latency:
            np.testing.assert_array_equal(found[step], expected[2 * execute + latency - 1])
        else:
            np.testing.assert_array_equal(found[step], expected[step])


def test_a_plan_that_fails_has_no_part_in_the_ensemble():
    found = run(temporal_ensemble(failing(4, 5), EXAMPLE, (HORIZON, 2), decay=0.3))
    for step, (action, _) in enumerate(found):
        made = range(max(0, step - HORIZON + 1), step + 1)
        weights = np.array([(s not in (4, 5)) * np.exp(-0.3 * i) for i, s in enumerate(made)])
        np.testing.assert_allclose(action, weights @ [100 * s + (step - s) for s in made] / weights.sum(), rtol=1e-5)


def test_where_every_plan_of_an_ensemble_fails_the_last_action_goes_on():
    failed = range(6, 6 + HORIZON + 3)
    found = run(temporal_ensemble(failing(*failed), EXAMPLE, (HORIZON, 2)))
    last = 5 + HORIZON - 1  # the last step that the plan of step 5 says something of
    for step in range(last, failed.stop):
        np.testing.assert_array_equal(found[step], found[last])
    assert np.isfinite(found).all() and (found[failed.stop] != found[last]).any()


def test_without_any_plan_there_is_no_action():
    policies = (
        receding_horizon(failing(0), EXAMPLE, (HORIZON, 2), 4),
        temporal_ensemble(failing(0), EXAMPLE, (HORIZON, 2)),
    )
    assert all(np.isnan(run(policy, 1)).all() for policy in policies)


def test_plans_go_on_as_if_nothing_was_known_where_the_first_has_failed():
    def onward(key, history, prefix):
        return failing(0)(key, history) + 0 * (prefix.action * prefix.weight[:, None]).sum()

    found = run(real_time(onward, EXAMPLE, (HORIZON, 2), 4, latency=1))
    assert np.isnan(found[:5]).all() and np.isfinite(found[5:]).all()


def test_plans_are_made_once_a_chunk_for_a_whole_batch():
    calls = []
    policy = receding_horizon(
        lambda key, history: jax.debug.callback(lambda: calls.append(1)) or plan(key, history),
        EXAMPLE,
        (HORIZON, 2),
        execute=5,
    )
    keys = jax.random.split(jax.random.key(0), 3)
    carry = jax.vmap(policy.init)(keys)

    @jax.jit
    def act(carry, step):
        obs = {"state": jnp.full((3, 1), step, jnp.float32)}
        return jax.vmap(policy.act, in_axes=(0, 0, 0, None))(carry, keys, obs, step)

    for step in range(10):
        _, carry = act(carry, jnp.asarray(step))
    jax.effects_barrier()
    assert len(calls) in (2, 2 * 3)  # a batch may call once, or once for each robot, but not in every step


def test_senseless_sizes_are_refused():
    with pytest.raises(ValueError, match="execute is 0, it must be at least 1"):
        receding_horizon(plan, EXAMPLE, (HORIZON, 2), 0)
    with pytest.raises(ValueError, match="train a longer chunk"):
        receding_horizon(plan, EXAMPLE, (HORIZON, 2), 9)
    with pytest.raises(ValueError, match="remember is 0"):
        temporal_ensemble(plan, EXAMPLE, (HORIZON, 2), remember=0)


def test_real_time_plans_continue_what_is_left_of_the_last():
    """Each plan returns what it was to continue, plus one, and the weights."""
    execute, latency = 3, 2
    horizon, steps = 8, 17

    def plan(key, history, prefix):
        del key, history
        return jnp.stack([prefix.action[:, 0] + 1, prefix.weight], axis=1)

    policy = real_time(plan, EXAMPLE, (horizon, 2), execute, latency=latency)
    found = run(policy, steps)
    plans = [np.stack([np.ones(horizon), np.zeros(horizon)], axis=1)]  # nothing to continue
    weights = soft_mask(horizon, latency, horizon - execute)
    for _ in range(steps // execute):
        left = np.append(plans[-1][execute:, 0], [plans[-1][-1, 0]] * execute)
        plans.append(np.stack([left + 1, weights], axis=1))
    for step, action in enumerate(found):
        cycle = step // execute
        made = cycle if step % execute >= latency or cycle == 0 else cycle - 1
        np.testing.assert_allclose(action, plans[made][step - made * execute], atol=1e-6)
