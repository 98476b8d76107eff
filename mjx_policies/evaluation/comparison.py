"""Whether one policy is better than another, or the trials were too few to tell. Axes: N episodes.

Two policies that met the same robots and starts are compared pair by pair, which takes the luck of the draw out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from mjx_policies.evaluation.statistics import Estimate, proportion

SIGNIFICANCE = 0.05  # probability of telling apart what is equal
POWER = 0.8  # probability of telling apart what differs

Alternative = Literal["two-sided", "greater", "less"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two success rates, side by side.

    Attributes:
      first, second: the rates.
      difference: first minus second.
      p_value: probability of a difference at least as large between policies that are equally good, both ways.
      test: what gave it.
      trials_needed: of each policy, for `POWER` to tell the observed rates apart; None if they are equal.
    """

    first: Estimate
    second: Estimate
    difference: Estimate
    p_value: float
    test: str
    trials_needed: int | None

    @property
    def told_apart(self) -> bool:
        """Whether the difference is more than chance explains."""
        return self.p_value < SIGNIFICANCE

    @property
    def more_trials(self) -> int | None:
        """How many of `trials_needed` are missing; None if the rates are equal."""
        done = min(self.first.count, self.second.count)
        return None if self.trials_needed is None else max(0, self.trials_needed - done)

    def verdict(self, first: str, second: str) -> str:
        """What follows, in words. `first` and `second` name the policies."""
        rates = f"{self.first.value:.1%} against {self.second.value:.1%}"
        points = f"{100 * self.difference.value:+.1f} points [{100 * self.difference.low:+.1f}, "
        figures = f"{rates}, {points}{100 * self.difference.high:+.1f}], p = {self.p_value:.2g}, {self.test}"
        if self.told_apart:
            better, worse = (first, second) if self.difference.value > 0 else (second, first)
            return f"{better} succeeds more often than {worse}: {figures}."
        undecided = f"These episodes do not tell {first} and {second} apart: {figures}."
        if self.more_trials is None:
            return f"{undecided} Both succeeded equally often."
        if self.more_trials == 0:
            return f"{undecided} A difference of this size shows in {POWER:.0%} of such comparisons: repeat it once."
        return (
            f"{undecided} If the rates are what they seem, it takes about {self.more_trials:,} more episodes of each "
            f"to show it with a probability of {POWER:.0%}."
        )


def compare_pairs(first: ArrayLike, second: ArrayLike) -> Comparison:  # [N], [N] bool
    """Compares success in the same N episodes: McNemar's test, with an interval for the paired difference.

    Raises:
      ValueError: other shapes, or no episode.
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise ValueError(
            f"pairs of shapes {a.shape} and {b.shape}: need as many episodes of one policy as of the other"
        )
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    rates = proportion(int(a.sum()), a.size), proportion(int(b.sum()), b.size)
    return Comparison(
        *rates,
        difference=difference_of_rates(*rates, correlation=_phi(a, b)),
        p_value=mcnemar(only_a, only_b),
        test=f"McNemar's exact test on {a.size:,} pairs of which {only_a + only_b:,} differ",
        trials_needed=trials_needed(rates[0].value, rates[1].value, (only_a + only_b) / a.size),
    )


def compare_counts(successes: int, trials: int, successes_other: int, trials_other: int) -> Comparison:
    """Compares success in different episodes, as on a robot: Fisher's exact test."""
    rates = proportion(successes, trials), proportion(successes_other, trials_other)
    return Comparison(
        *rates,
        difference=difference_of_rates(*rates),
        p_value=fisher(successes, trials, successes_other, trials_other),
        test=f"Fisher's exact test on {trials:,} and {trials_other:,} trials",
        trials_needed=trials_needed(rates[0].value, rates[1].value),
    )


