"""Tells whether one policy is better than another: python experiments/compare.py runs/a runs/b

Both meet the same robots and starts, so episodes are compared in pairs. Prints the verdict with its interval and
p-value, or how many more episodes it takes, and writes a page with everything there is to see, comparison.html in the
folder of the first run. More than two runs make a table of how each bears what it was or was not trained for.
"""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

import tyro
from judging import Tests, judge, open_subject, write_page
from rich.table import Table

from mjx_policies.evaluation.page import percent
from mjx_policies.evaluation.report_html import Report, comparisons
from mjx_policies.evaluation.statistics import proportion
from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.files import make_folder, write_json
from mjx_policies.training.progress import open_console


@dataclasses.dataclass(frozen=True)
class Compare(Tests):
    """Compares the policies of runs of one task."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()  # run folders; the first is compared with each of the others
    report: str = ""  # page to write; empty: comparison.html in the first run's folder
    json: str = ""  # file for the verdicts

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.runs) < 2:
            raise ValueError("pass two run folders at least, such as: compare.py runs/a runs/b")
        twice = [
            str(run) for run, times in collections.Counter(run.resolve() for run in self.runs).items() if times > 1
        ]
        if twice:
            raise ValueError(f"{twice[0]} is given twice: a policy equals itself")


def main(asked: Compare) -> None:
    """Prints the verdict and writes the page."""
    page = Path(asked.report) if asked.report else asked.runs[0] / "comparison.html"
    if asked.report:
        make_folder(page.parent, "--report")
    if asked.json:
        make_folder(Path(asked.json).parent, "--json")
    console = open_console()
    with clean_errors(ValueError):
        called = names(asked.runs)
        subjects = [open_subject(run, asked, name) for run, name in zip(asked.runs, called, strict=True)]
        task = subjects[0].task
        for other in subjects[1:]:
            if other.task != task:
                raise UserError(
                    f"{called[0]} was trained on {task} and {other.name} on {other.task}: only policies of one task "
                    "can be compared."
                )
        report = judge(subjects, asked, console, f"{task}: {' against '.join(called)}")
    console.print(rates(report, f"{task}, {asked.robots:,} episodes each"))
    verdicts = comparisons(report)
    for first, other, comparison in verdicts:
        console.print(f"{report.judged}: {comparison.verdict(first, other)}", highlight=False)
    if asked.json:
        rows = [{"policies": [a, b], **dataclasses.asdict(comparison)} for a, b, comparison in verdicts]
        write_json(Path(asked.json), {"task": task, "condition": report.judged, "comparisons": rows})
    write_page(page, report)
    console.print(f"report: {page}")


def names(runs: tuple[Path, ...]) -> list[str]:
    """The folders' names; their whole paths where two have the same."""
    short = [run.resolve().name for run in runs]
    return [str(run) if short.count(name) > 1 else name for run, name in zip(runs, short, strict=True)]


def rates(report: Report, title: str) -> Table:
    """One row for each condition, one column for each policy."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in report.policies:
        table.add_column(f"{name} [95 %]", justify="right")
    for condition in next(iter(report.policies.values())):
        achieved = [trials[condition].outcomes.achieved for trials in report.policies.values()]
        table.add_row(condition, *(percent(proportion(int(a.sum()), len(a))) for a in achieved))
    return table


if __name__ == "__main__":
    with clean_errors():
        main(tyro.cli(Compare, description=__doc__))
