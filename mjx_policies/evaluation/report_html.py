"""An evaluation as a page for people: one file that opens anywhere, on a phone too. `page` has what it is made of."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from mjx_policies.evaluation.actions import common_edges, figures, histogram, wasserstein
from mjx_policies.evaluation.comparison import Comparison, compare_outcomes, compare_with_first, holm
from mjx_policies.evaluation.latency import Latency
from mjx_policies.evaluation.outcomes import STAGE, Outcomes, by_time
from mjx_policies.evaluation.page import (
    Html,
    curves,
    histograms,
    legend,
    number,
    page,
    percent,
    rate_bar,
    section,
    shaded,
    soft,
    table,
    tag,
    video,
)
from mjx_policies.evaluation.results import EvaluationResults
from mjx_policies.evaluation.statistics import Estimate

MAX_STRIP = 512  # episodes drawn one by one


@dataclasses.dataclass(frozen=True)
class Video:
    """An mp4 file and what it shows."""

    mp4: bytes
    caption: str


@dataclasses.dataclass(frozen=True)
class EvaluationReport:
    """The content of an evaluation page. With more than one policy, each is compared with the first.

    Attributes:
      title: of the page.
      summary: what was evaluated, in a line.
      policies: policy -> condition -> results; the same conditions, seed and episodes for all.
      condition: that of the headline and the verdict.
      explained: condition -> what it is, in words; those that explain themselves may be left out.
      episode_seconds: time limit.
      goal: a sentence on what an episode has to achieve, see `goal_in_words`; empty where its stages say so.
      action_names: of each dimension; empty if they mean different things to different policies.
      action_limits: [A] and [A], see `ActionTable.reach`.
      demonstrated: [T, A] actions of each demonstration, to compare with; empty if there are none.
      latency: policy -> how long a decision takes.
      control_dt: s, how long it may take.
      videos: of single episodes.
      about: what it takes to reproduce this: seed, versions, ...
    """

    title: str
    summary: str
    policies: Mapping[str, Mapping[str, EvaluationResults]]
    condition: str
    explained: Mapping[str, str]
    episode_seconds: float
    action_names: Sequence[str]
    control_dt: float
    action_limits: tuple[np.ndarray, np.ndarray]
    goal: str = ""
    demonstrated: Sequence[np.ndarray] = ()
    latency: Mapping[str, Latency] = dataclasses.field(default_factory=dict)
    videos: Sequence[Video] = ()
    about: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def outcomes(self) -> dict[str, Outcomes]:
        """Policy -> what it achieved in the report's condition."""
        return {name: results[self.condition].outcomes for name, results in self.policies.items()}


def render(report: EvaluationReport) -> str:
    """Renders the page as HTML."""
    parts = [
        tag("h1", report.title),
        soft(report.summary),
        _headline(report),
        *_verdicts(report),
        _conditions(report),
        *_stages(report),
        _episodes(report),
        *_videos(report.videos),
        *_actions(report),
        *_latency(report),
        section("Reproduce", table(("", ""), [(key, value) for key, value in report.about.items()])),
    ]
    return page(report.title, *parts)


def comparisons(report: EvaluationReport) -> list[tuple[str, str, Comparison]]:
    """See `compare_with_first`, in the report's condition."""
    return compare_with_first(report.outcomes)


def _headline(report: EvaluationReport) -> Html:
    cards = []
    for name, outcomes in report.outcomes.items():
        rate = outcomes.rate
        cards.append(
            tag(
                "div",
                soft(f"{outcomes.goal}, {report.condition}" + (f", {name}" if len(report.policies) > 1 else "")),
                tag("div", f"{100 * rate.value:.1f} %" if rate.count else "unknown", class_="big"),
                rate_bar(rate),
                *([soft(_interval(rate))] if rate.count else []),
                *([soft(_left_out(outcomes))] if outcomes.cut_off.any() else []),
                class_="card",
            )
        )
    stated = [soft(f"{report.goal[:1].upper()}{report.goal[1:]}.")] if report.goal else []
    return tag("div", tag("div", *cards, class_="cards"), *stated)


def _interval(rate: Estimate) -> str:
    return f"95 % interval {100 * rate.low:.1f} to {100 * rate.high:.1f}, {rate.count:,} episodes"


