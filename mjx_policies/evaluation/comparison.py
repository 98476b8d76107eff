"""Whether one policy is better than another, or the episodes were too few to tell. Axes: N episodes.

Two policies with the same robots and initial states are compared pair by pair, which takes out the luck of the draw.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from mjx_policies.evaluation.outcomes import Goal, Outcomes
from mjx_policies.evaluation.statistics import Estimate, mean, proportion

SIGNIFICANCE = 0.05  # probability of telling apart what is equal
POWER = 0.8  # probability of telling apart what differs
MANY_PAIRS = 5_000  # more need no exact power: normal distributions give the same within a few pairs


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two success rates, side by side.

    Attributes:
      first, second: the rates.
      difference: first minus second.
      p_value: probability of a difference at least as large between policies that are equally good, two-sided.
      test: what gave it.
      goal: what counts as success, see `Outcomes`.
      disagreement: portion of pairs in which only one succeeded.
      reward: mean difference of returns, first minus second; None if returns were not compared.
      p_adjusted: the p-value raised for the number of comparisons; the same as `p_value` by default.
      comparisons: how many were made, of which this is one.
    """

    first: Estimate
    second: Estimate
    difference: Estimate
    p_value: float
    test: str
    goal: Goal = "success"
    disagreement: float = math.nan
    reward: Estimate | None = None
    p_adjusted: float = math.nan
    comparisons: int = 1

    def __post_init__(self) -> None:
        if math.isnan(self.p_adjusted):
            object.__setattr__(self, "p_adjusted", self.p_value)

    @property
    def told_apart(self) -> bool:
        """Whether the difference is more than chance explains in so many comparisons."""
        return self.p_adjusted < SIGNIFICANCE

    @property
    def conflicting(self) -> bool:
        """Whether the policy that succeeds more often has the lower return."""
        return self.reward is not None and self.reward.value * self.difference.value < 0

    @functools.cached_property
    def episodes_needed(self) -> int | None:
        """Episodes of each policy needed to tell the observed rates apart with `POWER`; None if they are equal."""
        if not self.first.count:
            return None
        significance = SIGNIFICANCE / self.comparisons  # what Holm asks of the smallest p-value
        return episodes_needed(self.first.value, self.second.value, self.disagreement, significance=significance)

    @property
    def more_episodes(self) -> int | None:
        """The number of `episodes_needed` that are missing; None if the rates are equal."""
        done = min(self.first.count, self.second.count)
        return None if self.episodes_needed is None else max(0, self.episodes_needed - done)

    def verdict(self, first: str, second: str) -> str:
        """The conclusion in words. `first` and `second` name the policies."""
        if not self.first.count:
            return f"No episode of both {first} and {second} ran to its end: there is nothing to compare."
        rates = f"{self.first.value:.1%} against {self.second.value:.1%}"
        points = f"{100 * self.difference.value:+.1f} points [{100 * self.difference.low:+.1f}, "
        raised = f" (Holm's correction for {self.comparisons} comparisons: {self.p_adjusted:.2g})"
        p = f"p = {self.p_value:.2g}{raised if self.comparisons > 1 else ''}"
        figures = f"{rates}, {points}{100 * self.difference.high:+.1f}], {p}, {self.test}"
        if self.told_apart:
            higher, lower = (first, second) if self.difference.value > 0 else (second, first)
            verdict = f"{higher} {DOES[self.goal]} more often than {lower}: {figures}."
            if self.conflicting:
                assert self.reward is not None
                by = f"{abs(self.reward.value):.3g}{self._range()}"
                verdict += (
                    f" But the return of {lower} is higher by {by}: the two measures disagree, so neither policy is "
                    "preferable on all counts."
                )
            return verdict
        undecided = f"These episodes do not tell {first} and {second} apart: {figures}."
        if self.more_episodes is None:
            return f"{undecided} Both succeeded equally often."
        if self.more_episodes == 0:
            return f"{undecided} A difference of this size shows in {POWER:.0%} of such comparisons: repeat it once."
        return (
            f"{undecided} If the rates are what they seem, it takes about {self.more_episodes:,} more episodes of each "
            f"to show it with a probability of {POWER:.0%}."
        )

    def _range(self) -> str:
        assert self.reward is not None
        ends = sorted((self.reward.low, self.reward.high), reverse=self.reward.value < 0)
        low, high = (math.copysign(1, self.reward.value) * end for end in ends)
        return f" [{low:.3g}, {high:.3g}]" if math.isfinite(high - low) else ""


DOES: dict[Goal, str] = {
    "success": "succeeds",
    "tracking": "stays up and tracks its commands",
    "survival": "stays up",
}


def compare_with_first(policies: Mapping[str, Outcomes]) -> list[tuple[str, str, Comparison]]:
    """First policy, other policy, and their comparison pair by pair, corrected for how many there are (Holm 1979).

    Args:
      policies: name -> outcomes of the same episodes.
    """
    (first, ours), *others = policies.items()
    found = [compare_outcomes(ours, theirs) for _, theirs in others]
    adjusted = holm([comparison.p_value for comparison in found])
    return [
        (first, name, dataclasses.replace(comparison, p_adjusted=p, comparisons=len(found)))
        for (name, _), comparison, p in zip(others, found, adjusted, strict=True)
    ]


