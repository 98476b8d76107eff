"""Demonstrations as the checks of data read them: their numbers, and which of these explain others."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from mjx_policies.diagnosis.association import Association, measure_association
from mjx_policies.diagnosis.copies import Copy, find_copies, tells_the_future
from mjx_policies.diagnosis.lags import Lags, measure_lags
from mjx_policies.diagnosis.steps import Steps


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Demonstrations to check; which columns explain others is measured when a check first asks.

    Attributes:
      steps: all of them.
      times: s, of the steps of each episode; None where nobody wrote them down.
      single_actions: whether a policy learns single actions from them, and always sees its own motion.
    """

    steps: Steps
    times: Sequence[np.ndarray] | None = None
    single_actions: bool = False

    @functools.cached_property
    def copies(self) -> list[Copy]:
        """Columns that repeat another column or an action."""
        return find_copies(self.steps)

    @functools.cached_property
    def forecasts(self) -> list[Copy]:
        """The copies that nobody could know at their step."""
        plain = np.ones(len(self.steps.columns), bool)
        plain[[copy.column for copy in self.copies]] = False
        # An earlier action is known, though joints that follow their targets are where it told them to be later.
        earlier = {copy.column for copy in self.copies if copy.of_action and copy.lag < 0}
        return [
            copy
            for copy in self.copies
            if (copy.of_action or copy.column not in earlier) and tells_the_future(self.steps, copy, plain)
        ]

    @functools.cached_property
    def association(self) -> Association | None:
        """Whether actions belong to their observations."""
        return measure_association(self.steps, self._used)

    @functools.cached_property
    def lags(self) -> Lags | None:
        """The lags between actions and observations; without columns that copy others."""
        return measure_lags(self.steps, self._used)

    @functools.cached_property
    def _used(self) -> np.ndarray:  # [D] bool
        """The columns that neither forecast nor repeat the past; all if there are no others."""
        ahead = {copy.column for copy in self.forecasts}
        # A memory of actions, or of the past, would make a later observation tell an earlier action.
        memories = {copy.column for copy in self.copies if copy.of_action}
        memories |= {copy.source for copy in self.copies if not copy.of_action and copy.column not in ahead}
        used = np.array([column not in ahead | memories for column in range(len(self.steps.columns))])
        return used if used.any() else ~used
