"""Diffusion against closed forms: known denoisers and figures of diffusers 0.42.1.

Axes: H horizon, A action, S steps.
"""

import importlib.util
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.compiler import compiler_options
from mjx_policies.heads.denoising import Denoiser, Step
from mjx_policies.heads.diffusion import diffusion_head
from mjx_policies.networks.denoiser import MLPDenoiser

spec = importlib.util.spec_from_file_location("known", Path(__file__).with_name("known.py"))
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)
EMBEDDING, LEVELS, RING, SPREAD = shared.EMBEDDING, shared.LEVELS, shared.RING, shared.SPREAD
draws, known, p_value, ring = shared.draws, shared.known, shared.p_value, shared.ring

NET = MLPDenoiser(8, 1, 8)
SHAPE = (3, 2)


def quick(function, *arguments):
    return jax.jit(function, compiler_options=compiler_options(runs_once=True))(*arguments)


def at(steps, index):
    return Step(*(table[index] for table in steps))


@pytest.mark.parametrize("target", ["epsilon", "x0", "v"])
def test_a_perfect_network_has_no_loss_and_makes_the_one_action(target):
    point = jnp.asarray([0.4, -0.7])
    denoiser = Denoiser(known([point], 0.0, target), (2,), target=target, num_steps=20)
    head = diffusion_head(denoiser)
    keys = jax.random.split(jax.random.key(0), 200)
    losses = quick(jax.vmap(lambda key: head.loss({"net": {}}, key, EMBEDDING, point)), keys)
    # What float32 leaves of an action in the noisiest level is 5e-4 of it.
    np.testing.assert_allclose(losses, 0.0, atol=1e-5)
    np.testing.assert_allclose(draws(head, {"net": {}}, 10), np.tile(point, (10, 1)), atol=1e-4)


@pytest.mark.parametrize(
    ("target", "num_steps", "eta", "same"), [("v", 100, 0.0, True), ("epsilon", 100, 1.0, True), ("v", 2, 0.0, False)]
)
def test_a_perfect_network_draws_from_the_data(target, num_steps, eta, same):
    denoiser = Denoiser(known(RING, SPREAD, target), (2,), target=target, num_steps=num_steps, eta=eta)
    p = p_value(draws(diffusion_head(denoiser), {"net": {}}, 400), ring(1, 400))
    assert (p > 0.05) == same and (p < 0.01) != same, p  # two steps are too few, and the test says so


class Given(nn.Module):
    """Guesses (0.3, -0.2), (0.6, -0.2), ... as time goes on from step to step."""

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


def test_without_noise_there_is_no_density():
    assert diffusion_head(Denoiser(NET, SHAPE)).log_prob is None
    assert diffusion_head(Denoiser(NET, SHAPE)).noise.shape == (1, *SHAPE)
    assert diffusion_head(Denoiser(NET, SHAPE, eta=0.1)).log_prob is not None
    assert diffusion_head(Denoiser(NET, SHAPE, min_std=0.1)).log_prob is not None


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"target": "score"}, "target is 'score', it must be one of epsilon, x0, v"),
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
