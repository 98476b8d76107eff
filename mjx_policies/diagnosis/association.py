"""Whether the action of a step belongs to the observations around it. Axes: N rows, A actions.

A fit says what the action should be, from what was observed just before and just after it, in episodes it has not seen.
Then the actions are exchanged: for those of another moment of the same episode, and for those of the same moment of
another episode. If the fit agrees with the exchanged ones as well as with the recorded ones, the record has lost what
belongs to what. No figure has to be high for that: a task may be as hard to predict as it likes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mjx_policies.diagnosis.lags import MIN_ROWS, thin
from mjx_policies.diagnosis.regression import assign_folds, explained, fit, standardise
from mjx_policies.diagnosis.steps import Steps

DRAWS = 60  # exchanges of each kind
NEAR = 5  # steps; an exchange within an episode goes at least so far
SHARE = 0.02  # of the actions' variance that an exchange must move to say anything


@dataclasses.dataclass(frozen=True)
class Association:
    """The agreement of the recorded actions with the observations, against that of exchanged ones.

    Attributes:
      explained: R^2 of the action, from observations before and after it.
      moments: standard deviations above exchanges within an episode; None if the actions of an episode are all alike.
      episodes: the same above exchanges between episodes; None if all episodes are alike.
    """

    explained: float
    moments: float | None
    episodes: float | None


def measure_association(steps: Steps, columns: np.ndarray, seed: int = 0) -> Association | None:  # [D] bool
    """Compares recorded actions with exchanged ones; None where there is too little that varies."""
    here = thin(steps.around(2, 2), steps)
    x, action = standardise(steps.observation[:, columns]), standardise(steps.action)[here]
    action = action[:, action.std(axis=0) > 0]
    if len(here) < MIN_ROWS or not x.shape[1] or not action.shape[1]:
        return None
    episode = steps.episode[here]
    window = [x[here], *(x[here + step + 1] - x[here + step] for step in (-2, -1, 0, 1))]
    expected = fit(np.concatenate(window, axis=1), action, assign_folds(episode))
    starts = np.flatnonzero(np.diff(episode, prepend=-1))
    lengths = np.diff(np.append(starts, len(episode)))
    rng = np.random.default_rng(seed)
    moments = [rotate(starts, lengths, rng) for _ in range(DRAWS)] if lengths.min() > 2 * NEAR else []
    others = [swap(starts, lengths, rng) for _ in range(DRAWS)] if len(starts) > 3 else []
    return Association(explained(action, expected), excess(action, expected, moments), excess(action, expected, others))


def rotate(starts: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # [E], [E] -> [N]
    """A permutation within episodes: all rows of one go on by the same number of steps, the last to the first."""
    parts = []
    for start, length in zip(starts, lengths, strict=True):
        parts.append(start + (np.arange(length) + rng.integers(NEAR, length - NEAR + 1)) % length)
    return np.concatenate(parts)


def swap(starts: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # [E], [E] -> [N]
    """A permutation across episodes: for each row that of another episode which is as far on its way."""
    order = rng.permutation(len(starts))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)  # one cycle through all, so that none stays
    parts = []
    for length, partner in zip(lengths, other, strict=True):
        parts.append(starts[partner] + np.arange(length) * lengths[partner] // length)
    return np.concatenate(parts)


def excess(action: np.ndarray, expected: np.ndarray, exchanges: list[np.ndarray]) -> float | None:
    """Standard deviations by which recorded actions [N, A] agree better with `expected` than exchanged ones do."""
    if not exchanges or np.mean(np.square(action - action[exchanges[0]])) < 2 * SHARE:
        return None
    agreement = np.array([np.mean(expected * action[exchange]) for exchange in exchanges])
    return float((np.mean(expected * action) - agreement.mean()) / max(agreement.std(), 1e-12))
