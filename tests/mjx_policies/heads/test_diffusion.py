"""Diffusion against closed forms: known denoisers, the density of a chain, guidance, figures of diffusers 0.42.1.

Axes: H horizon, A action, S steps.
"""

import dataclasses
import importlib.util
from pathlib import Path

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from mjx_policies.compiler import compiler_options
from mjx_policies.heads.denoising import Denoiser, DenoisingStep, freeze
from mjx_policies.heads.diffusion import diffusion_head
from mjx_policies.networks.denoiser import MLPDenoiser

spec = importlib.util.spec_from_file_location("known", Path(__file__).with_name("known.py"))
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)
EMBEDDING, LEVELS, RING, SPREAD = shared.EMBEDDING, shared.LEVELS, shared.RING, shared.SPREAD
draws, known, p_value, ring = shared.draws, shared.known, shared.p_value, shared.ring

NET = MLPDenoiser(8, 1, 8)
SHAPE = (3, 2)
CHAIN = Denoiser(NET, SHAPE, prediction_type="v", num_steps=6, eta=1.0, min_std=0.2, min_density_std=0.2)


def quick(function, *arguments):
    return jax.jit(function, compiler_options=compiler_options(runs_once=True))(*arguments)


def at(steps, index):
    return DenoisingStep(*(table[index] for table in steps))


@pytest.fixture(scope="module")
def params():
    return quick(diffusion_head(CHAIN).init, jax.random.key(0), EMBEDDING)


@pytest.mark.parametrize("prediction_type", ["epsilon", "x0", "v"])
def test_a_perfect_network_has_no_loss_and_makes_the_one_action(prediction_type):
    point = jnp.asarray([0.4, -0.7])
    denoiser = Denoiser(known([point], 0.0, prediction_type), (2,), prediction_type=prediction_type, num_steps=20)
    head = diffusion_head(denoiser)
    keys = jax.random.split(jax.random.key(0), 200)
    losses = quick(jax.vmap(lambda key: head.loss({"net": {}}, key, EMBEDDING, point)), keys)
    # What float32 leaves of an action in the noisiest level is 5e-4 of it.
    np.testing.assert_allclose(losses, 0.0, atol=1e-5)
    np.testing.assert_allclose(draws(head, {"net": {}}, 10), np.tile(point, (10, 1)), atol=1e-4)


@pytest.mark.parametrize(
    ("prediction_type", "num_steps", "eta", "same"),
    [("v", 100, 0.0, True), ("epsilon", 100, 1.0, True), ("v", 2, 0.0, False)],
)
def test_a_perfect_network_draws_from_the_data(prediction_type, num_steps, eta, same):
    denoiser = Denoiser(
        known(RING, SPREAD, prediction_type), (2,), prediction_type=prediction_type, num_steps=num_steps, eta=eta
    )
    p = p_value(draws(diffusion_head(denoiser), {"net": {}}, 400), ring(1, 400))
    assert (p > 0.05) == same and (p < 0.01) != same, p  # two steps are too few, and the test says so


class Given(nn.Module):
    """Predicts (0.3, -0.2), (0.6, -0.2), ... as time goes on from step to step."""

    times: tuple[float, ...]

    @nn.compact
    def __call__(self, x, time, embedding):
        nth = 1 + jnp.argmin(jnp.abs(jnp.asarray(self.times) - time))
        return jnp.stack([0.3 * nth, -0.2 + 0.0 * nth])


@pytest.mark.parametrize(
    ("spacing", "levels", "expected"),
    [
        (
            "trailing",
            (99, 79, 59, 39, 19),
            [
                [1.533373249661682, -1.1118890043612715],
                [1.7012791618076482, -1.561125919070143],
                [1.670659306354117, -1.7036476117424508],
                [1.4345138602177798, -1.5212014114490238],
                [1.0, -1.0],
            ],
        ),
        (
            "leading",
            (80, 60, 40, 20, 0),
            [
                [1.4518457893765917, -0.9239941738905889],
                [1.5128856092390524, -1.2883389317091782],
                [1.3700846805499765, -1.3332794276959476],
                [1.0338840130770974, -1.0377424870022744],
                [0.9965108838724479, -1.0],
            ],
        ),
    ],
)
def test_the_chain_is_that_of_diffusers(spacing, levels, expected):
    """DDIM with eta 0.5, clipped, from (1.2, -0.4), with noise (0.5, -1) in every step."""
    times = tuple(1 - (level + 1) / LEVELS for level in levels)
    denoiser = Denoiser(Given(times), (2,), num_steps=5, eta=0.5, spacing=spacing)
    x, noise = jnp.asarray([1.2, -0.4]), jnp.asarray([0.5, -1.0])
    for index, row in enumerate(expected):
        step = at(denoiser.steps, index)
        x = denoiser.draw(denoiser.mean({"net": {}}, EMBEDDING, x, step), step, noise)
        np.testing.assert_allclose(x, row, atol=2e-6)


def densities(head, params, trace):  # [K, ...]
    return quick(jax.vmap(head.log_prob, (None, None, 0)), params, EMBEDDING, trace)


