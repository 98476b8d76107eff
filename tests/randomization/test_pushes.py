import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.randomization.pushes import Pushes


@jax.jit
def velocities(env, key, steps):  # -> [T, nv]
    state, _ = env.reset(key, {})

    def step(state, action):
        state, _ = env.step(state, action)
        return state, env.data(state).qvel

    return jax.lax.scan(step, state, steps)[1]


def kicks(env, seed, steps):
    """Velocity change in each step: the toy robot keeps any velocity it is given."""
    qvel = np.asarray(velocities(env, jax.random.key(seed), jnp.zeros((steps, 2))))
    return np.diff(qvel, axis=0, prepend=0.0)


def test_pushes_come_at_the_interval(toy):
    change = kicks(Pushes(toy.env, 5 * toy.control_dt, 5 * toy.control_dt, velocity=1.0), 0, 30)
    pushed = np.flatnonzero(np.abs(change).max(axis=1) > 0)
    np.testing.assert_array_equal(pushed, [5, 10, 15, 20, 25])


def test_intervals_vary_within_their_range(toy):
    change = kicks(Pushes(toy.env, 3 * toy.control_dt, 9 * toy.control_dt, velocity=1.0), 1, 400)
    gaps = np.diff(np.flatnonzero(np.abs(change).max(axis=1) > 0))
    assert gaps.min() >= 3 and gaps.max() <= 10 and len(np.unique(gaps)) > 4


def test_pushes_are_planar_and_bounded(toy):
    env = Pushes(toy.env, toy.control_dt, toy.control_dt, velocity=0.7, yaw_rate=0.4)
    change = kicks(env, 2, 400)[1:]
    speed = np.linalg.norm(change[:, :2], axis=1)
    assert speed.max() <= 0.7 + 1e-4 and speed.max() > 0.6 and speed.min() < 0.05
    assert np.abs(change[:, 5]).max() <= 0.4 + 1e-4
    assert not change[:, [2, 3, 4, 6, 7, 8, 9]].any()
    angles = np.arctan2(change[:, 1], change[:, 0])
    assert np.histogram(angles, bins=4, range=(-np.pi, np.pi))[0].min() > 60  # of 100 expected


def test_zero_velocity_changes_nothing(toy):
    assert not kicks(Pushes(toy.env, toy.control_dt, 3 * toy.control_dt, velocity=0.0), 3, 20).any()


def test_mistakes_are_named(toy):
    with pytest.raises(ValueError, match="must rise from above zero"):
        Pushes(toy.env, 0.0, 1.0, velocity=1.0)
    with pytest.raises(ValueError, match="must not be negative"):
        Pushes(toy.env, 1.0, 2.0, velocity=-1.0)
    fixed = type(toy.env.physics)()
    fixed.model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><joint/><geom size='.1'/></body></worldbody></mujoco>"
    )
    with pytest.raises(ValueError, match="no free joint"):
        Pushes(toy.env.replace(physics=fixed), 1.0, 2.0, velocity=1.0).reset(jax.random.key(0), {})
