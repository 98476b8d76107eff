"""What each episode achieved, and the figures that follow. Axes: B episodes, K stages.

A task that knows success reports it as a latched metric (`success`, and `stage/<name>` for partial credit): its value
at the last step is what the episode achieved, and its mean over the steps says since when. Any other task is survived
or not.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mjx_policies.evaluation.episodes import Episodes
from mjx_policies.evaluation.statistics import Estimate, mean, proportion

INTERNALS = ("nan_resets", "reused_starts")  # metrics of the simulation rather than of the robots
STAGE = "stage/"


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """Whole episodes, each counted once.

    Attributes:
      goal: what counts, `success` or `survival`.
      achieved: [B] bool, whether the episode reached the goal. One whose simulation diverged did not: nobody knows how
        it would have gone on.
      failed: [B] bool, whether the task or a diverged simulation ended the episode before its time.
      stages: {name: [B] bool} in order, reached at some time; empty for a task without.
      seconds: [B] its length.
      seconds_to_success: [B] until success was established, which includes the time it has to last; NaN without.
      reward: [B] its sum of rewards.
    """

    goal: str
    achieved: np.ndarray
    failed: np.ndarray
    stages: dict[str, np.ndarray]
    seconds: np.ndarray
    seconds_to_success: np.ndarray
    reward: np.ndarray

    @property
    def completion(self) -> np.ndarray:  # [B]
        """Portion of the stages reached; of the goal, where a task has no stages."""
        parts = list(self.stages.values()) or [self.achieved]
        return np.mean(np.stack(parts), axis=0)

    @property
    def seconds_to_failure(self) -> np.ndarray:  # [B]
        """Length of the episodes that failed, NaN for the others."""
        return np.where(self.failed, self.seconds, np.nan)


def judge(episodes: Episodes, control_dt: float, stages: tuple[str, ...] = ()) -> Outcomes:
    """Reads the outcomes out of the metrics.

    Args:
      episodes: of `run_episodes`.
      control_dt: s, length of a step.
      stages: `EnvSpec.stages`, whose order the metrics do not keep.
    """
    length, final = np.asarray(episodes.length), {k: np.asarray(v) for k, v in episodes.final.items()}
    diverged = np.asarray(episodes.metrics.get("nan_resets", np.zeros(len(length)))) > 0
    failed = np.asarray(episodes.terminated) | diverged
    to_success = np.full(len(length), np.nan)
    if "success" in final:
        achieved = (final["success"] > 0) & ~diverged
        steps_with_success = np.round(np.asarray(episodes.metrics["success"]) * length)
        to_success[achieved] = (length - steps_with_success + 1)[achieved] * control_dt
    else:
        achieved = ~failed
    return Outcomes(
        goal="success" if "success" in final else "survival",
        achieved=achieved,
        failed=failed,
        stages={name: (final[STAGE + name] > 0) & ~diverged for name in stages},
        seconds=length * control_dt,
        seconds_to_success=to_success,
        reward=np.asarray(episodes.reward),
    )


def summarize(episodes: Episodes, control_dt: float, stages: tuple[str, ...] = ()) -> dict[str, Estimate]:
    """The figures of one condition, each with its 95 % interval over episodes."""
    found = judge(episodes, control_dt, stages)
    metrics = {name: value for name, value in episodes.metrics.items() if name not in INTERNALS}
    failures = proportion(int(found.failed.sum()), len(found.failed))
    if found.goal == "survival":
        return {"falls": failures, "return": mean(found.reward), **{k: mean(v) for k, v in metrics.items()}}
    figures = {"success": proportion(int(found.achieved.sum()), len(found.achieved))}
    figures |= {STAGE + name: proportion(int(got.sum()), len(got)) for name, got in found.stages.items()}
    figures |= {
        "completion": mean(found.completion, lowest=0.0, highest=1.0),
        "seconds_to_success": mean(found.seconds_to_success),
        "failures": failures,
        "seconds_to_failure": mean(found.seconds_to_failure),
        "return": mean(found.reward),
    }
    latched = [name for name in metrics if name == "success" or name.startswith(STAGE)]
    return figures | {name: mean(value) for name, value in metrics.items() if name not in latched}


def by_time(outcomes: Outcomes, horizon: float, points: int = 101) -> tuple[np.ndarray, np.ndarray]:  # [P], [P]
    """Times from zero to `horizon` s, and the portion of all episodes that had succeeded by then."""
    times = np.linspace(0.0, horizon, points)
    succeeded = np.sort(outcomes.seconds_to_success[outcomes.achieved])
    return times, np.searchsorted(succeeded, times + 1e-9, side="right") / len(outcomes.achieved)
