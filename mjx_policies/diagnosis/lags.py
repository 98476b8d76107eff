"""Lags between actions and observations. Axes: N steps, D columns, A actions, F folds.

A robot acts on what it saw and sees what it did: action t follows from observation t - p and brings about the change
from observation t - d... to the next, with p and d at least zero. Both lags are measured, as the pair of Gaussian
models, of the action and of the change, that predicts held-out episodes best. Rows that were shifted against each other
give themselves away by a cause that comes after its effect. What only makes p or d smaller without reaching below zero
cannot be told from a robot, or a person, that reacts so much sooner.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mjx_policies.diagnosis.regression import FOLDS, assign_folds, explained, fit, predict, standardise
from mjx_policies.diagnosis.steps import Steps

LAGS = (-2, -1, 0, 1, 2)
FLOOR = 1e-4  # variance below which nothing is predicted better, of a column's own
MAX_CHANGES = 16  # directions of change that are compared
MAX_ROWS = 20_000
MIN_ROWS = 150


@dataclasses.dataclass(frozen=True)
class Lags:
    """The portions of actions and of changes that each lag explains.

    Attributes:
      policy: {p: R^2} of the action, from the observation p steps before its row.
      dynamics: {d: portion} of the change to the next row that the observation leaves open and the action d steps
        before tells.
      likelihood: {(d, p): [F]} mean log likelihood of a step in each fold, both models together; only pairs that a loop
        of cause and effect can have, d + p >= 0.
    """

    policy: dict[int, float]
    dynamics: dict[int, float]
    likelihood: dict[tuple[int, int], np.ndarray]

    def best(self, causal: bool) -> tuple[int, int]:
        """The likeliest pair of those without a negative lag, or of those with one."""
        pairs = [pair for pair in self.likelihood if (min(pair) >= 0) == causal]
        return max(pairs, key=lambda pair: self.likelihood[pair].mean())


def measure_lags(steps: Steps, columns: np.ndarray) -> Lags | None:  # [D] bool
    """Compares all lags on the chosen columns; None where there is too little that varies."""
    here = thin(steps.around(3, 3), steps)
    x, action = standardise(steps.observation[:, columns]), standardise(steps.action)
    x, action = x[:, x[here].std(axis=0) > 0], action[:, action[here].std(axis=0) > 0]
    if len(here) < MIN_ROWS or not x.shape[1] or not action.shape[1]:
        return None
    fold = assign_folds(steps.episode[here])
    change = principal(x[here + 1] - x[here])
    if not change.shape[1]:
        return None
    left_open = change - fit(x[here], change, fold)
    policy, dynamics, acts, moves = {}, {}, {}, {}
    for lag in LAGS:
        acted = action[here - lag]
        missed = action[here] - fit(x[here - lag], action[here], fold)
        policy[lag] = explained(action[here], action[here] - missed)
        acts[lag] = log_likelihood(missed, fold)
        # What the observation does not say of the action, and what that says of the change: the observation tells
        # nearly all of both, and a joint fit would lose the rest in its ridge.
        surprise = standardise(acted - fit(x[here], acted, fold))
        missed = left_open - predict(surprise, left_open, fold)
        dynamics[lag] = 1 - float(np.sum(np.square(missed)) / np.sum(np.square(left_open)))
        moves[lag] = log_likelihood(missed, fold)
    pairs = {(d, p): moves[d] + acts[p] for d in LAGS for p in LAGS if d + p >= 0}
    return Lags(policy, dynamics, pairs)


def thin(rows: np.ndarray, steps: Steps) -> np.ndarray:  # [M] -> [at most MAX_ROWS]
    """The rows of every n-th episode, where there are more than `MAX_ROWS`."""
    stride = -(-len(rows) // MAX_ROWS)
    return rows[steps.episode[rows] % max(stride, 1) == 0][:MAX_ROWS]


def principal(changes: np.ndarray) -> np.ndarray:  # [N, D] -> [N, at most MAX_CHANGES]
    """The largest directions of change, each of unit variance, so that columns that say the same count once."""
    _, size, direction = np.linalg.svd(standardise(changes), full_matrices=False)
    kept = direction[:MAX_CHANGES][size[:MAX_CHANGES] ** 2 > FLOOR * (size**2).sum()]
    return standardise(standardise(changes) @ kept.T)


def log_likelihood(residual: np.ndarray, fold: np.ndarray) -> np.ndarray:  # [N, K], [N] -> [F]
    """Log likelihood per row of each fold under a Gaussian of its residuals' covariance, up to a constant."""
    eye = FLOOR * np.eye(residual.shape[1])
    parts = [residual[fold == number] for number in range(FOLDS)]
    return np.array([-0.5 * np.linalg.slogdet(part.T @ part / max(len(part), 1) + eye)[1] for part in parts])
