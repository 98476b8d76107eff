"""Checks of what belongs to what: actions to observations, causes to effects, and the present to the future."""

from __future__ import annotations

import collections

import numpy as np

from mjx_policies.diagnosis.base import CheckResult, listed
from mjx_policies.diagnosis.data import Data

ASSOCIATED = 4.0  # standard deviations above exchanged actions
TELLING = 0.5  # R^2 above which nobody would call actions shuffled
LIKELIER = 0.02  # nats per step by which a pairing must beat the recorded one, and in every fold
BLANK = 0.02  # standard deviations by which a memory of nothing may differ from itself
LATER = 0.1  # portion of a change by which an earlier action must tell more than that of the same row


def shuffled(data: Data) -> CheckResult | None:
    """Actions that have lost their observations."""
    found = data.association
    if found is None or (found.moments is None and found.episodes is None):
        return None
    kinds = [("of another moment", found.moments), ("of another episode", found.episodes)]
    scores = {kind: score for kind, score in kinds if score is not None}
    weakest = min(scores, key=lambda kind: scores[kind])
    evidence = (
        f"the observations around a step explain {max(found.explained, 0):.1%} of its action, and fit it better than "
        f"one {weakest} by {scores[weakest]:.1f} standard deviations"
    )
    if found.explained > TELLING or scores[weakest] >= ASSOCIATED:
        return CheckResult(evidence)
    return CheckResult(
        evidence,
        f"the actions are shuffled: an action {weakest} fits the observations as well as the recorded one.",
        "Replay the recorded actions of one episode on the robot or in simulation: it should go where the record says.",
        where=_actions(data),
    )


def misaligned(data: Data) -> CheckResult | None:
    """Rows that are shifted against each other."""
    lags = data.lags
    if lags is None or (shuffled(data) or CheckResult("")).finding:
        return None
    causal, acausal = lags.best(causal=True), lags.best(causal=False)
    gain = lags.likelihood[acausal] - lags.likelihood[causal]
    changes = f"the action of the same row tells {max(lags.dynamics[0], 0):.1%} of a change"
    likelier = bool(gain.mean() >= LIKELIER and gain.min() > 0)
    late = -1 - held if (held := memory(data)) is not None else 0  # rows by which the actions held come too late
    if late < 0 and lags.dynamics.get(late, 0.0) > lags.dynamics[0] and begins_blank(data, -late - 1):
        return shifted(
            -late,
            "after",
            f"{changes}, that {steps(-late)} after it {lags.dynamics[late]:.1%}; the observation holds actions of "
            f"{'its own row' if late == -1 else f'{steps(-late - 1)} later'}, as if they were its history",
            data,
        )
    # A later observation may show the action itself; then it takes more to say that the action is early.
    felt_late = lags.dynamics[acausal[0]] > lags.dynamics[0] + LATER
    held_late = late > 0 and lags.dynamics.get(late, 0.0) > lags.dynamics[0]
    if likelier and acausal[1] < 0 and held_late:
        return shifted(
            late,
            "before",
            f"{changes}, that {steps(late)} before it {lags.dynamics[late]:.1%}; the observation holds actions of "
            f"{steps(late + 1)} before it, and none later",
            data,
        )
    if not likelier:
        return CheckResult(f"{changes}; no shift of rows is likelier (best by {gain.mean():+.3f} nats a step)")
    if acausal[1] < 0 and not felt_late:
        return CheckResult(f"{changes}; a later observation shows the action, and an earlier action does not tell more")
    d, p = acausal
    shift, which = (-d, "after") if d < 0 else (-p, "before")
    if d < 0:
        compared = f"{changes}, that {steps(shift)} after it {lags.dynamics[d]:.1%}"
    else:
        compared = (
            f"the observation of the same row tells {max(lags.policy[0], 0):.1%} of an action, that {steps(shift)} "
            f"after it {lags.policy[p]:.1%}, and actions are felt {steps(max(d, 0))} late"
        )
    evidence = f"{compared}; rows shifted by {steps(shift)} are likelier by {gain.mean():.2f} nats a step"
    return shifted(shift, which, evidence, data)


