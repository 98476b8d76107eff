"""What is wrong with a set of demonstrations, before somebody trains on it. Axes: T steps, N steps of all episodes.

Numbers are judged against the set itself: a jump is one among a million steps of the same joint, not a figure that fits
one robot. Pictures are left out.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from mjx_policies.data.episodes import Episode
from mjx_policies.errors import UserError
from mjx_policies.evaluation.statistics import Estimate, proportion

LEAST_RANGE = 0.05  # of its size, that a coordinate is taken to cover: what all but stands still jumps by nothing
IDLE = 0.002  # of the range a coordinate covers in the set, which a step must exceed in some coordinate to be a motion
JUMP = (5.0, 0.05)  # times the 99th percentile of its steps, and at least this part of its range
OUTLIER = 3.0  # times the 99th percentile of the norms of actions
AT_LIMIT = 0.999  # of an action in [-1, 1]
DUPLICATE = 0.01  # standard deviations, root mean square over an episode resampled to `POINTS` moments
POINTS = 16
LISTED = 20  # findings of one kind that are named
MAX_NUMBERS = 50_000_000  # that are held, 8 bytes each and a few times over


@dataclasses.dataclass(frozen=True)
class Finding:
    """Where something looks wrong: an episode by its place in the set, a step of it, and what is there."""

    episode: int
    step: int
    what: str


@dataclasses.dataclass(frozen=True)
class Quality:
    """The figures of a set.

    Attributes:
      episodes, steps: how many.
      seconds: shortest, median and longest episode.
      strategies: episodes of each.
      judged: how many episodes, the first ones, all that follows is of: those that fit in memory.
      idle: [judged] portion of the steps in which nothing moves.
      longest_idle: s, of all.
      at_limit: portion of the steps in which some action is at the end of its range, [-1, 1].
      jumps: steps in which a coordinate changes as it hardly ever does: a lost frame, a teleport.
      outliers: actions far larger than the others.
      duplicates: episodes that repeat an earlier one.
    """

    episodes: int
    steps: int
    seconds: tuple[float, float, float]
    strategies: dict[str, int]
    judged: int
    idle: np.ndarray
    longest_idle: float
    at_limit: float
    jumps: list[Finding]
    outliers: list[Finding]
    duplicates: list[Finding]

    def to_json(self) -> dict[str, Any]:
        """The figures, and the first findings of each kind."""
        lists = ("jumps", "outliers", "duplicates")
        findings = {
            name: {"count": len(found), "first": [dataclasses.asdict(finding) for finding in found[:LISTED]]}
            for name, found in ((name, getattr(self, name)) for name in lists)
        }
        return {
            "episodes": self.episodes,
            "steps": self.steps,
            "seconds": dict(zip(("least", "median", "most"), self.seconds, strict=True)),
            "strategies": self.strategies,
            "judged": self.judged,
            "idle": {
                "mean": float(self.idle.mean()),
                "most": float(self.idle.max()),
                "longest_seconds": self.longest_idle,
            },
            "at_limit": self.at_limit,
            **findings,
        }


def judge(episodes: Iterable[Episode], coordinates: Mapping[str, Sequence[int] | slice] | None = None) -> Quality:
    """Looks through a set of episodes of one task.

    Args:
      episodes: each is read once.
      coordinates: {observation: columns} that say where everything is; what the robot only remembers, such as its last
        action, moves when nothing does. All columns of all observations but pictures by default.

    Raises:
      UserError: there are no episodes, or no such observation.
    """
    paths: list[np.ndarray] = []  # [T, D] each
    actions: list[np.ndarray] = []
    fps: list[float] = []
    steps, held = 0, 0
    seconds: list[float] = []
    strategies: collections.Counter[str] = collections.Counter()
    for episode in episodes:
        if held < MAX_NUMBERS:
            paths.append(path_of(episode, coordinates))
            actions.append(episode.action)
            fps.append(episode.fps)
            held += paths[-1].size + actions[-1].size
        steps += len(episode)
        seconds.append(len(episode) / episode.fps)
        strategies[episode.strategy or "unknown"] += 1
    if not paths:
        raise UserError("there are no episodes to judge.")
    low, high = np.quantile(np.concatenate(paths), [0.005, 0.995], axis=0)  # [D]
    spans = np.maximum(high - low, np.maximum(LEAST_RANGE * np.maximum(np.abs(low), np.abs(high)), 1e-6))
    changes = [np.abs(np.diff(path, axis=0)) / spans for path in paths]
    idle = [(change < IDLE).all(axis=1) for change in changes]
    return Quality(
        episodes=len(seconds),
        steps=steps,
        seconds=(min(seconds), float(np.median(seconds)), max(seconds)),
        strategies=dict(sorted(strategies.items())),
        judged=len(paths),
        idle=np.array([rests.mean() if rests.size else 0.0 for rests in idle]),
        longest_idle=max(longest_run(rests) / rate for rests, rate in zip(idle, fps, strict=True)),
        at_limit=float(np.mean(np.concatenate([(np.abs(action) >= AT_LIMIT).any(axis=1) for action in actions]))),
        jumps=find_jumps(changes),
        outliers=find_outliers(actions),
        duplicates=find_duplicates(paths, actions),
    )


def path_of(episode: Episode, coordinates: Mapping[str, Sequence[int] | slice] | None) -> np.ndarray:  # [T, D]
    """The coordinates of an episode side by side."""
    if coordinates is None:
        coordinates = {name: slice(None) for name, value in episode.observation.items() if value.dtype != np.uint8}
    missing = sorted(set(coordinates) - set(episode.observation))
    if missing or not coordinates:
        raise UserError(f"the episodes have no observation {', '.join(missing) or 'of numbers'} to judge.")
    steps = len(episode)
    columns = [episode.observation[name].reshape(steps, -1)[:, which] for name, which in coordinates.items()]
    return np.concatenate(columns, axis=1).astype(np.float64)


def longest_run(flags: np.ndarray) -> int:  # [T] bool
    """Length of the longest unbroken run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def find_jumps(changes: Sequence[np.ndarray]) -> list[Finding]:  # [T - 1, D] each, in parts of the range
    """Changes far beyond those of the same coordinate in 99 % of all steps."""
    every = np.concatenate(changes)
    if not every.size:
        return []
    limit = np.maximum(JUMP[0] * np.quantile(every, 0.99, axis=0), JUMP[1])
    return [
        Finding(number, int(step) + 1, f"coordinate {column} moves by {change[step, column]:.0%} of its range at once")
        for number, change in enumerate(changes)
        for step, column in np.argwhere(change > limit)
    ]


