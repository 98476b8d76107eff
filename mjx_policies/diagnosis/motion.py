"""Checks of motion: jumps, actions far larger than the others, standing still and going on. Axes: M steps, P positions.

Numbers are compared with the set itself: a jump is one among a million steps of the same joint, not a figure that fits
one robot. Which columns are positions a task's table says (`Steps.positions`); without one only actions are checked.
Jumps and outliers are named for people to replay, not called wrong: healthy demonstrations hold a few of both.
"""

from __future__ import annotations

import numpy as np

from mjx_policies.diagnosis.base import CheckResult, listed
from mjx_policies.diagnosis.data import Data
from mjx_policies.diagnosis.lags import MIN_ROWS, thin
from mjx_policies.diagnosis.regression import assign_folds, explained, fit, standardise
from mjx_policies.diagnosis.steps import Steps

LEAST_RANGE = 0.05  # of its size, that a position is taken to cover: what all but stands still jumps by nothing
JUMP = (5.0, 0.05)  # times the 99th percentile of its steps, and at least this part of its range
OUTLIER = 3.0  # times the 99th percentile of the norms of actions
IDLE = 0.002  # of the range a position covers in the set, which a step must exceed in some position to be a motion
MOSTLY = 0.5  # portion of the steps
INERTIA = (0.6, 0.15)  # R^2 of the changes of actions from those before, and by how much more than positions explain


def jumps(data: Data) -> CheckResult | None:
    """Steps in which a position changes as it hardly ever does: a lost frame, a teleport, or a cube that tumbles."""
    here, change = changes(data.steps)
    if not change.size:
        return None
    limit = np.maximum(JUMP[0] * np.quantile(change, 0.99, axis=0), JUMP[1])
    rows, columns = np.nonzero(change > limit)
    if not len(rows):
        return CheckResult("no position jumps")
    names = [data.steps.columns[data.steps.positions[column]] for column in np.unique(columns)]
    rows, largest = np.unique(rows), change[rows, columns].max()
    places = data.steps.places(here[rows])
    return CheckResult(
        f"jumps of up to {largest:.0%} of the range, of {listed(names)}, in {places_in_words(places, len(rows))}",
        places=places,
    )


def outliers(data: Data) -> CheckResult | None:
    """Actions whose norm is far beyond that of 99 % of all."""
    here = data.steps.around(0, 0)
    if not len(here):
        return None
    norm = np.linalg.norm(data.steps.action[here], axis=1)
    usual = np.quantile(norm, 0.99)
    found = np.flatnonzero(norm > OUTLIER * usual)
    if not len(found):
        return CheckResult(f"the largest norm of an action is {norm.max():.3g}, that of 99% is below {usual:.3g}")
    places = data.steps.places(here[found])
    return CheckResult(
        f"the norm of {len(found):,} actions is over {OUTLIER:g} times the {usual:.3g} that 99% are below, in "
        f"{places_in_words(places, len(found))}",
        places=places,
    )


def idle(data: Data) -> CheckResult | None:
    """Steps in which nothing moves."""
    portions, longest = idle_portions(data.steps)
    if not len(portions):
        return None
    evidence = (
        f"nothing moves in {portions.mean():.1%} of the steps, {portions.max():.1%} in the worst episode, "
        f"{longest:.2f} s at a stretch"
    )
    if portions.mean() <= MOSTLY:
        return CheckResult(evidence)
    return CheckResult(
        evidence,
        f"the robot stands still in {portions.mean():.0%} of the steps, and a policy learns to stand still.",
        "Cut the rests at the beginnings and ends of the episodes, and train again.",
        minor=True,
    )


def inertia(data: Data) -> CheckResult | None:
    """Actions that go on with a motion, for a policy of single actions that always sees its own.

    Such a policy may read from its velocity what to do next, and where it stands still it goes on standing: causal
    confusion, de Haan et al. 2019 (arXiv:1905.11979). A chunk cannot be copied: it holds where the motion leads.
    """
    steps = data.steps
    here = thin(steps.around(2, 0), steps)
    if not data.single_actions or len(here) < MIN_ROWS or not steps.positions:
        return None
    fold, action = assign_folds(steps.episode[here]), steps.action
    change = standardise(action[here] - action[here - 1])
    carried = explained(change, fit(standardise(action[here - 1] - action[here - 2]), change, fold))
    seen = explained(change, fit(standardise(steps.observation[here][:, steps.positions]), change, fold))
    carried, seen = max(carried, 0.0), max(seen, 0.0)
    evidence = f"the last change of an action explains {carried:.0%} of the next one, all positions {seen:.0%}"
    if carried < INERTIA[0] or carried < seen + INERTIA[1]:
        return CheckResult(evidence)
    return CheckResult(
        evidence,
        "the policy learns single actions, and those of the demonstrations go on with the motion they are in: it "
        "can learn to copy its velocity, and stays wherever it stands.",
        "Train with chunks (--horizon 16 --n-action-steps 8), which say where a motion leads, or hide what the robot "
        "senses of itself in half of the examples (--hyper.observation-dropout 0.5).",
    )


def idle_portions(steps: Steps) -> tuple[np.ndarray, float]:  # [episodes], s
    """The portion of each episode's steps in which nothing moves, and the longest stretch; none without positions."""
    here, change = changes(steps)
    if not change.size:
        return np.zeros(0), 0.0
    rests = (change < IDLE).all(axis=1)
    count = int(steps.episode[-1]) + 1
    known = np.bincount(steps.episode[here], minlength=count)
    portions = np.bincount(steps.episode[here], weights=rests, minlength=count) / np.maximum(known, 1)
    flags = np.zeros(len(steps) + 1, int)
    flags[here] = rests  # the first step of an episode is not among them, so none goes on into the next
    edges = np.flatnonzero(np.diff(flags, prepend=0))
    seconds = (edges[1::2] - edges[::2]) / steps.fps[steps.episode[edges[::2]]]
    return portions, float(seconds.max(initial=0.0))


def changes(steps: Steps) -> tuple[np.ndarray, np.ndarray]:  # [M], [M, P]
    """The steps that have one before them, and the part of its range by which each position has changed since."""
    here, path = steps.around(1, 0), steps.observation[:, steps.positions]
    if not len(here):
        return here, np.zeros((0, 0))
    low, high = np.quantile(path[steps.around(0, 0)], [0.005, 0.995], axis=0)
    spans = np.maximum(high - low, np.maximum(LEAST_RANGE * np.maximum(np.abs(low), np.abs(high)), 1e-6))
    return here, np.abs(path[here] - path[here - 1]) / spans


def places_in_words(places: tuple[tuple[int, int], ...], count: int = 0) -> str:
    """Episodes and steps in a sentence, the first few of `count`."""
    return listed([f"step {step} of episode {episode}" for episode, step in places], most=3, count=count)
