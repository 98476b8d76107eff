"""Schedules and samplers against the papers' equations, and against figures that diffusers 0.42.1 gave.

Axes: K levels, S steps.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.schedules import sampler_steps, schedule

NAMES = ("cosine", "linear", "scaled_linear")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cosine", [0.9993687, 0.9982525, 0.4782646, 0.0002428572, 2.428541e-07]),
        ("linear", [0.9999, 0.999599, 0.7692913, 0.3709829, 0.3635632]),
        ("scaled_linear", [0.99915, 0.9982527, 0.8761393, 0.5910854, 0.5839924]),
    ],
)
def test_schedules_are_those_of_diffusers(name, expected):
    # The tolerance: its betas are float32, and 1 - 0.999 keeps four digits of them.
    np.testing.assert_allclose(schedule(name, 100)[[0, 1, 50, 98, 99]], expected, rtol=2e-5)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(NAMES), st.integers(1, 200))
def test_noise_only_grows(name, levels):
    alpha_bar = schedule(name, levels)
    assert alpha_bar.shape == (levels,) and (np.diff(alpha_bar) < 0).all() and alpha_bar[-1] > 0 and alpha_bar[0] < 1


@pytest.mark.parametrize("name", NAMES)
def test_with_eta_1_and_all_levels_the_steps_are_ddpms_posterior(name):
    alpha_bar = schedule(name, 50)
    steps = sampler_steps(alpha_bar, 50, eta=1.0)
    for k, a, after, std in zip(*steps, strict=True):  # Ho et al. 2020, equation 7
        before = alpha_bar[k - 1] if k else 1.0
        beta = 1 - alpha_bar[k] / before
        np.testing.assert_allclose(std**2, (1 - before) / (1 - alpha_bar[k]) * beta, atol=1e-15)
        x, clean = 0.7, -0.3
        posterior = np.sqrt(before) * beta * clean + np.sqrt(1 - beta) * (1 - before) * x
        noise = (x - np.sqrt(a) * clean) / np.sqrt(1 - a)
        mean = np.sqrt(after) * clean + np.sqrt(1 - after - std**2) * noise
        np.testing.assert_allclose(mean, posterior / (1 - alpha_bar[k]), atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 150), st.floats(0, 1), st.sampled_from(["trailing", "leading"]))
def test_steps_lead_from_level_to_level_down_to_none(data, levels, eta, spacing):
    num_steps = data.draw(st.integers(1, levels))
    alpha_bar = schedule("cosine", levels)
    steps = sampler_steps(alpha_bar, num_steps, eta, spacing)
    assert (np.diff(steps.level) < 0).all() and len(steps.level) == num_steps and steps.level[-1] >= 0
    assert steps.level[0 if spacing == "trailing" else -1] == (levels - 1 if spacing == "trailing" else 0)
    np.testing.assert_array_equal(steps.alpha_bar, alpha_bar[steps.level])
    np.testing.assert_array_equal(steps.next_alpha_bar[:-1], steps.alpha_bar[1:])
    assert steps.next_alpha_bar[-1] == 1 and steps.std[-1] == 0
    assert (steps.std**2 <= 1 - steps.next_alpha_bar + 1e-12).all()  # no more noise than the next level has


@pytest.mark.parametrize(("kind", "eta"), [("DDIM", 0.0), ("DDIM", 0.5), ("DDIM", 1.0), ("DDPM", 1.0)])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("num_steps", [5, 10, 100])
def test_a_whole_run_equals_that_of_diffusers(kind, eta, spacing, num_steps, monkeypatch):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    ddpm_file = pytest.importorskip("diffusers.schedulers.scheduling_ddpm")
    theirs = getattr(diffusers, f"{kind}Scheduler")(
        num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", clip_sample=True, timestep_spacing=spacing
    )
    alpha_bar = theirs.alphas_cumprod.double().numpy()  # their float32 is not what is compared here
    theirs.alphas_cumprod = torch.tensor(alpha_bar)
    theirs.set_timesteps(num_steps)
    steps = sampler_steps(alpha_bar, num_steps, eta, spacing)
    np.testing.assert_array_equal(theirs.timesteps.numpy(), steps.level)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3))
    expected = torch.tensor(x)
    for k, a, after, std in zip(*steps, strict=True):
        prediction, noise = rng.normal(size=(2, *x.shape))
        clean = np.clip((x - np.sqrt(1 - a) * prediction) / np.sqrt(a), -1, 1)
        rest = (x - np.sqrt(a) * clean) / np.sqrt(1 - a)
        x = np.sqrt(after) * clean + np.sqrt(np.maximum(1 - after - std**2, 0)) * rest + std * noise
        drawn = torch.tensor(noise)
        monkeypatch.setattr(ddpm_file, "randn_tensor", lambda *_, drawn=drawn, **__: drawn)
        options = {"eta": eta, "use_clipped_model_output": True, "variance_noise": drawn} if kind == "DDIM" else {}
        expected = theirs.step(torch.tensor(prediction), int(k), expected, **options).prev_sample
        np.testing.assert_allclose(x, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0,), "num_steps is 0, it must be from 1 to the 10 levels"),
        ((11,), "num_steps is 11, it must be from 1 to the 10 levels"),
        ((5, 1.5), r"eta is 1.5, it must lie between 0"),
        ((5, 0.0, "even"), "spacing is 'even'"),
    ],
)
def test_senseless_steps_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        sampler_steps(schedule("cosine", 10), *arguments)


def test_senseless_schedules_are_refused():
    with pytest.raises(ValueError, match="there is no schedule 'sine'; choose of cosine, "):
        schedule("sine", 10)
    with pytest.raises(ValueError, match="levels is 0"):
        schedule("cosine", 0)
