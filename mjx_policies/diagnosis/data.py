"""What a set of demonstrations looks like to the checks of data: its numbers, and what explains what in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mjx_policies.diagnosis.association import Association, measure_association
from mjx_policies.diagnosis.copies import Copy, find_copies, tells_the_future
from mjx_policies.diagnosis.lags import Lags, measure_lags
from mjx_policies.diagnosis.steps import Steps


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Demonstrations under examination.

    Attributes:
      steps: all of them.
      association: whether actions belong to their observations.
      lags: which action goes with which observation; without columns that copy others.
      copies: columns that repeat another column or an action.
      forecasts: those of the copies that nobody could know at their step.
      times: s, of the steps of each episode; None where nobody wrote them down.
    """

    steps: Steps
    association: Association | None
    lags: Lags | None
    copies: list[Copy]
    forecasts: list[Copy]
    times: Sequence[np.ndarray] | None = None


def examine(steps: Steps, times: Sequence[np.ndarray] | None = None) -> Data:
    """Measures what the checks need."""
    copies = find_copies(steps)
    plain = np.ones(len(steps.columns), bool)
    plain[[copy.column for copy in copies]] = False
    # An action that is remembered is known, though joints that follow their targets are where it told them to be later.
    remembered = {copy.column for copy in copies if copy.of_action and copy.lag < 0}
    forecasts = [
        copy
        for copy in copies
        if (copy.of_action or copy.column not in remembered) and tells_the_future(steps, copy, plain)
    ]
    ahead = {copy.column for copy in forecasts}
    # What the robot remembers of its actions, or of the past, would make a later observation tell an earlier action.
    memories = {copy.column for copy in copies if copy.of_action}
    memories |= {copy.source for copy in copies if not copy.of_action and copy.column not in ahead}
    used = np.array([column not in ahead | memories for column in range(len(steps.columns))])
    if not used.any():
        used[:] = True
    return Data(steps, measure_association(steps, used), measure_lags(steps, used), copies, forecasts, times)
