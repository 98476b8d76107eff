"""Quaternions against MuJoCo's own; matrices, rotation vectors and six numbers against SciPy's."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mjx_policies.rotations import (
    from_matrix,
    from_rotation_vector,
    from_sixd,
    from_yaw,
    multiply,
    rotate,
    rotate_inverse,
    to_matrix,
    to_rotation_vector,
    to_sixd,
    uniform_quaternion,
)

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


def by_scipy(quats):
    return Rotation.from_quat(np.asarray(quats, np.float64), scalar_first=True)


def test_matrices(quats):
    matrices = jax.vmap(to_matrix)(quats)
    assert_close(matrices, by_scipy(quats).as_matrix())
    back = jax.vmap(from_matrix)(matrices)
    assert (np.asarray(back)[:, 0] >= 0).all()
    assert_close(np.abs(np.sum(back * quats, axis=1)), np.ones(N))


AXES = np.array([(1, 0, 0), (0, -1, 0), (0, 0, 1), (0.6, 0, -0.8), (1 / 3, 2 / 3, 2 / 3)])
ANGLES = np.array([0, 1e-7, 1e-4, 9e-4, 1.1e-3, 0.1, 1, 3, np.pi - 1e-3, np.pi])


@pytest.fixture(scope="module")
def turns():
    """Rotation vectors [50, 3], small, large and around half a turn."""
    return (ANGLES[None, :, None] * AXES[:, None, :]).reshape(-1, 3).astype(np.float32)


def test_exponential_and_logarithm(turns):
    expected = Rotation.from_rotvec(turns.astype(np.float64))
    quats = np.asarray(jax.vmap(from_rotation_vector)(turns))
    sign = np.sign(np.sum(quats * expected.as_quat(scalar_first=True), axis=1, keepdims=True))
    assert_close(quats * sign, expected.as_quat(scalar_first=True))
    from_matrices = jax.vmap(from_matrix)(expected.as_matrix().astype(np.float32))
    for same in (quats, -quats, from_matrices):
        got = np.asarray(jax.vmap(to_rotation_vector)(same), np.float64)
        angle = np.linalg.norm(got, axis=1)
        assert (angle <= np.pi + 1e-6).all()
        # Near half a turn the axis may point either way: compare rotations.
        assert ((Rotation.from_rotvec(got) * expected.inv()).magnitude() < 2e-6).all()
        inside = np.linalg.norm(turns, axis=1) < 3.1
        np.testing.assert_allclose(got[inside], turns[inside], atol=2e-6)


def test_small_turns_keep_their_digits():
    small = np.float32(1e-5) * AXES.astype(np.float32)
    got = jax.vmap(lambda vector: to_rotation_vector(from_rotation_vector(vector)))(small)
    np.testing.assert_allclose(got, small, rtol=1e-6)


def test_gradients_of_exponential_and_logarithm_are_finite_and_right(turns):
    @jax.jit
    @jax.vmap
    def jacobians(vector):
        quat = from_rotation_vector(vector)
        return (
            jax.jacobian(from_rotation_vector)(vector),
            jax.jacobian(to_rotation_vector)(quat),
            jax.jacobian(from_matrix)(to_matrix(quat)),
        )

    exponential, logarithm, of_matrix = jacobians(turns)
    assert np.isfinite(exponential).all() and np.isfinite(logarithm).all() and np.isfinite(of_matrix).all()
    inside = np.linalg.norm(turns, axis=1) < 3.1  # beyond, the shorter way is not a smooth choice
    # The logarithm undoes the exponential, so their product is the identity.
    product = (logarithm @ exponential)[inside]
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), product.shape), atol=1e-3)


def test_six_numbers_hold_a_rotation(quats):
    matrices = jax.vmap(to_matrix)(quats)
    assert_close(jax.vmap(from_sixd)(jax.vmap(to_sixd)(matrices)), matrices)


def test_gram_and_schmidt_is_that_of_a_qr_decomposition():
    numbers = np.random.default_rng(2).normal(size=(N, 6)).astype(np.float32)
    for got, row in zip(jax.vmap(from_sixd)(numbers), numbers, strict=True):
        q, r = np.linalg.qr(row.reshape(2, 3).T.astype(np.float64))
        q = q * np.sign(np.diag(r))
        expected = np.column_stack([q, np.cross(q[:, 0], q[:, 1])])
        np.testing.assert_allclose(got, expected, atol=1e-4)  # some are close to parallel


DEGENERATE = (
    (0, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 1, 0),
    (0, 0, 0, 1, 0, 0),
    (1, 0, 0, 0, 0, 0),
    (1, 2, 3, 2, 4, 6),
    (1, 2, 3, -1, -2, -3),
    (1, 0, 0, 1, 1e-4, 0),
    (1, 0, 0, 1, 1e-3, 0),
    (1e-5, 0, 0, 0, 1e-5, 0),
    (1e3, 0, 0, 0, 1e3, 0),
)


def test_six_numbers_that_determine_no_rotation_still_give_one():
    numbers = jnp.asarray(DEGENERATE, jnp.float32)
    for matrix in jax.vmap(from_sixd)(numbers):
        assert_rotation(matrix)
    assert np.isfinite(jax.jit(jax.vmap(jax.jacobian(from_sixd)))(numbers)).all()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-10, 10, width=32), min_size=6, max_size=6))
def test_any_six_numbers_give_a_rotation(numbers):
    assert_rotation(JITTED_SIXD(jnp.asarray(numbers, jnp.float32)))


JITTED_SIXD = jax.jit(from_sixd)


def assert_rotation(matrix):
    np.testing.assert_allclose(np.asarray(matrix).T @ matrix, np.eye(3), atol=5e-6)
    np.testing.assert_allclose(np.linalg.det(matrix), 1, atol=5e-6)
