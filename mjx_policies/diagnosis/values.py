"""Checks of single numbers: finite, varying, of one scale, within bounds, and each recorded once."""

from __future__ import annotations

import numpy as np

from mjx_policies.diagnosis.base import CheckResult, listed
from mjx_policies.diagnosis.data import Data
from mjx_policies.diagnosis.steps import MAX_PLACES

SCALE = 100.0  # times the size of a usual column
AT_END = 0.5  # portion of the steps in which a saturated action is at an end of its range
SWITCH = 0.05  # portion of the steps between the ends, below which an action is a switch such as a gripper's
SLOW_SWITCH = (
    0.15  # the same of one that goes from end to end, which takes it a while, at most `TURNS` times an episode
)
TURNS = 3
COPIED = 0.5  # portion of its steps that an episode shares with an earlier one
REPEATED = 0.01  # portion of the episodes
TICKS = 0.5  # periods by which a clock may be off


def not_finite(data: Data) -> CheckResult | None:
    """Numbers that are not finite."""
    steps = data.steps
    bad = ~np.isfinite(np.concatenate([steps.observation, steps.action], axis=1))
    if not bad.any():
        return CheckResult(f"all {bad.size:,} numbers are finite")
    names = [*steps.columns, *action_names(data)]
    column, places = int(np.argwhere(bad)[0][1]), steps.places(np.flatnonzero(bad.any(axis=1)))
    where = f"episode {places[0][0]}, step {places[0][1]}"
    return CheckResult(
        f"{bad.sum():,} of {bad.size:,} numbers are not finite, in "
        f"{listed([names[i] for i in np.flatnonzero(bad.any(0))])}",
        f"the data hold NaN or infinity, first in {names[column]} in {where}.",
        "Drop or repair those steps, then find out which sensor or conversion wrote them.",
        where=tuple(names[i] for i in np.flatnonzero(bad.any(0))),
        places=places,
    )


def irregular(data: Data) -> CheckResult | None:
    """Steps that were not taken at the rate that the data claim."""
    if data.times is None:
        return None
    worst, first, off = 0.0, "", 0
    for number, (times, fps) in enumerate(zip(data.times, data.steps.fps, strict=True)):
        ticks = (times - times[0]) * fps
        # In periods: how far a step is from its place, and from where the step before says it should be.
        errors = np.maximum(np.abs(ticks - np.arange(len(ticks))), np.abs(np.diff(ticks, prepend=-1.0) - 1))
        errors = np.where(np.isfinite(errors), errors, np.inf)
        worst = max(worst, float(errors.max()))
        if errors.max() > TICKS:
            step, off = int(np.argmax(errors > TICKS)), off + 1
            first = first or (
                f"step {step} of episode {number} is at {times[step]:.4g} s, a clock of {fps:g} Hz would say "
                f"{times[0] + step / fps:.4g} s"
            )
    if not first:
        return CheckResult(f"all time stamps are within {worst:.2g} periods of the clock")
    return CheckResult(
        f"the time stamps of {off} of {len(data.times)} episodes are off by more than half a period: {first}",
        f"steps do not follow the clock of {data.steps.fps[0]:g} Hz: what is a row apart is not always a period apart.",
        "Drop those episodes, or bring the streams onto one clock again (mjx_policies.data.alignment).",
    )


def constant(data: Data) -> CheckResult | None:
    """Columns that never change: a sensor that hangs, or one that was never read."""
    steps = data.steps
    if len(steps) < 2:
        return None
    values = np.where(np.isfinite(steps.observation), steps.observation, np.nan)
    stuck = np.array([len(column) > 0 and bool((column == column[0]).all()) for column in map(finite, values.T)])
    for camera in {name.split("[")[0] for name in np.array(steps.columns)[steps.camera]}:
        parts = np.array([name.split("[")[0] == camera for name in steps.columns])
        stuck[parts] = stuck[parts].all()  # a dark corner is no broken camera
    names = [name for name, flag in zip(steps.columns, stuck, strict=True) if flag]
    if not names:
        return CheckResult(f"all {len(steps.columns)} columns vary")
    if steps.episode[-1] == 0 and not stuck.all():
        return CheckResult(
            f"{len(names)} of {len(steps.columns)} columns hold one number in the only episode, as goals do"
        )
    value = steps.observation[0, int(np.flatnonzero(stuck)[0])]
    return CheckResult(
        f"{len(names)} of {len(steps.columns)} columns hold one number in all {len(steps):,} steps: {listed(names)}",
        f"the observation {names[0]} never changes, it is {value:.6g} throughout.",
        "Move what it should measure and check the raw reading; if it is constant on purpose, leave it out.",
        where=tuple(names),
        minor=2 * len(names) < len(steps.columns),
    )