def _left_out(outcomes: Outcomes) -> str:
    return f"{int(outcomes.cut_off.sum()):,} more episodes were cut off before their time and count neither way"


def _verdicts(report: EvaluationReport) -> list[Html]:
    if len(report.policies) < 2:
        return []
    found = comparisons(report)
    parts = [tag("p", comparison.verdict(first, other), class_="verdict") for first, other, comparison in found]
    first = next(iter(report.policies))
    ours = report.policies[first]
    names = list(itertools.product(list(report.policies)[1:], ours))
    compared = [compare_outcomes(ours[at].outcomes, report.policies[other][at].outcomes) for other, at in names]
    rows = []
    for (other, condition), pairs, p in zip(names, compared, holm([pairs.p_value for pairs in compared]), strict=True):
        difference = pairs.difference
        points = dataclasses.replace(
            difference, value=100 * difference.value, low=100 * difference.low, high=100 * difference.high
        )
        reward = "–" if pairs.reward is None else number(pairs.reward)
        rows.append((f"{other}, {condition}", number(points), f"{p:.2g}", reward))
    goal = report.outcomes[first].goal
    corrected = f"p, Holm over {len(rows)}" if len(rows) > 1 else "p"
    parts.append(table((f"{first} minus", f"{goal}, points", corrected, "return"), rows))
    parts.append(
        soft(
            "Every policy met the same robots and initial states: episodes are compared in pairs. These policies are "
            "compared, not the ways in which they were trained: that takes several seeds of each."
        )
    )
    return [section("Comparison", *parts)]


def _conditions(report: EvaluationReport) -> Html:
    goal = report.outcomes[next(iter(report.policies))].goal
    names = list(next(iter(report.policies.values())))
    if len(report.policies) > 1:
        rows = []
        for policy, by_condition in report.policies.items():
            rates = [results.outcomes.rate for results in by_condition.values()]
            rows.append((policy, *(shaded(percent(rate), rate.value if rate.count else 0.0) for rate in rates)))
        return section(f"{goal.capitalize()} by condition", table(("trained as", *names), rows))
    by_condition = next(iter(report.policies.values()))
    common = _common_figures(by_condition)
    rows = []
    for condition, results in by_condition.items():
        rate = results.outcomes.rate
        known = [number(results.figures[name]) if name in results.figures else "–" for name in common]
        rows.append((condition, rate_bar(rate), percent(rate), *known))
    explained = "; ".join(f"{name}: {report.explained[name]}" for name in by_condition if report.explained.get(name))
    header = ("condition", "", goal, *(name.replace("_", " ") for name in common))
    return section(f"{goal.capitalize()} by condition", table(header, rows), soft(explained))


def _common_figures(by_condition: Mapping[str, EvaluationResults]) -> list[str]:
    """Figures worth a column: what the bar, the stages or another column do not say already."""
    names = dict.fromkeys(name for results in by_condition.values() for name in results.figures)
    goal = next(iter(by_condition.values())).outcomes.goal
    left_out = (
        goal,
        "falls" if goal == "survival" else "",
        "completion" if not any(name.startswith(STAGE) for name in names) else "",
    )
    return [name for name in names if "/" not in name and name not in left_out]


def _stages(report: EvaluationReport) -> list[Html]:
    if not next(iter(report.outcomes.values())).stages:
        return []
    parts: list[Html] = []
    for name, outcomes in report.outcomes.items():
        rows = []
        for stage, reached in outcomes.stages.items():
            rate = outcomes.rate_of(reached)
            rows.append((stage.replace("_", " "), rate_bar(rate), percent(rate), f"{int(reached.sum())}"))
        if len(report.policies) > 1:
            parts.append(soft(name))
        parts.append(table(("stage", "", "reached", "episodes"), rows))
    return [section("How far it gets", *parts)]


