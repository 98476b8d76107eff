"""Intervals against published figures, SciPy and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from mjx_policies.evaluation.statistics import Estimate, mean, proportion


def test_wilson_of_35_in_50():
    estimate = proportion(35, 50)
    assert estimate.value == 0.7 and estimate.count == 50
    assert (round(100 * estimate.low, 1), round(100 * estimate.high, 1)) == (56.2, 80.9)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_equals_scipy(confidence):
    for successes, count in ((0, 1), (1, 1), (0, 20), (1, 20), (13, 20), (20, 20), (500, 4096)):
        estimate = proportion(successes, count, confidence)
        expected = stats.binomtest(successes, count).proportion_ci(confidence, method="wilson")
        np.testing.assert_allclose((estimate.low, estimate.high), (expected.low, expected.high), rtol=1e-9, atol=1e-12)


def test_both_ends_stay_in_range_and_uncertain():
    none, all_of_them = proportion(0, 64), proportion(64, 64)
    assert none.low == 0.0 and 0.05 < none.high < 0.06
    assert all_of_them.high == 1.0 and all_of_them.low == pytest.approx(1 - none.high)


@pytest.mark.parametrize(("successes", "count"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(successes, count):
    with pytest.raises(ValueError, match="need 0 <= successes <= count and a count of at least 1"):
        proportion(successes, count)


def test_the_mean_equals_scipy():
    samples = np.random.default_rng(0).gamma(2.0, 3.0, 17)
    estimate = mean(samples)
    low, high = stats.t.interval(0.95, 16, samples.mean(), stats.sem(samples))
    np.testing.assert_allclose((estimate.value, estimate.low, estimate.high), (samples.mean(), low, high))
    assert estimate.count == 17


def test_what_was_not_measured_does_not_count():
    assert mean([1.0, math.nan, 3.0]) == mean([1.0, 3.0])
    nothing = mean([math.nan, math.nan])
    assert nothing.count == 0 and all(map(math.isnan, (nothing.value, nothing.low, nothing.high)))


def test_one_sample_says_nothing_of_the_spread():
    assert mean([4.0]) == Estimate(4.0, -math.inf, math.inf, 1)


def test_the_interval_stays_among_what_can_be():
    bounded, free = mean([1.0, 1.0, 0.5], lowest=0.0, highest=1.0), mean([1.0, 1.0, 0.5])
    assert free.high > 1.0 and (bounded.value, bounded.low, bounded.high) == (free.value, free.low, 1.0)
    assert mean([0.5], lowest=0.0, highest=1.0) == Estimate(0.5, 0.0, 1.0, 1)


def test_equal_samples_do_not_say_how_much_they_vary():
    """Two seeds with the same score would be certain to the last digit."""
    assert mean([0.7, 0.7]) == Estimate(0.7, -math.inf, math.inf, 2)
    assert mean(np.full(9, 2.5), lowest=0.0) == Estimate(2.5, 0.0, math.inf, 9)
    assert str(mean([0.7, 0.7])) == "0.700", "no interval is printed"
    always, expected = mean([1.0] * 5, lowest=0.0, highest=1.0), proportion(5, 5)
    assert (always.low, always.high) == (expected.low, expected.high)
    third = mean([-1.0, -1.0], lowest=-2.0, highest=1.0)  # a third of the way
    assert -2.0 < third.low < -1.0 < third.high < 1.0 and third.high - third.low > 1.5


def test_the_interval_of_seeds_that_are_often_equal_covers_what_it_promises():
    """Two seeds, of which each either works or half works; simulated with NumPy."""
    scores = np.where(np.random.default_rng(0).random((1000, 2)) < 0.5, 0.6, 1.0)
    intervals = [mean(row, lowest=0.0, highest=1.0) for row in scores]
    assert all(0.0 <= interval.low <= interval.high <= 1.0 for interval in intervals)
    assert np.mean([interval.low <= 0.8 <= interval.high for interval in intervals]) > 0.93


def test_it_prints_with_its_interval():
    assert str(proportion(35, 50)) == "0.700 [0.562, 0.809]"
    assert str(mean([math.nan])) == "–"
    assert str(Estimate(-123.456, -130.0, -117.2, 9)) == "-123.5 [-130.0, -117.2]", "no more digits than a table holds"
    assert str(Estimate(12.3456, 11.0, 13.0, 9)) == "12.35 [11.00, 13.00]" and str(mean([4321.5])) == "4322"
