"""A set of demonstrations in figures: how they were collected, how long they take, what is wrong. Axes: T steps.

surveyed = survey(dataset, task.spec.observation)
print(to_markdown(surveyed, "FrankaPickCube", tally))
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mjx_policies.data.episodes import Episode
from mjx_policies.data.quality import LISTED, Finding, Quality, Tally, judge
from mjx_policies.evaluation.statistics import Estimate, mean
from mjx_policies.spec import Table, table_slices
from mjx_policies.training.progress import duration

WHERE = ("m", "rad", "1")  # units of what says where something is; rates, forces and memories say something else
POSITIONS = ("tcp_position", "position")  # what a robot's path is drawn from, the first that a table has
DRAWN = 40  # paths of each strategy that are kept
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
SHOWN = 3  # findings of one kind that the text names


@dataclasses.dataclass(frozen=True)
class Survey:
    """The figures of a dataset.

    Attributes:
      quality: figures of the whole set.
      seconds: [episodes of the strategy] how long they take.
      norms: [steps] of all actions.
      paths: [T, 2 or 3] m, where the robot was, of the first `DRAWN` episodes of each strategy; none if the
        observation does not say.
    """

    quality: Quality
    seconds: dict[str, np.ndarray]
    norms: np.ndarray
    paths: dict[str, list[np.ndarray]]


def survey(episodes: Iterable[Episode], table: Table) -> Survey:
    """Surveys a dataset, reading each episode once.

    Args:
      episodes: of one task.
      table: of their observation `state`.

    Raises:
      UserError: there are no episodes.
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

    quality = judge(noted(), {"state": moving_columns(table)})
    return Survey(
        quality=quality,
        seconds={name: np.array(seconds[name]) for name in sorted(seconds)},
        norms=np.concatenate(norms),
        paths={name: paths[name] for name in sorted(paths)},
    )


def moving_columns(table: Table) -> list[int]:
    """Columns of an observation that say where things are."""
    slices = table_slices(table)
    chosen = [slices[term.name] for term in table if term.measured and term.unit in WHERE]
    return list(itertools.chain.from_iterable(range(each.start, each.stop) for each in chosen))


def to_json(surveyed: Survey, tally: Tally | None = None, seconds: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The figures as JSON.

    Args:
      surveyed: the set.
      tally: of the rollouts that it was chosen from.
      seconds: that collecting spent on each part of the work.
    """
    figures = surveyed.quality.to_json()
    figures["durations"] = {name: _durations(values) for name, values in surveyed.seconds.items()}
    if tally is not None:
        figures["rollouts"] = tally.rollouts
        figures["outcomes"] = tally.counts
        figures["success"] = {name: dataclasses.asdict(rate) for name, rate in tally.rates().items()}
    if seconds is not None:
        figures["collection_seconds"] = dict(seconds)
    return figures


def to_markdown(
    surveyed: Survey, title: str, tally: Tally | None = None, seconds: Mapping[str, float] | None = None
) -> str:
    """The figures for people; see `to_json` for the arguments."""
    quality = surveyed.quality
    total = sum(float(values.sum()) for values in surveyed.seconds.values())
    lines = [
        f"# {title}",
        "",
        f"{quality.episodes:,} episodes, {quality.steps:,} steps, {duration(total)} in all; "
        f"{', '.join(f'{count:,} {name}' for name, count in quality.strategies.items())}.",
    ]
    if tally is not None:
        lines += ["", *_rollouts(tally)]
    lines += ["", "| seconds | mean [95 %] | least | q05 | median | q95 | most |", "|---|---|---|---|---|---|---|"]
    whole = np.concatenate(list(surveyed.seconds.values()))
    for name, values in {**surveyed.seconds, "all": whole}.items():
        quantiles = " | ".join(f"{value:.2f}" for value in np.quantile(values, QUANTILES))
        lines.append(f"| {name} | {_estimate(mean(values, lowest=0.0), 2)} | {quantiles} |")
    if quality.judged < quality.episodes:
        lines += ["", f"Of the first {quality.judged:,} episodes, all that fit in memory:"]
    lines += [
        "",
        f"- idle: {quality.idle.mean():.1%} of the time, {quality.idle.max():.1%} in the worst episode, "
        f"{quality.longest_idle:.2f} s at a stretch",
        f"- some action at the end of its range: {quality.at_limit:.1%} of the steps",
        _finding("jumps", quality.jumps),
        _finding("actions with an outlying norm", quality.outliers),
        _finding("duplicates", quality.duplicates),
    ]
    if seconds:
        parts = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
        lines += ["", f"Time: {parts}; writing goes on beside simulating."]
    return "\n".join(lines) + "\n"


def _rollouts(tally: Tally) -> list[str]:
    """A row for each strategy with what became of its rollouts."""
    kinds = sorted({outcome for row in tally.counts.values() for outcome in row} - {"success"})
    header = ["rollouts", "number", "success [95 %]", *kinds]
    lines = [_row(header), _row(["---"] * len(header))]
    together: collections.Counter[str] = collections.Counter()
    for row in tally.counts.values():
        together.update(row)
    for name, rate in tally.rates().items():
        counts = together if name == "all" else tally.counts[name]
        cells = [name, f"{rate.count:,}", _estimate(rate, 3), *(f"{counts.get(kind, 0):,}" for kind in kinds)]
        lines.append(_row(cells))
    return lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _estimate(estimate: Estimate, digits: int) -> str:
    low, value, high = (f"{number:.{digits}f}" for number in (estimate.low, estimate.value, estimate.high))
    return f"{value} [{low}, {high}]" if np.isfinite(estimate.high) else value


def _finding(name: str, found: Sequence[Finding]) -> str:
    if not found:
        return f"- {name}: none"
    first = "; ".join(f"episode {each.episode}, step {each.step}: {each.what}" for each in found[:SHOWN])
    known = "quality.json" if len(found) <= LISTED else f"quality.json the first {LISTED}"
    return f"- {name}: {len(found):,} ({first}" + (f"; {known})" if len(found) > SHOWN else ")")


def _durations(values: np.ndarray) -> dict[str, float]:
    names = ("least", "q05", "median", "q95", "most")
    quantiles = dict(zip(names, map(float, np.quantile(values, QUANTILES)), strict=True))
    return {"count": len(values), "mean": float(values.mean()), "std": float(values.std())} | quantiles
