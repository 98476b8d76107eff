"""Judges the policy of a run anew: python experiments/evaluate.py --run runs/a --backend mjx

Prints a table and writes a page with everything there is to see, report.html in the run folder: success with its
interval in each condition, how far episodes get, films, the policy's actions beside the demonstrations', its latency.
With another backend it says how much of a result belongs to the simulator it was trained on.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro
from judging import Tests, judge, open_subject, write_page

from mjx_policies.envs.physics import resolve_backend
from mjx_policies.evaluation.report import evaluation_table, write_evaluation
from mjx_policies.training.errors import clean_errors
from mjx_policies.training.files import make_folder
from mjx_policies.training.progress import open_console


@dataclasses.dataclass(frozen=True)
class Judge(Tests):
    """Judges the policy of a run."""

    run: Path = dataclasses.field(kw_only=True)  # run folder
    report: str = ""  # page to write; empty: report.html in the run folder
    json: str = ""  # file for the figures


def main(asked: Judge) -> None:
    """Prints the table that training ends with, and writes the page."""
    page = Path(asked.report) if asked.report else asked.run / "report.html"
    if asked.report:
        make_folder(page.parent, "--report")
    if asked.json:
        make_folder(Path(asked.json).parent, "--json")
    console = open_console()
    with clean_errors(ValueError):
        subject = open_subject(asked.run, asked)
        report = judge([subject], asked, console, f"{subject.task}: {subject.name}")
    steps, backend = subject.policy.steps, resolve_backend(asked.backend)
    evaluation = {condition: tried.figures for condition, tried in report.policies[subject.name].items()}
    console.print(evaluation_table(evaluation, f"{subject.task} after {steps:,} steps, on {backend}"))
    if asked.json:
        about = {"task": subject.task, "steps": steps, "backend": backend, "seed": asked.seed}
        write_evaluation(Path(asked.json), evaluation, about)
    write_page(page, report)
    console.print(f"report: {page}")


if __name__ == "__main__":
    with clean_errors():
        main(tyro.cli(Judge, description=__doc__))
