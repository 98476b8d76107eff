"""Pendulum and cart-pole: rewards in closed form, and that the problems are what they claim to be."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.envs.control import cartpole as cartpole_task
from mjx_policies.envs.control import pendulum as pendulum_task
from mjx_policies.envs.control.cartpole import CartpoleWeights
from mjx_policies.envs.control.pendulum import PendulumWeights
from mjx_policies.envs.registry import load


@pytest.fixture(scope="module")
def pendulum():
    return load("Pendulum", "cpu", num_envs=1)


@pytest.fixture(scope="module")
def cartpole():
    return load("CartpoleSwingup", "cpu", num_envs=1)


def placed(env, qpos, qvel):
    state, _ = env.reset(jax.random.key(0), {})
    return env.replace_data(state, env.physics.init(jnp.float32(qpos), jnp.float32(qvel), {}))


def run_in_c(env, qpos, qvel, force):
    data = mujoco.MjData(env.physics.model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = qpos, qvel, force
    for _ in range(env.physics.substeps):
        mujoco.mj_step(env.physics.model, data)
    return data.qpos, data.qvel


@pytest.mark.parametrize("action", [0.0, 0.7, -5.0])
def test_pendulum_step(pendulum, action):
    qpos, qvel = [1.0], [-0.5]
    _, timestep = pendulum.step(placed(pendulum, qpos, qvel), jnp.asarray([action]))
    (angle,), (velocity,) = run_in_c(
        pendulum, qpos, qvel, np.clip(2 * action, -2, 2)
    )  # one unit is 2 N m, the limit too
    np.testing.assert_allclose(timestep.obs["state"], [np.cos(angle), np.sin(angle), 0.2 * velocity], atol=1e-6)
    weights = PendulumWeights()
    upright = (1 + np.cos(angle)) / 2
    np.testing.assert_allclose(timestep.reward, weights.upright * upright + weights.effort * action**2, rtol=1e-6)
    np.testing.assert_allclose(timestep.metrics["upright"], upright, rtol=1e-6)
    assert not timestep.terminated


@pytest.mark.parametrize("action", [0.0, 0.7, -5.0])
def test_cartpole_step(cartpole, action):
    qpos, qvel = [0.4, 2.5], [0.3, -1.0]
    _, timestep = cartpole.step(placed(cartpole, qpos, qvel), jnp.asarray([action]))
    (x, angle), velocity = run_in_c(cartpole, qpos, qvel, np.clip(10 * action, -10, 10))
    expected = [x, np.cos(angle), np.sin(angle), velocity[0], 0.2 * velocity[1]]
    np.testing.assert_allclose(timestep.obs["state"], expected, atol=2e-6)
    weights = CartpoleWeights()
    upright = (1 + np.cos(angle)) / 2
    reward = weights.upright * upright + weights.off_centre * x**2 + weights.effort * action**2
    np.testing.assert_allclose(timestep.reward, reward, rtol=1e-5)
    assert not timestep.terminated


def test_weights_and_reward_terms_have_the_same_names(pendulum, cartpole):
    for module, env, qpos in ((pendulum_task, pendulum, [0.0]), (cartpole_task, cartpole, [2.0, 0.0])):
        data = env.data(placed(env, qpos, np.zeros(len(qpos))))
        terms = module.reward_terms(data, jnp.asarray([0.5]))
        assert list(terms) == [field.name for field in dataclasses.fields(env.weights)]
        # Upright, 2 m off the centre, half an action.
        expected = {"upright": 1.0, "off_centre": 4.0, "effort": 0.25}
        assert {name: float(term) for name, term in terms.items()} == {name: expected[name] for name in terms}


def test_zero_is_upright_and_gravity_pulls_down(pendulum, cartpole):
    for env, hanging in ((pendulum, [np.pi]), (cartpole, [0.0, np.pi])):
        model, data = env.physics.model, mujoco.MjData(env.physics.model)
        heights = []
        for qpos in (np.zeros(model.nq), hanging):
            data.qpos[:] = qpos
            mujoco.mj_forward(model, data)
            heights.append(data.geom("rod" if env is pendulum else "pole").xpos[2])
        assert heights[0] - heights[1] == pytest.approx(1.0)  # twice half the length


def test_the_motor_of_the_pendulum_cannot_lift_it_directly(pendulum):
    model, data = pendulum.physics.model, mujoco.MjData(pendulum.physics.model)
    data.qpos[:] = np.pi / 2  # horizontal
    mujoco.mj_forward(model, data)
    assert abs(data.qfrc_bias[0]) > 2 * model.actuator_ctrlrange[0, 1]


def test_initial_states(pendulum, cartpole):
    keys = jax.random.split(jax.random.key(0), 500)
    state, _ = jax.vmap(lambda key: pendulum.reset(key, {}))(keys)
    angle, speed = np.asarray(state.data.qpos)[:, 0], np.asarray(state.data.qvel)[:, 0]
    for values, limit in ((angle, np.pi), (speed, 1.0)):
        assert np.abs(values).max() <= limit
        counts = np.histogram(values, 4, (-limit, limit))[0]
        assert np.abs(counts - 125).max() < 39  # four standard deviations of 500 draws in quarters
    assert abs(np.corrcoef(angle, speed)[0, 1]) < 0.18  # four standard errors
    state, _ = jax.vmap(lambda key: cartpole.reset(key, {}))(keys)
    noise = np.concatenate([np.asarray(state.data.qpos) - [0, np.pi], state.data.qvel], axis=1)
    np.testing.assert_allclose(noise.std(axis=0), [0.1] * 4, rtol=4 / np.sqrt(2 * 500))
    np.testing.assert_allclose(noise.mean(axis=0), np.zeros(4), atol=0.4 / np.sqrt(500))