def test_the_density_of_a_chain_is_that_of_its_noise(params):
    """Whatever the network: with one floor for both, what was drawn is the residual."""
    head, key = diffusion_head(CHAIN), jax.random.key(3)
    action, trace = quick(head.sample, params, key, EMBEDDING)
    noise = np.asarray(head.noise.draw(key), float)
    assert head.decisions == 6 and trace.after.shape == (6, *SHAPE)
    np.testing.assert_array_equal(trace.before[0], noise[0].astype(np.float32))
    np.testing.assert_array_equal(trace.before[1:], trace.after[:-1])
    np.testing.assert_array_equal(trace.after[-1], action)
    std = np.maximum(CHAIN.steps.std, 0.2)
    expected = [norm.logpdf(noise[1 + i] * std[i], 0, std[i]) for i in range(6)]
    np.testing.assert_allclose(densities(head, params, trace), expected, rtol=1e-3, atol=1e-4)


def test_densities_have_a_floor_of_their_own(params):
    """In the last step, which alone has less noise than either floor."""
    wide = dataclasses.replace(CHAIN, min_std=0.05, min_density_std=0.15, max_noise=0.5)
    head, key = diffusion_head(wide), jax.random.key(3)
    _, trace = quick(head.sample, params, key, EMBEDDING)
    cut = np.clip(head.noise.draw(key), -0.5, 0.5)
    np.testing.assert_allclose(densities(head, params, trace)[-1], norm.logpdf(cut[-1] * 0.05, 0, 0.15), rtol=1e-3)


def test_without_noise_there_is_no_density():
    plain = diffusion_head(Denoiser(NET, SHAPE))
    assert plain.log_prob is None and plain.decisions == 1
    key = jax.random.key(0)
    trace = jax.eval_shape(lambda: plain.sample(plain.init(key, EMBEDDING), key, EMBEDDING)[1])
    assert trace.shape == (1, *SHAPE)
    assert diffusion_head(Denoiser(NET, SHAPE)).noise.shape == (1, *SHAPE)
    assert diffusion_head(Denoiser(NET, SHAPE, eta=0.1)).log_prob is not None
    assert diffusion_head(Denoiser(NET, SHAPE, min_std=0.1)).log_prob is not None


def test_only_the_last_steps_are_tuned(params):
    tuned = diffusion_head(dataclasses.replace(CHAIN, tuned_steps=2))
    key = jax.random.key(3)
    _, whole = quick(diffusion_head(CHAIN).sample, params, key, EMBEDDING)
    both = freeze(params)
    _, last = quick(tuned.sample, both, key, EMBEDDING)
    assert tuned.decisions == 2
    for found, expected in ((last.before, whole.before), (last.after, whole.after)):  # the trace is that of the tuned
        np.testing.assert_allclose(found, expected[-2:], atol=1e-6)
    np.testing.assert_allclose(
        densities(tuned, both, last), densities(diffusion_head(CHAIN), params, whole)[-2:], rtol=1e-3, atol=1e-4
    )

    other = {**both, "net": jax.tree.map(lambda x: x + 0.3, params["net"])}
    _, moved = quick(tuned.sample, other, key, EMBEDDING)
    np.testing.assert_allclose(moved.before[0], whole.before[-2], atol=1e-6)  # made by the frozen ones
    assert np.abs(moved.after - whole.after[-2:]).max() > 0.01

    def sample_and_density(params):
        action, trace = tuned.sample(params, key, EMBEDDING)
        trace = trace._replace(before=jax.lax.stop_gradient(trace.before), after=jax.lax.stop_gradient(trace.after))
        return action.sum() + jax.vmap(tuned.log_prob, (None, None, 0))(params, EMBEDDING, trace).sum()

    grads = quick(jax.grad(sample_and_density), other)
    chex.assert_trees_all_equal(grads["frozen"], jax.tree.map(jnp.zeros_like, both["frozen"]))
    assert max(jnp.abs(g).max() for g in jax.tree.leaves(grads["net"])) > 0.01


def test_guidance_exaggerates_what_the_embedding_changes():
    denoiser = Denoiser(NET, SHAPE, dropout=0.2)
    head = diffusion_head(denoiser)
    params = quick(head.init, jax.random.key(0), EMBEDDING)
    params["no_embedding"] = jnp.asarray([0.1, 0.0, -0.4])
    x, time = jax.random.normal(jax.random.key(1), SHAPE), 0.37
    given, none = (NET.apply(params["net"], x, time, e) for e in (EMBEDDING, params["no_embedding"]))
    for weight in (0.0, 1.0, 3.0):
        found = dataclasses.replace(denoiser, guidance=weight).predict(params, x, time, EMBEDDING)
        np.testing.assert_allclose(found, none + weight * (given - none), atol=1e-5)

    def grad(key):
        return jax.grad(head.loss)(params, key, EMBEDDING, jnp.full(SHAPE, 0.5))["no_embedding"]

    grads = quick(jax.vmap(grad), jax.random.split(jax.random.key(0), 400))
    np.testing.assert_allclose((jnp.abs(grads).max(axis=1) > 0).mean(), 0.2, atol=0.06)  # three deviations


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"prediction_type": "score"}, "prediction_type is 'score', it must be one of epsilon, x0, v"),
        ({"num_steps": 101}, "num_steps is 101, it must be from 1 to the 100 levels"),
        ({"tuned_steps": 17}, "tuned_steps is 17, it must be from 1 to num_steps, 16"),
        ({"guidance": 2.0}, "guidance 2 needs a head trained with dropout"),
        ({"dropout": 1.0}, "dropout is 1"),
        ({"min_density_std": 0.0}, "floors must satisfy"),
        ({"clip": 0.0}, "clip is 0"),
    ],
)
def test_senseless_numbers_are_refused(numbers, sentence):
    with pytest.raises(ValueError, match=sentence):
        Denoiser(NET, SHAPE, **numbers)
