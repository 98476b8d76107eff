"""The multilayer perceptrons against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.networks.mlp import MLP, ResidualMLP


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


def silu(x):
    return x / (1 + np.exp(-x))


def test_residual_layers_add_to_what_came_in():
    net, rng = ResidualMLP(5, depth=2, features=3), np.random.default_rng(0)
    x, condition = rng.normal(size=4).astype(np.float32), rng.normal(size=2).astype(np.float32)
    for given in ((x,), (x, condition)):
        params = jax.tree.map(lambda p: p + 0.1, net.init(jax.random.key(0), *given))
        first, *hidden, last = layers(params)
        h = x @ first[0] + first[1]
        told = len(given) > 1
        for depth in range(2):  # a layer, then that of its condition
            (kernel, bias), *more = hidden[depth * (1 + told) : (depth + 1) * (1 + told)]
            seen = h + sum(condition @ k + b for k, b in more)
            h = h + silu(seen) @ kernel + bias
        np.testing.assert_allclose(net.apply(params, *given), silu(h) @ last[0] + last[1], rtol=1e-4, atol=1e-5)
        features = {"params": {name: p for name, p in params["params"].items() if name != max(params["params"])}}
        np.testing.assert_allclose(ResidualMLP(5, depth=2).apply(features, *given), h, rtol=1e-4, atol=1e-5)


def test_a_residual_network_starts_near_zero():
    net, x = ResidualMLP(64, features=8), jax.random.normal(jax.random.key(1), (16,))
    assert np.abs(net.apply(net.init(jax.random.key(0), x), x)).max() < 0.5
