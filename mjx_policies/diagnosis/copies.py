"""Columns that repeat another column, or an action, of another step. Axes: N steps, D columns, A actions.

Changes are compared rather than values, because smooth signals resemble themselves a step later and their changes less
so.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mjx_policies.diagnosis.lags import MIN_ROWS, thin
from mjx_policies.diagnosis.regression import assign_folds, explained, fit, standardise
from mjx_policies.diagnosis.steps import Steps

REACH = 3  # steps in either direction
ALIKE = 0.98  # squared correlation of the changes
APART = 5.0  # times more that is left open at all other lags
FOLLOWS = 0.95  # R^2 of a change from the step before, of a physical quantity
MOVES = 0.02  # R^2 by which the action of a step must tell more of a change than the action before
MIN_EPISODES = 12
LEVELS = 20  # distinct values that a column must take: flags that flip together copy nothing


@dataclasses.dataclass(frozen=True)
class Copy:
    """Column `column` at step t is what `source` is at step t + lag.

    Attributes:
      column: number of the column.
      source: number of the column or action.
      of_action: which of the two.
      lag: steps by which the column is ahead; below zero it is behind.
      alike: squared correlation of the changes.
    """

    column: int
    source: int
    of_action: bool
    lag: int
    alike: float


def find_copies(steps: Steps) -> list[Copy]:
    """All columns that follow an action at some lag, and all that are ahead of another column."""
    here = thin(steps.around(REACH, REACH + 1), steps)
    if len(here) < MIN_ROWS:
        return []
    rich = np.array([len(np.unique(column)) >= LEVELS for column in steps.observation[here].T])
    rich &= ~steps.camera
    changes = standardise(steps.observation[here + 1] - steps.observation[here])
    copies = []
    for of_action, source in ((True, steps.action), (False, steps.observation)):
        lags = range(-REACH, REACH + 1)
        squared = np.stack(
            [
                np.square(changes.T @ standardise(source[here + lag + 1] - source[here + lag]) / len(here))
                for lag in lags
            ]
        )  # [lag, D, K]
        order = np.sort(squared, axis=0)
        clear = (order[-1] >= ALIKE) & (1 - order[-2] > APART * (1 - order[-1]))
        for column, number in np.argwhere(clear & rich[:, None]):
            lag = lags[int(squared[:, column, number].argmax())]
            if of_action or (lag > 0 and column != number):
                copies.append(Copy(int(column), int(number), of_action, lag, float(order[-1][column, number])))
    return copies


def tells_the_future(steps: Steps, copy: Copy, columns: np.ndarray) -> bool:  # [D] bool
    """Whether a copy holds what nobody could know at that step.

    A copy of an action that is yet to be chosen does, unless the column is a physical quantity that the person turned
    into an action as it was: one that follows from the step before. Of two columns, one ahead of the other, the earlier
    may be a forecast or the later a memory; the action decides, for it moves what is true now.

    Args:
      steps: the data.
      copy: of `find_copies`.
      columns: which of them are copies of nothing.
    """
    here = thin(steps.around(2, 2), steps)
    episode = steps.episode[here]
    fold = assign_folds(episode)
    x, action = standardise(steps.observation), standardise(steps.action)
    source = x[:, [copy.column if copy.of_action else copy.source]]
    if copy.of_action:
        before = np.concatenate([x[:, columns], source, action], axis=1)[here - 1]
        change = source[here] - source[here - 1]
        return copy.lag >= 0 and explained(change, fit(before, change, fold)) < FOLLOWS
    if len(np.unique(episode)) < MIN_EPISODES:
        return False
    change = source[here + 1] - source[here]
    others = columns.copy()
    others[copy.column] = False
    state = np.concatenate([x[:, others], source], axis=1)[here]
    left_open = change - fit(state, change, fold)
    told = []
    for lag in (0, 1):
        surprise = standardise(action[here - lag] - fit(state, action[here - lag], fold))
        told.append(explained(left_open, fit(surprise, left_open, fold)))
    return told[0] > max(told[1], 0.0) + MOVES
