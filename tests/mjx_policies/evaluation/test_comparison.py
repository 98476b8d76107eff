"""Tests and intervals against published figures, SciPy, and enumeration of all that can happen."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mjx_policies.evaluation.comparison import (
    compare_outcomes,
    compare_pairs,
    compare_with_first,
    difference_of_means,
    difference_of_rates,
    episodes_needed,
    holm,
    mcnemar,
    power_of_mcnemar,
)
from mjx_policies.evaluation.outcomes import Outcomes
from mjx_policies.evaluation.statistics import Estimate, proportion

# Tests


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_sign_test(first, second):
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)


def test_mcnemar_by_hand():
    assert mcnemar(5, 0) == 2 / 2**5
    assert mcnemar(1, 3) == 2 * (1 + 4) / 2**4
    assert mcnemar(0, 0) == 1.0


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []


# Intervals


def test_the_interval_of_independent_rates_is_newcombes():
    """Newcombe 1998 (Statistics in Medicine 17, 873), table II, method 10: 56/70 against 48/80."""
    estimate = difference_of_rates(proportion(56, 70), proportion(48, 80))
    assert estimate.value == pytest.approx(0.2)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.0524, 0.3339)
    none = difference_of_rates(proportion(10, 10), proportion(0, 20))  # the same table, (f): 10/10 against 0/20
    assert (round(none.low, 4), round(none.high, 4)) == (0.6791, 1.0)


@pytest.mark.parametrize("pairs", [(0.6, 0.2, 0.1, 0.1), (0.9, 0.05, 0.02, 0.03), (0.2, 0.1, 0.1, 0.6)])
def test_the_interval_of_paired_rates_covers_what_it_promises(pairs):
    """Coverage over all tables of 24 pairs, weighted by how probable they are."""
    total, truth, covered = 24, pairs[1] - pairs[2], 0.0
    for both, first, second in itertools.product(range(total + 1), repeat=3):
        neither = total - both - first - second
        if neither < 0:
            continue
        a = np.repeat([True, True, False, False], [both, first, second, neither])
        b = np.repeat([True, False, True, False], [both, first, second, neither])
        probability = stats.multinomial.pmf([both, first, second, neither], total, pairs)
        if probability > 1e-6:
            estimate = compare_pairs(a, b).difference
            covered += probability * (estimate.low <= truth <= estimate.high)
    assert covered > 0.93


def test_policies_that_always_succeed_may_still_differ():
    always = compare_pairs(np.ones(50, bool), np.ones(50, bool))
    assert always.difference.value == 0.0
    assert -0.11 < always.difference.low < -0.05 and 0.05 < always.difference.high < 0.11


def test_pairs_take_what_they_share_out():
    rng = np.random.default_rng(1)
    shared = 10 * rng.normal(size=400)  # an easy initial state is easy for both
    first, second = shared + rng.normal(0.5, 1.0, 400), shared + rng.normal(0.0, 1.0, 400)
    estimate = difference_of_means(first, second)
    student = stats.ttest_rel(first, second).confidence_interval()
    np.testing.assert_allclose((estimate.low, estimate.high), (student.low, student.high))
    assert estimate.value == pytest.approx(np.mean(first - second)) and estimate.count == 400


def test_what_one_policy_has_not_is_no_pair():
    estimate = difference_of_means([1.0, math.nan, 3.0], [0.0, 1.0, 2.0])
    assert estimate == Estimate(1.0, -math.inf, math.inf, 2), "two equal differences do not say how much they vary"
    assert difference_of_means([math.nan], [1.0]).count == 0


# Power


def slow_power_of_mcnemar(n, disagreement, difference):
    """The probability that McNemar's test tells them apart, over all tables of n pairs."""
    p, q = (disagreement + difference) / 2, (disagreement - difference) / 2
    tables = ((a, b) for a in range(n + 1) for b in range(n + 1 - a) if mcnemar(a, b) < 0.05)
    return sum(stats.multinomial.pmf([a, b, n - a - b], n, [p, q, 1 - disagreement]) for a, b in tables)


@pytest.mark.parametrize("case", [(10, 0.6, 0.3), (40, 0.3, 0.2), (30, 0.2, 0.2), (5, 0.5, 0.1), (25, 1.0, 0.5)])
def test_the_power_of_mcnemar_is_that_of_an_enumeration(case):
    assert power_of_mcnemar(*case) == pytest.approx(slow_power_of_mcnemar(*case), abs=1e-9)


@pytest.mark.parametrize(("rate", "other", "differ"), [(0.85, 0.55, 0.4), (0.5, 0.2, 0.3)])
def test_the_pairs_needed_have_the_power_promised_and_one_less_has_not(rate, other, differ):
    n = episodes_needed(rate, other, differ)
    assert slow_power_of_mcnemar(n - 1, differ, rate - other) < 0.8 <= slow_power_of_mcnemar(n, differ, rate - other)


def needed(rate, other, **options):
    """Pairs needed of policies that agree by chance alone."""
    return episodes_needed(rate, other, rate * (1 - other) + other * (1 - rate), **options)


def test_many_pairs_continue_what_is_summed_exactly():
    """A step of a thousandth further needs about as many more as the normal approximation says."""
    exact, approximate = needed(0.9, 0.8826), needed(0.9, 0.8845)
    assert exact < 5_200 < approximate
    assert approximate / exact == pytest.approx((0.0174 / 0.0155) ** 2, rel=0.03)


def test_equal_rates_are_never_told_apart():
    assert needed(0.7, 0.7) is None
    assert needed(0.9, 0.8) == needed(0.8, 0.9)
    assert needed(1.0, 0.0) >= 1
    assert needed(0.9, 0.8, power=0.95) > needed(0.9, 0.8) > needed(0.9, 0.7)


