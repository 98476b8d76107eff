import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.randomization.sensor_noise import SensorNoise, _spread

NUM, STEPS = 400, 20


@pytest.fixture(scope="module")
def episodes(toy):
    """Clock readings of many noisy episodes, less the truth: [NUM, STEPS + 1]."""

    def episode(key):
        env = SensorNoise(toy.env)
        state, first = env.reset(key, {})
        _, later = jax.lax.scan(lambda state, _: env.step(state, jnp.ones(2)), state, length=STEPS)
        return first, later

    first, later = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), NUM))
    readings = np.concatenate([toy.clock(first)[:, None], toy.clock(later)], axis=1)
    return readings - 2.0 * np.arange(STEPS + 1), later


def test_noise_and_bias_have_the_widths_of_the_table(episodes):
    errors, _ = episodes
    # noise ±0.1 s and bias ±0.05 s in a term that is scaled by 2
    assert np.abs(errors).max() <= 0.3 + 1e-5
    bias = errors.mean(axis=1, keepdims=True)
    noise = errors - bias
    assert noise.std() == pytest.approx(0.2 / 3**0.5, rel=0.05)
    # the mean over an episode is its bias and what is left of the noise
    assert bias.std() == pytest.approx((0.1**2 / 3 + 0.2**2 / 3 / (STEPS + 1)) ** 0.5, rel=0.1)
    assert abs(errors.mean()) < 0.01


def test_only_measured_noisy_terms_are_touched(episodes):
    _, later = episodes
    state = np.asarray(later.obs["state"])
    np.testing.assert_array_equal(state[..., 1:], 1.0)  # rows are exact sensors, the last action is no measurement
    np.testing.assert_array_equal(later.obs["privileged"][0, :, 0], np.arange(1, STEPS + 1))


def test_every_step_and_episode_draws_anew(episodes):
    errors, _ = episodes
    assert len(np.unique(errors.round(6))) > 0.9 * errors.size


def test_level_zero_is_exact_and_level_scales(toy):
    def first_error(level):
        _, timestep = SensorNoise(toy.env, level).reset(jax.random.key(1), {})
        return timestep.obs["state"]

    levels = jnp.array([0.0, 1.0, 2.0])
    none, one, two = jax.vmap(first_error)(levels)
    np.testing.assert_array_equal(none, toy.env.reset(jax.random.key(1), {})[1].obs["state"])
    assert one[0] != 0
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)


def test_uniform_bits_cover_the_range_evenly():
    half_widths = np.array([0.0, 1.0, 2.0, 0.0, 0.5])
    keys = jax.random.split(jax.random.key(2), 20_000)
    draws = np.asarray(jax.vmap(lambda key: _spread(key, half_widths)[0])(keys))
    assert not draws[:, [0, 3]].any()
    for column, width in ((1, 1.0), (2, 2.0), (4, 0.5)):
        unit = draws[:, column] / width
        assert np.abs(unit).max() < 1 and np.abs(unit).max() > 0.999
        # ten bins of 2000 draws, 42 standard deviation: five of them
        assert np.abs(np.histogram(unit, bins=10, range=(-1, 1))[0] - 2000).max() < 215
    correlation = np.corrcoef(draws[:, [1, 2, 4]].T)
    assert np.abs(correlation - np.eye(3)).max() < 0.035  # five standard errors
