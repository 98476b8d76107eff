"""Quaternions against MuJoCo's own."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.rotations import from_yaw, multiply, rotate, rotate_inverse, uniform_quaternion

N = 100


@pytest.fixture(scope="module")
def quats():
    """Random rotations [N, 4]; the first are the identity and half turns, with either sign."""
    quat = np.random.default_rng(0).normal(size=(N, 4))
    quat[:8] = np.concatenate([np.eye(4), -np.eye(4)])
    return (quat / np.linalg.norm(quat, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(1).normal(size=(N, 3)).astype(np.float32)


def by_mujoco(function, size, *arguments):
    """A function of MuJoCo row by row, in float64."""
    result = np.zeros((N, size))
    for row, inputs in zip(result, zip(*arguments, strict=True), strict=True):
        function(row, *(x.astype(np.float64) for x in inputs))
    return result


def negated(quat):
    """The inverse, as MuJoCo has it."""
    return by_mujoco(mujoco.mju_negQuat, 4, quat)


# A dozen float32 operations on numbers of size one; 2e-6 is about twenty roundings.
def assert_close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


def test_rotate_and_its_inverse(quats, vectors):
    assert_close(jax.vmap(rotate)(vectors, quats), by_mujoco(mujoco.mju_rotVecQuat, 3, vectors, quats))
    inverse = jax.vmap(rotate_inverse)
    assert_close(inverse(vectors, quats), by_mujoco(mujoco.mju_rotVecQuat, 3, vectors, negated(quats)))
    assert_close(inverse(jax.vmap(rotate)(vectors, quats), quats), vectors)


def test_the_identity_is_exact(vectors):
    identity = jnp.asarray([1.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(jax.vmap(rotate, (0, None))(vectors, identity), vectors)


def test_multiply(quats, vectors):
    other = np.roll(quats, 1, axis=0)
    product = jax.vmap(multiply)(quats, other)
    assert_close(product, by_mujoco(mujoco.mju_mulQuat, 4, quats, other))
    in_turn = jax.vmap(rotate)(jax.vmap(rotate)(vectors, other), quats)  # R(ab) = R(a) R(b)
    assert_close(jax.vmap(rotate)(vectors, product), in_turn)


def test_yaw_turns_about_the_vertical(vectors):
    yaw = np.linspace(-2 * np.pi, 2 * np.pi, N).astype(np.float32)
    axis = np.tile([0.0, 0.0, 1.0], (N, 1))
    expected = by_mujoco(lambda quat, axis, angle: mujoco.mju_axisAngle2Quat(quat, axis, angle), 4, axis, yaw)
    assert_close(jax.vmap(from_yaw)(yaw), expected)
    left = jax.vmap(rotate, (None, 0))(jnp.asarray([1.0, 0.0, 0.0]), jax.vmap(from_yaw)(yaw))
    assert_close(left, np.stack([np.cos(yaw), np.sin(yaw), np.zeros(N)], axis=1))


def test_uniform_rotations_have_no_preferred_direction():
    normal = jax.random.normal(jax.random.key(0), (20000, 4))
    quat = jax.vmap(uniform_quaternion)(normal)
    assert_close(jnp.linalg.norm(quat, axis=1), np.ones(20000))
    up = jax.vmap(rotate, (None, 0))(jnp.asarray([0.0, 0.0, 1.0]), quat)
    # On the sphere the mean is 0 and the second moment I/3; four standard errors of 20000 draws are 0.016 and 0.0085.
    np.testing.assert_allclose(up.mean(axis=0), np.zeros(3), atol=0.016)
    np.testing.assert_allclose(np.asarray(up).T @ np.asarray(up) / 20000, np.eye(3) / 3, atol=0.0085)
