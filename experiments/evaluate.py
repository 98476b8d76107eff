"""Evaluates the policy of a run: python experiments/evaluate.py --run runs/a --backend mjx

Prints a table and writes a page with everything there is to see, report.html in the run folder: success with its
interval in each condition, how far episodes get, videos, the policy's actions beside the demonstrations', its latency.
With another backend it says how much of a result belongs to the simulator it was trained on.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import dataclasses
from pathlib import Path

from mjx_policies.envs.physics import resolve_backend
from mjx_policies.evaluation.report import evaluation_table, write_evaluation
from mjx_policies.experiments.judging import Tests, judge, open_subject, output_files, write_page
from mjx_policies.experiments.runs.opening import member_file
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.errors import clean_errors
from mjx_policies.training.progress import open_console


@dataclasses.dataclass(frozen=True)
class Evaluate(Tests):
    """Evaluates the policy of a run."""

    run: Path = dataclasses.field(kw_only=True)  # run folder
    number: int = 0  # of the run, in the folder of a sweep
    report: str = ""  # page to write; empty: report.html in the run folder
    json: str = ""  # file for the figures


def main(asked: Evaluate) -> None:
    """Writes the page and the figures, and prints the table that training ends with."""
    console = open_console()
    with clean_errors(ValueError):
        subject = open_subject(asked.run, asked, number=asked.number)
        default = asked.run / member_file("report.html", asked.run, asked.number)
        page, figures = output_files(asked, asked.report, asked.json, default)
        report = judge([subject], asked, console, f"{subject.task}: {subject.name}")
    steps, backend = subject.policy.steps, resolve_backend(asked.backend)
    evaluation = {condition: tried.figures for condition, tried in report.policies[subject.name].items()}
    try:  # files before tables, for they stay; and the table all the same where they cannot be written
        if figures is not None:
            about = {"task": subject.task, "steps": steps, "backend": backend, "seed": asked.seed, "goal": report.goal}
            write_evaluation(figures, evaluation, about)
        write_page(page, report)
    finally:
        console.print(evaluation_table(evaluation, f"{subject.task} after {steps:,} steps, on {backend}"))
        if report.goal:
            console.print(report.goal, highlight=False)
    console.print(f"report: {page}", highlight=False)


if __name__ == "__main__":
    with clean_errors():
        main(parse_arguments(Evaluate, __doc__))
