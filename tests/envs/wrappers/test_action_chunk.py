"""Chunks against a plain loop over the environment inside. Axes: K rows that are executed."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.envs.vectorize import vectorize
from mjx_policies.envs.wrappers import ActionChunk, History
from mjx_policies.randomization.latency import ActionDelay

K = 3


@pytest.fixture(scope="module")
def chunk(counter):
    """The wrapper, with `step(state, rows)` compiled once."""
    env = ActionChunk(counter.env, K)
    return env, jax.jit(env.step)


def begin(env, seed=0):
    return env.reset(jax.random.key(seed), {"offset": jnp.asarray(1e3)})


GO, END, CUT = 0.5, -1.0, -2.0  # of the counter


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.sampled_from([GO, GO, END, CUT]), min_size=K + 1, max_size=K + 1), before=st.integers(0, 2))
def test_a_chunk_is_the_plain_loop_up_to_its_end(chunk, counter, rows, before):
    """The last row is beyond K: it is ignored."""
    env, step = chunk
    state, _ = begin(env)
    for _ in range(before):
        state, _ = step(state, jnp.full((K, 1), GO))
    plain, rewards, even = state, [], []
    for row in rows[:K]:
        plain, expected = counter.env.step(plain, jnp.asarray([row]))
        rewards.append(float(expected.reward))
        even.append(float(expected.metrics["even"]))
        if row != GO:
            break
    state, timestep = step(state, jnp.asarray(rows)[:, None])
    chex.assert_trees_all_equal(state, plain)
    chex.assert_trees_all_equal(timestep.obs, expected.obs)
    assert (bool(timestep.terminated), bool(timestep.truncated)) == (row == END, row == CUT)
    assert float(timestep.reward) == sum(rewards)
    np.testing.assert_array_equal(timestep.metrics["even"], np.nanmean(even) if np.isfinite(even).any() else np.nan)
    assert float(timestep.metrics["stage/far"]) == float(expected.metrics["stage/far"]), "what was reached stays so"


def test_the_spec_counts_chunks(counter):
    spec, inner = ActionChunk(counter.env, K).spec, counter.env.spec
    assert spec.control_dt == pytest.approx(0.3) and spec.episode_seconds == pytest.approx(0.9)  # of ten periods, nine
    assert (spec.n_action_steps, spec.n_obs_steps) == (K, 0) and spec.action == inner.action
    assert vectorize(ActionChunk(counter.env, K), 2).episode_steps == 3
    assert vectorize(ActionChunk(counter.env, 99), 2).episode_steps == 1


def test_one_row_is_the_environment_itself(counter):
    env = ActionChunk(counter.env, 1)
    (state, first), (plain, expected) = begin(env), begin(counter.env)
    chex.assert_trees_all_equal((state, first), (plain, expected))
    for action in (GO, GO, END):
        state, timestep = env.step(state, jnp.asarray([[action], [9.0]]))
        plain, expected = counter.env.step(plain, jnp.asarray([action]))
        chex.assert_trees_all_equal((state, timestep), (plain, expected))


def test_a_new_episode_begins_where_one_ended_within_a_chunk(counter):
    envs = vectorize(ActionChunk(counter.env, K), 3, counter.dynamics)
    state, first = envs.init(jax.random.key(0), stagger=False)
    state = envs.refresh(state)
    rows = jnp.full((3, K, 1), GO).at[1, 1].set(END)
    state, timestep = jax.jit(envs.step)(state, rows)
    start = first.obs["state"][:, 0]
    np.testing.assert_array_equal(timestep.final_obs["state"][:, 0], start + np.array([3, 2, 3]))
    np.testing.assert_array_equal(timestep.reward, 3 * start + np.array([6, 3 - start[1], 6]))
    assert timestep.terminated.tolist() == [False, True, False] and not timestep.truncated.any()
    np.testing.assert_array_equal(timestep.obs["state"][1], state.pool[1]["state"][0])
    assert not timestep.metrics["nan_resets"].any() and state.episodes.length.tolist() == [1, 1, 1]


@pytest.mark.parametrize("fault", ["broken", "fly"])
@pytest.mark.parametrize("row", range(K))
def test_a_simulation_that_diverges_within_a_chunk_is_quarantined(chunk, counter, fault, row):
    """Also where it has come back to finite numbers by the end: `fly` is a period of a height beyond physics."""
    envs = vectorize(chunk[0], 2, counter.dynamics)
    state, _ = envs.init(jax.random.key(0), stagger=False)
    step = jax.jit(envs.step)
    state, before = step(envs.refresh(state), jnp.full((2, K, 1), GO))
    rows = jnp.full((2, K, 1), GO)
    well, expected = step(state, rows)
    sick, timestep = step(state, rows.at[1, row].set(getattr(counter, fault)))
    assert timestep.metrics["nan_resets"].tolist() == [0, 1] and timestep.truncated.tolist() == [False, True]
    assert float(timestep.reward[1]) == 0 and not timestep.terminated.any()
    np.testing.assert_array_equal(timestep.final_obs["state"][1], before.obs["state"][1])  # where it was last well
    chex.assert_tree_all_finite((timestep.obs, sick.envs.data))
    for got, others in ((timestep, expected), (sick.envs, well.envs)):
        chex.assert_trees_all_equal(*(jax.tree.map(lambda x: x[0], tree) for tree in (got, others)))


def test_what_comes_after_the_end_may_diverge(chunk, counter):
    envs = vectorize(chunk[0], 1, counter.dynamics)
    state, _ = envs.init(jax.random.key(0), stagger=False)
    _, timestep = envs.step(envs.refresh(state), jnp.asarray([[[GO], [END], [counter.broken]]]))
    assert timestep.terminated[0] and not timestep.metrics["nan_resets"].any() and np.isfinite(timestep.reward).all()


def test_delays_inside_are_of_control_periods(counter):
    """0.1 s late is one row, and the row that is on its way at the end of a chunk arrives in the next."""
    env = ActionChunk(ActionDelay(counter.env, 0.1, 0.1), K)
    state, _ = begin(env)
    state, _ = env.step(state, jnp.asarray([[1.0], [2.0], [3.0]]))
    np.testing.assert_array_equal(state.inner.applied, 2.0)
    np.testing.assert_array_equal(env.hold(state), np.full((K, 1), 2.0))
    state, _ = env.step(state, jnp.asarray([[4.0], [5.0], [6.0]]))
    np.testing.assert_array_equal(state.inner.applied, 5.0)


def test_history_inside_is_of_periods_and_outside_of_chunks(counter):
    action = jnp.full((K, 1), GO)
    inside, outside = ActionChunk(History(counter.env, 2), K), History(ActionChunk(counter.env, K), 2)
    assert inside.spec == outside.spec
    for env, steps in ((inside, 1), (outside, K)):
        state, first = begin(env)
        _, timestep = env.step(state, action)
        start = float(first.obs["state"][-1, 0])
        np.testing.assert_array_equal(timestep.obs["state"][:, 0], [start + K - steps, start + K])


def test_mistakes_are_named(counter):
    env = ActionChunk(counter.env, K)
    state, _ = begin(env)
    for shape in ((1,), (K - 1, 1), (K, 2)):
        with pytest.raises(ValueError, match=re.escape(f"an action has shape {shape}, it must be (H, 1) with H")):
            env.step(state, jnp.zeros(shape))
    with pytest.raises(ValueError, match="delays belong inside it"):
        env.step(state, jnp.zeros((K, 1)), jnp.zeros((2, 1)))
    with pytest.raises(ValueError, match="ActionDelay belongs inside ActionChunk"):
        begin(ActionDelay(env, 0.0, 0.05))
    with pytest.raises(ValueError, match="n_action_steps is 0, it must be at least 1"):
        ActionChunk(counter.env, 0)
