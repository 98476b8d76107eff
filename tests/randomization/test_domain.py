"""All randomization around a task, on the C engine. Axes: T time, B environments."""

from functools import partial

import jax
import numpy as np
import pytest

from mjx_policies.envs.registry import load
from mjx_policies.randomization.domain import DomainRandomization, randomize

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # programs that run a few times

T, B = 30, 3


@pytest.fixture(scope="module")
def go2():
    return load("Go2JoystickFlat", "cpu", B)


def actions(seed=5):
    return 0.5 * jax.random.normal(jax.random.key(seed), (T, 12))


def test_no_randomization_is_the_nominal_robot_bit_for_bit(go2):
    """The wrappers stay in place, with all ranges zero, and every push due within the second adds nothing."""
    randomization = DomainRandomization(push_seconds=(0.1, 0.2)).scaled(0.0)
    env, dynamics = randomize(go2, randomization)

    def episode(env, key, fields):
        state, first = env.reset(key, fields)

        def step(state, action):
            state, timestep = env.step(state, action)
            return state, (timestep, env.data(state).qpos, env.data(state).qvel)

        return first, jax.lax.scan(step, state, actions())[1]

    def wrapped(key):
        return episode(env, key, dynamics(jax.random.key(9)).dynamics)

    def bare(key):
        for others in (2, 1, 2, 2):  # each wrapper passes on the first of its keys: noise, latency, pushes, delay
            key = jax.random.split(key, 1 + others)[0]
        return episode(go2, key, {})

    keys = jax.random.split(jax.random.key(0), B)
    a, b = (jit(jax.vmap(function))(keys) for function in (wrapped, bare))
    for (path, x), (_, y) in zip(jax.tree.leaves_with_path(a), jax.tree.leaves_with_path(b), strict=True):
        name = jax.tree_util.keystr(path)
        if "reward" in name or "metrics" in name:  # leads nowhere; two programs may round its sums in different order
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), name


def test_scaling_scales_every_range_and_leaves_the_time_between_pushes():
    half, whole = DomainRandomization().scaled(0.5), DomainRandomization()
    assert (half.dynamics, half.noise, half.delay_jitter) == (0.5, 0.5, whole.delay_jitter / 2)
    assert half.delay == (whole.delay[0] / 2, whole.delay[1] / 2)
    assert half.latency == (whole.latency[0] / 2, whole.latency[1] / 2)
    assert half.push_velocity == whole.push_velocity / 2 and half.push_seconds == whole.push_seconds
    assert whole.scaled(1.0) == whole


def test_a_robot_without_legs_has_neither_pushes_nor_a_preset():
    env, dynamics = randomize(load("Pendulum", "cpu", B), DomainRandomization())
    draw = dynamics(jax.random.key(0))
    assert draw.dynamics == {} and draw.extrinsics.shape == (0,)
    assert env.level == 1.0 and env.env.high == 0.01 and env.env.env.high == 0.02  # noise around latency around a delay