def find_outliers(actions: Sequence[np.ndarray]) -> list[Finding]:  # [T, A] each
    """Actions whose norm is far beyond that of 99 % of all."""
    norms = [np.linalg.norm(action, axis=1) for action in actions]
    usual = np.quantile(np.concatenate(norms), 0.99)
    return [
        Finding(number, int(step), f"the action's norm is {norm[step]:.3g}, that of 99 % of all is below {usual:.3g}")
        for number, norm in enumerate(norms)
        for step in np.flatnonzero(norm > OUTLIER * usual)
    ]


def find_duplicates(paths: Sequence[np.ndarray], actions: Sequence[np.ndarray]) -> list[Finding]:
    """Episodes that go the way of an earlier one, with the same actions, in the same time."""
    rows = [np.concatenate([path, action], axis=1) for path, action in zip(paths, actions, strict=True)]
    points = np.stack([row[np.linspace(0, len(row) - 1, POINTS).round().astype(int)] for row in rows])  # [E, P, D]
    deviation = points.std(axis=(0, 1))
    points = points[..., deviation > 1e-9] / deviation[deviation > 1e-9]
    flat = points.reshape(len(points), -1)
    if not flat.shape[1]:
        return [Finding(number, 0, "repeats episode 0") for number in range(1, len(rows))]
    pairs = cKDTree(flat).query_pairs(DUPLICATE * np.sqrt(flat.shape[1]), output_type="ndarray")
    earlier: dict[int, int] = {}
    for first, second in pairs:
        if len(rows[first]) == len(rows[second]):
            earlier[int(second)] = min(int(first), earlier.get(int(second), int(first)))
    return [Finding(number, 0, f"repeats episode {earlier[number]}") for number in sorted(earlier)]


@dataclasses.dataclass
class Tally:
    """What became of the rollouts of a collection, before any were left out: {strategy: {outcome: count}}."""

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
