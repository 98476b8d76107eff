"""Actions whose figures are known. Axes: T steps, A actions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from mjx_policies.evaluation.actions import common_edges, figures, histogram, wasserstein
from mjx_policies.spec import ActionTable


def limited(episodes):
    """The figures of actions that lie in [-1, 1]."""
    return figures(episodes, -1.0, 1.0)


values = arrays(np.float64, st.integers(1, 30), elements=st.floats(-5, 5).map(lambda x: round(x, 2)))


@settings(max_examples=80, deadline=None)
@given(values, values)
def test_the_distance_equals_scipy(first, second):
    assert wasserstein(first, second) == pytest.approx(stats.wasserstein_distance(first, second), abs=1e-12)


def test_the_distance_of_a_shift_is_the_shift_and_a_mean_between_two_modes_is_far_from_both():
    sample = np.random.default_rng(0).normal(size=200)
    assert wasserstein(sample, sample + 0.3) == pytest.approx(0.3)
    assert wasserstein(sample, sample) == 0.0
    assert wasserstein(np.array([-1.0, 1.0]), np.zeros(5)) == 1.0


def test_smoothness_is_that_of_the_curve():
    t = np.arange(50.0)[:, None]
    ramp, parabola, still = 0.01 * t, 1e-3 * t**2, np.full_like(t, 0.4)
    tremble = 0.1 * (-1.0) ** t
    of = limited([np.concatenate([ramp, parabola, still, tremble], axis=1)])
    assert of[0].rate == pytest.approx(0.01) and of[0].jerk == pytest.approx(0.0, abs=1e-12)
    assert of[1].jerk == pytest.approx(0.0, abs=1e-12) and of[1].rate > 0
    assert (of[2].rate, of[2].jerk, of[2].std) == (0.0, 0.0, pytest.approx(0.0, abs=1e-12))
    assert of[3].rate == pytest.approx(0.2) and of[3].jerk == pytest.approx(0.8)


def test_no_difference_is_taken_from_one_episode_to_the_next():
    apart = limited([np.zeros((5, 1)), np.ones((5, 1))])[0]
    assert apart.rate == apart.jerk == 0.0 and apart.mean == 0.5


def test_saturation_counts_both_limits_and_what_is_beyond():
    assert limited([np.array([[-1.0], [1.0], [3.0], [0.99]])])[0].saturation == 0.75


def test_an_action_is_saturated_where_its_target_goes_no_further():
    """One unit is 0.5 rad from 0.9 on, the joint ends at -0.5 and 4.5: 1 is no limit."""
    joint, free = ActionTable(("a",), (0.9,), (0.5,), (-0.5,), (4.5,)), np.array([[1.0], [-1.5], [7.0], [0.0]])
    low, high = joint.reach
    np.testing.assert_allclose([low, high], [[-2.8], [7.2]])
    assert figures([free], low, high)[0].saturation == 0.0
    assert figures([np.array([[-2.8], [7.3], [7.19], [1.0]])], low, high)[0].saturation == 0.5 + 0.25
    turned = ActionTable(("a",), (0.0,), (-2.0,), (-1.0,), (4.0,))  # more action, less of the target
    np.testing.assert_allclose(turned.reach, [[-2.0], [0.5]])
    torque = ActionTable(("a",), (0.0,), (1.0,), (-np.inf,), (np.inf,))
    assert figures([free], *torque.reach)[0].saturation == 0.0


def test_episodes_too_short_for_a_jerk_have_none():
    of = limited([np.array([[0.0], [1.0]])])[0]
    assert of.rate == 1.0 and math.isnan(of.jerk)


@pytest.mark.parametrize("episodes", [[], [np.zeros((0, 2))], [np.zeros((3, 2)), np.zeros((3, 1))], [np.zeros(3)]])
def test_what_are_no_actions_is_refused(episodes):
    with pytest.raises(ValueError, match=r"need \[T, A\] with the same A, and a step"):
        limited(episodes)


@settings(max_examples=50, deadline=None)
@given(values, values)
def test_histograms_lose_nothing(first, second):
    edges = common_edges([first, second], bins=8)
    assert edges[0] <= -1.0 and edges[-1] >= 1.0
    for sample in (first, second):
        portions = histogram(sample, edges).portions
        assert portions.sum() == pytest.approx(1.0) and portions.min() >= 0
    narrow = np.linspace(-1.0, 1.0, 5)
    assert histogram(first, narrow).portions.sum() == pytest.approx(1.0), "what is beyond is drawn at the ends"
