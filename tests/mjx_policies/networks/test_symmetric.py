"""The symmetric perceptron against its definition, and against the plain one whose weights it ties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.networks.mlp import MLP
from mjx_policies.networks.symmetric import SymmetricMLP

SIGN_IN, SIGN_OUT = np.float32([-1, 1, 1, 1, -1]), np.float32([1, 1, -1])


def reflect_in(x):
    return x[..., [0, 1, 3, 2, 4]] * SIGN_IN


def reflect_out(y):
    return y[..., [1, 0, 2]] * SIGN_OUT


def shaken(net, seed=0):
    """Parameters with biases that are not zero."""
    params = net.init(jax.random.key(seed), jnp.zeros(5))
    return jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(seed + 1), p.shape), params)


@settings(max_examples=20, deadline=None)
@given(hidden=st.lists(st.sampled_from([2, 6]), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_reflecting_the_input_reflects_the_output(hidden, seed):
    net = SymmetricMLP((*hidden, 3), reflect_in, reflect_out)
    params = shaken(net, seed)
    x = jax.random.normal(jax.random.key(seed + 2), (4, 5))
    y = net.apply(params, x)
    np.testing.assert_allclose(net.apply(params, reflect_in(x)), reflect_out(y), atol=1e-5)
    assert np.ptp(y) > 1e-3, "a constant would commute with anything"


def test_a_value_does_not_change_under_reflection():
    net = SymmetricMLP((8, 8, 1), reflect_in, lambda value: value)
    params, x = shaken(net), jax.random.normal(jax.random.key(2), (7, 5))
    np.testing.assert_allclose(net.apply(params, reflect_in(x)), net.apply(params, x), atol=1e-6)


def test_it_is_the_perceptron_of_the_same_width_with_tied_weights():
    """Written out half by half: `a` reads the input, `b` its reflection, and the output is the sum of what both say."""
    params = shaken(SymmetricMLP((6, 4, 3), reflect_in, reflect_out))["params"]
    own = [np.asarray(params[name], float) for name in ("own_0", "own_1", "own_out")]
    cross = np.asarray(params["cross_1"], float)
    bias = [np.asarray(params[name], float) for name in ("bias_0", "bias_1", "bias_out")]
    x = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    a, b = np.tanh(x @ own[0] + bias[0]), np.tanh(reflect_in(x) @ own[0] + bias[0])
    mix = [(u @ own[1] + v @ cross) / 2**0.5 + bias[1] for u, v in ((a, b), (b, a))]
    left, right = (np.tanh(half) @ own[2] / 2**0.5 + bias[2] / 2 for half in mix)
    net = SymmetricMLP((6, 4, 3), reflect_in, reflect_out, jnp.tanh)
    np.testing.assert_allclose(net.apply({"params": params}, x), left + reflect_out(right), atol=1e-5)


def test_it_has_half_the_parameters():
    def count(net):
        return sum(p.size for p in jax.tree.leaves(net.init(jax.random.key(0), jnp.zeros(5))))

    assert count(SymmetricMLP((64, 64, 3), reflect_in, reflect_out)) == (count(MLP((64, 64, 3))) + 3) / 2


def test_a_small_output_scale_starts_near_zero():
    x = jax.random.normal(jax.random.key(1), (500, 5))
    for scale in (0.01, 1.0):
        nets = (
            SymmetricMLP((64, 64, 3), reflect_in, reflect_out, output_scale=scale),
            MLP((64, 64, 3), jax.nn.elu, scale),
        )
        ours, plain = (np.std(net.apply(net.init(jax.random.key(0), x), x)) for net in nets)
        assert 0.5 * plain < ours < 2 * plain


@pytest.mark.parametrize("hidden", [(7,), ()])
def test_widths_that_cannot_be_halved_are_told(hidden):
    with pytest.raises(ValueError, match=r"hidden widths \[7?\] of a symmetric network must be even"):
        SymmetricMLP((*hidden, 3), reflect_in, reflect_out).init(jax.random.key(0), jnp.zeros(5))
