"""Delays against a slow queue, one command at a time."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.draws import draw_uniform
from mjx_policies.envs.base import select
from mjx_policies.envs.wrappers import History
from mjx_policies.randomization.latency import ActionDelay, ObservationLatency
from mjx_policies.randomization.sensor_noise import SensorNoise


@jax.jit
def run(env, key, actions):  # [T, A]
    """The first time step, all later ones, and the states before each step."""
    state, first = env.reset(key, {})

    def step(state, action):
        after, timestep = env.step(state, action)
        return after, (state, timestep)

    _, (states, timesteps) = jax.lax.scan(step, state, actions)
    return first, states, timesteps


def queue(delays, actions, hold, substeps, dt):
    """The command that acts in each substep if commands stand in line: none before the one ahead of it has arrived."""
    line, acting, applied = [], hold, []
    for k, (delay, action) in enumerate(zip(delays, actions, strict=True)):
        for s in range(substeps):
            now = k * substeps + s
            line.append((now + math.ceil(max(delay, 0.0) / dt - 1e-3), action))
            while line and line[0][0] <= now:
                acting = line.pop(0)[1]
            applied.append(acting)
    return np.array(applied).reshape(len(actions), substeps, -1)


def counting(periods):
    """Commands that tell their number, from 1."""
    return np.stack([np.arange(1, periods + 1), -np.arange(1, periods + 1)], axis=1).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    low=st.integers(0, 300),
    width=st.integers(0, 200),
    jitter=st.integers(0, 150),
    seed=st.integers(0, 2**31),
)
def test_commands_stand_in_line(toy, low, width, jitter, seed):
    low, high, jitter = 1e-4 * low, 1e-4 * (low + width), 1e-4 * jitter  # s
    actions = counting(12)
    env = ActionDelay(toy.env, low, high, jitter, max_delay=0.065)
    _, states, timesteps = run(jax.tree.map(jnp.asarray, env), jax.random.key(seed), actions)
    delays = np.asarray(states.delay)
    assert (delays == delays[0]).all() and np.float32(low) <= delays[0] <= np.float32(high)
    portion = np.asarray(jax.vmap(lambda key: draw_uniform(key, 1)[0][0])(states.key))
    delays = delays + np.clip(-jitter + 2 * jitter * portion, -jitter, jitter)

    applied = toy.applied(timesteps)
    numbers = applied[..., 0].ravel()
    assert (np.diff(numbers) >= 0).all(), "a command was overtaken"
    np.testing.assert_array_equal(applied, queue(delays, actions, toy.hold, toy.substeps, toy.dt))
    np.testing.assert_array_equal(toy.last_action(timesteps), actions)


@pytest.mark.parametrize("late", [0, 1, 3, 4, 7, 8])
def test_a_known_delay_at_substep_resolution(toy, late):
    env = ActionDelay(toy.env, late * toy.dt, late * toy.dt, max_delay=0.04)
    _, _, timesteps = run(env, jax.random.key(0), counting(4))
    sent = np.repeat([1.0, 2, 3, 4], toy.substeps)
    expected = np.concatenate([np.full(late, toy.hold[0]), sent])[: len(sent)]
    np.testing.assert_array_equal(toy.applied(timesteps)[..., 0].ravel(), expected)


def test_every_wrapper_asks_the_task_what_to_hold(toy):
    late = lambda env: ObservationLatency(env, 0.0, 0.01)  # noqa: E731
    for wrap in (lambda env: env, SensorNoise, late, lambda env: History(env, 2)):
        state, _ = ActionDelay(wrap(toy.env), 0.01, 0.02).reset(jax.random.key(0), {})
        np.testing.assert_array_equal(state.rows, np.broadcast_to(toy.hold, state.rows.shape))


def test_the_longest_delay_fits_the_buffer(toy):
    env = ActionDelay(toy.env, 0.03, 0.03, 0.01, max_delay=0.04)
    _, _, timesteps = run(env, jax.random.key(1), counting(30))
    numbers = toy.applied(timesteps)[..., 0].ravel()
    sent = np.repeat(np.arange(1, 31), toy.substeps)
    late = np.array([i - np.searchsorted(sent, n) for i, n in enumerate(numbers) if n > 0])
    assert late.max() <= 10 + toy.substeps and (np.diff(numbers) >= 0).all()


def test_rows_from_outside_are_delayed_too(toy):
    inner = ActionDelay(toy.env, 2 * toy.dt, 2 * toy.dt)
    outer = ActionDelay(inner, 3 * toy.dt, 3 * toy.dt)
    _, _, timesteps = run(outer, jax.random.key(0), counting(5))
    expected = np.concatenate([np.full(5, toy.hold[0]), np.repeat(np.arange(1.0, 6), toy.substeps)])[: 5 * toy.substeps]
    np.testing.assert_array_equal(toy.applied(timesteps)[..., 0].ravel(), expected)


@pytest.mark.parametrize(
    "wrap", [lambda env: ActionDelay(env, 0.0, 0.0), lambda env: ObservationLatency(env, 0.0, 0.0)]
)
def test_no_delay_is_no_change(toy, wrap):
    actions = counting(5)
    _, _, plain = run(toy.env, jax.random.key(0), actions)
    _, _, wrapped = run(wrap(toy.env), jax.random.key(0), actions)
    jax.tree.map(np.testing.assert_array_equal, wrapped, plain)


@pytest.mark.parametrize("periods", [0.0, 0.25, 1.0, 1.5, 3.0])
def test_observations_are_interpolated_between_periods(toy, periods):
    latency = periods * toy.control_dt
    env = ObservationLatency(toy.env, latency, latency, max_latency=4 * toy.control_dt)
    first, _, timesteps = run(env, jax.random.key(0), counting(6))
    assert toy.clock(first) == 0.0
    expected = 2.0 * np.maximum(np.arange(1, 7) - periods, 0.0)  # the table scales the clock by 2
    np.testing.assert_allclose(toy.clock(timesteps), expected, atol=1e-5)
    np.testing.assert_array_equal(toy.last_action(timesteps), counting(6))  # kept, not measured
    np.testing.assert_array_equal(timesteps.obs["privileged"][:, 0], np.arange(1, 7))


def test_noise_outside_keeps_its_size_and_noise_inside_is_averaged(toy):
    latency = 1.5 * toy.control_dt

    def spread(env):
        _, _, noisy = run(env, jax.random.key(0), counting(400))
        _, _, exact = run(ObservationLatency(toy.env, latency, latency), jax.random.key(0), counting(400))
        return np.std(toy.clock(noisy) - toy.clock(exact))

    outside = spread(SensorNoise(ObservationLatency(toy.env, latency, latency)))
    inside = spread(ObservationLatency(SensorNoise(toy.env), latency, latency))
    # Half-way between two independent draws: 0.71, within four standard errors of 400 of them.
    np.testing.assert_allclose(inside / outside, np.sqrt(0.5), rtol=4 / np.sqrt(400))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), milliseconds=st.integers(0, 100))
def test_old_observations_arrive_in_order(toy, seed, milliseconds):
    latency = 1e-3 * milliseconds
    env = ObservationLatency(toy.env, 0.0, latency)
    _, states, timesteps = run(jax.tree.map(jnp.asarray, env), jax.random.key(seed), counting(12))
    assert (np.diff(toy.clock(timesteps)) >= -1e-5).all()
    assert (np.asarray(states.latency) <= np.float32(latency)).all()


@pytest.mark.parametrize(
    "wrap", [lambda env: ActionDelay(env, 0.01, 0.03, 0.004), lambda env: ObservationLatency(env, 0.01, 0.05)]
)
def test_nothing_crosses_a_reset(toy, wrap):
    env = wrap(toy.env)
    key = jax.random.key(3)
    fresh, _ = env.reset(key, {})
    old, _ = env.reset(jax.random.key(4), {})
    for action in counting(5):
        old, _ = env.step(old, jnp.asarray(action))
    chosen = select(env, jnp.array(True), fresh, old)
    kept = select(env, jnp.array(False), fresh, old)
    for action in counting(3):
        (fresh, a), (chosen, b) = env.step(fresh, jnp.asarray(action)), env.step(chosen, jnp.asarray(action))
        jax.tree.map(np.testing.assert_array_equal, a, b)
    jax.tree.map(np.testing.assert_array_equal, kept.inner, old.inner)


def test_ranges_batch_and_trace_once(toy):
    traces = []

    @jax.jit
    def last_clock(env):
        traces.append(1)
        state, _ = env.reset(jax.random.key(0), {})
        for action in counting(4):
            state, timestep = env.step(state, action)
        return timestep.obs["state"][0]

    latencies = jnp.array([0.0, 1.0, 2.0]) * toy.control_dt
    env = ObservationLatency(toy.env, latencies[0], latencies[0])
    alone = [last_clock(env.replace(low=x, high=x)) for x in latencies]
    assert len(traces) == 1
    batched = jax.vmap(lambda x: last_clock(env.replace(low=x, high=x)))(latencies)
    np.testing.assert_allclose(batched, alone, atol=1e-5)
    np.testing.assert_allclose(alone, [8.0, 6.0, 4.0], atol=1e-5)


@pytest.mark.parametrize("wrapper", [ActionDelay, ObservationLatency])
def test_senseless_ranges_are_refused(toy, wrapper):
    with pytest.raises(ValueError, match=r"longer than its buffer of 0\.1 s"):
        wrapper(toy.env, 0.0, 0.2)
    with pytest.raises(ValueError, match="must rise"):
        wrapper(toy.env, 0.02, 0.01)
    with pytest.raises(ValueError, match="must rise"):
        wrapper(toy.env, -0.01, 0.01)
