"""The mixture on long chunks that go one of two ways. Axes: S seeds, N examples, K components, H horizon, A action."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mjx_policies.compiler import compiler_options
from mjx_policies.heads.mixture import mixture_head
from mjx_policies.networks.mlp import MLP

SHAPE, SEEDS = (16, 2), 10
EMBEDDING = jnp.ones(3)


def chunks(count):  # -> [N, H, A]
    """Forward at 0.9, and sideways at +0.5 or at -0.5."""
    rng = np.random.default_rng(0)
    way = np.stack([np.full(count, 0.9), 0.5 * rng.choice([-1.0, 1.0], count)], axis=-1)
    return jnp.asarray(way[:, None] + 0.1 * rng.normal(size=(count, *SHAPE)), jnp.float32)


def test_every_seed_covers_both_modes():
    """What both modes have in common is far from where components begin, and the nearest must not take them all."""
    head, optimizer, data = mixture_head(MLP((32,)), SHAPE), optax.adam(3e-3), chunks(1024)

    def batch_loss(params, rows):
        return jax.vmap(head.loss, in_axes=(None, None, None, 0))(params, None, EMBEDDING, rows).mean()

    def step(carry, key):
        params, opt_state = carry
        rows = data[jax.random.randint(key, (64,), 0, len(data))]
        updates, opt_state = optimizer.update(jax.grad(batch_loss)(params, rows), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    def train(key):
        key_init, key_steps = jax.random.split(key)
        params = head.init(key_init, EMBEDDING)
        return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key_steps, 400))[0][0]

    def draw(params, key):
        return head.sample(params, key, EMBEDDING)[0]

    options = compiler_options()
    params = jax.jit(jax.vmap(train), compiler_options=options)(jax.random.split(jax.random.key(0), SEEDS))
    keys = jax.random.split(jax.random.key(1), 400)
    samples = np.asarray(jax.jit(jax.vmap(jax.vmap(draw, (None, 0)), (0, None)))(params, keys))  # [S, N, H, A]
    sideways = samples[..., 1].mean(axis=-1)
    assert np.abs(sideways).min() > 0.2, "a chunk between the ways"
    np.testing.assert_allclose(np.abs(sideways).mean(axis=1), 0.5, atol=0.05)
    left = (sideways > 0).mean(axis=1)
    assert left.min() > 0.3 and left.max() < 0.7
