"""What a learner achieves over seeds and tasks, Agarwal et al. 2021 (arXiv:2108.13264). Axes: R runs, M tasks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mjx_policies.evaluation.statistics import Estimate


def interquartile_mean(scores: ArrayLike) -> float:  # [...] -> []
    """The mean of the middle half: less swayed by one lucky run than a mean, less wasteful than a median."""
    ordered = np.sort(np.asarray(scores, float), axis=None)
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())


def aggregate(scores: ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Estimate:
    """The interquartile mean over runs and tasks, with the interval of a stratified bootstrap.

    Runs are drawn anew within each task, since the tasks are given and the seeds are not.

    Args:
      scores: [R, M], or [R] for one task; on one scale for all tasks, such as success rates.
      confidence: of the interval.
      resamples: of the bootstrap.
      seed: of its draws.

    Raises:
      ValueError: another shape, no run, or a score that is not finite.
    """
    table = np.asarray(scores, float)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ValueError(f"scores of shape {np.shape(scores)}: need a finite number for each run [R] and task [R, M]")
    runs, tasks = table.shape
    rng = np.random.default_rng(seed)
    drawn = table[rng.integers(0, runs, (resamples, runs, tasks)), np.arange(tasks)]  # [resamples, R, M]
    ordered = np.sort(drawn.reshape(resamples, -1), axis=1)
    cut = table.size // 4
    means = ordered[:, cut : table.size - cut].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(interquartile_mean(table), float(low), float(high), runs)
