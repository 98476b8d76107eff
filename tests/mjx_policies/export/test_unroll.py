"""Loops that are written out against the loops."""

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.export.unroll import unrolled

X = jnp.asarray([0.3, -1.2, 2.0])


def primitives(function, *args):
    found = set()

    def walk(jaxpr):
        for eqn in jaxpr.eqns:
            found.add(eqn.primitive.name)
            for value in eqn.params.values():
                if hasattr(value, "jaxpr"):
                    walk(value.jaxpr)

    walk(jax.make_jaxpr(function)(*args).jaxpr)
    return found


def inner(x, rows):
    return jax.lax.scan(lambda c, row: (jnp.sin(c) + row, c * row), x, rows)


def nested(x):
    def step(carry, rows):
        x, count = carry
        x, out = jax.jit(inner)(x, rows)
        return (jax.nn.gelu(x), count + 1), {"out": out.sum(), "first": out[0]}

    return jax.lax.scan(step, (x, 0), jnp.arange(24.0).reshape(2, 4, 3) / 10, reverse=True)


def test_nested_loops_backwards_within_functions_give_the_same():
    run = unrolled(jax.make_jaxpr(nested)(X))
    expected = jax.tree.leaves(nested(X))
    for found, wanted in zip(run(X), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert "scan" in primitives(nested, X) and "scan" not in primitives(run, X)
    batch = jnp.stack([X, 2 * X])
    for found, wanted in zip(jax.vmap(run)(batch), jax.tree.leaves(jax.vmap(nested)(batch)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_what_has_no_loop_stays_as_it_is():
    def plain(x):
        return jax.jit(jnp.tanh)(x) + jax.nn.relu(x)

    traced = jax.make_jaxpr(plain)(X)
    assert str(jax.make_jaxpr(unrolled(traced))(X)) == str(jax.make_jaxpr(jax.extend.core.jaxpr_as_fun(traced))(X))


def test_a_loop_of_unknown_length_stays_a_loop():
    def search(x):
        return jax.lax.while_loop(lambda x: x.sum() < 10, lambda x: 2 * x, inner(jnp.abs(x), x[None])[0])

    run = unrolled(jax.make_jaxpr(search)(X))
    np.testing.assert_allclose(run(X)[0], search(X), rtol=1e-6)
    assert primitives(run, X) >= {"while"} and "scan" not in primitives(run, X)
