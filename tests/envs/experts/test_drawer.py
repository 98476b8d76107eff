"""The expert that opens a drawer: whole episodes, checked with C MuJoCo."""

import jax
import mujoco
import numpy as np
import pytest

from mjx_policies.envs.experts.drawer import HOOK, SLANTS, STRATEGIES, drawer_expert, hand_rotations
from mjx_policies.envs.registry import load

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")

NUM = 48


@pytest.fixture(scope="module")
def env():
    return load("FrankaDrawer", "cpu", num_envs=NUM)


@pytest.fixture(scope="module")
def episodes(env, record_episodes):
    return record_episodes(env, drawer_expert(env), NUM)


def test_every_way_to_take_the_handle_opens_the_drawer_and_so_do_labels_alone(episodes):
    for number, name in enumerate((*STRATEGIES, "labels")):
        chosen = episodes.strategy == number
        assert chosen.sum() > 5, name
        assert episodes.success[chosen].mean() > 0.9, name
    assert np.abs(episodes.action).max() <= 1 and np.abs(episodes.label).max() <= 1
    for b in np.flatnonzero(episodes.success):
        assert episodes.qpos[episodes.length[b], b, 9] > 0.15


def test_each_way_is_the_one_it_is_called(env, episodes):
    """While the drawer runs, in C MuJoCo: the hand leans as far as it should, and the handle is where it should be."""
    model = env.physics.model
    data = mujoco.MjData(model)
    for b in np.flatnonzero(episodes.success & (episodes.strategy < len(STRATEGIES))):
        path = episodes.qpos[: episodes.length[b] + 1, b]
        data.qpos[:] = path[np.flatnonzero(path[:, 9] > 0.1)[0]]
        data.mocap_pos[:] = episodes.mocap_pos[b]
        mujoco.mj_kinematics(model, data)
        away = data.site("tcp").xpos - data.site("handle").xpos
        lean = np.arccos(-data.site("tcp").xmat[8])
        strategy = episodes.strategy[b]
        assert abs(lean - SLANTS[strategy]) < 0.15
        if strategy == HOOK:
            assert data.qpos[7:9].max() < 0.003 and away[0] > 0.008  # closed, behind a handle of 8 mm
        else:
            assert data.qpos[7:9].min() > 0.006 and np.hypot(away[0], away[1]) < 0.02


def test_the_drawer_is_pulled_and_not_torn_open(episodes):
    """A hand that pulls at 0.2 m/s, half as fast again at most, and what it shares out among its periods."""
    for b in np.flatnonzero(episodes.success & (episodes.strategy < len(STRATEGIES))):
        opening = episodes.qpos[: episodes.length[b] + 1, b, 9]
        assert np.diff(opening).max() / 0.05 < 0.45
        assert opening.max() < 0.2


def test_hands_keep_their_fingers_level_and_lean_forward():
    rotations = np.asarray(hand_rotations())
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (3, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(rotations[:, :, 1], np.tile([0, -1, 0], (3, 1)), atol=1e-6)
    np.testing.assert_allclose(rotations[:, :, 2], [[np.sin(a), 0, -np.cos(a)] for a in SLANTS], atol=1e-6)
