"""Outcomes of episodes, and the figures that follow. Axes: B episodes, K stages.

A manipulation task reports success as a latched metric (`success`, and `stage/<name>` for partial credit): its value at
the last step is what the episode achieved, and its mean over the steps says since when. Other tasks state criteria, see
`EnvSpec.criteria`. A task with neither is survived or not.

Episodes that were cut off, as where a robot walks off the terrain, neither achieved their goal nor failed: nobody knows
how they would have gone on. They are censored, left out of every rate, and reported as `cut_off`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from mjx_policies.evaluation.statistics import Estimate, mean, proportion

if TYPE_CHECKING:  # or figures of episodes could not be compared without JAX
    from mjx_policies.evaluation.episodes import Episodes
    from mjx_policies.spec import Criterion

INTERNALS = ("nan_resets", "reused_resets")  # metrics of the simulation rather than of the robots
STAGE = "stage/"

Goal = Literal["success", "tracking", "survival"]


class Task(Protocol):
    """The part of a task's spec that evaluation needs: `EnvSpec` has it all."""

    @property
    def control_dt(self) -> float:
        """Length of a control step, s."""
        ...

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages in their order, which the metrics do not keep."""
        ...

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """The criteria, all of which an episode has to meet."""
        ...

    @property
    def bounded_metrics(self) -> tuple[str, ...]:
        """The metrics that lie in [0, 1]."""
        ...


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """The outcomes of whole episodes, each counted once.

    Attributes:
      goal: what counts: `success`; `tracking` of commands without a fall; or `survival`.
      achieved: [B] bool, whether the episode reached the goal. One whose simulation diverged did not.
      failed: [B] bool, whether the task or a diverged simulation ended the episode before its time.
      stages: {name: [B] bool} in order, reached at some time; empty for a task without.
      seconds: [B] its length.
      seconds_to_success: [B] until success was established, which includes the time it has to last; NaN without.
      reward: [B] its sum of rewards.
      cut_off: [B] bool, whether it was truncated before its time; then it neither achieved the goal nor failed.
    """

    goal: Goal
    achieved: np.ndarray
    failed: np.ndarray
    stages: dict[str, np.ndarray]
    seconds: np.ndarray
    seconds_to_success: np.ndarray
    reward: np.ndarray
    cut_off: np.ndarray

    @property
    def completion(self) -> np.ndarray:  # [B]
        """Portion of the stages reached; of the goal, where a task has no stages."""
        parts = list(self.stages.values()) or [self.achieved]
        return np.mean(np.stack(parts), axis=0)

    @property
    def seconds_to_failure(self) -> np.ndarray:  # [B]
        """Length of the episodes that failed, NaN for the others."""
        return np.where(self.failed, self.seconds, np.nan)

    @property
    def rate(self) -> Estimate:
        """The rate at which the goal is achieved."""
        return self.rate_of(self.achieved)

    def rate_of(self, happened: np.ndarray) -> Estimate:  # [B] bool
        """The rate at which something happens in the episodes that were not cut off; NaN if there are none."""
        whole = ~self.cut_off
        if not whole.any():
            return Estimate(np.nan, np.nan, np.nan, 0)
        return proportion(int((happened & whole).sum()), int(whole.sum()))


def episode_outcomes(episodes: Episodes, task: Task) -> Outcomes:
    """The outcomes of whole episodes, from their metrics."""
    length, final = np.asarray(episodes.length), {k: np.asarray(v) for k, v in episodes.final.items()}
    diverged = np.asarray(episodes.metrics.get("nan_resets", np.zeros(len(length)))) > 0
    failed = np.asarray(episodes.terminated) | diverged
    cut_off = np.asarray(episodes.cut_off) & ~failed
    to_success = np.full(len(length), np.nan)
    goal: Goal
    if "success" in final:
        goal, achieved = "success", (final["success"] > 0) & ~diverged
        since = length - np.round(np.asarray(episodes.metrics["success"]) * length) + 1
    elif task.criteria:
        goal = goal_of(task.criteria)
        achieved, since = ~failed, np.zeros(len(length))
        for criterion in task.criteria:
            if criterion.seconds is None:
                achieved &= np.asarray(episodes.metrics[criterion.metric]) >= criterion.least
            else:
                held, steps = np.asarray(episodes.held[criterion.metric]), criterion.steps(task.control_dt)
                achieved &= held >= steps
                since = np.maximum(since, length - held + steps)
    else:
        goal, achieved, since = "survival", ~failed, np.zeros(len(length))
    achieved = achieved & ~cut_off
    if goal == "success":
        to_success[achieved] = since[achieved] * task.control_dt
    return Outcomes(
        goal=goal,
        achieved=achieved,
        failed=failed,
        stages={name: (final[STAGE + name] > 0) & ~diverged for name in task.stages},
        seconds=length * task.control_dt,
        seconds_to_success=to_success,
        reward=np.asarray(episodes.reward),
        cut_off=cut_off,
    )


def goal_of(criteria: tuple[Criterion, ...]) -> Goal:
    """The goal of a task with criteria: success if all have to last to the end, tracking if one counts on average."""
    return "success" if all(criterion.seconds is not None for criterion in criteria) else "tracking"


def goal_in_words(criteria: tuple[Criterion, ...]) -> str:
    """A sentence on what an episode has to achieve; empty where the stages of a task say so."""
    if not criteria:
        return ""
    goal = goal_of(criteria)
    never_falls = [] if goal == "success" else ["no fall"]
    return f"{goal} of an episode: {' and '.join([*never_falls, *map(str, criteria)])}"


def summarize(episodes: Episodes, task: Task) -> dict[str, Estimate]:
    """The figures of one condition, each with its 95 % interval over episodes; the goal comes first.

    `cut_off`, the portion of episodes that are left out of the rates, is there where a task has commands to track, or
    where there are any.
    """
    found = episode_outcomes(episodes, task)
    failures = found.rate_of(found.failed)
    match found.goal:
        case "success":
            figures = {"success": found.rate}
            figures |= {STAGE + name: found.rate_of(got) for name, got in found.stages.items()}
            if found.stages:
                figures["completion"] = mean(found.completion[~found.cut_off], lowest=0.0, highest=1.0)
            figures |= {
                "seconds_to_success": mean(found.seconds_to_success, lowest=0.0),
                "failures": failures,
                "seconds_to_failure": mean(found.seconds_to_failure, lowest=0.0),
            }
        case "tracking":
            figures = {"tracking": found.rate, "falls": failures}
        case "survival":
            figures = {"falls": failures}
    if found.goal == "tracking" or found.cut_off.any():
        figures["cut_off"] = proportion(int(found.cut_off.sum()), len(found.cut_off))
    figures["return"] = mean(found.reward)
    for name, values in episodes.metrics.items():
        if name not in INTERNALS and name != "success" and not name.startswith(STAGE):
            bounds = {"lowest": 0.0, "highest": 1.0} if name in task.bounded_metrics else {}
            figures[name] = mean(values, **bounds)
    return figures


def by_time(outcomes: Outcomes, horizon: float, points: int = 101) -> tuple[np.ndarray, np.ndarray]:  # [P], [P]
    """Times from zero to `horizon` s, and the portion of episodes that had succeeded by then."""
    times = np.linspace(0.0, horizon, points)
    succeeded = np.sort(outcomes.seconds_to_success[outcomes.achieved])
    return times, np.searchsorted(succeeded, times + 1e-9, side="right") / max(1, int((~outcomes.cut_off).sum()))
