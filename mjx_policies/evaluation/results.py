"""Results of a policy's episodes in one condition. Axes: B episodes, T steps, A actions."""

from __future__ import annotations

import dataclasses

import numpy as np

from mjx_policies.evaluation.outcomes import Outcomes
from mjx_policies.evaluation.statistics import Estimate


@dataclasses.dataclass(frozen=True)
class RecordedEpisode:
    """One episode, to be recorded as a video.

    Attributes:
      number: among the episodes of its condition; with the seed it says which.
      seconds: its length.
      qpos: [T, nq] coordinates, one row a control step.
      mocap_pos: [T, nmocap, 3] m, where the bodies are that an episode puts somewhere.
      command: [T, 3] m/s, m/s, rad/s, what the robot was told, if the task has commands.
    """

    number: int
    seconds: float
    qpos: np.ndarray
    mocap_pos: np.ndarray
    command: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class EvaluationResults:
    """The results of one policy in one condition.

    Attributes:
      outcomes: of every episode.
      figures: their summary.
      actions: [T, A] of each episode of the first batch.
      examples: an episode that achieved the goal and one that did not, in this order, as far as there are any that were
        not cut off and did not diverge; any episode if there are none.
      final: {metric: [B]} its value at the last step of each episode, NaN where it was not measured there.
      recorded: the first episodes, as many as were asked for.
    """

    outcomes: Outcomes
    figures: dict[str, Estimate]
    actions: list[np.ndarray]
    examples: dict[bool, RecordedEpisode]
    final: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    recorded: list[RecordedEpisode] = dataclasses.field(default_factory=list)
