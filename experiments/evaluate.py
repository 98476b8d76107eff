"""Judges the policy of a run anew: python experiments/evaluate.py --run runs/a --backend mjx

With another backend it says how much of a result belongs to the simulator it was trained on.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro
from ppo_locomotion import Run

from mjx_policies.agents import locomotion
from mjx_policies.agents.restore import load_policy
from mjx_policies.envs.physics import Backend, resolve_backend
from mjx_policies.evaluation.report import evaluation_table, write_evaluation
from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.progress import open_console


@dataclasses.dataclass(frozen=True)
class Judge:
    """Judges the policy of a run."""

    run: Path  # run folder
    backend: Backend = "auto"  # to run the robots on
    robots: int = 256  # for one whole episode each
    seed: int = locomotion.EVALUATION_SEED  # of starts, commands and robots
    json: str = ""  # file for the figures

    def __post_init__(self) -> None:
        if self.robots < 1:
            raise ValueError(f"robots is {self.robots}, it must be at least 1")


def main(judge: Judge) -> None:
    """Prints the table that training ends with."""
    if judge.json:
        make_folder(Path(judge.json).parent)  # what cannot be written is better known before the evaluation
    with clean_errors(ValueError):
        policy = load_policy(judge.run, Run, judge.backend)
        config = dataclasses.replace(policy.config, backend=judge.backend)
        evaluate = locomotion.make_evaluation(config, policy.learner, min(64, judge.robots), judge.seed)
    console = open_console()
    with console.status("evaluating") as status:
        evaluation, _ = evaluate(
            policy.state,
            judge.robots,
            report=lambda condition, done: status.update(f"evaluating {condition} robots: {done} of {judge.robots}"),
        )
    backend = resolve_backend(judge.backend)
    console.print(evaluation_table(evaluation, f"{config.task} after {policy.steps:,} steps, on {backend}"))
    if judge.json:
        about = {"task": config.task, "steps": policy.steps, "backend": backend, "seed": judge.seed}
        write_evaluation(Path(judge.json), evaluation, about)


def make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {path} for --json: {error.strerror}.") from None


if __name__ == "__main__":
    with clean_errors():
        main(tyro.cli(Judge, description=__doc__))
