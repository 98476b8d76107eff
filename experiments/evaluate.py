"""Evaluates the policy of a run: python experiments/evaluate.py --run runs/a --backend mjx

Prints a table and writes report.html into the run folder: success with its interval in each condition, stages, videos,
the policy's actions beside the demonstrations', its latency. Another --backend than that of training shows how much of
a result depends on the simulator.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import dataclasses
from pathlib import Path

from mjx_policies.envs.physics import resolve_backend
from mjx_policies.evaluation.report import evaluation_table, write_evaluation
from mjx_policies.experiments.runs.loading import load_policy, member_file
from mjx_policies.experiments.runs.report import EvaluationConfig, evaluate, output_files, publish
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors


@dataclasses.dataclass(frozen=True)
class Evaluate(EvaluationConfig):
    """Evaluates the policy of a run."""

    run: Path = dataclasses.field(kw_only=True)  # run folder
    number: int = 0  # number of the run in a sweep
    report: str = ""  # HTML report; empty: report.html in the run folder
    json: str = ""  # JSON file for the figures


def main(asked: Evaluate) -> None:
    """Writes the page and the figures, and prints the table that training ends with."""
    console = open_console()
    with clean_errors(ValueError):
        policy = load_policy(asked.run, asked.backend, number=asked.number)
        name = member_file(asked.run.resolve().name, asked.run, asked.number)
        default = asked.run / member_file("report.html", asked.run, asked.number)
        page, figures = output_files(asked, asked.report, asked.json, default)
        report = evaluate({name: policy}, asked, console, f"{policy.config.task}: {name}")
    task, backend = policy.config.task, resolve_backend(asked.backend)
    evaluation = {condition: results.figures for condition, results in report.policies[name].items()}
    about = {"task": task, "steps": policy.steps, "backend": backend, "seed": asked.seed, "goal": report.goal}

    def show() -> None:
        console.print(evaluation_table(evaluation, f"{task} after {policy.steps:,} steps, on {backend}"))
        if report.goal:
            console.print(report.goal, highlight=False)

    publish(report, page, figures, lambda path: write_evaluation(path, evaluation, about), show)
    console.print(f"report: {page}", highlight=False)


if __name__ == "__main__":
    with clean_errors():
        main(parse_arguments(Evaluate, __doc__))
