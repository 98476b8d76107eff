"""The expert that reaches a point: whole episodes, and the paths of its three ways."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.envs.experts.reach import CORNER, STRATEGIES, reach_expert, ways
from mjx_policies.envs.registry import load

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")

NUM = 64


@pytest.fixture(scope="module")
def env():
    return load("FrankaReach", "cpu", num_envs=NUM)


@pytest.fixture(scope="module")
def episodes(env, record_episodes):
    return record_episodes(env, reach_expert(env), NUM)


def test_every_way_arrives_and_so_do_labels_alone(env, episodes):
    for number, name in enumerate((*STRATEGIES, "labels")):
        chosen = episodes.strategy == number
        assert chosen.sum() > 8, name
        assert episodes.success[chosen].mean() > 0.95, name
    assert np.abs(episodes.action).max() <= 1 and np.abs(episodes.label).max() <= 1
    data = mujoco.MjData(env.physics.model)
    for b in np.flatnonzero(episodes.success):
        data.qpos[:] = episodes.qpos[episodes.length[b], b]
        mujoco.mj_kinematics(env.physics.model, data)
        assert np.linalg.norm(data.site("tcp").xpos - episodes.mocap_pos[b, 0]) < 0.02


@jax.jit
def walk(start, goal):
    """Paths [T, 3 ways, 3] of points that go where they are led, 4 mm at a time."""

    def step(position, _):
        offset = jnp.stack([ways(position[i], goal)[i] - position[i] for i in range(3)])
        distance = jnp.linalg.norm(offset, axis=1, keepdims=True)
        position = position + offset / jnp.maximum(distance, 1e-6) * jnp.minimum(0.004, distance)
        return position, position

    return jax.lax.scan(step, jnp.tile(start, (3, 1)), length=400)[1]


place = st.tuples(st.floats(0.35, 0.65), st.floats(-0.25, 0.25), st.floats(0.1, 0.45))


@settings(max_examples=50, deadline=None)
@given(start=place, goal=place)
def test_from_anywhere_each_way_leads_to_the_goal_along_the_path_it_is_called_by(start, goal):
    path = np.asarray(walk(jnp.asarray(start), jnp.asarray(goal)))
    start, goal = np.array(start), np.array(goal)
    assert np.abs(path[-1] - goal).max() < 0.005
    sideways = np.linalg.norm(path[..., :2] - goal[:2], axis=2)
    way = np.linalg.norm(goal - start)
    if way < 0.05:
        return
    beside_chord = np.linalg.norm(np.cross(path[:, 0] - start, (goal - start) / way), axis=1)
    assert beside_chord.max() < 1e-3
    across = np.linalg.norm(goal[:2] - start[:2])
    if across > 0.1:
        share = 1 - sideways[:, 1] / across
        chord = start[2] + share * (goal[2] - start[2])
        assert (path[:, 1, 2] - chord).min() > -0.005
        assert (path[:, 1, 2] - chord).max() > 0.15 * across  # of a d ln(1 / d), whose peak is a / e = 0.26
    # A step of 4 mm may straddle the corner's edge.
    assert np.abs(path[sideways[:, 2] > CORNER[1] + 0.004, 2, 2] - start[2]).max(initial=0.0) < 1e-5
