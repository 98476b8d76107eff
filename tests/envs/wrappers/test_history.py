"""Stacked observations. Axes: O observations, `STEPS` here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.envs.vectorize import vectorize
from mjx_policies.envs.wrappers import History
from mjx_policies.randomization.latency import ObservationLatency
from mjx_policies.randomization.sensor_noise import SensorNoise

STEPS = 3


def counts(timestep, final=False):
    return np.asarray((timestep.final_obs if final else timestep.obs)["state"])[..., 0]


def test_observations_are_the_last_ones_with_the_first_repeated(counter):
    env = History(counter.env, STEPS)
    state, timestep = env.reset(jax.random.key(0), {"offset": jnp.zeros(())})
    start = counts(timestep)[0]
    assert timestep.obs["state"].shape == (STEPS, 3) and timestep.obs["privileged"].shape == (STEPS, 1)
    np.testing.assert_array_equal(counts(timestep), [start] * STEPS)
    for i in range(1, 6):
        state, timestep = env.step(state, jnp.asarray([0.5]))
        np.testing.assert_array_equal(counts(timestep), start + np.maximum([i - 2, i - 1, i], 0))
        np.testing.assert_array_equal(timestep.obs["privileged"], np.full((STEPS, 1), start))
    assert env.spec.n_obs_steps == STEPS and env.spec.observation == counter.env.spec.observation


def test_an_episode_has_no_history_of_the_one_before(counter):
    """And the final observation is the whole history of the episode that ended; extrinsics have none: they last."""
    envs = vectorize(History(counter.env, STEPS), 2, counter.dynamics)
    state, first = envs.init(jax.random.key(0), stagger=False)
    state, step = envs.refresh(state), jax.jit(envs.step)
    start = counts(first)[:, 0]
    for i in range(1, 4):
        state, timestep = step(state, jnp.asarray([[0.5], [0.5 if i < 3 else counter.end]]))
    np.testing.assert_array_equal(counts(timestep, final=True), start[:, None] + np.array([1, 2, 3]))
    np.testing.assert_array_equal(counts(timestep)[0], start[0] + np.array([1, 2, 3]))
    np.testing.assert_array_equal(counts(timestep)[1], counts(timestep)[1, :1].repeat(STEPS))
    np.testing.assert_array_equal(timestep.obs["state"][1], state.pool[1]["state"][0])
    assert counts(timestep)[1, 0] != start[1]
    assert timestep.obs["extrinsics"].shape == timestep.final_obs["extrinsics"].shape == (2, 1)


@pytest.mark.parametrize("fault", ["broken", "fly"])
def test_a_robot_in_quarantine_is_cut_off_with_its_last_sound_history(counter, fault):
    envs = vectorize(History(counter.env, STEPS), 2, counter.dynamics)
    state, _ = envs.init(jax.random.key(0), stagger=False)
    state, step = envs.refresh(state), jax.jit(envs.step)
    state, before = step(state, jnp.full((2, 1), 0.5))
    state, timestep = step(state, jnp.asarray([[0.5], [getattr(counter, fault)]]))
    assert timestep.metrics["nan_resets"].tolist() == [0, 1]
    np.testing.assert_array_equal(timestep.final_obs["state"][1], before.obs["state"][1])
    np.testing.assert_array_equal(counts(timestep)[1], counts(timestep)[1, :1].repeat(STEPS))
    state, timestep = step(state, jnp.full((2, 1), 0.5))
    assert not timestep.metrics["nan_resets"].any(), "what diverged is not in the history"


def test_what_was_seen_once_stays_as_it_was_seen(counter):
    env = History(SensorNoise(counter.env), STEPS)
    state, _ = env.reset(jax.random.key(0), {"offset": jnp.zeros(())})
    _, timesteps = jax.lax.scan(env.step, state, jnp.full((6, 1), 0.5))
    seen = counts(timesteps)  # [T, O]
    np.testing.assert_array_equal(seen[1:, :-1], seen[:-1, 1:])
    assert (seen[:, -1] % 1 != 0).all()


def test_mistakes_are_named(counter):
    env, dynamics = History(counter.env, STEPS), {"offset": jnp.zeros(())}
    for outer, name in ((SensorNoise(env), "SensorNoise"), (ObservationLatency(env, 0.0, 0.1), "ObservationLatency")):
        with pytest.raises(ValueError, match=f"{name} belongs inside History"):
            outer.reset(jax.random.key(0), dynamics)
    with pytest.raises(ValueError, match="has a History already"):
        History(env, 2).reset(jax.random.key(0), dynamics)
    with pytest.raises(ValueError, match="n_obs_steps is 0, it must be at least 1"):
        History(counter.env, 0)
