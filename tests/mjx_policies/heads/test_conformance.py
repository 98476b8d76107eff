"""Laws of every head: what it learns of a known mixture, and how its functions agree.

The demonstrations go one of two ways, as whole chunks, with equal odds: to about +0.6 or to about -0.6 everywhere.
Axes: N examples, H horizon, A action.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mjx_policies.compiler import compiler_options
from mjx_policies.heads.act import act_head
from mjx_policies.heads.bins import bins_head
from mjx_policies.heads.denoising import Denoiser
from mjx_policies.heads.deterministic import deterministic_head
from mjx_policies.heads.diffusion import diffusion_head
from mjx_policies.heads.energy import energy_head
from mjx_policies.heads.fast.head import fast_head
from mjx_policies.heads.fast.tokens import fit_tokenizer
from mjx_policies.heads.flow import flow_head
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.heads.mixture import mixture_head
from mjx_policies.heads.one_step import shortcut_head
from mjx_policies.heads.residual_vq import fit_codebook
from mjx_policies.heads.squashed import squashed_gaussian_head
from mjx_policies.heads.vq import vq_head
from mjx_policies.networks.denoiser import MLPDenoiser
from mjx_policies.networks.mlp import MLP

SHAPE = (2, 1)
WAY, SPREAD = 0.6, 0.05
EMBEDDING = jnp.asarray([0.5, -0.3, 1.0])


def demonstrations(seed, count):  # -> [N, H, A]
    rng = np.random.default_rng(seed)
    way = WAY * rng.choice([-1.0, 1.0], (count, 1, 1))
    return jnp.asarray(way + SPREAD * rng.normal(size=(count, *SHAPE)), jnp.float32)


@functools.cache
def codebook():
    return fit_codebook(jax.random.key(0), demonstrations(5, 512), num_codes=4, latent=4, hidden=(16,), num_steps=300)


HEADS = {
    "deterministic": lambda: deterministic_head(MLP((32, 2)), SHAPE),
    "gaussian": lambda: gaussian_head(MLP((32, 2)), SHAPE, 0.5, 0.02),
    "gaussian with its own deviation": lambda: gaussian_head(MLP((32, 2)), SHAPE, 0.5, 0.02, std_net=MLP((2,))),
    "squashed gaussian": lambda: squashed_gaussian_head(MLP((32, 2)), SHAPE, 0.5, 0.02),
    "mixture": lambda: mixture_head(MLP((32,)), SHAPE, 3),
    "bins": lambda: bins_head(MLP((32,)), SHAPE, 32),
    "bins of neighbours": lambda: bins_head(MLP((32,)), SHAPE, 32, smoothing=0.01, spread=0.06),
    "energy": lambda: energy_head(MLP((64, 64, 1)), SHAPE, num_candidates=64),
    "energy by langevin": lambda: energy_head(MLP((64, 64, 1)), SHAPE, "langevin", 32, 8),
    "energy by metropolis": lambda: energy_head(MLP((64, 64, 1)), SHAPE, "metropolis", 256, 8, 256),
    "vq": lambda: vq_head(MLP((32,)), codebook()),
    "act": lambda: act_head(SHAPE, 4, 8, 1, 1, 1, kl_weight=0.01),
    "fast": lambda: fast_head(
        MLP((16,)), fit_tokenizer(np.asarray(demonstrations(5, 512)), 64), width=16, num_heads=2, depth=1
    ),
    "diffusion": lambda: diffusion_head(Denoiser(MLPDenoiser(64, 2, 16), SHAPE, num_steps=16, eta=1.0)),
    "flow": lambda: flow_head(MLPDenoiser(64, 2, 16), SHAPE, num_steps=16),
    "flow with noise in its steps": lambda: flow_head(MLPDenoiser(64, 2, 16), SHAPE, num_steps=16, step_std=0.02),
    "shortcut": lambda: shortcut_head(MLPDenoiser(64, 2, 16), SHAPE, num_steps=10),
    "shortcut to actions": lambda: shortcut_head(MLPDenoiser(64, 2, 16), SHAPE, num_steps=10, prediction_type="action"),
}
# A chunk goes one way, and the samples cover both.
COMMITS = (
    "mixture",
    "energy",
    "energy by langevin",
    "energy by metropolis",
    "vq",
    "act",
    "fast",
    "diffusion",
    "flow",
    "flow with noise in its steps",
    "shortcut",
    "shortcut to actions",
)
WHOLE = ("energy", "energy by langevin", "energy by metropolis", "vq", "fast", "diffusion", "flow", "shortcut")
WHOLE += (
    "flow with noise in its steps",
    "shortcut to actions",
)  # what padding holds is seen: who scales actions has made it the last real one
MEANS = ("deterministic", "gaussian", "gaussian with its own deviation", "squashed gaussian")  # centred between both


@pytest.fixture(scope="module", params=HEADS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def head(name):
    return HEADS[name]()


@pytest.fixture(scope="module")
def trained(head):
    """Parameters before and after, and the loss of every step."""
    optimizer = optax.adam(3e-3)
    data = demonstrations(0, 2048)

    def batch_loss(params, key):
        key_rows, key_loss = jax.random.split(key)
        rows = data[jax.random.randint(key_rows, (128,), 0, len(data))]
        keys = jax.random.split(key_loss, len(rows))
        return jax.vmap(head.loss, in_axes=(None, 0, None, 0))(params, keys, EMBEDDING, rows).mean()

    def step(carry, key):
        params, opt_state = carry
        loss, grads = jax.value_and_grad(batch_loss, allow_int=True)(params, key)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), loss

    def run(params):
        carry, losses = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(jax.random.key(1), 400))
        return carry[0], losses

    before = jax.jit(head.init)(jax.random.key(0), EMBEDDING)
    after, losses = jax.jit(run, compiler_options=compiler_options())(before)
    return before, after, np.asarray(losses)


@pytest.fixture(scope="module")
def gradient(head):
    """`(params, key, embedding, action, mask) -> gradient of the loss`, compiled once for several laws."""
    return jax.jit(jax.grad(head.loss, allow_int=True))


def draws(head, params, count=1000):  # -> [N, H, A]
    keys = jax.random.split(jax.random.key(7), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: head.sample(params, key, EMBEDDING)[0]))(keys))


def test_the_loss_falls(trained):
    _, _, losses = trained
    assert np.isfinite(losses).all() and losses[-50:].mean() < losses[:5].mean()


def test_samples_are_of_the_demonstrations(name, head, trained):
    found = draws(head, trained[1])
    np.testing.assert_array_less(np.abs(found), 4.0)
    if name in MEANS:
        np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=0.1)
    if name.startswith("bins"):  # each number goes one way, whatever the others do
        assert (np.abs(np.abs(found) - WAY) < 5 * SPREAD).mean() > 0.9 and 0.3 < (found > 0).mean() < 0.7
    if name in COMMITS:
        up = found.mean(axis=(1, 2)) > 0
        assert 0.2 < up.mean() < 0.8
        near = np.abs(np.abs(found) - WAY) < 5 * SPREAD
        together = np.sign(found[:, 0]) == np.sign(found[:, 1])
        assert near.mean() > 0.9 and together.mean() > 0.9
        np.testing.assert_allclose(found[up].mean(), WAY, atol=0.1)


def test_jit_equals_eager_and_a_sample_equals_its_noise(head, trained):
    params, key = trained[1], jax.random.key(3)
    action, trace = head.sample(params, key, EMBEDDING)
    assert action.shape == SHAPE
    again, _ = jax.jit(head.sample)(params, key, EMBEDDING)
    np.testing.assert_allclose(action, again, rtol=1e-4, atol=1e-5)
    assert all(len(leaf) == head.decisions for leaf in jax.tree.leaves(trace))
    assert (head.sample_from_noise is None) == (head.noise is None)
    assert (head.sample_from_noise or head.mode) is not None
    if head.sample_from_noise is not None:
        noise = head.noise.draw(key)
        first, second = (head.sample_from_noise(params, EMBEDDING, noise) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert first.shape == SHAPE
    if head.mode is not None:
        assert head.mode(params, EMBEDDING).shape == SHAPE
    if head.log_prob is not None:
        each = jax.vmap(head.log_prob, (None, None, 0))(params, EMBEDDING, trace)
        assert np.isfinite(each).all() and each.shape[1:] in (SHAPE, ())
    if head.action_log_prob is not None:
        assert np.isfinite(head.action_log_prob(params, EMBEDDING, trace))


def test_seeds_batch_like_a_loop(head):
    keys = jax.random.split(jax.random.key(0), 2)
    action = demonstrations(3, 1)[0]

    @jax.jit
    def one(key):
        params = head.init(key, EMBEDDING)
        return head.loss(params, jax.random.key(5), EMBEDDING, action)

    np.testing.assert_allclose(jax.jit(jax.vmap(one))(keys), [one(key) for key in keys], rtol=1e-4, atol=1e-5)


def test_padding_teaches_nothing(name, trained, gradient):
    action = demonstrations(3, 1)[0]

    def learn(action, mask):
        return gradient(trained[1], jax.random.key(3), EMBEDDING, action, mask)

    for leaf in jax.tree.leaves(learn(action, jnp.zeros(2))):
        # A mixture's logsumexp of a softmax is 0 but for rounding.
        assert leaf.dtype == jax.dtypes.float0 or np.abs(leaf).max() < 1e-7
    if name not in WHOLE:
        mask = jnp.asarray([1.0, 0.0])
        chex.assert_trees_all_close(learn(action, mask), learn(action.at[1].set(-0.9), mask), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e3])
def test_gradients_are_finite_at_extremes(trained, gradient, size):
    embedding, action = jnp.full_like(EMBEDDING, size), jnp.full(SHAPE, size)
    chex.assert_tree_all_finite(gradient(trained[1], jax.random.key(0), embedding, action, jnp.ones(2)))


def test_it_is_traced_once(head, trained):
    chex.clear_trace_counter()
    loss = jax.jit(chex.assert_max_traces(head.loss, n=1))
    for step in range(3):
        loss(trained[1], jax.random.key(step), EMBEDDING, demonstrations(step, 1)[0])
