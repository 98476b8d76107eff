"""Flow matching and shortcuts against closed forms. Axes: N samples, S steps."""

import importlib.util
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import beta, kstest, norm

from mjx_policies.compiler import compiler_options
from mjx_policies.heads.denoising import Denoiser
from mjx_policies.heads.diffusion import diffusion_head
from mjx_policies.heads.flow import draw_time, flow_head
from mjx_policies.heads.one_step import shortcut_head
from mjx_policies.networks.denoiser import MLPDenoiser

spec = importlib.util.spec_from_file_location("known", Path(__file__).with_name("known.py"))
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)
EMBEDDING, RING, SPREAD = shared.EMBEDDING, shared.RING, shared.SPREAD
draws, known, moons, p_value, ring = shared.draws, shared.known, shared.moons, shared.p_value, shared.ring

NET = MLPDenoiser(128, 2, 16)


@pytest.mark.parametrize(
    ("num_steps", "solver", "same"), [(64, "euler", True), (32, "heun", True), (4, "euler", False)]
)
def test_a_perfect_network_draws_from_the_data(num_steps, solver, same):
    head = flow_head(known(RING, SPREAD, "velocity"), 2, num_steps, solver)
    p = p_value(draws(head, {}, 400), ring(1, 400))
    assert (p > 0.05) == same and (p < 0.01) != same, p  # four steps are too few, and the test says so


@pytest.mark.parametrize(("solver", "num_steps"), [("euler", 1), ("euler", 7), ("heun", 64)])
def test_a_velocity_follows_from_a_predicted_action(solver, num_steps):
    noise = jax.random.normal(jax.random.key(0), (5, 2))
    found, expected = (
        jax.vmap(
            lambda x, prediction_type=prediction_type: flow_head(
                known(RING, SPREAD, prediction_type), 2, num_steps, solver, prediction_type=prediction_type
            ).sample_from_noise({}, EMBEDDING, x)
        )(noise)
        for prediction_type in ("action", "velocity")
    )
    # The last step of Heun's is Euler's for a predicted action.
    np.testing.assert_allclose(found, expected, atol=1e-5 if solver == "euler" else 0.02)


def test_the_prediction_is_what_is_learnt():
    head = flow_head(Constant(), 2, prediction_type="action")
    action = jnp.asarray([0.3, -0.6])
    params = head.init(jax.random.key(0), EMBEDDING)
    assert float(head.loss(params, jax.random.key(1), EMBEDDING, action)) == pytest.approx(float((action**2).mean()))


class Constant(nn.Module):
    """Zeros."""

    @nn.compact
    def __call__(self, x, time, embedding):
        return jnp.zeros_like(x) * self.param("unused", nn.initializers.zeros, ())


class Growth(nn.Module):
    """dx/dt = t x, whose solution is x exp(t² / 2)."""

    @nn.compact
    def __call__(self, x, time, embedding):
        return time * x


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_solvers_have_their_order(solver, order):
    noise = jnp.asarray([1.0, -2.0])
    errors = []
    for num_steps in (8, 16):
        found = flow_head(Growth(), 2, num_steps, solver).sample_from_noise({}, EMBEDDING, noise)
        errors.append(np.abs(found - noise * np.exp(0.5)).max())
    np.testing.assert_allclose(errors[0] / errors[1], 2**order, rtol=0.15)


def test_times_are_those_of_the_paper():
    keys = jax.random.split(jax.random.key(0), 2000)
    uniform, late = (
        np.asarray(jax.vmap(lambda key, times=times: draw_time(key, times))(keys)) for times in ("uniform", "beta")
    )
    assert kstest(uniform, "uniform").pvalue > 0.01
    assert kstest(1 - late / 0.999, beta(1.5, 1).cdf).pvalue > 0.01
    assert late.min() >= 0 and late.max() <= 0.999


