"""Recurrent memories, step by step and all at once. Axes: T steps, D observation, F features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.memory import gru, replay

T, D, F = 7, 3, 4
MEMORY = gru(F, ("state", "goal"))
OBS = {
    "state": jax.random.normal(jax.random.key(1), (T, D)),
    "goal": jax.random.normal(jax.random.key(2), (T, 1, 2)),
    "other": jnp.full((T, 1), jnp.nan),
}
PARAMS = MEMORY.init(jax.random.key(0), jax.tree.map(lambda x: x[0], OBS))
BEGINS = np.array([False, False, True, False, False, True, True])


def step_by_step(params, start, begins):  # -> [T, F]
    entries, kept = [], start
    for t in range(T):
        obs = jax.tree.map(lambda x, t=t: x[t], OBS)
        kept = MEMORY.begin(params, None, obs) if begins[t] else kept
        entry, kept = MEMORY.step(params, kept, None, obs, t)
        entries.append(entry)
    return jnp.stack(entries)


@pytest.mark.parametrize("begins", [np.zeros(T, bool), BEGINS])
def test_a_replay_is_what_acting_recorded_and_gradients_flow_back_through_time(begins):
    start = jax.random.normal(jax.random.key(3), (F,))
    weights = jax.random.normal(jax.random.key(4), (T, F))

    def total(run):
        return jax.jit(jax.value_and_grad(lambda params, start: (weights * run(params, start)).sum(), (0, 1)))

    found = total(lambda params, start: replay(MEMORY, params, start, OBS, jnp.asarray(begins)))(PARAMS, start)
    expected = total(lambda params, start: step_by_step(params, start, begins))(PARAMS, start)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    assert any((x != 0).any() for x in jax.tree.leaves(found[1]))


def test_nothing_is_kept_over_the_end_of_an_episode():
    memories = jnp.zeros(F), jnp.ones(F)
    first, second = (replay(MEMORY, PARAMS, start, OBS, jnp.asarray(BEGINS)) for start in memories)
    assert (first[:2] != second[:2]).any()
    np.testing.assert_array_equal(first[2:], second[2:])
    early = OBS | {"state": OBS["state"].at[3].set(9.0)}
    moved = replay(MEMORY, PARAMS, memories[0], early, jnp.asarray(BEGINS))
    np.testing.assert_array_equal(moved[:3], first[:3])
    assert (moved[3:5] != first[3:5]).any(axis=1).all()
    np.testing.assert_array_equal(moved[5:], first[5:])


def test_it_draws_nothing_and_is_learned():
    assert MEMORY.learned and MEMORY.period == 1 and MEMORY.name == "memory"
