"""Losses against closed forms, SciPy and slow loops. Axes: N examples, H horizon, A action, C classes, S sources."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from mjx_policies import losses
from mjx_policies.heads.base import masked_mean

rng = np.random.default_rng(0)
y, target = rng.normal(size=(2, 5, 3)).astype(np.float32)


def test_errors_of_regression():
    error = np.abs(y - target)
    np.testing.assert_allclose(losses.squared_error(y, target), error**2, rtol=1e-6)
    np.testing.assert_allclose(losses.absolute_error(y, target), error, rtol=1e-6)
    np.testing.assert_allclose(losses.huber(y, target, 0.5), special.huber(0.5, error), rtol=1e-5)


@pytest.mark.parametrize(
    ("error", "statistic"),
    [
        (losses.squared_error, np.mean),
        (losses.absolute_error, np.median),
        (lambda y, t: losses.quantile(y, t, 0.9), lambda x: np.quantile(x, 0.9)),
        (lambda y, t: losses.quantile(y, t, 0.2), lambda x: np.quantile(x, 0.2)),
    ],
)
def test_what_minimises_an_error(error, statistic):
    data = np.random.default_rng(1).exponential(size=501).astype(np.float32)
    found = optimize.minimize_scalar(lambda y: float(error(y, data).mean()), bounds=(0, 8), method="bounded")
    np.testing.assert_allclose(found.x, statistic(data), atol=0.02)  # between two data points all are as good


def test_densities():
    log_std = np.linspace(-2, 2, 15).reshape(5, 3).astype(np.float32)
    expected = -stats.norm.logpdf(target, y, np.exp(log_std))
    np.testing.assert_allclose(losses.gaussian_nll(y, log_std, target), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses.beta_nll(y, log_std, target, 0.0), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        losses.beta_nll(y, log_std, target, 0.5), np.exp(log_std) * expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_mean_s_gradient_under_beta_nll(beta):
    mean, log_std = jax.grad(lambda m, s: losses.beta_nll(m, s, 2.0, beta), (0, 1))(0.5, 1.2)
    variance = np.exp(2 * 1.2)
    np.testing.assert_allclose(mean, -1.5 * variance ** (beta - 1), rtol=1e-5)
    np.testing.assert_allclose(log_std, variance**beta * (1 - 1.5**2 / variance), rtol=1e-5)


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


def test_time_weights_are_a_mean_with_a_mask():
    errors = np.abs(y)
    weights, mask = losses.time_weights(5, 0.3), np.array([1, 1, 1, 0, 0])
    np.testing.assert_allclose(weights.mean(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(weights[1:] / weights[:-1], np.exp(-0.3), rtol=1e-5)
    expected = np.average(errors[:3].mean(axis=1), weights=np.exp(-0.3 * np.arange(3)))
    np.testing.assert_allclose(masked_mean(errors, weights * mask), expected, rtol=1e-5)
    assert float(masked_mean(errors, weights * 0)) == 0.0


def test_smoothness_of_motion_with_known_derivatives():
    period = 0.05
    t = period * np.arange(40)[:, None]
    steady = np.hstack([2.0 * t, -0.5 * t])
    np.testing.assert_allclose(losses.velocity_penalty(steady, period), (2**2 + 0.5**2) / 2, rtol=1e-3)
    np.testing.assert_allclose(losses.acceleration_penalty(steady, period), 0.0, atol=1e-3)
    np.testing.assert_allclose(losses.acceleration_penalty(1.5 * t**2, period), 3.0**2, rtol=1e-2)


@pytest.mark.parametrize(("penalty", "order"), [(losses.velocity_penalty, 1), (losses.acceleration_penalty, 2)])
def test_padding_has_no_part_in_smoothness(penalty, order):
    actions = rng.normal(size=(8, 3)).astype(np.float32)
    padded = np.concatenate([np.full((2, 3), np.nan), actions, np.full((3, 3), np.nan)]).astype(np.float32)
    mask = np.array([0] * 2 + [1] * 8 + [0] * 3)
    value, gradient = jax.value_and_grad(penalty)(padded, 0.1, mask)
    expected = np.mean((np.diff(actions.astype(float), order, axis=0) / 0.1**order) ** 2)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    np.testing.assert_allclose(penalty(actions, 0.1), expected, rtol=1e-4)
    np.testing.assert_allclose(gradient[2:10], jax.grad(penalty)(actions, 0.1), rtol=1e-3, atol=1e-2)
    assert float(penalty(actions, 0.1, np.zeros(8))) == 0.0


def test_a_plan_that_keeps_its_distance_from_limits_pays_least():
    lower, upper, velocity = np.array([-1.0, 0.0]), np.array([1.0, 2.0]), np.array([1.0, 2.0])
    positions = lower + (upper - lower) * rng.uniform(0.05, 0.95, (6, 2))
    expected = 0.0
    for x, low, high in ((positions, lower, upper), (np.diff(positions, axis=0) / 0.5, -velocity, velocity)):
        z = np.maximum(np.stack([x - low, high - x]) / ((high - low) / 2), 0.01)  # all inside, but for speeds
        beyond = 0.5 * (((np.stack([x - low, high - x]) / ((high - low) / 2) - 0.02) / 0.01) ** 2 - 1) - np.log(0.01)
        inside = np.stack([x - low, high - x]) / ((high - low) / 2) > 0.01
        expected += np.where(inside, -np.log(z), beyond).sum(axis=0).mean()
    found = losses.motion_barrier(positions, 0.5, lower, upper, velocity, 0.01)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    rest = np.broadcast_to((lower + upper) / 2, (6, 2))
    np.testing.assert_allclose(losses.motion_barrier(rest, 0.5, lower, upper, velocity), 0.0, atol=1e-6)


def test_the_barrier_is_a_logarithm_inside_and_a_parabola_beyond():
    lower, upper, d = -1.0, 3.0, 0.1
    x = np.array([0.0, 1.0, 2.0, 2.7])
    z = np.stack([x - lower, upper - x]) / 2
    np.testing.assert_allclose(losses.soft_barrier(x, lower, upper, d), -np.log(z).sum(axis=0), rtol=1e-5, atol=1e-6)
    out = 4.0  # z is -0.5 to one limit and 2.5 to the other
    expected = 0.5 * (((-0.5 - 2 * d) / d) ** 2 - 1) - np.log(d) - np.log(2.5)
    np.testing.assert_allclose(losses.soft_barrier(out, lower, upper, d), expected, rtol=1e-5)
    # Value, slope and curvature agree on both sides of the seam.
    seam = upper - 2 * d
    f = lambda x: losses.soft_barrier(x, lower, upper, d)  # noqa: E731
    for g in (f, jax.grad(f), jax.grad(jax.grad(f))):
        np.testing.assert_allclose(g(seam - 1e-4), g(seam + 1e-4), rtol=5e-3)


barrier_and_slope = jax.jit(jax.value_and_grad(losses.soft_barrier))


@settings(deadline=None, max_examples=50)
@given(st.floats(-50, 50), st.floats(-5, 4), st.floats(0.1, 5))
def test_the_barrier_is_finite_and_pulls_inwards(x, lower, width):
    value, slope = barrier_and_slope(x, lower, lower + width)
    assert np.isfinite(value) and np.isfinite(slope)
    middle = lower + width / 2
    assert slope * (x - middle) >= -1e-3 and value >= -1e-5


def test_divergences_between_normal_distributions():
    def normal(mean, std):
        return distrax.Independent(distrax.Normal(jnp.asarray(mean), jnp.asarray(std)), 1)

    m, s, n, r = (np.array(x) for x in ([0.3, -1.0], [0.5, 1.5], [0.0, -0.6], [0.9, 1.1]))
    p, q = normal(m, s), normal(n, r)
    expected = (np.log(r / s) + (s**2 + (m - n) ** 2) / (2 * r**2) - 0.5).sum()
    np.testing.assert_allclose(losses.kl_to_base(p, q), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.distillation(p, q), expected, rtol=1e-5)
    teacher, student = jax.grad(lambda a, b: losses.distillation(normal(a, s), normal(b, r)), (0, 1))(m, n)
    np.testing.assert_array_equal(teacher, 0)
    np.testing.assert_allclose(student, (n - m) / r**2, rtol=1e-5)
    samples = p.sample(seed=jax.random.key(0), sample_shape=100_000)
    terms = losses.kl_from_samples(p.log_prob(samples), q.log_prob(samples))
    assert (terms >= 0).all()
    np.testing.assert_allclose(terms.mean(), expected, atol=5 * float(terms.std()) / 100_000**0.5)


def test_a_teacher_with_classes():
    a, b = rng.normal(size=(2, 4)).astype(np.float32)
    got = losses.distillation(distrax.Categorical(a), distrax.Categorical(b))
    np.testing.assert_allclose(got, stats.entropy(special.softmax(a), special.softmax(b)), rtol=1e-5)


def test_a_teacher_with_actions():
    teacher, student = jax.grad(lambda a, b: losses.action_distillation(a, b).sum(), (0, 1))(y, target)
    np.testing.assert_array_equal(teacher, 0)
    np.testing.assert_allclose(student, 2 * (target - y), rtol=1e-5)
    np.testing.assert_allclose(losses.action_distillation(y, target), (y - target) ** 2, rtol=1e-5)


def test_replay_is_a_weighted_second_mean():
    np.testing.assert_allclose(losses.with_replay(jnp.asarray([1.0, 3.0]), jnp.asarray([4.0, 4.0, 1.0]), 0.5), 3.5)


def test_sources_count_by_their_weights_alone():
    errors = rng.random((6, 4, 3)).astype(np.float32)
    mask = (rng.random((6, 4, 3)) > 0.3).astype(np.float32)
    source, weights = np.array([0, 0, 0, 0, 2, 2]), np.array([1.0, 5.0, 3.0], np.float32)  # none of the second
    errors = np.where(mask > 0, errors, np.nan)
    means = [np.nanmean(errors[source == s]) for s in (0, 2)]
    got, gradient = jax.value_and_grad(losses.per_source)(errors, mask, source, weights)
    np.testing.assert_allclose(got, np.average(means, weights=[1, 3]), rtol=1e-5)
    np.testing.assert_array_equal(gradient == 0, mask == 0)
    more = np.concatenate([np.arange(6), [0, 1, 2, 3]])  # the first source twice as often
    np.testing.assert_allclose(losses.per_source(errors[more], mask[more], source[more], weights), got, rtol=1e-5)
    assert float(losses.per_source(errors, 0 * mask, source, weights)) == 0.0


def test_contrastive_losses():
    scores = rng.normal(0, 2, (5, 8)).astype(np.float32)
    np.testing.assert_allclose(losses.contrastive(scores), -special.log_softmax(scores, axis=1)[:, 0], rtol=1e-5)
    a, b = rng.normal(size=(2, 6, 4)).astype(np.float32)
    cosines = np.array([[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in b] for x in a]) / 0.1
    rows, columns = (np.diag(special.log_softmax(cosines, axis=axis)) for axis in (1, 0))
    np.testing.assert_allclose(losses.alignment(a, b, 0.1), -(rows + columns).mean() / 2, rtol=1e-4)
    np.testing.assert_allclose(losses.alignment(np.ones((6, 4)), b * 0), np.log(6), rtol=1e-5)  # knows nothing
    assert float(losses.alignment(a, 3 * a, 0.01)) < 0.1
    assert np.isfinite(jax.grad(losses.alignment)(jnp.zeros((6, 4)), b)).all()
