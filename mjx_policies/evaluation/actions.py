"""A policy's actions compared with those it learned from. Axes: N actions, A action, T steps of an episode.

A policy can fit every action and still fail: by averaging modes that the demonstrations keep apart, by commanding more
than the robot has, by trembling. Each shows here before it shows in a success rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

LIMIT = 1.0  # most actions lie in [-1, 1]
TOLERANCE = 1e-3  # of the way from one limit to the other, within which an action counts as at the limit


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Portions of one dimension's values, so that two are comparable whatever their counts.

    Attributes:
      edges: [bins + 1].
      portions: [bins], which sum to one.
    """

    edges: np.ndarray
    portions: np.ndarray


@dataclasses.dataclass(frozen=True)
class ActionFigures:
    """Figures of one dimension of the action, over all steps of all episodes, in units of the action.

    Attributes:
      mean, std: of its values.
      saturation: portion of the values at a limit or beyond it, where a further action changes nothing.
      rate: root mean square of the change from one step to the next.
      jerk: root mean square of the third difference, zero for any parabola; NaN if no episode has four steps.
    """

    mean: float
    std: float
    saturation: float
    rate: float
    jerk: float


def figures(
    episodes: Sequence[np.ndarray], low: np.ndarray, high: np.ndarray
) -> list[ActionFigures]:  # each [T, A], [A], [A] -> A
    """The figures of each dimension; differences are never taken across the end of an episode.

    Args:
      episodes: the actions of each.
      low, high: the limits of the action, see `ActionTable.reach`. An action of 1 is none where a joint goes further.

    Raises:
      ValueError: no step, or episodes of different sizes of action.
    """
    _check(episodes)
    values = np.concatenate(episodes)
    mean, std = values.mean(axis=0), values.std(axis=0)
    low, high = np.asarray(low, float), np.asarray(high, float)
    margin = np.where(np.isfinite(high - low), TOLERANCE * (high - low), 0.0)
    saturation = np.mean((values <= low + margin) | (values >= high - margin), axis=0)
    rate, jerk = (_rms_difference(episodes, order) for order in (1, 3))
    return [ActionFigures(*map(float, row)) for row in zip(mean, std, saturation, rate, jerk, strict=True)]


def wasserstein(first: np.ndarray, second: np.ndarray) -> float:  # [N], [M] -> []
    """The Wasserstein-1 distance of two samples: the area between their distribution functions.

    In units of the action: how far a unit of probability has to be carried from one to the other.
    """
    a, b = np.sort(np.asarray(first, float)), np.sort(np.asarray(second, float))
    points = np.sort(np.concatenate([a, b]))
    below = [np.searchsorted(x, points[:-1], side="right") / x.size for x in (a, b)]
    return float(np.sum(np.abs(below[0] - below[1]) * np.diff(points)))


def histogram(values: np.ndarray, edges: np.ndarray) -> Histogram:  # [N]
    """Portions between the edges; what lies beyond them is counted at the ends."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return Histogram(edges, counts / max(1, counts.sum()))


def common_edges(samples: Sequence[np.ndarray], bins: int = 40) -> np.ndarray:  # each [N] -> [bins + 1]
    """Edges that show all of some samples, from -1 to 1 at least."""
    low = min(-LIMIT, *(float(np.min(sample)) for sample in samples))
    high = max(LIMIT, *(float(np.max(sample)) for sample in samples))
    return np.linspace(low, high, bins + 1)


def _rms_difference(episodes: Sequence[np.ndarray], order: int) -> np.ndarray:  # [A]
    differences = [np.diff(actions, order, axis=0) for actions in episodes if len(actions) > order]
    if not differences:
        return np.full(episodes[0].shape[1], np.nan)
    return np.sqrt(np.mean(np.square(np.concatenate(differences)), axis=0))


def _check(episodes: Sequence[np.ndarray]) -> None:
    shapes = {np.shape(actions)[1:] for actions in episodes}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or not sum(map(len, episodes)):
        raise ValueError(
            f"actions of shapes {sorted(map(np.shape, episodes))}: need [T, A] with the same A, and a step"
        )
