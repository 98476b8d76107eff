"""The multilayer perceptron against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.networks.mlp import MLP


def layers(params):
    """Kernel and bias of each layer, in order."""
    names = sorted(params["params"], key=lambda name: int(name.split("_")[1]))
    return [
        (np.asarray(params["params"][n]["kernel"], float), np.asarray(params["params"][n]["bias"], float))
        for n in names
    ]


def test_layers_alternate_with_the_activation_and_end_without_it():
    net = MLP((5, 4, 2), jnp.tanh)
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    params = net.init(jax.random.key(0), x[0])
    params = jax.tree.map(lambda p: p + 0.1, params)  # biases begin at zero, and would not be seen
    (k0, b0), (k1, b1), (k2, b2) = layers(params)
    expected = np.tanh(np.tanh(x @ k0 + b0) @ k1 + b1) @ k2 + b2
    np.testing.assert_allclose(net.apply(params, x), expected, rtol=1e-5, atol=1e-5)


def test_hidden_kernels_keep_the_length_of_a_signal():
    params = MLP((16, 16, 2)).init(jax.random.key(0), jnp.zeros(16))
    (k0, b0), (k1, _), _ = layers(params)
    for kernel in (k0, k1):
        np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(16), atol=1e-5)
    assert (b0 == 0).all()


def test_a_small_output_scale_starts_near_zero():
    x = jax.random.normal(jax.random.key(1), (100, 8))
    for scale in (0.01, 1.0):
        net = MLP((32, 3), output_scale=scale)
        params = net.init(jax.random.key(0), x[0])
        kernel = layers(params)[-1][0]
        np.testing.assert_allclose(kernel.T @ kernel, scale**2 * np.eye(3), atol=1e-5)


def test_a_batch_equals_its_rows():
    net = MLP((6, 2))
    x = jax.random.normal(jax.random.key(1), (4, 5, 3))
    params = net.init(jax.random.key(0), x[0, 0])
    rows = jax.vmap(jax.vmap(lambda row: net.apply(params, row)))(x)
    np.testing.assert_allclose(net.apply(params, x), rows, rtol=1e-5, atol=1e-6)
    assert net.apply(params, x).shape == (4, 5, 2)


def test_one_layer_is_linear():
    net = MLP((2,))
    params = net.init(jax.random.key(0), jnp.zeros(3))
    zero, x = jnp.zeros(3), jnp.asarray([1.0, -2.0, 3.0])
    np.testing.assert_allclose(net.apply(params, 2 * x), 2 * net.apply(params, x), rtol=1e-6)
    assert (net.apply(params, zero) == 0).all()