@pytest.mark.parametrize(
    ("solver", "prediction_type"), [("euler", "velocity"), ("heun", "velocity"), ("euler", "action")]
)
def test_the_density_of_a_noisy_step_is_that_of_its_noise(solver, prediction_type):
    """Whatever the network: with the deviation that was drawn with, the noise is the residual."""
    std, num_steps = 0.3, 4
    head = flow_head(
        known(RING, SPREAD, prediction_type), 2, num_steps, solver, prediction_type=prediction_type, step_std=std
    )
    assert head.decisions == num_steps and head.noise.shape == (1 + num_steps, 2)
    key = jax.random.key(3)
    noise = np.asarray(head.noise.draw(key))
    action, trace = jax.jit(head.sample)({}, key, EMBEDDING)
    np.testing.assert_array_equal(trace.before[0], noise[0])
    np.testing.assert_array_equal(trace.before[1:], trace.after[:-1])
    np.testing.assert_array_equal(trace.after[-1], action)
    np.testing.assert_allclose(jax.jit(head.sample_from_noise)({}, EMBEDDING, noise), action, atol=1e-6)
    each = jax.jit(jax.vmap(head.log_prob, (None, None, 0)))({}, EMBEDDING, trace)
    # A state is of order one, so its noise is known to 1e-7 / std deviations.
    np.testing.assert_allclose(each, norm.logpdf(std * noise[1:], 0, std), atol=2e-5)


def test_without_noise_in_its_steps_a_flow_has_no_density():
    head = flow_head(Growth(), 2)
    assert head.log_prob is None and head.decisions == 1 and head.noise.shape == (2,)
    noisy = flow_head(Growth(), 2, step_std=1e-6)
    whole = jnp.stack([jnp.asarray([1.0, -2.0]), *jnp.zeros((10, 2))])
    for noise in (whole, whole.at[1:].set(1.0)):  # a little noise does little
        found = noisy.sample_from_noise({}, EMBEDDING, noise)
        np.testing.assert_allclose(found, head.sample_from_noise({}, EMBEDDING, noise[0]), atol=1e-4)


def train(head, data, steps):
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    def batch_loss(params, key):
        key_rows, key_loss = jax.random.split(key)
        rows = data[jax.random.randint(key_rows, (256,), 0, len(data))]
        keys = jax.random.split(key_loss, len(rows))
        return jax.vmap(head.loss, in_axes=(None, 0, None, 0))(params, keys, EMBEDDING, rows).mean()

    def step(carry, key):
        params, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(batch_loss)(params, key), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    def run(key):
        params = head.init(key, EMBEDDING)
        return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, steps))[0][0]

    return jax.jit(run, compiler_options=compiler_options())(jax.random.key(0))


@pytest.mark.parametrize(
    "build",
    [
        lambda: flow_head(NET, 2, 20),
        lambda: flow_head(NET, 2, 20, prediction_type="action"),
        lambda: diffusion_head(Denoiser(NET, (2,), prediction_type="v", num_steps=25)),
    ],
)
def test_two_moons_are_learnt(build):
    head = build()
    data = jnp.asarray(moons(0, 20_000), jnp.float32)
    found = draws(head, train(head, data, 1000), 200)
    assert p_value(found, moons(1, 200)) > 0.01
    one_moon = moons(2, 2000)
    assert p_value(found, one_moon[one_moon[:, 1] > 0.1][:200]) < 0.01  # half of the data is told from all


@pytest.fixture(scope="module", params=["velocity", "action"])
def shortcut(request):
    """A prediction type and the parameters trained with it on eight Gaussians."""
    data = jnp.asarray(ring(0, 20_000)[:, :2], jnp.float32)
    return request.param, train(shortcut_head(NET, 2, prediction_type=request.param), data, 4000)


@pytest.mark.parametrize("num_steps", [1, 2, 5, 10, 16])
def test_the_same_parameters_serve_any_number_of_steps(shortcut, num_steps):
    prediction_type, params = shortcut
    found = draws(shortcut_head(NET, 2, num_steps, prediction_type=prediction_type), params, 500)
    near = np.linalg.norm(found[:, None] - RING, axis=-1).min(axis=1) < 5 * SPREAD
    assert near.mean() > (0.8 if num_steps > 2 else 0.6)  # so small a network blurs long steps
    counts = np.bincount(np.linalg.norm(found[:, None] - RING, axis=-1).argmin(axis=1), minlength=8)
    assert counts.min() > 0.3 * len(found) / 8


