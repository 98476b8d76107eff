import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mjx_policies.data.transforms import absolute_actions, relative_actions, shift_latency


def poses(rng, count):
    """Poses of 9 numbers and the same as 4 by 4 matrices, from scipy."""
    matrices = np.tile(np.eye(4), (count, 1, 1))
    matrices[:, :3, :3] = Rotation.random(count, rng).as_matrix()
    matrices[:, :3, 3] = rng.normal(size=(count, 3))
    return nine(matrices), matrices


def nine(matrices):
    return np.concatenate([matrices[:, :3, 3], matrices[:, :3, 0], matrices[:, :3, 1]], axis=1)


def test_relative_poses_are_those_of_matrices():
    rng = np.random.default_rng(0)
    (plan, plan_matrices), (base, base_matrices) = poses(rng, 8), poses(rng, 1)
    action = np.concatenate([plan, rng.normal(size=(8, 2))], axis=1).astype(np.float32)
    relative = jax.jit(relative_actions)(action, base[0].astype(np.float32))
    expected = nine(np.linalg.inv(base_matrices) @ plan_matrices)
    np.testing.assert_allclose(relative[:, :9], expected, atol=2e-6)
    np.testing.assert_array_equal(relative[:, 9:], action[:, 9:])  # the gripper stays
    np.testing.assert_allclose(jax.jit(absolute_actions)(relative, base[0]), action, atol=2e-6)


def test_relative_actions_do_not_know_where_the_world_begins():
    rng = np.random.default_rng(1)
    (plan, plan_matrices), (base, base_matrices), (_, world) = poses(rng, 5), poses(rng, 1), poses(rng, 1)
    here = relative_actions(jnp.asarray(plan), jnp.asarray(base[0]))
    moved = relative_actions(jnp.asarray(nine(world @ plan_matrices)), jnp.asarray(nine(world @ base_matrices)[0]))
    np.testing.assert_allclose(here, moved, atol=2e-6)
    still = relative_actions(jnp.asarray(base), jnp.asarray(base[0]))[0]
    np.testing.assert_allclose(still, [0, 0, 0, 1, 0, 0, 0, 1, 0], atol=1e-6)


@pytest.fixture(scope="module")
def counting(make_episode):
    """Row t of everything is t."""
    count = np.arange(10.0)[:, None]
    return make_episode(
        10,
        observation={"state": count, "pixels": count},
        action=count,
        reward=count[:, 0],
        terminated=True,
        final_observation=None,
    )


@given(state=st.integers(-4, 4), pixels=st.integers(-4, 4), action=st.integers(-4, 4))
def test_rows_move_as_they_are_late(counting, state, pixels, action):
    shifted = shift_latency(counting, {"state": state, "pixels": pixels, "action": action})
    expected = [  # a slow loop over all rows that could be
        (t - state, t - pixels, t + action)
        for t in range(10)
        if 0 <= t - state < 10 and 0 <= t - pixels < 10 and 0 <= t + action < 10
    ]
    rows = zip(
        shifted.observation["state"][:, 0], shifted.observation["pixels"][:, 0], shifted.action[:, 0], strict=True
    )
    assert list(rows) == expected
    np.testing.assert_array_equal(shifted.reward, shifted.action[:, 0])
    assert shifted.terminated == (shifted.action[-1, 0] == 9)


def test_no_delay_changes_nothing(counting):
    shifted = shift_latency(counting, {})
    np.testing.assert_array_equal(shifted.action, counting.action)
    assert shifted.terminated


def test_what_cannot_be_shifted_is_refused(counting):
    with pytest.raises(ValueError, match="no stream 'force', only state, pixels and action"):
        shift_latency(counting, {"force": 1})
    with pytest.raises(ValueError, match="nothing left"):
        shift_latency(counting, {"state": 6, "action": 4})
