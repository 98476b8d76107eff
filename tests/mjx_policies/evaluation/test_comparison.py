"""Tests and intervals against published figures, SciPy, and enumeration of all that can happen."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mjx_policies.evaluation.comparison import (
    compare_counts,
    compare_pairs,
    difference_of_means,
    difference_of_rates,
    fisher,
    holm,
    mcnemar,
    trials_needed,
)
from mjx_policies.evaluation.statistics import proportion

counts = st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


# Tests


def test_fisher_of_published_trials():
    assert fisher(17, 20, 13, 20, "greater") == pytest.approx(0.137, abs=5e-4)
    assert fisher(85, 100, 65, 100, "greater") == pytest.approx(0.00087, abs=5e-6)
    # The lady who tastes tea (Fisher 1935): 3 of 4 right, 17 of 70 choices are as good or better.
    assert fisher(3, 4, 1, 4, "greater") == pytest.approx(17 / 70)


@settings(max_examples=60, deadline=None)
@given(counts, counts, st.sampled_from(["two-sided", "greater", "less"]))
def test_fisher_equals_scipy(first, second, alternative):
    (a, n), (b, m) = first, second
    expected = stats.fisher_exact([[a, n - a], [b, m - b]], alternative).pvalue
    assert fisher(a, n, b, m, alternative) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_sign_test(first, second):
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)


def test_mcnemar_by_hand():
    assert mcnemar(5, 0) == 2 / 2**5
    assert mcnemar(1, 3) == 2 * (1 + 4) / 2**4
    assert mcnemar(0, 0) == 1.0


@pytest.mark.parametrize("counts", [(3, 2, 1, 5), (-1, 5, 1, 5), (0, 0, 1, 5), (1, 5, 6, 5)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match="need 0 <= successes <= trials and a trial"):
        fisher(*counts)


def test_an_unknown_alternative_is_refused():
    with pytest.raises(ValueError, match="alternative is 'both', it must be"):
        fisher(1, 2, 1, 2, "both")


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
    """Of all tables of 24 pairs, weighted by how probable they are."""
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


def test_the_bootstrap_takes_what_pairs_share_out():
    rng = np.random.default_rng(1)
    shared = 10 * rng.normal(size=400)  # an easy start is easy for both
    first, second = shared + rng.normal(0.5, 1.0, 400), shared + rng.normal(0.0, 1.0, 400)
    estimate = difference_of_means(first, second)
    student = stats.ttest_rel(first, second).confidence_interval()
    np.testing.assert_allclose((estimate.low, estimate.high), (student.low, student.high), atol=0.02)
    assert estimate.value == pytest.approx(np.mean(first - second)) and estimate.count == 400
    assert estimate == difference_of_means(first, second), "drawn with a seed"


def test_what_one_policy_has_not_is_no_pair():
    estimate = difference_of_means([1.0, math.nan, 3.0], [0.0, 1.0, 2.0])
    assert (estimate.value, estimate.low, estimate.high, estimate.count) == (1.0, 1.0, 1.0, 2)
    assert difference_of_means([math.nan], [1.0]).count == 0


# Power


def exact_power(n, rate, other):
    """The probability that Fisher's test tells them apart, over all outcomes of n trials each."""
    first, second = (stats.binom.pmf(np.arange(n + 1), n, p) for p in (rate, other))
    return sum(
        first[a] * second[b]
        for a, b in itertools.product(range(n + 1), repeat=2)
        if first[a] * second[b] > 1e-7 and fisher(a, n, b, n) < 0.05
    )


@pytest.mark.parametrize(("rate", "other"), [(0.85, 0.65), (0.5, 0.2)])
def test_the_trials_needed_have_about_the_power_promised(rate, other):
    """Fisher's test keeps below the significance it is allowed, which costs it some of the power."""
    assert 0.70 < exact_power(trials_needed(rate, other), rate, other) < 0.83


def test_paired_trials_have_about_the_power_promised():
    rng = np.random.default_rng(0)
    both, first, second, neither = 0.5, 0.2, 0.1, 0.2
    n = trials_needed(both + first, both + second, first + second)
    tables = rng.multinomial(n, [both, first, second, neither], size=4000)
    power = np.mean([mcnemar(int(a), int(b)) < 0.05 for _, a, b, _ in tables])
    assert 0.74 < power < 0.83
    assert n < trials_needed(both + first, both + second), "pairs that agree more than by chance need fewer"


def test_equal_rates_are_never_told_apart():
    assert trials_needed(0.7, 0.7) is None
    assert trials_needed(0.9, 0.8) == trials_needed(0.8, 0.9)
    assert trials_needed(1.0, 0.0) >= 1
    assert trials_needed(0.9, 0.8, power=0.95) > trials_needed(0.9, 0.8) > trials_needed(0.9, 0.7)


# Verdicts


def test_a_clear_difference_is_said_to_be_one():
    first = np.arange(100) < 85
    comparison = compare_pairs(first, np.arange(100) < 65)
    assert comparison.told_apart and comparison.p_value == mcnemar(20, 0)
    assert comparison.verdict("A", "B").startswith("A succeeds more often than B: 85.0% against 65.0%, +20.0 points [")
    assert "McNemar's exact test on 100 pairs of which 20 differ." in comparison.verdict("A", "B")
    assert compare_pairs(~first, first).verdict("A", "B").startswith("B succeeds more often than A")


def test_too_few_trials_are_said_to_be_too_few():
    comparison = compare_counts(17, 20, 13, 20)
    assert not comparison.told_apart and comparison.trials_needed == trials_needed(0.85, 0.65)
    verdict = comparison.verdict("A", "B")
    assert verdict.startswith("These episodes do not tell A and B apart: 85.0% against 65.0%")
    assert f"about {comparison.trials_needed - 20} more episodes of each" in verdict
    assert "equally often" in compare_counts(3, 4, 3, 4).verdict("A", "B")


def test_pairs_must_be_pairs():
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(4,\): need as many"):
        compare_pairs([True] * 3, [True] * 4)
    with pytest.raises(ValueError, match="need as many"):
        compare_pairs([], [])