def begins_blank(data: Data, lag: int) -> bool:
    """Whether columns that copy actions at this lag know nothing of them in an episode's first step, as memories do.

    There a memory holds what it was reset to; what leaks from the future holds the action there too.
    """
    steps_ = data.steps
    first = np.searchsorted(steps_.episode, np.unique(steps_.episode))
    first = first[
        (first + lag < len(steps_))
        & (steps_.episode[np.minimum(first + lag, len(steps_) - 1)] == steps_.episode[first])
    ]
    inner = steps_.around(1, lag)
    blank = []
    for copy in data.copies:
        if copy.of_action and copy.lag == lag:
            column, action = steps_.observation[:, copy.column], steps_.action[:, copy.source]
            slope, offset = np.polyfit(action[inner + lag], column[inner], 1)
            missed = np.abs(column[first] - slope * action[first + lag] - offset)
            spread = max(float(column[inner].std()), 1e-12)
            blank.append(np.mean(missed > BLANK * spread) > 0.5 or column[first].std() < BLANK * spread)
    return bool(blank) and float(np.mean(blank)) > 0.5


def shifted(shift: int, which: str, evidence: str, data: Data) -> CheckResult:
    """The finding of `misaligned`: the action that belongs to a row comes so many rows before or after it."""
    return CheckResult(
        evidence,
        f"observations and actions are off by {steps(shift)}: the action that belongs to a row is in the row "
        f"{which} it."
        if shift == 1
        else f"observations and actions are off by {shift} rows: the action that belongs to a row comes {which} it.",
        f"Shift the actions by {steps(shift)} {'towards the start' if which == 'after' else 'towards the end'} and run "
        "this again; then check where the recorder reads the sensors and where it logs the command.",
        where=_actions(data),
    )


def memory(data: Data) -> int | None:
    """The lag of the newest copy in the observation, of most actions; -1 where it holds the last action, as it may."""
    newest: dict[int, int] = {}
    for copy in data.copies:
        if copy.of_action:
            newest[copy.source] = max(copy.lag, newest.get(copy.source, copy.lag))
    if not newest:
        return None
    lag, count = collections.Counter(newest.values()).most_common(1)[0]
    varied = int((np.ptp(data.steps.action, axis=0) > 0).sum())
    return lag if 2 * count >= varied else None


def leaked(data: Data) -> CheckResult | None:
    """Columns that hold what nobody could know yet."""
    steps_, forecasts = data.steps, data.forecasts
    if data.association is None and not data.copies:
        return None
    if not forecasts:
        memories = sum(copy.of_action for copy in data.copies)
        return CheckResult(f"no column is ahead of its time ({memories} hold an earlier action)")
    late = memory(data)
    if late is not None and late >= 0 and (misaligned(data) or CheckResult("")).finding:
        return CheckResult(
            f"{len(forecasts)} columns are ahead of their time, as they would be if actions were logged late"
        )
    # An action is worse than a column, and a column that a second one gives away needs no second sentence.
    first = min(forecasts, key=lambda copy: (not copy.of_action, abs(copy.lag), -copy.alike))
    name = steps_.columns[first.column]
    if first.of_action:
        source = f"action[{first.source}]"
        when = "of its own row" if first.lag == 0 else f"{steps(first.lag)} later"
    else:
        source, when = steps_.columns[first.source], f"{steps(first.lag)} later"
    return CheckResult(
        f"{name} follows {source} {when} with a squared correlation of {first.alike:.4f} of their changes"
        + (
            f"; so do {listed(others)}"
            if (others := sorted({steps_.columns[c.column] for c in forecasts} - {name}))
            else ""
        ),
        f"the observation {name} is {source} {when}: it leaks what is only known after acting.",
        f"Leave {name} out and train again: the loss will be higher and the robot better.",
        where=tuple(dict.fromkeys([name, source.split(" ")[0], *(steps_.columns[copy.column] for copy in forecasts)])),
    )


def _actions(data: Data) -> tuple[str, ...]:
    return tuple(f"action[{i}]" for i in range(data.steps.action.shape[1]))


def steps(count: int) -> str:
    """A number of rows in words."""
    return "one row" if count == 1 else f"{count} rows"