def compare_outcomes(first: Outcomes, second: Outcomes) -> Comparison:
    """Compares how often two policies reached their goal in the same episodes, and their returns.

    Pairs of which one episode was cut off are left out.
    """
    whole = ~(first.cut_off | second.cut_off)
    if not whole.any():
        nothing = Estimate(math.nan, math.nan, math.nan, 0)
        return Comparison(nothing, nothing, nothing, p_value=1.0, test="no test", goal=first.goal)
    return dataclasses.replace(
        compare_pairs(first.achieved[whole], second.achieved[whole]),
        goal=first.goal,
        reward=difference_of_means(first.reward[whole], second.reward[whole]),
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
        disagreement=(only_a + only_b) / a.size,
    )


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
      correlation: of paired successes; 0 for episodes that are not paired.
    """
    value = first.value - second.value

    def reach(own: float, other: float) -> float:
        return math.sqrt(max(0.0, own**2 - 2 * correlation * own * other + other**2))

    low = value - reach(first.value - first.low, second.high - second.value)
    high = value + reach(first.high - first.value, second.value - second.low)
    return Estimate(value, low, high, min(first.count, second.count))


def difference_of_means(first: ArrayLike, second: ArrayLike) -> Estimate:  # [N], [N] -> []
    """Mean of first minus second over paired episodes, with Student's interval.

    Pairs of which one was not measured (NaN) are left out.
    """
    return mean(np.asarray(first, float) - np.asarray(second, float))


def episodes_needed(
    rate: float,
    other: float,
    disagreement: float,
    power: float = POWER,
    significance: float = SIGNIFICANCE,
) -> int | None:
    """Pairs of episodes with which McNemar's exact test tells two success rates apart; None if they are equal.

    The probability that the test does so is summed over what can happen, for numbers of pairs about the one that
    follows from normal distributions, which alone promises too much: the exact test keeps below the significance that
    it is allowed. As many pairs have the power that is asked for, and one pair less has not.

    Args:
      rate, other: the rates.
      disagreement: portion of pairs in which only one of the two succeeds.
      power: probability of telling them apart.
      significance: probability of telling apart what is equal.
    """
    difference = abs(rate - other)
    if difference == 0:
        return None
    # Connett, Smith and McHugh 1987; the first term is what a test with normal distributions would need.
    z_significance, z_power = special.ndtri(1 - significance / 2), special.ndtri(power)
    spread = math.sqrt(max(0.0, disagreement - difference**2))
    normal = ((z_significance * math.sqrt(disagreement) + z_power * spread) / difference) ** 2
    # Fleiss, Tytun and Ury 1980: what the steps of an exact test cost.
    stepped = normal / 4 * (1 + math.sqrt(1 + 4 / (normal * difference))) ** 2
    if normal > MANY_PAIRS:
        return math.ceil(stepped)

    def enough(n: int) -> bool:
        return power_of_mcnemar(n, disagreement, difference, significance) >= power

    low, high = max(1, math.floor(0.9 * normal)), math.ceil(stepped)
    while not enough(high):
        high = math.ceil(1.05 * high) + 1
    while low > 1 and enough(low):
        low = low // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def power_of_mcnemar(pairs: int, disagreement: float, difference: float, significance: float = SIGNIFICANCE) -> float:
    """The probability that McNemar's exact test tells two policies apart.

    Args:
      pairs: episodes of each.
      disagreement: portion of pairs in which only one of the two succeeds.
      difference: of the success rates, at most `disagreement`.
      significance: of the test.
    """
    differ = _likely(pairs, disagreement)  # pairs that may differ
    # At most `few` of them in the rarer direction are significant.
    few = np.floor(np.nan_to_num(special.bdtrik(significance / 2, differ, 0.5), nan=-1.0)).astype(int)
    few += special.bdtr(np.maximum(few + 1, 0), differ, 0.5) * 2 < significance  # where rounding has gone below
    few -= (few >= 0) & (special.bdtr(np.maximum(few, 0), differ, 0.5) * 2 >= significance)
    share = min(1.0, 0.5 + 0.5 * difference / disagreement)  # of the pairs that differ, for the better policy
    told = np.where(few >= 0, special.bdtr(np.maximum(few, 0), differ, 1 - share), 0.0)
    told += np.where(few >= 0, special.bdtr(np.maximum(few, 0), differ, share), 0.0)
    return float(np.sum(_binomial(pairs, disagreement, differ) * np.minimum(told, 1.0)))


def _likely(pairs: int, p: float) -> np.ndarray:
    """The counts of successes within eight standard deviations of the mean, beyond which there is nothing to add."""
    reach = 8 * math.sqrt(pairs * p * (1 - p)) + 1
    return np.arange(max(0, math.floor(pairs * p - reach)), min(pairs, math.ceil(pairs * p + reach)) + 1)


def _binomial(pairs: int, p: float, counts: np.ndarray) -> np.ndarray:
    log_p = special.xlogy(counts, p) + special.xlog1py(pairs - counts, -p)
    return np.exp(_log_choose(pairs, counts) + log_p)


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
