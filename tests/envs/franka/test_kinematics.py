"""Kinematics of the arm against MuJoCo, and the inverse against the poses it is to reach."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mjx_policies.envs.franka.ik import follow, solve_ik
from mjx_policies.envs.franka.kinematics import tcp_pose, tcp_pose_and_jacobian
from mjx_policies.envs.franka.robot import HOME, joint_limits, robot_spec

N = 1000


@pytest.fixture(scope="module", params=["fr3", "panda"])
def limits(request):
    return joint_limits(request.param)


def uniform(limits, seed, margin=0.0):
    return np.random.default_rng(seed).uniform(np.array(limits.lower) + margin, np.array(limits.upper) - margin, (N, 7))


def test_pose_and_jacobian_are_those_of_mujoco(limits):
    model = robot_spec().compile()
    data, site = mujoco.MjData(model), model.site("tcp").id
    q = uniform(limits, 0)[:100]
    position, rotation, jacobian = jax.vmap(tcp_pose_and_jacobian)(jnp.asarray(q, jnp.float32))
    for i in range(len(q)):
        data.qpos[:7] = q[i]
        mujoco.mj_forward(model, data)
        linear, angular = np.zeros((2, 3, model.nv))
        mujoco.mj_jacSite(model, data, linear, angular, site)
        np.testing.assert_allclose(position[i], data.site("tcp").xpos, atol=1e-6)
        np.testing.assert_allclose(rotation[i], data.site("tcp").xmat.reshape(3, 3), atol=1e-6)
        np.testing.assert_allclose(jacobian[i], np.concatenate([linear, angular])[:, :7], atol=2e-6)


def test_the_jacobian_is_the_derivative_of_the_pose():
    q = jnp.asarray(HOME) + 0.2
    _, _, jacobian = tcp_pose_and_jacobian(q)
    np.testing.assert_allclose(jacobian[:3], jax.jacobian(lambda q: tcp_pose(q)[0])(q), atol=1e-6)


@pytest.fixture(scope="module")
def solved(limits):
    """Joint angles for goals anywhere in the reachable workspace, from angles anywhere; the goals; what is left."""
    position, rotation = jax.vmap(tcp_pose)(jnp.asarray(uniform(limits, 1, margin=0.1), jnp.float32))
    start = jnp.asarray(uniform(limits, 2), jnp.float32)
    q, gap = jax.jit(jax.vmap(lambda *args: solve_ik(*args, limits)))(start, position, rotation)
    return np.asarray(q), (position, rotation), gap


def distances(q, goal):
    """Errors of the poses reached, by MuJoCo: m and rad."""
    model = robot_spec().compile()
    data = mujoco.MjData(model)
    result = []
    for row, position, rotation in zip(q, *goal, strict=True):
        data.qpos[:7] = row
        mujoco.mj_kinematics(model, data)
        turn = data.site("tcp").xmat.reshape(3, 3).T @ np.asarray(rotation, np.float64)
        sine = np.linalg.norm(turn - turn.T) / np.sqrt(8)
        angle = np.arctan2(sine, (np.trace(turn) - 1) / 2)
        result.append((np.linalg.norm(data.site("tcp").xpos - position), angle))
    return np.array(result).T


def test_any_reachable_pose_is_reached(solved):
    q, goal, gap = solved
    metres, radians = distances(q, goal)
    reached = (metres < 1e-3) & (radians < np.deg2rad(0.5))
    assert reached.mean() >= 0.995  # 0.998 and 0.999 of 3000; the rest lies in corners between singularities and limits
    np.testing.assert_allclose(gap.position, metres, atol=1e-5)
    np.testing.assert_allclose(gap.rotation[reached], radians[reached], atol=1e-5)


def test_solutions_keep_within_the_limits(solved, limits):
    q, _, _ = solved
    assert (q >= np.float32(limits.lower)).all() and (q <= np.float32(limits.upper)).all()


def test_where_tasks_happen_every_pose_is_reached_from_home(limits):
    """Over the table, the hand pointing down or leaning by up to 15 degrees, turned by up to 90 degrees."""
    rng = np.random.default_rng(3)
    position = rng.uniform([0.3, -0.3, 0.02], [0.6, 0.3, 0.35], (N, 3))
    yaw, lean, towards = rng.uniform([-np.pi / 2, 0, -np.pi], [np.pi / 2, np.deg2rad(15), np.pi], (N, 3)).T
    axis, up = np.stack([np.cos(towards), np.sin(towards), 0 * yaw], 1), np.stack([0 * yaw, 0 * yaw, yaw], 1)
    turn = Rotation.from_rotvec(lean[:, None] * axis) * Rotation.from_rotvec(up) * Rotation.from_euler("x", np.pi)
    goal = jnp.asarray(position, jnp.float32), jnp.asarray(turn.as_matrix(), jnp.float32)
    q, gap = jax.jit(jax.vmap(lambda p, r: solve_ik(jnp.asarray(HOME), p, r, limits)))(*goal)
    metres, radians = distances(np.asarray(q), goal)
    assert metres.max() < 1e-3 and radians.max() < np.deg2rad(0.5)
    assert gap.position.max() < 1e-3


def test_out_of_reach_comes_near_and_says_so(limits):
    q, gap = jax.jit(lambda *args: solve_ik(*args, limits))(
        jnp.asarray(HOME), jnp.asarray([2.0, 0.0, 0.3]), jnp.diag(jnp.asarray([1.0, -1.0, -1.0]))
    )
    assert np.isfinite(q).all() and gap.position > 0.5
    assert (np.asarray(q) >= np.float32(limits.lower)).all() and (np.asarray(q) <= np.float32(limits.upper)).all()


def test_following_a_pose_nearby_moves_little(limits):
    rng = np.random.default_rng(4)
    goal = uniform(limits, 5, margin=0.1)
    start = jnp.asarray(goal + rng.uniform(-0.05, 0.05, goal.shape), jnp.float32)
    target = jax.vmap(tcp_pose)(jnp.asarray(goal, jnp.float32))
    q, gap = jax.jit(jax.vmap(lambda *args: follow(*args, limits)))(start, *target)
    assert gap.position.max() < 5e-4 and gap.rotation.max() < 2e-3
    assert np.abs(q - start).max() < 0.15


def test_where_the_pose_is_reached_nothing_moves():
    q = jnp.asarray(HOME)
    again, gap = follow(q, *tcp_pose(q))
    np.testing.assert_allclose(again, q, atol=1e-6)
    assert gap.position < 1e-6 and gap.rotation < 1e-6
