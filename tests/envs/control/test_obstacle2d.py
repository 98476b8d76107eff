"""The point robot and its obstacle: closed forms, both modes, and that their mean is none."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.envs.control import obstacle2d as task
from mjx_policies.envs.mocap import place
from mjx_policies.envs.registry import load

jit = jax.jit


@pytest.fixture(scope="module")
def env():
    return load("Obstacle2D", "cpu", num_envs=1)


@pytest.fixture(scope="module")
def step(env):
    return jit(env.step)


def placed(env, position, velocity=(0.0, 0.0)):
    """Obstacle at the origin, goal at (1, 0)."""
    state, _ = env.reset(jax.random.key(0), {})
    data = env.physics.init(jnp.float32(position), jnp.float32(velocity), {})
    data = place(env.physics.model, data, {"obstacle": jnp.zeros(3), "goal": jnp.asarray([1.0, 0.0, 0.0])})
    return env.replace_data(state, data)


def drive(env, step, side, seconds=4.0):
    """Around the obstacle at a distance of 0.6 m; `side` 0 is straight on."""
    state, timestep = placed(env, (-1.0, 0.0)), None
    for _ in range(round(seconds / task.CONTROL_DT)):
        position = np.asarray(env.data(state).qpos)
        via = np.asarray([0.05, 0.6 * side]) if position[0] < 0.0 and side else np.asarray([1.0, 0.0])
        state, timestep = step(state, jnp.asarray(np.clip(4 * (via - position), -1, 1), jnp.float32))
        if timestep.terminated:
            break
    return state, timestep


def test_the_servo_follows_a_velocity_with_its_time_constant(env, step):
    state, timestep = step(placed(env, (-1.0, 0.5)), jnp.asarray([1.0, -2.0]))  # cut to -1
    # Implicit Euler of v' = (u - v) / 0.05 in five substeps of 0.02 s.
    decay = 1 / (1 + 0.02 / 0.05)
    velocity = 1 - decay ** np.arange(1, 6)
    np.testing.assert_allclose(env.data(state).qvel, velocity[-1] * np.asarray([1, -1]), rtol=1e-5)
    np.testing.assert_allclose(
        env.data(state).qpos, [-1 + 0.02 * velocity.sum(), 0.5 - 0.02 * velocity.sum()], rtol=1e-5
    )
    expected = np.concatenate([env.data(state).qpos, env.data(state).qvel, [0, 0], [1, 0]])
    np.testing.assert_allclose(timestep.obs["state"], expected, atol=1e-6)


@pytest.mark.parametrize("side", [1, -1])
def test_both_modes_arrive(env, step, side):
    _, timestep = drive(env, step, side)
    metrics = {name: float(value) for name, value in timestep.metrics.items()}
    assert metrics == {"success": 1.0, "stage/passed": 1.0, "stage/arrived": 1.0, "side": side}


def test_the_mean_of_both_modes_is_a_collision(env, step):
    state, timestep = drive(env, step, 0)
    assert timestep.terminated and timestep.metrics["success"] == 0 and np.isnan(timestep.metrics["side"])
    assert timestep.reward < -1
    assert np.linalg.norm(env.data(state).qpos) < task.OBSTACLE_RADIUS + task.ROBOT_RADIUS


def test_success_takes_half_a_second(env, step):
    state = placed(env, (1.0, 0.0))
    seen = []
    for _ in range(6):
        state, timestep = step(state, jnp.zeros(2))
        seen.append(float(timestep.metrics["success"]))
    assert seen == [0, 0, 0, 0, 1, 1]


def test_a_corner_is_not_jumped(env, step):
    # Both ends of this period lie outside the obstacle, whose edge the way between them crosses.
    radius = task.OBSTACLE_RADIUS + task.ROBOT_RADIUS
    start = radius * np.asarray([-np.sin(0.15), np.cos(0.15)]) * 1.003
    state, timestep = step(placed(env, start, (1.0, 0.0)), jnp.asarray([1.0, 0.0]))
    assert np.linalg.norm(env.data(state).qpos) > 0.999 * radius
    assert timestep.terminated


@settings(deadline=None, max_examples=50)
@given(*[st.tuples(*[st.floats(-1, 1, width=32)] * 2)] * 3)
def test_distance_to_a_segment_is_the_least_to_its_points(point, a, b):
    point, a, b = (np.asarray(x, np.float32) for x in (point, a, b))
    portions = np.linspace(0, 1, 2001)[:, None]
    least = np.linalg.norm(point - (a + portions * (b - a)), axis=1).min()
    np.testing.assert_allclose(task.distance_to_segment(*map(jnp.asarray, (point, a, b))), least, atol=2e-3)


def test_reward_terms(env):
    data = env.data(placed(env, (1.0, 0.5)))
    terms = task.reward_terms(env.physics.model, data, jnp.asarray([0.5, -3.0]), jnp.asarray(True))
    assert list(terms) == [field.name for field in dataclasses.fields(env.weights)]
    expected = {"near": 1 - np.tanh(0.5), "success": 0.0, "collision": 1.0, "effort": 1.25}
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected, rel=1e-5)


def test_initial_states_favour_no_side(env):
    reset = jit(jax.vmap(lambda key: env.reset(key, {})[1].obs["state"]))
    obs = np.asarray(reset(jax.random.split(jax.random.key(0), 400)))
    np.testing.assert_array_equal(obs[:, 2:4], 0.0)  # at rest
    for columns, middle in ((slice(0, 2), task.START), (slice(4, 6), (0, 0)), (slice(6, 8), task.GOAL)):
        offset = obs[:, columns] - middle
        assert np.abs(offset).max() <= task.SPREAD + 1e-6
        # The mean of 400 uniform draws, within four standard errors.
        np.testing.assert_allclose(offset.mean(axis=0), 0.0, atol=4 * task.SPREAD / np.sqrt(3 * 400))
