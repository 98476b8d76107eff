import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.envs.experts.human import (
    Habits,
    HumanMotion,
    accelerate,
    approach,
    draw_manner,
    landing_speed,
    misaim,
    move,
    take_pause,
    wander,
)

MOTION = HumanMotion(acceleration=1.5, jerk=3.0)
STEADY = Habits(noise=0.0, tremor=0.0)
DT = 0.05


@functools.partial(jax.jit, static_argnames="periods")
def roll(distance, speed, pace, dt, periods):
    """Speeds [T] of a steady hand that starts at rest with `distance` to go, and what is left at the end."""

    def step(carry, _):
        velocity, offset = carry
        velocity, managed = move(velocity, jnp.zeros(2), offset, speed, MOTION, pace, dt, STEADY)
        return (velocity, offset - dt * managed), velocity[0]

    start = jnp.zeros(2), jnp.asarray([distance, 0.0])
    (_, left), speeds = jax.lax.scan(step, start, length=periods)
    return speeds, left


def movement(distance, speed, pace=1.0, dt=DT, periods=400):
    return jax.device_get(roll(distance, speed, pace, dt, periods))


def test_a_landing_keeps_its_jerk():
    """Integrated finely, the speed law gives d = j t^3 / 6 back."""
    jerk, dt, distance = 3.0, 1e-4, 0.1
    went = [distance]
    while went[-1] > 1e-4:
        went.append(went[-1] - dt * float(np.cbrt(4.5 * jerk * went[-1] ** 2)))
    to_go = (6 * distance / jerk) ** (1 / 3) - dt * np.arange(len(went))
    np.testing.assert_allclose(went, jerk * np.maximum(to_go, 0) ** 3 / 6, atol=2e-4)
    np.testing.assert_allclose(landing_speed(jnp.asarray(distance), jerk), jerk * to_go[0] ** 2 / 2, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(distance=st.floats(0.02, 1.0), speed=st.floats(0.1, 0.6), pace=st.floats(0.65, 1.5))
def test_a_movement_arrives_at_rest_and_never_beyond(distance, speed, pace):
    speeds, left = movement(distance, speed, pace)
    assert np.abs(left).max() < 1e-4 and abs(speeds[-1]) < 1e-3
    assert speeds.min() > -1e-5 and speeds.max() <= speed * pace + 1e-5
    assert DT * np.sum(speeds) == pytest.approx(distance, abs=2e-4)


def test_the_speed_is_a_bell():
    """People's hands peak at 1.75 to 1.9 times their mean speed, minimum jerk at 1.875 (Flash & Hogan 1985)."""
    speeds, _ = movement(0.2, 0.5, dt=0.01, periods=2000)
    speeds = speeds[: np.flatnonzero(speeds > 0.01 * speeds.max())[-1] + 1]
    peak = speeds.argmax()
    assert 1.5 < speeds.max() / speeds.mean() < 2.2
    assert (np.diff(speeds[: peak + 1]) >= -1e-6).all() and (np.diff(speeds[peak:]) <= 1e-6).all()


def test_twice_the_pace_is_the_same_movement_in_half_the_time():
    slow, _ = movement(0.3, 0.3, pace=0.7, dt=0.02)
    fast, _ = movement(0.3, 0.3, pace=1.4, dt=0.01)
    np.testing.assert_allclose(fast, 2 * slow, atol=1e-5)


def test_noise_is_an_ornstein_uhlenbeck_process():
    """Unit variance, and a correlation of exp(-t / tau), whatever the period."""
    habits = Habits(correlation=0.15)
    normals = jax.random.normal(jax.random.key(0), (40_000, 1))
    _, noise = jax.lax.scan(lambda x, n: (wander(x, n, DT, habits),) * 2, jnp.zeros(1), normals)
    x = np.asarray(noise[:, 0])
    assert x.std() == pytest.approx(1.0, abs=0.02)
    for lag in (1, 3):
        assert np.corrcoef(x[:-lag], x[lag:])[0, 1] == pytest.approx(np.exp(-lag * DT / 0.15), abs=0.02)


def test_pauses_are_as_rare_and_as_long_as_the_habits_say():
    habits = Habits(pauses=0.2, pause=0.3)
    uniforms = jax.random.uniform(jax.random.key(1), (100_000, 2))
    _, pause = jax.lax.scan(lambda p, u: (take_pause(p, u, DT, habits),) * 2, jnp.zeros(()), uniforms)
    pause = np.asarray(pause)
    begins = (pause[1:] > 0) & (pause[:-1] <= 0)
    working = (pause[:-1] <= 0).sum() * DT
    assert begins.sum() / working == pytest.approx(0.2, rel=0.1)
    mean = 0.3 * (1 - np.exp(-4))  # of an exponential cut at four times its mean
    assert pause[1:][begins].mean() == pytest.approx(mean, rel=0.1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1, width=32), min_size=6, max_size=6))
def test_vectors_of_any_length_stay_finite(numbers):
    offset, other = jnp.asarray(numbers[:3]), jnp.asarray(numbers[3:])
    for value in (approach(offset, 0.3, 3.0, DT), accelerate(offset, other, 0.1), misaim(offset, 0.2 * other)):
        assert np.isfinite(value).all()
    assert np.linalg.norm(accelerate(offset, other, 0.1) - offset) <= 0.1 + 1e-5
    sideways = np.asarray(misaim(offset, other) - offset)
    assert abs(sideways @ np.asarray(offset)) < 1e-5  # the way itself is not mistaken


def test_manners_differ_as_the_habits_say():
    habits = Habits(mistakes=0.25, mistake=(0.02, 0.03))
    manners = jax.vmap(lambda key: draw_manner(key, 3, habits))(jax.random.split(jax.random.key(2), 6000))
    np.testing.assert_allclose(np.bincount(manners.strategy) / 6000, 1 / 3, atol=0.03)
    size = np.linalg.norm(manners.mistake, axis=1)
    assert (size > 0).mean() == pytest.approx(0.25, abs=0.03)
    assert size[size > 0].min() >= 0.02 and size.max() <= 0.03
    assert not np.any(manners.mistake[:, 1]) and manners.mistake[:, 2].max() == 0, (
        "the fingers close beside it or too early"
    )
    assert manners.pace.min() >= habits.slowest and manners.pace.max() <= habits.fastest
    assert np.log(manners.pace).std() == pytest.approx(habits.pace, rel=0.1)