def _episodes(report: EvaluationReport) -> Html:
    parts: list[Html] = []
    for name, outcomes in report.outcomes.items():
        if len(report.policies) > 1:
            parts.append(soft(name))
        squares = [
            tag(
                "span",
                tag("i", class_="yes" if achieved else "", style=f"height:{100 if achieved else 100 * part:.0f}%"),
                title=_told(i, outcomes),
            )
            for i, (achieved, part) in enumerate(
                zip(outcomes.achieved[:MAX_STRIP], outcomes.completion[:MAX_STRIP], strict=True)
            )
        ]
        parts.append(tag("div", *squares, class_="strip"))
    first = next(iter(report.outcomes.values()))
    more = f" The first {MAX_STRIP} are drawn." if len(first.achieved) > MAX_STRIP else ""
    stages = " Where one did not, the height says how many stages it reached." if first.stages else ""
    parts.append(soft(f"One mark an episode: full where it achieved the goal.{stages}{more}"))
    if first.goal == "success" and any(outcomes.achieved.any() for outcomes in report.outcomes.values()):
        lines = [by_time(outcomes, report.episode_seconds) for outcomes in report.outcomes.values()]
        parts.append(tag("div", curves(lines, "s"), class_="card plot"))
        parts.append(soft("Portion of the episodes that had succeeded by a time."))
        if len(lines) > 1:
            parts.append(legend(list(report.outcomes)))
    return section(f"Episode by episode, {report.condition}", *parts)


def _told(i: int, outcomes: Outcomes) -> str:
    if outcomes.achieved[i]:
        took = outcomes.seconds_to_success[i]
        return f"episode {i}: " + (f"success after {took:.1f} s" if np.isfinite(took) else outcomes.goal)
    what = "failed" if outcomes.failed[i] else "cut off" if outcomes.cut_off[i] else "out of time"
    return f"episode {i}: {what} after {outcomes.seconds[i]:.1f} s, {outcomes.completion[i]:.0%} complete"


def _videos(videos: Sequence[Video]) -> list[Html]:
    if not videos:
        return []
    return [section("Videos", tag("div", *(video(each.mp4, each.caption) for each in videos), class_="videos"))]


def _actions(report: EvaluationReport) -> list[Html]:
    if not report.action_names:
        return []
    samples = {name: results[report.condition].actions for name, results in report.policies.items()}
    if report.demonstrated:
        samples["demonstrations"] = list(report.demonstrated)
    together = {name: np.concatenate(episodes) for name, episodes in samples.items()}
    by_name = {name: figures(episodes, *report.action_limits) for name, episodes in samples.items()}
    names = list(report.action_names)
    plots, rows = [], []
    for a, dimension in enumerate(names):
        columns = [values[:, a] for values in together.values()]
        edges = common_edges(columns)
        drawn = histograms(edges, [histogram(column, edges).portions for column in columns])
        plots.append(tag("div", soft(dimension), drawn, class_="card"))
        for name, of in by_name.items():
            row = [f"{dimension}, {name}" if len(samples) > 1 else dimension]
            row += [f"{x:.3g}" for x in (of[a].mean, of[a].std)] + [f"{of[a].saturation:.1%}"]
            row += [f"{x:.3g}" for x in (of[a].rate, of[a].jerk)]
            if report.demonstrated:
                row.append(f"{wasserstein(together[name][:, a], together['demonstrations'][:, a]):.3g}")
            rows.append(row)
    header = ["action", "mean", "std", "saturated", "rate", "jerk"]
    header += ["distance to demonstrations"] if report.demonstrated else []
    remark = (
        "In units of the action. Saturated: at a limit of the actuator's target, where more changes nothing. Rate and "
        "jerk: root mean square of the first and third difference from step to step."
        + (" Distance: Wasserstein-1." if report.demonstrated else "")
    )
    return [
        section(
            f"Actions, {report.condition}",
            *([legend(list(samples))] if len(samples) > 1 else []),
            tag("div", *plots, class_="plots"),
            table(header, rows),
            soft(remark),
        )
    ]


def _latency(report: EvaluationReport) -> list[Html]:
    if not report.latency:
        return []
    rows = [
        (
            name,
            *(f"{1e3 * x:.3g} ms" for x in (of.median, of.p95, of.p99, of.worst, of.jitter)),
            f"{of.overruns:.1%}",
        )
        for name, of in report.latency.items()
    ]
    header = ("policy", "median", "95 %", "99 %", "worst", "jitter", f"over {1e3 * report.control_dt:g} ms")
    remark = f"One decision for one robot on this computer, {next(iter(report.latency.values())).count} times."
    return [section("Latency", table(header, rows), soft(f"{remark} Jitter: 99 % quantile minus median."))]
