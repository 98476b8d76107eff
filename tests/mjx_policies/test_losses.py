"""Losses against closed forms and SciPy."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special, stats

from mjx_policies import losses

rng = np.random.default_rng(0)
y, target = rng.normal(size=(2, 5, 3)).astype(np.float32)


def test_errors_of_regression():
    error = np.abs(y - target)
    np.testing.assert_allclose(losses.squared_error(y, target), error**2, rtol=1e-6)
    np.testing.assert_allclose(losses.absolute_error(y, target), error, rtol=1e-6)


@pytest.mark.parametrize(
    ("error", "statistic"),
    [
        (losses.squared_error, np.mean),
        (losses.absolute_error, np.median),
    ],
)
def test_what_minimises_an_error(error, statistic):
    data = np.random.default_rng(1).exponential(size=501).astype(np.float32)
    found = optimize.minimize_scalar(lambda y: float(error(y, data).mean()), bounds=(0, 8), method="bounded")
    np.testing.assert_allclose(found.x, statistic(data), atol=0.02)  # between two data points all are as good


def test_cross_entropies():
    logits = rng.normal(0, 3, (7, 4)).astype(np.float32)
    label = rng.integers(0, 4, 7)
    p = special.softmax(logits.astype(float), axis=1)[np.arange(7), label]
    np.testing.assert_allclose(losses.focal_cross_entropy(logits, label), -((1 - p) ** 2) * np.log(p), rtol=1e-4)
    np.testing.assert_allclose(losses.focal_cross_entropy(logits, label, 0.0), -np.log(p), rtol=1e-5)
    log_p = special.log_softmax(logits.astype(float), axis=1)
    soft = np.eye(4)[label] * 0.9 + 0.1 / 4
    found = losses.smoothed_cross_entropy(logits, np.eye(4)[label], 0.1)
    np.testing.assert_allclose(found, -(soft * log_p).sum(1), rtol=1e-5)


@pytest.mark.parametrize("std", [0.02, 0.5])
def test_histogram_of_a_gaussian_that_ends_at_the_edges(std):
    edges = np.array([-1.0, -0.5, 0.25, 0.75, 1.0])
    for value, within in ((-0.6, -0.6), (0.2, 0.2), (1.0, 1.0), (3.0, 1.0)):
        cut = stats.truncnorm((-1 - within) / std, (1 - within) / std, within, std)
        found = losses.gaussian_histogram(jnp.asarray(value), edges, std)
        np.testing.assert_allclose(found, np.diff(cut.cdf(edges)), atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_the_focal_loss_is_finite_where_a_class_is_certain(gamma):
    logits = jnp.asarray([[200.0, 0.0], [-200.0, 0.0], [0.0, 0.0]])
    value, gradient = jax.value_and_grad(lambda x: losses.focal_cross_entropy(x, jnp.zeros(3, int), gamma).sum())(
        logits
    )
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_the_divergence_of_normal_distributions_from_samples():
    def normal(mean, std):
        return distrax.Independent(distrax.Normal(jnp.asarray(mean), jnp.asarray(std)), 1)

    m, s, n, r = (np.array(x) for x in ([0.3, -1.0], [0.5, 1.5], [0.0, -0.6], [0.9, 1.1]))
    p, q = normal(m, s), normal(n, r)
    expected = (np.log(r / s) + (s**2 + (m - n) ** 2) / (2 * r**2) - 0.5).sum()
    samples = p.sample(seed=jax.random.key(0), sample_shape=100_000)
    terms = losses.kl_from_samples(q.log_prob(samples) - p.log_prob(samples))
    assert (terms >= 0).all()
    np.testing.assert_allclose(terms.mean(), expected, atol=5 * float(terms.std()) / 100_000**0.5)


def test_a_contrastive_loss():
    scores = rng.normal(0, 2, (5, 8)).astype(np.float32)
    np.testing.assert_allclose(losses.contrastive(scores), -special.log_softmax(scores, axis=1)[:, 0], rtol=1e-5)