def fisher(
    successes: int, trials: int, successes_other: int, trials_other: int, alternative: Alternative = "two-sided"
) -> float:
    """The p-value of Fisher's exact test (Fisher 1935), for trials that are not paired.

    Args:
      successes, trials: of one policy.
      successes_other, trials_other: of the other.
      alternative: what the first one's rate is suspected to be; `two-sided` counts every table that is no more
        probable than the one observed.

    Raises:
      ValueError: impossible counts.
    """
    for k, n in ((successes, trials), (successes_other, trials_other)):
        if not 0 <= k <= n or n < 1:
            raise ValueError(f"{k} successes in {n} trials: need 0 <= successes <= trials and a trial")
    total = successes + successes_other
    count = np.arange(max(0, total - trials_other), min(total, trials) + 1)  # what the first could have had of them
    log_tables = _log_choose(trials, count) + _log_choose(trials_other, total - count)
    probability = np.exp(log_tables - _log_choose(trials + trials_other, total))
    match alternative:
        case "greater":
            extreme = count >= successes
        case "less":
            extreme = count <= successes
        case "two-sided":  # equally probable tables differ by rounding
            extreme = probability <= probability[count == successes] * (1 + 1e-7)
        case _:
            raise ValueError(f"alternative is {alternative!r}, it must be 'two-sided', 'greater' or 'less'")
    return float(min(1.0, probability[extreme].sum()))


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p-value of McNemar's exact test (McNemar 1947): pairs that differ are fair coins.

    Args:
      only_first, only_second: pairs in which only that policy succeeded.
    """
    tail = special.bdtr(min(only_first, only_second), only_first + only_second, 0.5)
    return float(min(1.0, 2 * tail))


def difference_of_rates(first: Estimate, second: Estimate, correlation: float = 0.0) -> Estimate:
    """First minus second with the interval that follows from theirs (Newcombe 1998, method 10, "square and add").

    Unlike a bootstrap it has a width where both succeed always.

    Args:
      first, second: rates of `proportion`.
      correlation: of paired successes; 0 for trials that are not paired.
    """
    value = first.value - second.value

    def reach(own: float, other: float) -> float:
        return math.sqrt(max(0.0, own**2 - 2 * correlation * own * other + other**2))

    low = value - reach(first.value - first.low, second.high - second.value)
    high = value + reach(first.high - first.value, second.value - second.low)
    return Estimate(value, low, high, min(first.count, second.count))


def difference_of_means(
    first: ArrayLike, second: ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Estimate:  # [N], [N] -> []
    """Mean of first minus second over paired episodes, with the interval of a bootstrap over pairs (Efron 1979).

    Pairs of which one was not measured (NaN) are left out.
    """
    pairs = np.asarray(first, float) - np.asarray(second, float)
    pairs = pairs[~np.isnan(pairs)]
    if not pairs.size:
        return Estimate(math.nan, math.nan, math.nan, 0)
    rng = np.random.default_rng(seed)
    block = max(1, 2_000_000 // pairs.size)  # resamples at once, for memory
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    means = [pairs[rng.integers(0, pairs.size, (size, pairs.size))].mean(axis=1) for size in sizes]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(pairs.mean()), float(low), float(high), pairs.size)


def trials_needed(
    rate: float,
    other: float,
    disagreement: float | None = None,
    power: float = POWER,
    significance: float = SIGNIFICANCE,
) -> int | None:
    """Trials of each policy that tell two success rates apart, two-sided; None if they are equal.

    n = (z_(1-significance/2) sqrt(d) + z_power sqrt(d - (rate - other)^2))^2 / (rate - other)^2 (Connett, Smith and
    McHugh 1987), where d is the portion of pairs in which only one of the two succeeds.

    Args:
      rate, other: the rates.
      disagreement: d; that of independent trials by default, which need not be paired then.
      power: probability of telling them apart.
      significance: probability of telling apart what is equal.
    """
    difference = abs(rate - other)
    if difference == 0:
        return None
    if disagreement is None:
        disagreement = rate * (1 - other) + other * (1 - rate)
    z_significance, z_power = special.ndtri(1 - significance / 2), special.ndtri(power)
    spread = math.sqrt(max(0.0, disagreement - difference**2))
    return math.ceil(((z_significance * math.sqrt(disagreement) + z_power * spread) / difference) ** 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several comparisons, raised so that the smallest is as rare as it says (Holm 1979)."""
    order = np.argsort(p_values)
    raised = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(raised)) if len(order) else raised
    return adjusted.tolist()


def _phi(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of paired successes, with the continuity correction of Newcombe's method 10."""
    both, only_a, only_b, neither = (float(np.sum(x)) for x in (a & b, a & ~b, b & ~a, ~a & ~b))
    product = both * neither - only_a * only_b
    if product > 0:
        product = max(0.0, product - a.size / 2)
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    return product / math.sqrt(margins) if margins else 0.0


def _log_choose(n: int, k: ArrayLike) -> np.ndarray:
    k = np.asarray(k)
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
