"""Continuing a chunk, against slow loops for a Gaussian, where everything is a matrix. Axes: H horizon, S steps."""

import importlib.util
import itertools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.heads.denoising import Denoiser
from mjx_policies.heads.diffusion import diffusion_head
from mjx_policies.heads.flow import flow_head
from mjx_policies.heads.inpainting import MAX_WEIGHT, Prefix, soft_mask
from mjx_policies.heads.one_step import shortcut_head
from mjx_policies.networks.denoiser import MLPDenoiser
from mjx_policies.schedules import schedule

spec = importlib.util.spec_from_file_location("known", Path(__file__).with_name("known.py"))
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)
EMBEDDING, LEVELS = shared.EMBEDDING, shared.LEVELS
known = shared.known

H = 6
COVARIANCE = 0.3 * np.exp(-np.abs(np.subtract.outer(np.arange(H), np.arange(H))) / 2)  # of the steps of a chunk
PREFIX = Prefix(jnp.linspace(0.8, 0.2, H)[:, None], jnp.asarray(soft_mask(H, 2, 4)))
NOISE = np.random.default_rng(0).normal(size=(H, 1))


def clean_matrix(signal, noise):
    """The matrix that maps signal chunk + noise epsilon to the expected chunk."""
    return signal * COVARIANCE @ np.linalg.inv(signal**2 * COVARIANCE + noise**2 * np.eye(H))


class GaussianFlow(nn.Module):
    @nn.compact
    def __call__(self, x, time, embedding):
        found = jnp.linalg.solve(time**2 * COVARIANCE + (1 - time) ** 2 * jnp.eye(H), x)
        return (time * COVARIANCE @ found - x) / (1 - time)


class GaussianDiffusion(nn.Module):
    @nn.compact
    def __call__(self, x, time, embedding):
        a = jnp.asarray(schedule("cosine", LEVELS), jnp.float32)[jnp.round((1 - time) * LEVELS - 1).astype(int)]
        return jnp.sqrt(a) * COVARIANCE @ jnp.linalg.solve(a * COVARIANCE + (1 - a) * jnp.eye(H), x)


def slow(times):
    """Guided Euler along these times, the last of which is 1."""
    x, mask = NOISE, np.diag(PREFIX.weight)
    for t, after in itertools.pairwise(times):
        matrix = clean_matrix(t, 1 - t)
        weight = min(MAX_WEIGHT, (t**2 + (1 - t) ** 2) / (t * (1 - t)) if t else np.inf)
        pull = matrix.T @ mask @ (np.asarray(PREFIX.action) - matrix @ x)
        x = x + (after - t) * ((matrix @ x - x) / (1 - t) + weight * pull)
    return x


def test_a_guided_flow_equals_a_loop():
    found = flow_head(GaussianFlow(), (H, 1), 8).inpaint({}, EMBEDDING, jnp.asarray(NOISE, jnp.float32), PREFIX)
    np.testing.assert_allclose(found, slow(np.arange(9) / 8), atol=1e-4)


def test_guided_diffusion_is_a_guided_flow_at_other_times():
    denoiser = Denoiser(GaussianDiffusion(), (H, 1), prediction_type="x0", num_steps=8, clip=None)
    steps, scale = denoiser.steps, denoiser.steps.flow_scale[0]
    noise = jnp.asarray(NOISE * scale, jnp.float32)[None]
    found = diffusion_head(denoiser).inpaint({"net": {}}, EMBEDDING, noise, PREFIX)
    np.testing.assert_allclose(found, slow([*steps.flow_time.astype(float), 1.0]), atol=1e-4)


@pytest.mark.parametrize(
    "head",
    [
        flow_head(MLPDenoiser(8, 1, 8), (H, 1), 3, "heun"),
        shortcut_head(MLPDenoiser(8, 1, 8), (H, 1), 2),
        diffusion_head(Denoiser(MLPDenoiser(8, 1, 8), (H, 1), num_steps=3, eta=1.0)),
    ],
    ids=["flow", "shortcut", "diffusion"],
)
def test_a_prefix_without_weight_changes_nothing(head):
    params = head.init(jax.random.key(0), EMBEDDING)
    noise = head.noise.draw(jax.random.key(1))
    prefix = Prefix(jnp.full((H, 1), 0.9), jnp.zeros(H))
    free = jax.jit(head.sample_from_noise)(params, EMBEDDING, noise)
    np.testing.assert_allclose(jax.jit(head.inpaint)(params, EMBEDDING, noise, prefix), free, atol=1e-5)
    held = jax.jit(head.inpaint)(params, EMBEDDING, noise, Prefix(prefix.action, jnp.ones(H)))
    assert np.isfinite(held).all() and np.abs(held - 0.9).mean() < np.abs(free - 0.9).mean()


def test_free_steps_go_the_way_of_the_held_ones():
    """Chunks go up or down as a whole. The last plan went up, and two of its steps are being executed."""
    head = flow_head(known(np.stack([np.full(H, 0.6), np.full(H, -0.6)]), 0.05, "velocity"), (H, 1), 10)
    prefix = Prefix(jnp.full((H, 1), 0.63), jnp.asarray(soft_mask(H, 2, 4)))
    noise = jax.vmap(head.noise.draw)(jax.random.split(jax.random.key(0), 300))
    held = jax.jit(jax.vmap(lambda noise: head.inpaint({}, EMBEDDING, noise, prefix)))(noise)
    free = jax.jit(jax.vmap(lambda noise: head.sample_from_noise({}, EMBEDDING, noise)))(noise)
    assert 0.4 < (free[:, -1] > 0).mean() < 0.6 and (held[:, -1] > 0).mean() > 0.85
    assert np.median(np.abs(held[:, :2] - 0.63)) < 0.05


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.integers(-1, 31), st.integers(-1, 31))
def test_the_mask_falls_from_one_to_zero(horizon, frozen, planned):
    if not 0 <= frozen <= planned <= horizon:
        with pytest.raises(ValueError, match="a prefix needs"):
            soft_mask(horizon, frozen, planned)
        return
    found = soft_mask(horizon, frozen, planned)
    assert (found[:frozen] == 1).all() and (found[planned:] == 0).all()
    assert (np.diff(found) <= 0).all() and ((found >= 0) & (found <= 1)).all()
    for i in range(frozen, planned):  # equation 5
        c = (planned - i) / (planned - frozen + 1)
        np.testing.assert_allclose(found[i], c * (np.exp(c) - 1) / (np.e - 1), rtol=1e-5)