def duplicated(data: Data) -> CheckResult | None:
    """Episodes that repeat earlier ones, step by step."""
    steps = data.steps
    count = int(steps.episode[-1]) + 1
    if count < 2:
        return None
    kept = ~steps.camera | steps.camera.all()  # a frame that is compressed twice is not quite the same
    marks = fingerprints(np.concatenate([steps.observation[:, kept], steps.action], axis=1))
    _, first, inverse = np.unique(marks, return_index=True, return_inverse=True)
    origin = steps.episode[first[inverse]]  # episode in which a step was first seen
    shared = np.bincount(steps.episode, weights=origin < steps.episode, minlength=count) / np.bincount(steps.episode)
    repeats = np.flatnonzero(shared > COPIED)
    such = f", such as {listed([str(i) for i in repeats])}" if len(repeats) else ""
    evidence = f"{len(repeats)} of {count} episodes repeat an earlier one{such}"
    if len(repeats) <= REPEATED * count:
        return CheckResult(evidence)
    example = int(repeats[0])
    source = int(np.bincount(origin[steps.episode == example]).argmax())
    return CheckResult(
        evidence,
        f"episodes are in the data twice: episode {example} repeats episode {source}, so what is held out for "
        "validation is trained on.",
        "Remove the repeats, split the rest by episode, and compare the validation loss again.",
        minor=True,
        places=tuple((int(i), 0) for i in repeats[:MAX_PLACES]),
    )


def unnormalised(data: Data) -> CheckResult | None:
    """Columns whose numbers are far larger than those of the others."""
    found = []
    largest = 1.0
    for values, names in (
        (data.steps.observation[:, ~data.steps.camera], np.array(data.steps.columns)[~data.steps.camera]),
        (data.steps.action, np.array(action_names(data))),
    ):
        sizes = np.array(
            [np.sqrt(np.mean(np.square(finite(column)))) if finite(column).size else 0.0 for column in values.T]
        )
        varied = sizes > 0
        for index in np.flatnonzero(varied):
            others = sizes[varied & (np.arange(len(sizes)) != index)]
            if len(others):
                ratio = sizes[index] / np.quantile(others, 0.5, method="lower")
                largest = max(largest, ratio)
                if ratio > SCALE:
                    found.append((ratio, str(names[index])))
    if not found:
        return CheckResult(f"the largest column is {largest:.3g} times as large as the middle one")
    ratio, name = max(found)
    return CheckResult(
        f"{len(found)} columns are over {SCALE:g} times as large as the middle one: "
        + listed([f"{name} ({ratio:.3g} times)" for ratio, name in sorted(found, reverse=True)]),
        f"{name} is {ratio:.3g} times as large as the other columns, and drowns them in a network's first layer.",
        "Check its unit, and train on columns that are normalised by statistics of the data.",
        where=tuple(name for _, name in found),
    )


def saturated(data: Data) -> CheckResult | None:
    """Actions that were cut off at the ends of their range."""
    kept = np.isfinite(data.steps.action).all(axis=1)
    action, episode = data.steps.action[kept], data.steps.episode[kept]
    low, high = action.min(axis=0, initial=np.inf), action.max(axis=0, initial=-np.inf)
    varied = np.flatnonzero(high > low)
    if not len(varied) or len(action) < 10:
        return None
    near = 1e-3 * (high - low)
    share = np.mean((action <= low + near) | (action >= high - near), axis=0)
    between = np.array([SLOW_SWITCH if turns(action[:, i], episode, near[i]) <= TURNS else SWITCH for i in varied])
    analogue = varied[1 - share[varied] >= between]
    # If all of them are at their ends all the time, none of them is a gripper among joints.
    candidates = analogue if len(analogue) else varied[[len(np.unique(action[:, i])) > 3 for i in varied]]
    if not len(candidates):
        return CheckResult("all actions are switches between two or three values")
    worst = int(candidates[share[candidates].argmax()])
    many = [f"action[{i}] ({share[i]:.0%})" for i in candidates if share[i] > AT_END]
    if not many:
        return CheckResult(
            f"action[{worst}] is at an end of its range in {share[worst]:.0%} of the steps, no other more often"
        )
    return CheckResult(
        f"at an end of the range in more than {AT_END:.0%} of the steps: {listed(many)}",
        f"action[{worst}] is cut off at {low[worst]:.3g} or {high[worst]:.3g} in {share[worst]:.0%} of the steps, "
        "so how much was meant is lost.",
        "Record a few episodes with a larger action scale, and check whether the histogram loses its spikes.",
        where=tuple(f"action[{i}]" for i in candidates if share[i] > AT_END),
    )


def turns(column: np.ndarray, episode: np.ndarray, near: float) -> float:  # [N], [N] -> changes of end an episode
    """The number of times that an action goes from one end of its range to the other."""
    ends = (column >= column.max() - near).astype(int) - (column <= column.min() + near).astype(int)
    at_end = np.flatnonzero(ends)
    changed = (np.diff(ends[at_end]) != 0) & (np.diff(episode[at_end]) == 0)
    return float(changed.sum()) / len(np.unique(episode))


def action_names(data: Data) -> list[str]:
    """Names of the actions."""
    return [f"action[{i}]" for i in range(data.steps.action.shape[1])]


def finite(column: np.ndarray) -> np.ndarray:  # [N] -> [at most N]
    """The numbers that are finite."""
    return column[np.isfinite(column)]


def fingerprints(rows: np.ndarray) -> np.ndarray:  # [N, K] float64 -> [N] uint64
    """A hash of each row; rows that differ have different ones, but for one chance in 2**60 or so."""
    words = np.ascontiguousarray(rows).view(np.uint64)
    mark = np.zeros(len(rows), np.uint64)
    for column in words.T:
        mark = (mark ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mark ^= mark >> np.uint64(29)
    return mark
