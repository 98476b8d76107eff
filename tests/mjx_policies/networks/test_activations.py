"""Activations against NumPy, their slopes against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.networks.activations import elu

X = np.concatenate([np.linspace(-20, 20, 401), [-1e-9, 0.0, 1e-9, -1e4, 1e4]]).astype(np.float32)


def test_elu():
    expected = np.where(X > 0, X, np.expm1(np.minimum(X.astype(float), 0)))
    np.testing.assert_allclose(elu(jnp.asarray(X)), expected, rtol=1e-6, atol=1e-7)


def test_the_slope_of_elu():
    """exp(x) below zero and 1 above, finite far out where the other branch would overflow."""
    slope = jax.vmap(jax.grad(elu))(jnp.asarray(X))
    np.testing.assert_allclose(slope[X != 0], np.exp(np.minimum(X, 0))[X != 0], rtol=1e-6)
    assert np.isfinite(slope).all()