def test_what_the_network_of_a_shortcut_is_told():
    """Sizes 1 / S of all S, at the starts of their steps; a target is where two half steps lead."""
    asked = []

    class Spy(nn.Module):
        @nn.compact
        def __call__(self, x, time, embedding):
            jax.debug.callback(lambda time: asked.append(np.asarray(time)), time)
            return self.param("value", nn.initializers.ones, x.shape)

    head = shortcut_head(Spy(), 2, max_steps=8, consistency=0.999)
    params = head.init(jax.random.key(0), EMBEDDING)
    jax.effects_barrier()
    asked.clear()
    seen = set()
    for seed in range(60):
        head.loss(params, jax.random.key(seed), EMBEDDING, jnp.zeros(2))
        jax.effects_barrier()
        (t, half), (later, again), (start, size) = asked
        asked.clear()
        if size == 0:
            continue
        steps = round(1 / size)
        seen.add(steps)
        np.testing.assert_allclose([size, start, t], [1 / steps, round(start * steps) / steps, start], atol=1e-6)
        np.testing.assert_allclose(later - t, size / 2, atol=1e-6)
        assert half == again == (0 if 2 * steps > 8 else np.float32(size / 2))
    assert seen == {1, 2, 3, 4, 5, 6, 7, 8}


class Always(nn.Module):
    """Always answers with its parameters."""

    @nn.compact
    def __call__(self, x, time, embedding):
        return self.param("value", nn.initializers.normal(), x.shape)


@pytest.mark.parametrize("prediction_type", ["velocity", "action"])
def test_two_steps_along_a_straight_line_lead_where_one_does(prediction_type):
    """So the line's own network has nothing to learn from long steps, and any number of them ends in one place."""
    head = shortcut_head(Always(), 2, max_steps=8, consistency=1 - 1e-6, prediction_type=prediction_type)
    params = head.init(jax.random.key(0), EMBEDDING)
    keys = jax.random.split(jax.random.key(1), 64)
    losses = jax.vmap(lambda key: head.loss(params, key, EMBEDDING, jnp.full(2, 9.0)))(keys)
    np.testing.assert_allclose(losses, 0.0, atol=1e-9)
    noise = jnp.asarray([3.0, -1.0])
    end = params["params"]["value"] + (noise if prediction_type == "velocity" else 0.0)
    for num_steps in (1, 3, 8):
        found = shortcut_head(Always(), 2, num_steps, max_steps=8, prediction_type=prediction_type).sample_from_noise(
            params, EMBEDDING, noise
        )
        np.testing.assert_allclose(found, end, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: flow_head(NET, 2, 0), "num_steps is 0"),
        (lambda: flow_head(NET, 2, solver="rk4"), "solver is 'rk4', it must be one of euler, heun"),
        (lambda: flow_head(NET, 2, times="late"), "times is 'late'"),
        (lambda: flow_head(NET, 2, step_std=-0.1), "step_std is -0.1, it must be a number from 0 on"),
        (lambda: flow_head(NET, 2, step_std=float("inf")), "step_std is inf"),
        (
            lambda: flow_head(NET, 2, prediction_type="noise"),
            "prediction_type is 'noise', it must be one of velocity, action",
        ),
        (lambda: shortcut_head(NET, 2, 129), "num_steps is 129, it must be from 1 to max_steps, 128"),
        (lambda: shortcut_head(NET, 2, consistency=1.0), "consistency is 1"),
        (
            lambda: shortcut_head(NET, 2, prediction_type="noise"),
            "prediction_type is 'noise', it must be one of velocity, action",
        ),
        (lambda: shortcut_head(NET, 2, max_steps=501), "max_steps is 501, it must be at most 500"),
    ],
)
def test_senseless_numbers_are_refused(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
