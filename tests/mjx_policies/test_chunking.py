"""Chunk execution against a plain loop. Axes: T steps, B robots, H horizon, A action."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.chunking import ensemble_weights, real_time, receding_horizon, temporal_ensemble
from mjx_policies.envs.vectorize import where_rows
from mjx_policies.heads.inpainting import soft_mask

HORIZON = 8


def plan(key, history):
    """Action i of the plan made in step s is (100 s + i, the oldest stacked observation)."""
    del key
    newest, oldest = history["state"][-1, 0], history["state"][0, 0]
    return jnp.stack([100 * newest + jnp.arange(HORIZON), jnp.full(HORIZON, oldest)], axis=1)


def observed(step):
    """The number of the step, which a plan shows, and something that no plan needs."""
    return {"state": jnp.asarray(step, jnp.float32)[None], "other": jnp.zeros(3)}


def run(policy, steps=25):  # -> [T, 2]
    def advance(memory, clock):
        action, memory = policy.act(memory, jax.random.key(0), observed(clock), clock)
        return memory, action

    @jax.jit
    def go():
        return jax.lax.scan(advance, policy.init(jax.random.key(0), observed(0)), jnp.arange(steps))[1]

    return np.asarray(go())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, HORIZON), st.integers(0, HORIZON), st.integers(1, 4))
def test_receding_horizon_equals_a_loop(n_action_steps, inference_delay, n_obs_steps):
    if n_action_steps + inference_delay > HORIZON or inference_delay >= n_action_steps:
        with pytest.raises(ValueError, match="inference_delay"):
            receding_horizon(plan, (HORIZON, 2), n_action_steps, n_obs_steps, inference_delay)
        return
    found = run(receding_horizon(plan, (HORIZON, 2), n_action_steps, n_obs_steps, inference_delay))
    made = 0  # the step in which the plan that is executed was asked for
    for step, (action, oldest) in enumerate(found):
        asked = step // n_action_steps * n_action_steps
        if step - asked >= inference_delay or asked == 0:
            made = asked
        assert action == 100 * made + (step - made)
        assert oldest == max(0, made - n_obs_steps + 1)


def test_the_ensemble_equals_a_loop():
    found = run(temporal_ensemble(plan, (HORIZON, 2), decay=0.3))
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
        temporal_ensemble(plan, (HORIZON, 2), decay)


def failing(*steps):
    """`plan`, which makes none in these steps."""
    return lambda key, history: jnp.where(
        jnp.isin(history["state"][-1, 0], jnp.asarray(steps)), jnp.nan, plan(key, history)
    )


@pytest.mark.parametrize(("n_action_steps", "inference_delay"), [(3, 0), (3, 2), (5, 1), (1, 0)])
def test_where_a_plan_fails_the_last_action_goes_on(n_action_steps, inference_delay):
    failed = (n_action_steps * 2, n_action_steps * 3)
    policy = receding_horizon(failing(*failed), (HORIZON, 2), n_action_steps, inference_delay=inference_delay)
    found = run(policy)
    expected = run(receding_horizon(plan, (HORIZON, 2), n_action_steps, inference_delay=inference_delay))
    for step in range(len(found)):
        if 2 * n_action_steps + inference_delay <= step < 4 * n_action_steps + inference_delay:
            np.testing.assert_array_equal(found[step], expected[2 * n_action_steps + inference_delay - 1])
        else:
            np.testing.assert_array_equal(found[step], expected[step])


def test_a_plan_that_fails_has_no_part_in_the_ensemble():
    found = run(temporal_ensemble(failing(4, 5), (HORIZON, 2), decay=0.3))
    for step, (action, _) in enumerate(found):
        made = range(max(0, step - HORIZON + 1), step + 1)
        weights = np.array([(s not in (4, 5)) * np.exp(-0.3 * i) for i, s in enumerate(made)])
        np.testing.assert_allclose(action, weights @ [100 * s + (step - s) for s in made] / weights.sum(), rtol=1e-5)


def test_where_every_plan_of_an_ensemble_fails_the_last_action_goes_on():
    failed = range(6, 6 + HORIZON + 3)
    found = run(temporal_ensemble(failing(*failed), (HORIZON, 2)))
    last = 5 + HORIZON - 1  # the last step that the plan of step 5 says something of
    for step in range(last, failed.stop):
        np.testing.assert_array_equal(found[step], found[last])
    assert np.isfinite(found).all() and (found[failed.stop] != found[last]).any()


def test_without_any_plan_there_is_no_action():
    policies = (
        receding_horizon(failing(0), (HORIZON, 2), 4),
        temporal_ensemble(failing(0), (HORIZON, 2)),
    )
    assert all(np.isnan(run(policy, 1)).all() for policy in policies)


def test_plans_go_on_as_if_nothing_was_known_where_the_first_has_failed():
    def first_fails(key, history, prefix):
        return failing(0)(key, history) + 0 * (prefix.action * prefix.weight[:, None]).sum()

    found = run(real_time(first_fails, (HORIZON, 2), 4, inference_delay=1))
    assert np.isnan(found[:5]).all() and np.isfinite(found[5:]).all()


def test_plans_are_made_once_a_chunk_for_a_whole_batch():
    calls = []
    policy = receding_horizon(
        lambda key, history: jax.debug.callback(lambda: calls.append(1)) or plan(key, history),
        (HORIZON, 2),
        n_action_steps=5,
    )
    keys = jax.random.split(jax.random.key(0), 3)
    obs = {"state": jnp.zeros((3, 1))}
    memory = jax.vmap(policy.init)(keys, obs)
    act = jax.jit(jax.vmap(policy.act, in_axes=(0, 0, 0, None)))
    jax.effects_barrier()
    calls.clear()  # the first plans, with which episodes begin
    for step in range(10):
        _, memory = act(memory, keys, obs, jnp.asarray(step))
    jax.effects_barrier()
    assert len(calls) in (2, 2 * 3)  # a batch may call once, or once for each robot, but not in every step


def test_senseless_sizes_are_refused():
    with pytest.raises(ValueError, match="n_action_steps is 0, it must be at least 1"):
        receding_horizon(plan, (HORIZON, 2), 0)
    with pytest.raises(ValueError, match="train a longer chunk"):
        receding_horizon(plan, (HORIZON, 2), 9)
    with pytest.raises(ValueError, match="n_obs_steps is 0"):
        temporal_ensemble(plan, (HORIZON, 2), n_obs_steps=0)


def onward(key, history, prefix):
    """Plans what it is to continue, plus one, and the weights."""
    del key, history
    return jnp.stack([jnp.where(prefix.weight > 0, prefix.action[:, 0], 0.0) + 1, prefix.weight], axis=1)


def test_real_time_plans_continue_what_is_left_of_the_last():
    n_action_steps, inference_delay, steps = 3, 2, 17
    found = run(real_time(onward, (HORIZON, 2), n_action_steps, inference_delay=inference_delay), steps)
    plans = [np.stack([np.ones(HORIZON), np.zeros(HORIZON)], axis=1)]  # nothing to continue
    weights = soft_mask(HORIZON, inference_delay, HORIZON - n_action_steps)
    for _ in range(steps // n_action_steps):
        left = np.append(plans[-1][n_action_steps:, 0], [plans[-1][-1, 0]] * n_action_steps)
        plans.append(np.stack([left * (weights > 0) + 1, weights], axis=1))
    for step, action in enumerate(found):
        cycle = step // n_action_steps
        made = cycle if step % n_action_steps >= inference_delay or cycle == 0 else cycle - 1
        np.testing.assert_allclose(action, plans[made][step - made * n_action_steps], atol=1e-6)


# A batch whose episodes begin at any time: as rollouts have it

STEPS, ROBOTS = 24, 3


@functools.cache
def batch(n_action_steps, inference_delay, n_obs_steps, continues):
    """`begins [T, B] -> actions [T, B, 2]`; an episode that begins with a step has its memory of then."""
    policy = (
        real_time(onward, (HORIZON, 2), n_action_steps, n_obs_steps, inference_delay)
        if continues
        else receding_horizon(plan, (HORIZON, 2), n_action_steps, n_obs_steps, inference_delay)
    )
    keys = jax.random.split(jax.random.key(0), ROBOTS)

    def advance(memory, inputs):
        begins, clock = inputs
        obs = jax.tree.map(lambda x: jnp.broadcast_to(x, (ROBOTS, *x.shape)), observed(clock))
        memory = where_rows(begins, jax.vmap(policy.init)(keys, obs), memory)
        action, memory = jax.vmap(policy.act, in_axes=(0, 0, 0, None))(memory, keys, obs, clock)
        return memory, action

    def go(begins):
        first = jax.tree.map(lambda x: jnp.broadcast_to(x, (ROBOTS, *x.shape)), observed(0))
        return jax.lax.scan(advance, jax.vmap(policy.init)(keys, first), (begins, jnp.arange(STEPS)))[1]

    return jax.jit(go)


def slowly(begins, n_action_steps, inference_delay, n_obs_steps, continues):  # [T] -> [T, 2]
    """One robot, in a loop."""
    start, plans, actions = 0, [], []

    def newest(step):
        """The last plan that is there, and its age: the first one at once, those of the batch after their time."""
        asked, made = [(t, made) for t, made in plans if t == start or t + inference_delay <= step][-1]
        return made, step - asked

    for step, new in enumerate(begins):
        if new:
            start = step
            plans.clear()
        if new or step % n_action_steps == 0:
            left, weight = np.zeros((HORIZON, 2)), np.zeros(HORIZON)
            if not new:
                made, age = newest(step)
                left = np.append(made[age:], [made[-1]] * age, axis=0)
                weight = soft_mask(HORIZON, inference_delay, HORIZON - age)
            if continues:
                made = np.stack([left[:, 0] * (weight > 0) + 1, weight], axis=1)
            else:
                oldest = max(start, step - n_obs_steps + 1)
                made = np.stack([100 * step + np.arange(HORIZON), np.full(HORIZON, oldest)], axis=1)
            plans.append((step, made))
        made, age = newest(step)
        actions.append(made[age])
    return np.stack(actions)


@settings(max_examples=40)
@given(
    st.sampled_from([(1, 0, 1), (3, 0, 2), (3, 2, 1), (4, 1, 3), (5, 3, 1)]),
    st.booleans(),
    st.lists(st.sets(st.integers(1, STEPS - 1), max_size=4), min_size=ROBOTS, max_size=ROBOTS),
)
def test_a_robot_that_begins_within_a_cycle_acts_on_its_own_plan_and_joins_the_others(sizes, continues, times):
    begins = np.zeros((STEPS, ROBOTS), bool)
    begins[0] = True
    for robot, chosen in enumerate(times):
        begins[list(chosen), robot] = True
    found = np.asarray(batch(*sizes, continues)(begins))
    for robot in range(ROBOTS):
        np.testing.assert_allclose(found[:, robot], slowly(begins[:, robot], *sizes, continues), atol=1e-5)


@jax.jit
def ensembled(begins):  # [T] -> [T, 2]
    policy = temporal_ensemble(plan, (HORIZON, 2), decay=0.3)

    def advance(memory, inputs):
        new, clock = inputs
        first = policy.init(jax.random.key(0), observed(clock))
        memory = jax.tree.map(lambda x, y: jnp.where(new, x, y), first, memory)
        action, memory = policy.act(memory, jax.random.key(0), observed(clock), clock)
        return memory, action

    return jax.lax.scan(advance, policy.init(jax.random.key(0), observed(0)), (begins, jnp.arange(STEPS)))[1]


@settings(max_examples=20)
@given(st.sets(st.integers(1, STEPS - 1), max_size=4))
def test_an_ensemble_counts_the_plans_of_its_own_episode(times):
    begins = np.isin(np.arange(STEPS), [0, *times])
    start = 0
    for step, (action, _) in enumerate(np.asarray(ensembled(begins))):
        start = step if begins[step] else start
        made = range(max(start, step - HORIZON + 1), step + 1)
        weights = np.exp(-0.3 * np.arange(len(made)))
        np.testing.assert_allclose(action, weights @ [100 * s + (step - s) for s in made] / weights.sum(), rtol=1e-5)
