"""Curves whose truth is known, because they are made: likelihoods, which fall below zero, beside losses that do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mjx_policies.diagnosis.diagnosis import diagnose
from mjx_policies.diagnosis.overfitting import overfit
from mjx_policies.diagnosis.runs import Run

ROWS = 80
TIME = np.arange(ROWS) / ROWS


def cause(loss, held_out=None, **curves):
    validation = {} if held_out is None else {"loss/validation": held_out}
    return diagnose(run=Run({"step": 10 * np.arange(ROWS), "loss/train": loss, **validation, **curves})).cause


def falling(height, pace, noise, seed):
    rng = np.random.default_rng(seed)
    return height * (np.exp(-pace * TIME) + noise * rng.normal(size=ROWS))


@settings(max_examples=60, deadline=None)
@given(
    height=st.floats(0.1, 100.0),
    pace=st.floats(2.0, 12.0),
    noise=st.floats(0.0, 0.04),
    below=st.floats(0.1, 5.0),
    seed=st.integers(0, 1000),
)
@example(height=1.0, pace=2.0, noise=0.031, below=0.109, seed=39)  # just above zero, where ratios are noise
def test_a_likelihood_that_falls_is_healthy_wherever_its_zero_is(height, pace, noise, below, seed):
    """From above zero to below it, and below it from the start on; validation a little behind."""
    loss = falling(height, pace, noise, seed) - below * height
    held_out = falling(height, 0.9 * pace, noise, seed + 1) - 0.9 * below * height
    assert cause(loss, held_out) is None


@pytest.mark.parametrize("offset", [0.0, -0.5, -3.0, -30.0])
def test_what_is_wrong_is_wrong_wherever_zero_is(offset):
    fall = falling(1.0, 8.0, 0.01, 0) + 0.05 + offset
    assert cause(fall + 4.0 * np.maximum(TIME - 0.4, 0)) == "run: learning rate", "it rises again"
    assert cause(fall + 5.0 * (np.arange(ROWS) == 30)) == "run: learning rate", "it explodes once"
    held_out = fall + 3.0 * np.maximum(TIME - 0.3, 0)
    assert cause(fall, held_out) == "run: validation loss"
    assert cause(fall, fall + 0.02) is None


def test_a_bc_policy_that_hardly_succeeds_is_a_finding_unless_something_else_explains_it():
    fall, never = falling(1.0, 8.0, 0.01, 0) + 0.05, np.where(np.arange(ROWS) % 16 == 15, 0.0, np.nan)
    assert cause(fall, **{"eval/success": never}) == "run: success"
    once = np.where(np.arange(ROWS) == 47, 1 / 64, never)
    assert cause(fall, **{"eval/success": once}) == "run: success"
    assert cause(fall, **{"eval/success": 20 * once}) is None
    risen = fall + 4.0 * np.maximum(TIME - 0.4, 0)
    assert cause(risen, **{"eval/success": never}) == "run: learning rate"
    single = np.where(np.arange(ROWS) == ROWS - 1, 0.0, np.nan)  # of an evaluation at the end alone
    assert cause(fall, **{"eval/success": single}) == "run: success"
    assert cause(fall, **{"eval/success": np.full(ROWS, np.nan)}) is None


def test_the_step_of_a_finding_is_where_the_curve_shows_it():
    fall = falling(1.0, 8.0, 0.01, 0) + 0.05
    run = Run({"step": 10 * np.arange(ROWS), "loss/train": fall + 5.0 * (np.arange(ROWS) == 30)})
    finding = diagnose(run=run).finding
    assert (finding.where, finding.step) == (("loss/train",), 300)
    held_out = fall + 3.0 * np.maximum(TIME - 0.3, 0)
    held_out[1::2] = np.nan  # cells of rows without an evaluation are empty
    run = Run({"step": 10 * np.arange(ROWS), "loss/train": fall, "loss/validation": held_out})
    finding = diagnose(run=run).finding
    assert finding.where == ("loss/validation", "loss/train")
    assert 240 <= finding.step <= 400 and finding.step % 20 == 0
    few = Run({"step": np.arange(2), "loss/train": fall[:2], "gradient/norm": fall[:2]})
    assert diagnose(run=few).results["run: dead gradient"] is None
    gradient = np.where(np.arange(ROWS) < 50, 1.0, 0.0)
    run = Run({"step": 10 * np.arange(ROWS), "loss/train": fall, "gradient/encoder": gradient})
    assert diagnose(run=run).cause is None, "its second half begins with a gradient"
    run = Run(
        {
            "step": 10 * np.arange(ROWS),
            "loss/train": fall,
            "gradient/encoder": np.roll(gradient, -20)[:ROWS] * (TIME < 0.4),
        }
    )
    finding = diagnose(run=run).finding
    assert (finding.where, finding.step) == (("gradient/encoder",), 300)


def test_what_is_not_meant_to_learn_may_stay():
    """The scales of an actor, the frozen copy of one that is tuned, the codes of a head."""
    moving = {"actor.head.kernel": np.ones(3), "actor.scales.observation.state.offset": np.ones(3)}
    moving |= {"actor.frozen.net.kernel": np.ones(2), "actor.head.codebook": np.ones(4)}
    after = moving | {"actor.head.kernel": np.full(3, 2.0)}
    curves = {"step": 10 * np.arange(ROWS), "loss/train": falling(1.0, 8.0, 0.01, 0) + 0.05}
    assert diagnose(run=Run(curves, params={1: moving, 2: after})).cause is None
    stuck = {"actor.encoder.kernel": np.ones(2)}
    found = diagnose(run=Run(curves, params={1: moving | stuck, 2: after | stuck}))
    assert found.cause == "run: dead gradient" and "actor.encoder.kernel" in found.finding.finding


def test_a_gradient_is_expected_of_what_learns():
    def loss(params, batch):
        return jnp.sum((params["head"] * batch - jax.lax.stop_gradient(params["scales"])) ** 2)

    trace = overfit(loss, {"head": jnp.ones(2), "scales": jnp.full(2, 3.0)}, jnp.ones(2), steps=20)
    assert set(trace.gradient) == {"head"}
