"""The Gaussian head against SciPy and closed forms. Axes: N samples, A actions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from mjx_policies.heads.gaussian import bounded_std, gaussian_head
from mjx_policies.heads.squashed import squashed_gaussian_head
from mjx_policies.networks.mlp import MLP

EMBEDDING = jnp.asarray([0.3, -1.2, 0.8])


def make(action_dim=2, init_std=0.7, min_std=0.1, max_std=2.0, seed=0):
    """A head, its parameters, and the mean for `EMBEDDING`."""
    head = gaussian_head(MLP((4, action_dim)), action_dim, init_std, min_std, max_std)
    params = head.init(jax.random.key(seed), EMBEDDING)
    return head, params, np.asarray(head.mode(params, EMBEDDING), float)


def test_the_density_is_that_of_the_normal_distribution():
    head, params, mean = make()
    params = params | {"log_std": jnp.log(jnp.asarray([0.5, 1.5]))}
    actions = np.random.default_rng(0).normal(0, 2, (50, 2)).astype(np.float32)
    got = jax.vmap(head.log_prob, in_axes=(None, None, 0))(params, EMBEDDING, actions)
    expected = stats.norm.logpdf(actions, mean, [0.5, 1.5])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)  # float32 squares of up to a hundred
    whole = jax.vmap(head.action_log_prob, in_axes=(None, None, 0))(params, EMBEDDING, actions[:, None])
    np.testing.assert_allclose(whole, expected.sum(axis=1), rtol=1e-4, atol=1e-4)
    losses = jax.vmap(head.loss, in_axes=(None, None, None, 0))(params, jax.random.key(0), EMBEDDING, actions)
    np.testing.assert_allclose(losses, -got.sum(axis=1), rtol=1e-6)


def test_the_density_integrates_to_one():
    head, params, mean = make(action_dim=1)
    actions = mean + np.linspace(-6, 6, 4001)[:, None].astype(np.float32)  # over eight deviations either way
    density = jnp.exp(jax.vmap(head.log_prob, in_axes=(None, None, 0))(params, EMBEDDING, actions))
    np.testing.assert_allclose(np.trapezoid(density[:, 0], actions[:, 0]), 1.0, atol=1e-4)


def test_samples_have_the_mean_and_the_deviation():
    head, params, mean = make(init_std=0.7)
    keys = jax.random.split(jax.random.key(1), 20_000)
    actions, traces = jax.vmap(head.sample, in_axes=(None, 0, None))(params, keys, EMBEDDING)
    np.testing.assert_array_equal(actions, traces[:, 0])
    # Five standard errors: 0.7 / sqrt(20000) = 0.005 of the mean, 1 / sqrt(40000) = 0.5 % of the deviation.
    np.testing.assert_allclose(actions.mean(axis=0), mean, atol=0.025)
    np.testing.assert_allclose(actions.std(axis=0), 0.7, rtol=0.025)
    assert abs(np.corrcoef(actions.T)[0, 1]) < 0.036  # independent; five of 1 / sqrt(20000)


def test_entropy_and_divergence():
    head, params, mean = make()
    other = make(seed=5)[1]
    first = params | {"log_std": jnp.log(jnp.asarray([0.5, 1.5]))}
    second = other | {"log_std": jnp.log(jnp.asarray([0.9, 0.4]))}
    p, q = (head.distribution(x, EMBEDDING) for x in (first, second))
    entropy = stats.norm.entropy(0, [0.5, 1.5]).sum()
    np.testing.assert_allclose(p.entropy(), entropy, rtol=1e-5)
    there, s, r = np.asarray(head.mode(second, EMBEDDING)), np.array([0.5, 1.5]), np.array([0.9, 0.4])
    divergence = (np.log(r / s) + (s**2 + (mean - there) ** 2) / (2 * r**2) - 0.5).sum()
    np.testing.assert_allclose(p.kl_divergence(q), divergence, rtol=1e-5)
    assert float(p.kl_divergence(p)) == 0.0


@pytest.mark.parametrize(("log_std", "std"), [(-9.0, 0.1), (-1.0, np.exp(-1.0)), (9.0, 2.0)])
def test_the_deviation_stays_in_bounds_and_can_come_back(log_std, std):
    head, params, _ = make()
    params = params | {"log_std": jnp.full(2, log_std)}
    np.testing.assert_allclose(head.distribution(params, EMBEDDING).stddev(), std, rtol=1e-6)

    def loss(log_std, distance):
        decision = head.mode(params, EMBEDDING) + distance
        return -head.log_prob(params | {"log_std": log_std}, EMBEDDING, decision).sum()

    for distance in (0.0, 0.5, 3.0):  # nearer than the deviation, it should be narrower; farther, wider
        wanted = distance**2 / std**2 - 1  # d log N / d log std, as if there were no bound
        leads_out = (log_std < -2 and wanted < 0) or (log_std > 1 and wanted > 0)
        gradient = jax.grad(loss)(params["log_std"], distance)
        np.testing.assert_allclose(gradient, 0.0 if leads_out else -wanted, rtol=1e-4)


def test_the_deviation_does_not_wind_up_behind_its_bound():
    """However long a loss asked for less than the floor, the deviation rises with the first steps that ask for more."""
    optimizer = optax.adam(1e-2)

    @jax.jit
    def descend(carry, wanted):
        params, state = carry
        gradient = jax.grad(lambda x: jnp.square(jnp.log(bounded_std(x, 0.05, 2.0)) - wanted))(params)
        updates, state = optimizer.update(gradient, state)
        params = optax.apply_updates(params, updates)
        return (params, state), bounded_std(params, 0.05, 2.0)

    for bound, out, back in ((0.05, 1e-3, 1.0), (2.0, 40.0, 1.0)):
        carry = (jnp.asarray(0.0), optimizer.init(jnp.asarray(0.0)))
        carry, _ = jax.lax.scan(descend, carry, jnp.full(3000, jnp.log(out)))
        np.testing.assert_allclose(bounded_std(carry[0], 0.05, 2.0), bound, rtol=1e-6)
        _, std = jax.lax.scan(descend, carry, jnp.full(50, jnp.log(back)))
        assert (jnp.abs(jnp.log(std / bound)) > 0.05).argmax() < 40 and std[-1] != bound


def test_the_deviation_begins_as_asked():
    head, params, _ = make(init_std=0.3)
    np.testing.assert_allclose(head.distribution(params, EMBEDDING).stddev(), 0.3, rtol=1e-6)


def test_compiled_equals_eager():
    head, params, _ = make()
    key, action = jax.random.key(3), jnp.asarray([0.2, 0.9])
    calls = {
        "loss": (head.loss, (params, key, EMBEDDING, action)),
        "sample": (head.sample, (params, key, EMBEDDING)),
        "log_prob": (head.log_prob, (params, EMBEDDING, action)),
        "mode": (head.mode, (params, EMBEDDING)),
    }
    for function, arguments in calls.values():
        for x, y in zip(
            jax.tree.leaves(function(*arguments)), jax.tree.leaves(jax.jit(function)(*arguments)), strict=True
        ):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)  # fused operations round differently


@pytest.mark.parametrize("bounds", [(1.0, 0.0, 2.0), (0.05, 0.1, 2.0), (3.0, 0.1, 2.0), (1.0, -0.1, 2.0)])
def test_bounds_out_of_order_are_refused(bounds):
    with pytest.raises(ValueError, match=r"0 < min_std=.* <= init_std=.* <= max_std"):
        gaussian_head(MLP((2,)), 2, *bounds)


def test_the_mode_of_a_batch_is_that_of_each():
    head, params, _ = make()
    batch = jnp.stack([EMBEDDING, -EMBEDDING, 2 * EMBEDDING])
    each = jnp.stack([head.mode(params, embedding) for embedding in batch])
    np.testing.assert_allclose(head.mode(params, batch), each, rtol=1e-5)


def test_half_precision_knows_the_border_of_what_is_squashed():
    head = squashed_gaussian_head(MLP((4, 2)), 2)
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), head.init(jax.random.key(0), EMBEDDING))
    value = head.loss(params, jax.random.key(0), EMBEDDING.astype(jnp.bfloat16), jnp.asarray([1.0, -1.0], jnp.bfloat16))
    assert np.isfinite(value)


def test_the_density_of_a_squashed_action_integrates_to_one():
    """That of the decision, before the tangent, does so over decisions: they are two."""
    head = squashed_gaussian_head(MLP((4, 1)), 1, init_std=0.9)
    params = head.init(jax.random.key(0), EMBEDDING)
    decisions = np.linspace(-12, 12, 20_001, dtype=np.float32)
    each = jax.vmap(head.log_prob, in_axes=(None, None, 0))(params, EMBEDDING, decisions[:, None])[:, 0]
    whole = jax.vmap(head.action_log_prob, in_axes=(None, None, 0))(params, EMBEDDING, decisions[:, None, None])
    np.testing.assert_allclose(np.trapezoid(np.exp(each), decisions), 1.0, atol=1e-4)
    inner = np.abs(decisions) < 4  # beyond, two decisions are one float32 action
    lower = decisions <= np.arctanh(float(head.mode(params, EMBEDDING)[0]))
    np.testing.assert_allclose(np.trapezoid(np.exp(each)[lower], decisions[lower]), 0.5, atol=2e-3)
    for part in (inner, inner & lower):  # actions are as likely as their decisions; half of them lie below the mode
        actions, density = np.tanh(decisions[part].astype(float)), np.exp(np.asarray(whole, float))[part]
        inside = np.trapezoid(np.exp(each)[part], decisions[part])
        assert inside > 0.4
        np.testing.assert_allclose(np.trapezoid(density, actions), inside, atol=2e-3)
