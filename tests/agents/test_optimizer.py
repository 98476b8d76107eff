"""Optimizers, schedules and averages against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mjx_policies.actor import Scales
from mjx_policies.agents.optimizer import adam, decays, ema_decay, warmup_cosine
from mjx_policies.normalize import Scale

GRADS = {"actor": {"a": jnp.asarray([3.0, 4.0])}, "critic": {"c": jnp.asarray([0.0, 12.0])}}


def steps_of(optimizer, grads, params=None, count=1):
    """Parameters after so many steps along the same gradients; all begin at zero."""
    params = jax.tree.map(jnp.zeros_like, grads) if params is None else params
    state = optimizer.init(params)
    for _ in range(count):
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def clipped(grads, parts, max_grad_norm):
    """The gradient that Adam is given: it is in its first moment, a tenth of the first gradient."""
    optimizer = adam(1.0, max_grad_norm, parts=parts)
    params = jax.tree.map(jnp.zeros_like, grads)
    _, state = optimizer.update(grads, optimizer.init(params), params)
    (moment,) = [x for path, x in jax.tree.leaves_with_path(state) if getattr(path[-1], "name", "") == "mu"]
    leaves = jax.tree.leaves(grads)
    parts_of = np.split(np.asarray(moment) / 0.1, np.cumsum([x.size for x in leaves])[:-1])
    return jax.tree.unflatten(jax.tree.structure(grads), parts_of)


def test_gradients_are_clipped_one_by_one_or_jointly():
    parts = ("actor", "critic")
    separately = clipped(GRADS, parts, 1.0)
    np.testing.assert_allclose(separately["actor"]["a"], [0.6, 0.8], rtol=1e-5)
    np.testing.assert_allclose(separately["critic"]["c"], [0.0, 1.0], rtol=1e-5)
    jointly = clipped(GRADS, (), 1.0)  # of norm 13
    np.testing.assert_allclose(jointly["actor"]["a"], np.array([3, 4]) / 13, rtol=1e-5)
    np.testing.assert_allclose(jointly["critic"]["c"], [0.0, 12 / 13], rtol=1e-5)
    zeros = jax.tree.map(jnp.zeros_like, GRADS)
    for chosen in (parts, ()):
        for same in (GRADS, zeros):
            for x, y in zip(jax.tree.leaves(clipped(same, chosen, 20.0)), jax.tree.leaves(same), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-6)


def test_it_is_adam():
    grads = {"w": jnp.asarray([0.3, -2.0])}
    found = steps_of(adam(1e-2, 1e9, b1=0.8, b2=0.9, eps=1e-3), grads, count=5)
    expected = steps_of(optax.adam(1e-2, 0.8, 0.9, 1e-3), grads, count=5)
    np.testing.assert_allclose(found["w"], expected["w"], rtol=1e-6)


def test_kernels_and_embeddings_alone_decay():
    scale = Scale(jnp.ones(2), jnp.ones(2))
    params = {
        "scales": Scales({"kernel": scale}, scale),
        "encoder": {"Dense_0": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "position": jnp.ones(3)},
        "head": {"embed": {"embedding": jnp.ones((4, 2))}, "codebook": {"kernel": jnp.ones(2)}},
        "frozen": {"kernel": jnp.ones(2)},
    }
    still = jax.tree.map(jnp.zeros_like, params)
    after = steps_of(adam(0.1, 1.0, weight_decay=0.5), still, params)
    decayed = {"encoder": ["Dense_0", "kernel"], "head": ["embed", "embedding"]}
    for path, value in jax.tree.leaves_with_path(after):
        names = [getattr(entry, "key", getattr(entry, "name", None)) for entry in path]
        np.testing.assert_allclose(value, 1 - 0.1 * 0.5 if names[1:] == decayed.get(names[0]) else 1.0, rtol=1e-6)
    assert sum(jax.tree.leaves(decays(params))) == 2


def test_numbers_may_be_traced_and_the_state_does_not_depend_on_them():
    grads = {"kernel": jnp.asarray([3.0, 4.0])}
    params = {"kernel": jnp.ones(2)}
    state = adam(0.0, 1.0).init(params)

    def one(rate, norm, decay):
        return adam(rate, norm, decay).update(grads, state, params)[0]["kernel"]

    numbers = jnp.asarray([1e-2, 2e-2]), jnp.asarray([1.0, 9.0]), jnp.asarray([0.0, 0.1])
    together = jax.jit(jax.vmap(one))(*numbers)
    for i, row in enumerate(together):
        np.testing.assert_allclose(row, one(*(float(x[i]) for x in numbers)), rtol=1e-5)


def test_the_learning_rate_rises_and_falls():
    steps = np.arange(700)
    found = np.asarray(jax.jit(jax.vmap(lambda step: warmup_cosine(step, 1e-2, 20.0, 600.0)))(steps))
    # optax warms up from zero in step 0 and so is one step behind until the warm-up ends.
    expected = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 20, 600)
    expected = np.asarray(jax.jit(jax.vmap(expected))(np.r_[1:21, 20:700]))
    np.testing.assert_allclose(found[20:], expected[20:], atol=1e-8)
    np.testing.assert_allclose(found[:20], expected[:20], rtol=1e-5)


def test_the_average_starts_with_the_first_step_and_forgets_slowly():
    assert float(ema_decay(jnp.asarray(0), 0.75, 0.99)) == 0.0
    assert float(ema_decay(jnp.asarray(15), 0.75, 0.99)) == pytest.approx(1 - 1 / 8)
    assert float(ema_decay(jnp.asarray(10_000), 0.75, 0.99)) == pytest.approx(0.99)
