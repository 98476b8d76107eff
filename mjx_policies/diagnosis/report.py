"""Report on a set of demonstrations: how they were collected, how long they take, what the checks find. Axes: T steps.

report = report_demonstrations(dataset, task.spec.observation, tally)
print(report.to_markdown("FrankaPickCube"))
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from mjx_policies.data.episodes import Episode
from mjx_policies.diagnosis.data import Data
from mjx_policies.diagnosis.diagnosis import DATA_CHECKS, SLOW_CHECKS, Diagnosis
from mjx_policies.diagnosis.motion import idle_portions
from mjx_policies.diagnosis.steps import Steps, tabulate
from mjx_policies.evaluation.statistics import Estimate, proportion
from mjx_policies.spec import Table, table_slices
from mjx_policies.training.progress import duration

POSITIONS = ("tcp_position", "position")  # what a robot's path is drawn from, the first that a table has
DRAWN = 40  # paths of each strategy that are kept
QUANTILES = {"least": 0.0, "q05": 0.05, "median": 0.5, "q95": 0.95, "most": 1.0}


@dataclasses.dataclass
class Tally:
    """The outcomes of the rollouts of a collection, before any were left out: {strategy: {outcome: count}}."""

    counts: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    def add(self, strategy: str, outcome: str) -> None:
        """Counts a rollout; the outcome `success` is one, every other a failure of that kind."""
        row = self.counts.setdefault(strategy, {})
        row[outcome] = row.get(outcome, 0) + 1

    @property
    def rollouts(self) -> int:
        """The number of rollouts of all strategies."""
        return sum(sum(row.values()) for row in self.counts.values())

    @property
    def successes(self) -> int:
        """The number of rollouts that succeeded."""
        return sum(row.get("success", 0) for row in self.counts.values())

    def rates(self) -> dict[str, Estimate]:
        """Success rate of each strategy and of `all`, with its interval."""
        rows = dict(sorted(self.counts.items()))
        rates = {name: proportion(row.get("success", 0), sum(row.values())) for name, row in rows.items()}
        return rates | {"all": proportion(self.successes, self.rollouts)} if rows else {}


@dataclasses.dataclass(frozen=True)
class Report:
    """The figures of a set of demonstrations.

    Attributes:
      steps: those that fit in memory, of the first episodes; the checks are of them.
      diagnosis: what the checks found.
      seconds: [episodes of the strategy] how long they take.
      norms: [steps] of all actions.
      paths: [T, 2 or 3] m, where the robot was, of the first `DRAWN` episodes of each strategy; none if the
        observation does not say.
      tally: of the rollouts that the set was chosen from.
      collection_seconds: that collecting spent on each part of the work.
    """

    steps: Steps
    diagnosis: Diagnosis
    seconds: dict[str, np.ndarray]
    norms: np.ndarray
    paths: dict[str, list[np.ndarray]]
    tally: Tally | None = None
    collection_seconds: Mapping[str, float] | None = None

    def durations(self) -> dict[str, dict[str, float]]:
        """Statistics of the episodes' lengths in s, for each strategy and `all`."""
        every = self.seconds | {"all": np.concatenate(list(self.seconds.values()))}
        return {
            name: {"count": len(values), "mean": float(values.mean()), "std": float(values.std())}
            | {quantile: float(np.quantile(values, level)) for quantile, level in QUANTILES.items()}
            for name, values in every.items()
        }

    def to_json(self) -> dict[str, Any]:
        """All figures, and the results of the checks as a diagnosis has them."""
        figures: dict[str, Any] = {
            "steps": len(self.norms),
            "checked": len(self.steps.fps),
            "durations": self.durations(),
        }
        portions, longest = idle_portions(self.steps)
        if len(portions):
            idle = {"mean": float(portions.mean()), "most": float(portions.max()), "longest_seconds": longest}
            figures["idle"] = idle
        if self.tally is not None:
            figures |= {"rollouts": self.tally.rollouts, "outcomes": self.tally.counts}
            figures["success"] = {name: dataclasses.asdict(rate) for name, rate in self.tally.rates().items()}
        if self.collection_seconds is not None:
            figures["collection_seconds"] = dict(self.collection_seconds)
        return figures | self.diagnosis.to_json()

    def to_markdown(self, title: str) -> str:
        """The report as Markdown, for people."""
        durations = self.durations()
        rows, every = durations.items(), durations["all"]
        total = duration(every["count"] * every["mean"])
        lines = [
            f"# {title}",
            "",
            f"{every['count']:,} episodes, {len(self.norms):,} steps, {total} of simulated time.",
        ]
        if self.tally is not None:
            kinds = sorted({outcome for row in self.tally.counts.values() for outcome in row} - {"success"})
            counts = self.tally.counts | {"all": collections.Counter()}
            for row in self.tally.counts.values():
                counts["all"].update(row)
            lines += _table(
                ["rollouts", "number", "success [95 %]", *kinds],
                (
                    [name, f"{rate.count:,}", f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]"]
                    + [f"{counts[name].get(kind, 0):,}" for kind in kinds]
                    for name, rate in self.tally.rates().items()
                ),
            )
        lines += _table(
            ["seconds", *every],
            ([name, *(f"{x:,}" if isinstance(x, int) else f"{x:.2f}" for x in row.values())] for name, row in rows),
        )
        if self.steps.cut:
            lines += ["", f"Of the first {len(self.steps.fps):,} episodes, all that fit in memory:"]
        lines += _table(["", "check", "what it found"], self.diagnosis.rows())
        for line in self.diagnosis.verdict():
            lines += ["", line.strip()]
        if self.collection_seconds:
            parts = ", ".join(f"{name} {duration(value)}" for name, value in self.collection_seconds.items())
            lines += ["", f"Wall-clock time: {parts}; writing goes on beside simulating."]
        return "\n".join(lines) + "\n"


def report_demonstrations(
    episodes: Iterable[Episode],
    table: Table,
    tally: Tally | None = None,
    collection_seconds: Mapping[str, float] | None = None,
) -> Report:
    """Reads each episode of one task once, and runs the quick checks of data; see `Report` for the arguments.

    Args:
      table: of their observation `state`.

    Raises:
      UserError: there are no episodes, or they have different columns.
    """
    seconds: dict[str, list[float]] = collections.defaultdict(list)
    paths: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    norms: list[np.ndarray] = []
    slices = table_slices(table)
    position = next((term for name in POSITIONS for term in table if term.name == name), None)

    def noted() -> Iterator[Episode]:
        for episode in episodes:
            name = episode.strategy or "unknown"
            seconds[name].append(len(episode) / episode.fps)
            norms.append(np.linalg.norm(episode.action, axis=1))
            if position is not None and len(paths[name]) < DRAWN:
                paths[name].append(episode.observation["state"][:, slices[position.name]] / position.scale)
            yield episode

    reading = noted()
    steps = tabulate(reading, table)
    collections.deque(reading, maxlen=0)  # the rest, which does not fit in memory, is counted all the same
    data = Data(steps)
    results = {name: check(data) for name, check in DATA_CHECKS.items() if name not in SLOW_CHECKS}
    return Report(
        steps=steps,
        diagnosis=Diagnosis(results, data),
        seconds={name: np.array(seconds[name]) for name in sorted(seconds)},
        norms=np.concatenate(norms),
        paths={name: paths[name] for name in sorted(paths)},
        tally=tally,
        collection_seconds=collection_seconds,
    )


def _table(header: list[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of a Markdown table, after an empty one."""
    return ["", *(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))]
