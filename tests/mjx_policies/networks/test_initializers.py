"""Orthogonal weights: what they are, and that no batch of matrices is ever factorized at once."""

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.networks.initializers import orthogonal
from mjx_policies.networks.mlp import MLP


def factorized(jaxpr):
    """Shapes of all matrices that a program makes orthogonal, those within loops too."""
    shapes = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("geqrf", "householder_product", "qr"):
            shapes.append(equation.invars[0].aval.shape)
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")):
            if hasattr(part, "jaxpr"):
                shapes += factorized(part.jaxpr)
    return shapes


def test_they_are_those_of_jax():
    key = jax.random.key(0)
    for shape in ((8, 5), (5, 8), (3, 3, 4, 6)):
        np.testing.assert_array_equal(orthogonal(0.5)(key, shape), jax.nn.initializers.orthogonal(0.5)(key, shape))


def test_columns_are_orthonormal():
    found = np.asarray(orthogonal(2.0)(jax.random.key(1), (9, 4)))
    np.testing.assert_allclose(found.T @ found, 4.0 * np.eye(4), atol=1e-5)


def test_seeds_get_the_weights_of_a_loop_one_after_the_other():
    keys = jax.random.split(jax.random.key(2), 3)
    net, x = MLP((6, 5, 2)), jnp.zeros(4)

    def init(key):
        return net.init(key, x)

    together = jax.jit(jax.vmap(init))(keys)
    for number, key in enumerate(keys):
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(init(key)), strict=True):
            np.testing.assert_allclose(a[number], b, atol=1e-6)
    shapes = factorized(jax.make_jaxpr(jax.vmap(init))(keys).jaxpr)
    assert len(shapes) >= 3 and {len(shape) for shape in shapes} == {2}
    plain = jax.nn.initializers.orthogonal()
    batched = factorized(jax.make_jaxpr(jax.vmap(lambda key: plain(key, (6, 5))))(keys).jaxpr)
    assert {len(shape) for shape in batched} == {3}  # so this test would notice
