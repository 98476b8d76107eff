"""Domain randomization in an episode's observations. Axes: T steps, B environments, E extrinsics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.envs.vectorize import vectorize
from mjx_policies.randomization.dynamics import damping, mass
from mjx_policies.randomization.terms import Randomization, scale_ranges

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # programs that run a few times

T, B = 12, 4
TERMS = {"mass": mass(0.5, 1.5), "damping": damping(0.8, 1.4, "*_knee")}


@pytest.fixture(scope="module")
def episodes(toy):
    """`run(factor)`: T steps of B robots, episodes of five: states and time steps, those of `init` first."""
    model = toy.env.physics.model
    envs = vectorize(toy.env, B, Randomization(TERMS, model), episode_seconds=5 * toy.control_dt)

    @jit
    def run(factor):
        state, first = envs.init(jax.random.key(0))
        state = envs.refresh(state.replace(dynamics=Randomization(scale_ranges(TERMS, factor), model)))

        def step(state, _):
            state, timestep = envs.step(state, jnp.zeros((B, 2)))
            return state, (state, timestep)

        return (state, first), jax.lax.scan(step, state, length=T)[1]

    return run, model


def drawn(dynamics, model, factor):  # {name: [..., rows]} -> [..., E]
    """The vector that dynamics were made of: they, over the model's, within their ranges; terms ordered by name."""
    knees = [model.joint(name).dofadr[0] for name in ("L_knee", "R_knee")]
    ratios = (
        (np.asarray(dynamics["dof_damping"])[..., knees] / model.dof_damping[knees], 0.8, 1.4),
        (np.asarray(dynamics["body_mass"])[..., 1:] / model.body_mass[1:], 0.5, 1.5),
    )
    ends = [(ratio - 1, factor * (low - 1), factor * (high - 1)) for ratio, low, high in ratios]
    return np.concatenate([(2 * x - low - high) / (high - low) for x, low, high in ends], axis=-1)


def test_every_observation_tells_what_its_robot_was_made_of(episodes):
    """Over resets: a final observation is of the robot that ended, the one beside it of the next robot."""
    run, model = episodes
    (start, first), (states, timesteps) = run(1.0)
    shape = (T, B, 2 + model.nbody - 1)
    robots = np.concatenate([drawn(start.envs.dynamics, model, 1.0)[None], drawn(states.envs.dynamics, model, 1.0)])
    # One rounding of float32, of ratios within a range of 0.6.
    np.testing.assert_allclose(first.obs["extrinsics"], robots[0], atol=1e-5)
    np.testing.assert_allclose(timesteps.obs["extrinsics"], robots[1:], atol=1e-5)
    np.testing.assert_allclose(timesteps.final_obs["extrinsics"], robots[:-1], atol=1e-5)
    assert timesteps.obs["extrinsics"].shape == shape
    ended = np.asarray(timesteps.truncated)
    same = (np.diff(robots, axis=0) == 0).all(axis=-1)
    np.testing.assert_array_equal(same, ~ended)
    assert ended.sum() >= 2 * B and np.abs(robots).max() > 0.9


def test_extrinsics_are_of_the_range_of_the_moment(episodes):
    """In ranges half as wide, robots are as far from the middle as in full ones; without width, nothing is drawn."""
    run, model = episodes
    (start, _), _ = run(0.5)
    pool, obs = start.pool
    np.testing.assert_allclose(obs["extrinsics"], drawn(pool.dynamics, model, 0.5), atol=2e-5)
    (still, _), _ = run(0.0)
    assert not np.asarray(still.pool[1]["extrinsics"]).any()
    np.testing.assert_array_equal(still.pool[0].dynamics["body_mass"][0], np.float32(model.body_mass))


def test_without_randomization_there_is_no_such_entry(toy):
    for sampler in ({}, {"dynamics": Randomization({}, toy.env.physics.model)}):
        envs = vectorize(toy.env, B, **sampler)
        _, timestep = jax.eval_shape(envs.init, jax.random.key(0))
        assert set(timestep.obs) == {"state", "privileged"}
