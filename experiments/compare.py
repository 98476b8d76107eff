"""Compares policies in the same episodes: python experiments/compare.py runs/a runs/b

All meet the same robots and initial states, so episodes are compared in pairs. Prints the verdict with its interval and
p-value, or how many more episodes it takes, and writes a page with everything there is to see, comparison.html in the
folder of the first run. More than two runs make a table of how each bears what it was or was not trained for, and
p-values are corrected for the number of comparisons. Where success and return disagree, no policy is preferred. Runs of
a sweep are named by its folder, once for each, and their --numbers.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import collections
import dataclasses
import math
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

from mjx_policies.errors import UserError
from mjx_policies.evaluation.comparison import Comparison
from mjx_policies.evaluation.page import percent
from mjx_policies.evaluation.report_html import EvaluationReport, comparisons
from mjx_policies.experiments.runs.loading import load_policy, member_file
from mjx_policies.experiments.runs.report import EvaluationConfig, evaluate, output_files, publish
from mjx_policies.files import write_json
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors


@dataclasses.dataclass(frozen=True)
class Compare(EvaluationConfig):
    """Compares the policies of runs of one task."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()  # run folders; the first is compared with each of the others
    numbers: tuple[int, ...] = ()  # numbers of the runs in their sweeps; empty: 0 for all
    report: str = ""  # HTML report; empty: comparison.html in the first run's folder
    json: str = ""  # JSON file for the verdicts

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.runs) < 2:
            raise ValueError("pass two run folders at least, such as: compare.py runs/a runs/b")
        if self.numbers and len(self.numbers) != len(self.runs):
            raise ValueError(f"--numbers names {len(self.numbers)}: name one for each of the {len(self.runs)} runs")
        where = collections.Counter((run.resolve(), number) for run, number in self.places)
        if len(where) < len(self.runs):
            raise ValueError(f"{where.most_common(1)[0][0][0]} is given twice: a policy equals itself")

    @property
    def places(self) -> list[tuple[Path, int]]:
        """The folder of each policy, and the number of the run in it."""
        return list(zip(self.runs, self.numbers or (0,) * len(self.runs), strict=True))


def names(places: list[tuple[Path, int]]) -> list[str]:
    """The folders' names; their whole paths where two have the same. No two policies have the same name."""
    short = [member_file(run.resolve().name, run, number) for run, number in places]
    return [
        member_file(str(run.resolve()), run, number) if short.count(name) > 1 else name
        for name, (run, number) in zip(short, places, strict=True)
    ]


def main(asked: Compare) -> None:
    """Prints the verdict and writes the page."""
    console = open_console()
    with clean_errors(ValueError):
        policies = {
            name: load_policy(run, asked.backend, number=number)
            for name, (run, number) in zip(names(asked.places), asked.places, strict=True)
        }
        (first, task), *others = ((name, policy.config.task) for name, policy in policies.items())
        for name, other in others:
            if other != task:
                raise UserError(
                    f"{first} was trained on {task} and {name} on {other}: only policies of one task can be compared."
                )
        page, figures = output_files(asked, asked.report, asked.json, asked.runs[0] / "comparison.html")
        report = evaluate(policies, asked, console, f"{task}: {' against '.join(policies)}")
    verdicts = comparisons(report)

    def write(path: Path) -> None:
        rows = [{"policies": [a, b], **to_json(comparison)} for a, b, comparison in verdicts]
        write_json(path, {"task": task, "goal": report.goal, "condition": report.condition, "comparisons": rows})

    def show() -> None:
        console.print(rates(report, f"{task}, {asked.episodes:,} episodes each"))
        for first, other, comparison in verdicts:
            console.print(f"{report.condition}: {comparison.verdict(first, other)}", highlight=False)
        if report.goal:
            console.print(report.goal, highlight=False)

    publish(report, page, figures, write, show)
    console.print(f"report: {page}", highlight=False)


def rates(report: EvaluationReport, title: str) -> Table:
    """The success rates as a table, with one row for each condition and policy."""
    first = next(iter(report.policies.values()))
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("policy", overflow="fold")
    table.add_column(f"{report.outcomes[next(iter(report.policies))].goal} [95 %]", justify="right", no_wrap=True)
    for condition in first:
        for number, (name, results) in enumerate(report.policies.items()):
            table.add_row("" if number else condition, name, percent(results[condition].outcomes.rate))
    return table


def to_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON data: no number for what is unknown."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(x) for key, x in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return plain(dataclasses.asdict(comparison) | {"episodes_needed": comparison.episodes_needed})


if __name__ == "__main__":
    with clean_errors():
        main(parse_arguments(Compare, __doc__))
