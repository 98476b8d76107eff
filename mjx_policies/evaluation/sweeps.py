"""Results of a sweep: the points of its grid, compared over their seeds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table

from mjx_policies.evaluation.aggregate import aggregate
from mjx_policies.evaluation.outcomes import STAGE
from mjx_policies.evaluation.report import Evaluation
from mjx_policies.evaluation.statistics import Estimate

PORTIONS = ("success", "completion", "failures", "falls", "tracking", "cut_off")  # lie in [0, 1]
RANKED = ("success", "tracking", "completion", "return")  # the more the better, in the order in which they count


@dataclasses.dataclass(frozen=True)
class Point:
    """Runs that differ in their seeds alone.

    Attributes:
      name: what they have in common.
      runs: their numbers in the sweep.
      diverged: the numbers of those that did, of which there are no figures.
      best: the number of the one that did best; None if all diverged.
      evaluation: interquartile means over the others, with the intervals of `aggregate`; the figures of the run itself
        where there is one.
    """

    name: str
    runs: tuple[int, ...]
    diverged: tuple[int, ...]
    best: int | None
    evaluation: Evaluation


def compare_points(
    names: Sequence[str], evaluations: Sequence[Evaluation], condition: str, bounded: Sequence[str] = ()
) -> list[Point]:
    """The points of a sweep, the best first; those of which all runs diverged are last.

    Args:
      names: of the point that each run belongs to.
      evaluations: of each run; empty for one that diverged.
      condition: the one whose figures decide.
      bounded: figures, beside `PORTIONS`, that lie in [0, 1].
    """
    points = []
    for name in dict.fromkeys(names):
        runs = [number for number, of in enumerate(names) if of == name]
        finished = [number for number in runs if evaluations[number]]
        points.append(
            Point(
                name,
                runs=tuple(runs),
                diverged=tuple(number for number in runs if number not in finished),
                best=max(finished, key=lambda number: _rank(evaluations[number], condition), default=None),
                evaluation=_over_runs([evaluations[number] for number in finished], bounded),
            )
        )
    return sorted(points, key=lambda point: _rank(point.evaluation, condition), reverse=True)


def _rank(evaluation: Evaluation, condition: str) -> tuple[float, ...]:
    figures = evaluation.get(condition, {})
    values = [figures[name].value if name in figures else -math.inf for name in RANKED]
    return tuple(-math.inf if math.isnan(value) else value for value in values)


def _over_runs(found: Sequence[Evaluation], bounded: Sequence[str]) -> Evaluation:
    if len(found) < 2:
        return found[0] if found else {}
    return {
        condition: {name: _estimate([each[condition][name] for each in found], name, bounded) for name in figures}
        for condition, figures in found[0].items()
    }


def _estimate(of_runs: Sequence[Estimate], name: str, bounded: Sequence[str]) -> Estimate:
    values = np.array([estimate.value for estimate in of_runs])
    values = values[np.isfinite(values)]
    if not values.size:
        return Estimate(math.nan, math.nan, math.nan, 0)
    portion = name in PORTIONS or name in bounded or name.startswith(STAGE)
    return aggregate(values, lowest=0.0, highest=1.0) if portion else aggregate(values)


def sweep_table(points: Sequence[Point], title: str, condition: str) -> Table:
    """One row for each point: the figure that decides, in each condition, and which run did best."""
    evaluated = next((point.evaluation for point in points if point.evaluation), {})
    chief = next((name for name in RANKED if name in evaluated.get(condition, {})), RANKED[-1])
    columns = [(condition, chief) for condition in evaluated]
    table = Table(title=title, title_justify="left")
    table.add_column("[95 %]", overflow="fold")
    for condition, name in columns:
        table.add_column(f"{condition} {name}", justify="right")
    table.add_column("best run", justify="right")
    diverged = any(point.diverged for point in points)
    if diverged:
        table.add_column("diverged", justify="right")
    for point in points:
        cells = [_cell(point.evaluation, condition, name) for condition, name in columns]
        ends = [f"{len(point.diverged)} of {len(point.runs)}"] if diverged else []
        table.add_row(point.name, *cells, "–" if point.best is None else str(point.best), *ends)
    return table


def _cell(evaluation: Evaluation, condition: str, name: str) -> str:
    figures: Mapping[str, Estimate] = evaluation.get(condition, {})
    return str(figures[name]) if name in figures else "–"
