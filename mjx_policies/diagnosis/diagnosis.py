"""Diagnosis of a run that does not learn: all checks, in the order in which one thing causes another.

diagnosis = diagnose(episodes=episodes)                     # demonstrations
diagnosis = diagnose(run=read_run(Path("runs/a")))          # a run folder
diagnosis = diagnose(trace=overfit(loss, params, batch))    # a loss of your own
print(diagnosis.finding)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mjx_policies.data.episodes import Episode
from mjx_policies.diagnosis import curves, motion, overfitting, pairing, values
from mjx_policies.diagnosis.base import Check, CheckResult
from mjx_policies.diagnosis.data import Data
from mjx_policies.diagnosis.overfitting import Trace, overfit_rows
from mjx_policies.diagnosis.runs import Run
from mjx_policies.diagnosis.steps import Steps, tabulate

DATA_CHECKS: dict[str, Check[Data]] = {
    "data: finite": values.not_finite,
    "data: time stamps": values.irregular,
    "data: constant columns": values.constant,
    "data: repeated episodes": values.duplicated,
    "data: scale of columns": values.unnormalised,
    # Before saturated actions: how often they turn tells a slow gripper from them, if they are in order.
    "data: shuffled actions": pairing.shuffled,
    "data: saturated actions": values.saturated,
    "data: alignment": pairing.misaligned,
    "data: leaked future": pairing.leaked,
    "data: jumps": motion.jumps,
    "data: outlying actions": motion.outliers,
    "data: idle": motion.idle,
    "data: inertia": motion.inertia,
}
SLOW_CHECKS = ("data: shuffled actions", "data: alignment", "data: leaked future", "data: inertia")
"""Checks of data that fit models to it, which takes seconds."""
TRACE_CHECKS: dict[str, Check[Trace]] = {
    "gradient: finite": overfitting.not_finite,
    "gradient: dead": overfitting.dead_gradient,
    "gradient: step size": overfitting.step_too_large,
    "gradient: overfit one batch": overfitting.overfits,
}
RUN_CHECKS: dict[str, Check[Run]] = {
    "run: learning rate": curves.rate_too_high,
    "run: finite": curves.not_finite,
    "run: dead gradient": curves.dead_gradient,
    "run: exploration": curves.collapsed,
    "run: critic": curves.blind_critic,
    "run: bounds of the rate": curves.rate_at_bound,
    "run: training loss": curves.not_learning,
    "run: validation loss": curves.overfitted,
    "run: success": curves.hardly_succeeds,
}


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The results of all checks, in order; None for those that had nothing to check.

    Attributes:
      results: {name of the check: result}.
      data, trace, run: what was checked; None if there was no such thing.
    """

    results: dict[str, CheckResult | None]
    data: Data | None = None
    trace: Trace | None = None
    run: Run | None = None

    @property
    def findings(self) -> dict[str, CheckResult]:
        """The findings by the name of the check: a cause before what it brings about, the minor ones last."""
        wrong = {name: result for name, result in self.results.items() if result and result.finding}
        return dict(sorted(wrong.items(), key=lambda item: item[1].minor))

    @property
    def cause(self) -> str | None:
        """Name of the check with the first finding, the likeliest cause."""
        return next(iter(self.findings), None)

    @property
    def finding(self) -> CheckResult | None:
        """The result of the check that is the likeliest cause."""
        return self.results[self.cause] if self.cause else None

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """A mark, the name and the evidence of every check.

        The marks: `x` for a finding, `note` for places worth checking, `-` if there was nothing to check.
        """
        for name, result in self.results.items():
            mark = "-" if result is None else "x" if result.finding else "note" if result.places else "ok"
            yield mark, name, result.evidence if result else "nothing to check"

    def verdict(self) -> Iterator[str]:
        """Sentences: the findings in order, each with the next experiment, or that there are none."""
        for number, (name, result) in enumerate(self.findings.items(), 1):
            yield f"finding {number} ({name}): {result.finding}"
            yield f"  next: {result.experiment}"
        if not self.findings:
            said = [name for name, result in self.results.items() if result is not None]
            silent = len(self.results) - len(said)
            more = f". {silent} of {len(self.results)} checks had nothing to check" if silent else ""
            yield f"Nothing found. Checked: {', '.join(said)}{more}."

    def to_json(self) -> dict[str, Any]:
        """The verdict, the findings in order, and every result."""
        return {
            "healthy": self.cause is None,
            "cause": self.cause,
            "findings": list(self.findings),
            "checks": {name: result and dataclasses.asdict(result) for name, result in self.results.items()},
        }


def diagnose(
    episodes: Iterable[Episode] | Steps | None = None,
    run: Run | None = None,
    trace: Trace | None = None,
    report: Callable[[str], None] = lambda check: None,
    times: Sequence[np.ndarray] | None = None,
) -> Diagnosis:
    """Runs all checks for which there is something to check.

    Args:
      episodes: demonstrations, or the table of them.
      run: of `read_run`.
      trace: of `overfit`; without one, a small network overfits one batch of the demonstrations.
      report: called with the name of what comes next.
      times: s, of the steps of each of the demonstrations, where they are known.

    Raises:
      UserError: the demonstrations do not fit each other.
    """
    data = None
    if episodes is not None:
        steps = episodes if isinstance(episodes, Steps) else tabulate(episodes)
        single_actions = run is not None and run.horizon == 1 and not run.hyper.get("observation_dropout")
        data = Data(steps, times, single_actions)
        if trace is None:
            report("overfitting one batch")
            trace = overfit_rows(steps)
    results: dict[str, CheckResult | None] = {}
    rounds: list[tuple[dict[str, Check[Any]], Any]] = [(DATA_CHECKS, data), (TRACE_CHECKS, trace), (RUN_CHECKS, run)]
    for checks, evidence in rounds:
        for name, check in checks.items():
            if evidence is not None:
                report(name)
                results[name] = check(evidence)
    return Diagnosis(results, data, trace, run)
