import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mjx_policies.envs.experts.obstacle2d import nearer_side, obstacle2d_expert, signed_angle, way
from mjx_policies.envs.registry import load
from mjx_policies.experiments.collection.demonstrators import expert_demonstrator
from mjx_policies.experiments.collection.rollouts import make_recorder

WIDE = 0.3 + 0.06


@pytest.fixture(scope="module")
def task():
    return load("Obstacle2D", "cpu", num_envs=512)


@pytest.fixture(scope="module")
def episodes(task):
    record = make_recorder(task, expert_demonstrator(obstacle2d_expert(task)))
    return jax.device_get(record(np.arange(512)))


def test_both_sides_are_taken_equally_often_and_nearly_always_arrive(episodes):
    assert episodes.success.mean() > 0.97 and not episodes.terminated.any()
    share = (episodes.strategy == 0).mean()
    assert abs(share - 0.5) < 3 * 0.5 / np.sqrt(512)


def test_the_strategy_says_on_which_side_the_robot_passes(episodes):
    for b in range(64):
        path = episodes.qpos[: episodes.length[b] + 1, b]
        beside = path[np.abs(path[:, 0]).argmin(), 1]
        assert np.sign(beside) == 1 - 2 * episodes.strategy[b]


def test_labels_equal_the_actions_that_were_meant_but_for_starts_and_pauses(task, episodes):
    """`label` knows neither pace nor aiming error, so the direction is compared, once a side has been taken."""
    expert = obstacle2d_expert(task)

    def angle(key):
        state, _ = task.reset(key, {})
        carry = expert.init(key, state)
        carry = carry.replace(manner=carry.manner.replace(pace=jnp.ones(()), aim=jnp.zeros(3)))

        def step(before, key):
            state, carry = before
            action, carry = expert.act(carry, state, key)
            label = expert.label(state)
            state, _ = task.step(state, action)
            return (state, carry), (carry.intended, label)

        _, rows = jax.lax.scan(step, (state, carry), jax.random.split(jax.random.fold_in(key, 1), 25))
        return rows

    meant, label = jax.jit(jax.vmap(angle))(jax.random.split(jax.random.key(3), 32))
    difference = np.linalg.norm(np.asarray(meant - label), axis=-1)[:, 4:]
    assert np.median(difference) < 0.05 and np.quantile(difference, 0.9) < 0.4


@jax.jit
def walk(start, obstacle, goal, side):
    def step(position, _):
        offset = way(position, obstacle, goal, side)
        length = jnp.linalg.norm(offset)
        position = position + offset / jnp.maximum(length, 1e-6) * jnp.minimum(0.05, length)
        return position, position

    return jax.lax.scan(step, start, length=120)[1]


@settings(max_examples=100, deadline=None)
@given(x=st.floats(-1.4, 1.4), y=st.floats(-1.0, 1.0), side=st.sampled_from([-1.0, 1.0]), gx=st.floats(0.8, 1.1))
def test_from_anywhere_outside_the_obstacle_the_way_leads_to_the_goal_without_touching_it(x, y, side, gx):
    assume(np.hypot(x, y) > WIDE + 0.02)
    obstacle, goal = jnp.zeros(2), jnp.asarray([gx, 0.05])

    path = walk(jnp.asarray([x, y]), obstacle, goal, side)
    assert np.linalg.norm(path, axis=1).min() > WIDE
    assert np.linalg.norm(path[-1] - goal) < 1e-3


def test_signed_angles_against_complex_numbers():
    a, b = np.random.default_rng(0).normal(size=(2, 50, 2))
    expected = np.angle((b[:, 0] + 1j * b[:, 1]) / (a[:, 0] + 1j * a[:, 1]))
    np.testing.assert_allclose(jax.vmap(signed_angle)(jnp.asarray(a), jnp.asarray(b)), expected, atol=1e-5)
    assert nearer_side(jnp.asarray([-0.5, 0.2]), jnp.zeros(2), jnp.asarray([1.0, 0.0])) == 1
