"""Searches for low energies against densities whose moments are known. Axes: N candidates, D numbers, S steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mjx_policies.heads.energy import BOUND, derivative_free, energy_head, langevin, metropolis, uniform
from mjx_policies.networks.mlp import MLP

MIDDLES, SHARES, SPREAD = (-0.5, 0.5), (0.3, 0.7), 0.1
N = 4096


def two_ways(x):  # [N, 1] -> [N]
    """Minus the log density of a mixture of two normal distributions."""
    parts = jnp.stack(
        [jnp.log(share) - ((x[:, 0] - m) / SPREAD) ** 2 / 2 for m, share in zip(MIDDLES, SHARES, strict=True)]
    )
    return -jax.nn.logsumexp(parts, axis=0)


def search(rule, steps, **options):  # -> [N]
    noise = jax.random.normal(jax.random.key(0), (1 + steps, N, 2))
    return np.asarray(rule(two_ways, uniform(noise[0, :, :-1]), noise[1:], **options))[:, 0]


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_metropolis_leaves_the_density_as_it_is(steps):
    found = search(metropolis, steps)
    up = found > 0
    assert abs(up.mean() - SHARES[1]) < 0.04  # the first draw is one of 4096 candidates, again and again
    for way, middle in ((up, MIDDLES[1]), (~up, MIDDLES[0])):
        assert abs(found[way].mean() - middle) < 0.02 and abs(found[way].std() - SPREAD) < 0.01


def test_metropolis_goes_nowhere_that_no_candidate_may_be():
    noise = 3 * jax.random.normal(jax.random.key(1), (5, N, 2))
    found = metropolis(lambda x: -100 * x[:, 0], uniform(noise[0, :, :-1]), noise[1:])
    assert np.abs(found).max() <= BOUND and found.mean() > 0.9 * BOUND


def test_derivative_free_search_sharpens():
    """Each round draws in proportion to the density again: it is good at the best way and knows less of the other."""
    found = search(derivative_free, 4)
    assert (found > 0).mean() > SHARES[1] + 0.1
    assert abs(found[found > 0].mean() - MIDDLES[1]) < 0.02


def test_langevin_draws_from_a_normal_distribution():
    noise = jax.random.normal(jax.random.key(0), (200, N, 2))
    found = langevin(
        lambda x: ((x[:, 0] - 0.2) / SPREAD) ** 2 / 2, uniform(noise[0, :, :-1]), noise, step=1e-3, decay=0.0
    )
    np.testing.assert_allclose([found.mean(), found.std()], [0.2, SPREAD], atol=0.01)


def test_what_it_learns_is_the_density():
    """At its optimum the energy is minus the log density, up to a constant."""
    net = MLP((64, 64, 1))
    head = energy_head(net, 1, "metropolis", num_negatives=32)
    rng = np.random.default_rng(0)
    middles = np.array(MIDDLES)[(rng.random(4096) < SHARES[1]).astype(int)]
    data = jnp.asarray((middles + SPREAD * rng.normal(size=4096))[:, None], jnp.float32)
    embedding = jnp.zeros(1)

    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, 1500))

    def batch_loss(params, key, rows):
        return jax.vmap(head.loss, (None, 0, None, 0))(params, jax.random.split(key, len(rows)), embedding, rows).mean()

    def step(carry, key):
        params, opt_state = carry
        key_rows, key_loss = jax.random.split(key)
        rows = data[jax.random.randint(key_rows, (128,), 0, len(data))]
        updates, opt_state = optimizer.update(jax.grad(batch_loss)(params, key_loss, rows), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    params = head.init(jax.random.key(0), embedding)
    run = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys)[0])
    params, _ = run((params, optimizer.init(params)), jax.random.split(jax.random.key(1), 1500))
    x = jnp.linspace(-0.7, 0.7, 57)[:, None]
    learned = jax.vmap(lambda x: net.apply(params, jnp.concatenate([embedding, x]))[0])(x)
    seen = np.asarray(two_ways(x)) < np.asarray(two_ways(x)).min() + 3  # where there are demonstrations
    difference = np.asarray(learned - two_ways(x))[seen]
    assert difference.std() < 0.25  # of energies that differ by 3
    draws = jax.vmap(lambda key: head.sample(params, key, embedding)[0])(jax.random.split(jax.random.key(2), 1000))
    assert abs((np.asarray(draws) > 0).mean() - SHARES[1]) < 0.08  # five standard deviations of 1000 draws


def test_a_search_that_there_is_not():
    with pytest.raises(ValueError, match="rule is 'luck', it must be one of langevin, derivative_free, metropolis"):
        energy_head(MLP((1,)), 1, "luck")