# Verdicts


def outcomes(achieved, goal="success", reward=None, cut_off=None):
    achieved = np.asarray(achieved, bool)
    nothing = np.zeros(achieved.size)
    return Outcomes(
        goal=goal,
        achieved=achieved,
        failed=nothing > 0,
        stages={},
        seconds=nothing,
        seconds_to_success=nothing,
        reward=nothing if reward is None else np.asarray(reward, float),
        cut_off=nothing > 0 if cut_off is None else np.asarray(cut_off, bool),
    )


def test_a_clear_difference_is_called_one():
    first = np.arange(100) < 85
    comparison = compare_pairs(first, np.arange(100) < 65)
    assert comparison.told_apart and comparison.p_value == mcnemar(20, 0)
    assert comparison.verdict("A", "B").startswith("A succeeds more often than B: 85.0% against 65.0%, +20.0 points [")
    assert "McNemar's exact test on 100 pairs of which 20 differ." in comparison.verdict("A", "B")
    assert compare_pairs(~first, first).verdict("A", "B").startswith("B succeeds more often than A")


def test_too_few_episodes_are_called_too_few():
    comparison = compare_pairs(np.arange(20) < 17, np.arange(20) >= 7)
    assert not comparison.told_apart and comparison.episodes_needed == episodes_needed(0.85, 0.65, 0.5)
    verdict = comparison.verdict("A", "B")
    assert verdict.startswith("These episodes do not tell A and B apart: 85.0% against 65.0%")
    assert f"about {comparison.episodes_needed - 20} more episodes of each" in verdict
    assert "equally often" in compare_pairs([True, False], [False, True]).verdict("A", "B")


def test_no_policy_is_preferred_where_success_and_return_disagree():
    """A robot that stands still survives more often than one that walks, and is paid less."""
    rng = np.random.default_rng(0)
    stands = outcomes(np.ones(200), "survival", 10 + rng.normal(size=200))
    walks = outcomes(np.arange(200) < 180, "survival", 30 + rng.normal(size=200))
    comparison = compare_outcomes(stands, walks)
    assert comparison.told_apart and comparison.conflicting
    for verdict in (comparison.verdict("stands", "walks"), compare_outcomes(walks, stands).verdict("walks", "stands")):
        assert verdict.startswith("stands stays up more often than walks: ") and "better" not in verdict
        assert "But the return of walks is higher by 19.9 [19.7, 20.1]: the two measures disagree" in verdict
    agreeing = compare_outcomes(stands, outcomes(np.arange(200) < 180, "survival", rng.normal(size=200)))
    assert not agreeing.conflicting and "disagree" not in agreeing.verdict("stands", "falls")
    tracks = compare_outcomes(outcomes(np.ones(20), "tracking"), outcomes(np.zeros(20), "tracking"))
    assert tracks.verdict("A", "B").startswith("A stays up and tracks its commands more often than B")


def test_pairs_of_which_one_was_cut_off_are_left_out():
    cut = np.arange(8) < 3
    found = compare_outcomes(
        outcomes([0, 0, 0, 1, 1, 1, 0, 0], cut_off=cut), outcomes([1, 1, 1, 1, 0, 0, 0, 0], cut_off=np.roll(cut, 1))
    )
    assert (found.first.value, found.second.value, found.first.count) == (0.5, 0.0, 4)
    assert found.p_value == mcnemar(2, 0) and found.reward.count == 4
    nothing = compare_outcomes(outcomes(np.zeros(8), cut_off=cut), outcomes(np.zeros(8), cut_off=~cut))
    assert not nothing.told_apart and nothing.episodes_needed is None and math.isnan(nothing.first.value)
    assert nothing.verdict("A", "B") == "No episode of both A and B ran to its end: there is nothing to compare."


def test_six_equal_policies_seldom_yield_a_winner():
    """One page in twenty that compares the first with five others may name one; each test alone errs that often."""
    rng = np.random.default_rng(0)
    names, alone, together, pages = "abcdef", 0, 0, 400
    for _ in range(pages):
        easy = rng.beta(6.0, 3.0, 200)  # what all have in common in an episode
        found = compare_with_first({name: outcomes(rng.random(200) < easy) for name in names})
        alone += any(comparison.p_value < 0.05 for _, _, comparison in found)
        together += any(comparison.told_apart for _, _, comparison in found)
    assert alone / pages > 0.1 and together / pages < 0.05


def test_a_difference_that_holm_does_not_grant_is_no_verdict():
    first = np.arange(60) < 40
    close = outcomes(np.arange(60) < 33)  # 7 pairs differ: p = 0.016
    alone = compare_with_first({"A": outcomes(first), "B": close})
    both = compare_with_first({"A": outcomes(first), "B": close, **{x: outcomes(first) for x in "CDEF"}})
    assert alone[0][2].told_apart and alone[0][2].p_adjusted == alone[0][2].p_value == pytest.approx(2 / 2**7)
    assert not both[0][2].told_apart and both[0][2].p_adjusted == pytest.approx(10 / 2**7)
    assert "(Holm's correction for 5 comparisons: 0.078)" in both[0][2].verdict("A", "B")
    assert "Holm" not in alone[0][2].verdict("A", "B")
    assert both[0][2].episodes_needed > alone[0][2].episodes_needed, "it takes more to be as sure of each"


def test_pairs_must_be_pairs():
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(4,\): need as many"):
        compare_pairs([True] * 3, [True] * 4)
    with pytest.raises(ValueError, match="need as many"):
        compare_pairs([], [])
