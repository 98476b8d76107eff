"""Mode coverage: whether policies take each of several ways that solve a task, from one and the same initial state.

Axes: N initial states, P episodes from each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mjx_policies.evaluation.results import EvaluationResults
from mjx_policies.evaluation.statistics import Estimate, mean

SIDE = "side"  # metric of Obstacle2D: 1 where the obstacle was passed on the left, -1 on the right, NaN if it was not
BOTH = 0.2  # coverage of a policy with both modes; 1 is that of a fair coin in every initial state


def coverage(success: np.ndarray, side: np.ndarray) -> float:  # [N, P], [N, P] -> []
    """Twice the probability that two successes from one initial state passed on different sides: 1 for a fair coin.

    An unbiased estimate for each initial state, averaged over those with two successes; NaN, unknown, if none has. A
    policy that takes either side, but always the same one from the same initial state, covers nothing.
    """
    left, count = (success & (side > 0)).sum(axis=1), success.sum(axis=1)  # [N]
    usable = count > 1
    left, count = left[usable], count[usable]
    return float(np.mean(4 * left * (count - left) / (count * (count - 1)))) if usable.any() else math.nan


def success_and_coverage(evaluations: Sequence[EvaluationResults], repeats: int) -> dict[str, Estimate]:
    """Means over the policies of a head, one for each seed, with intervals; over initial states if there is one policy.

    Args:
      evaluations: of each policy.
      repeats: P, episodes in a row from one initial state.

    Returns:
      `success` and `lost`; where a task has sides to pass on also `coverage`, `left`, the portion of the successes on
      that side, and `both`, the portion of the policies with both modes: those that cover at least `BOTH`, of those
      whose coverage is known.
    """
    names = {"success": "success", "lost": "failures"}
    found = {name: [each.figures[figure].value for each in evaluations] for name, figure in names.items()}
    if SIDE in evaluations[0].final:
        of_policies = []
        for each in evaluations:
            success, side = each.outcomes.achieved, each.final[SIDE]
            covered = coverage(success.reshape(-1, repeats), side.reshape(-1, repeats))
            left = np.mean(side[success] > 0) if success.any() else math.nan
            of_policies.append((covered, left, math.nan if math.isnan(covered) else covered >= BOTH))
        found |= zip(("coverage", "left", "both"), zip(*of_policies, strict=True), strict=True)
    estimates = {name: mean(of_policies, lowest=0.0, highest=1.0) for name, of_policies in found.items()}
    if len(evaluations) == 1 and repeats == 1:
        estimates |= {name: evaluations[0].figures[figure] for name, figure in names.items()}
    elif len(evaluations) == 1:  # episodes from one initial state have much in common
        outcomes = evaluations[0].outcomes
        for name, happened in (("success", outcomes.achieved), ("lost", outcomes.failed)):
            estimates[name] = mean(happened.reshape(-1, repeats).mean(axis=1), lowest=0.0, highest=1.0)
    return estimates
