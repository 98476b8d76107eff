"""Corrects a BC policy with an expert, by DAgger: python experiments/dagger.py --run runs/a --rounds 5

DAgger, Ross et al. 2011 (arXiv:1011.0686): in each round the policy acts, the expert says in every state what it would
have done, and the policy goes on learning from all demonstrations and labels. Where a policy plans ahead, the expert
takes over on the way instead and shows how to go on from there, since what it would have done in one state after the
other is no plan. The folder `dagger` in the run folder ends with a run folder for each round, metrics.csv and
rounds.png: success against rounds.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import contextlib
import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
from rich.console import Console

from mjx_policies.data import lerobot
from mjx_policies.envs.experts.registry import load_expert
from mjx_policies.envs.registry import load
from mjx_policies.errors import UserError
from mjx_policies.evaluation.report import evaluation_table, read_success
from mjx_policies.evaluation.statistics import Estimate
from mjx_policies.experiments.collection.demonstration_files import check_same, describe_robot
from mjx_policies.experiments.collection.demonstrators import dagger_demonstrator, takeover_demonstrator
from mjx_policies.experiments.collection.rollouts import make_recorder, to_episodes
from mjx_policies.experiments.runs.bc import BCRun
from mjx_policies.experiments.runs.bc_recipe import RECIPE
from mjx_policies.experiments.runs.demonstrations import check_datasets
from mjx_policies.experiments.runs.grid import members
from mjx_policies.experiments.runs.loading import load_policy
from mjx_policies.experiments.runs.run import complete
from mjx_policies.training.checkpoint import remove
from mjx_policies.training.command_line import parse
from mjx_policies.training.config import at_least, may_change
from mjx_policies.training.metrics import MetricsCsv
from mjx_policies.training.plots import plot_curves
from mjx_policies.training.progress import open_console
from mjx_policies.training.run_folder import RunFolder, read_config
from mjx_policies.training.script import clean_errors
from mjx_policies.training.waiting import working

_SEEDS = 0x646167  # tells rollouts of rounds from those of a collection
TAKEOVER = 0.5  # portion of an episode's time in which an expert may take over: it needs the rest to succeed


@dataclasses.dataclass(frozen=True)
class Dagger:
    """Corrects a BC policy with an expert, in rounds of acting, labelling and learning."""

    VERSION: ClassVar[int] = 2  # of a stored configuration; counts up where a field is renamed

    run: str  # folder of a finished run of bc_pretrain.py
    rounds: int = may_change(5)  # number of rounds of acting, labelling and learning
    episodes: int = 50  # number of the policy's episodes in each round
    steps: int = 3_000  # number of gradient steps in each round
    mixing: float = 0.0  # beta of DAgger: portion of round n that the expert acts is mixing**n; not for chunks
    run_dir: str = may_change("")  # folder of the rounds; empty: dagger in the run's folder; needed by --resume
    resume: bool = may_change(False)  # continue the rounds in --run-dir
    eval_episodes: int = may_change(256)  # number of episodes of each round's evaluation

    def __post_init__(self) -> None:
        at_least(self, rounds=1, episodes=1, steps=1, eval_episodes=1)
        if not 0 <= self.mixing < 1:
            raise ValueError(f"mixing is {self.mixing:g}, it must be at least 0 and below 1")


def main(asked: Dagger) -> None:
    """Runs the rounds that are left."""
    console, first = open_console(), Path(asked.run)
    path = Path(asked.run_dir) if asked.run_dir else first / "dagger"
    if asked.resume and all((path / name).exists() for name in (f"round_{asked.rounds}/evaluation.json", "rounds.png")):
        check_same(path, read_config(path, Dagger), asked)
        console.print(f"{path} is finished, with {asked.rounds} rounds: there is nothing to resume.")
        return
    with clean_errors(ValueError):
        policy = load_policy(first, kind="bc")
        load_expert(policy.config.task, policy.task)
    check_datasets(policy.config, policy.task)
    runs = len(members(read_config(first, BCRun)))
    if runs > 1:
        raise UserError(f"{first} holds {runs} policies: train a run of one to correct.")
    if asked.mixing and policy.config.horizon > 1:
        raise UserError(
            f"mixing is for policies of one action, and {first} plans {policy.config.horizon}: leave it out, "
            "for the expert takes over within every rollout."
        )
    folders = [first, *(path / f"round_{number}" for number in range(1, asked.rounds + 1))]
    successes: list[Estimate] = []
    with RunFolder.start(path, asked, asked.resume), contextlib.ExitStack() as stack:
        (path / "metrics.csv").unlink(missing_ok=True)  # each row is read from the folder of its round
        table = stack.enter_context(contextlib.closing(MetricsCsv(path / "metrics.csv")))
        for number, folder in enumerate(folders):
            if number and not (folder / "evaluation.json").exists():
                label(asked, folders[number - 1], path / f"labels_{number}", number, console)
                learn(asked, policy.config, folders[number - 1], path, number)
            successes.append(success_of(folder))
            ends = {f"eval/success/{end}": getattr(successes[-1], end) for end in ("low", "high")}
            table.write({"step": number, "eval/success": successes[-1].value, **ends})
        plot_curves(
            path / "metrics.csv",
            path / "rounds.png",
            ["eval/success"],
            title=f"{policy.config.task}, {policy.config.head}",
            steps="rounds of corrections",
        )
    rows = {f"round {number}": {"success": success} for number, success in enumerate(successes)}
    console.print(evaluation_table(rows, "success after each round of corrections"))
    best = max(range(len(successes)), key=lambda number: successes[number].value)
    console.print(f"best: round {best}; rounds: {path}", highlight=False)


def label(asked: Dagger, previous: Path, path: Path, number: int, console: Console) -> None:
    """Records what the expert would have done where the policy of the last round goes."""
    if path.exists():
        return
    with working(console, f"round {number}: the policy acts, the expert says what it would have done"):
        policy = load_policy(previous, kind="bc")
        config = policy.config
        task = load(config.task, config.backend, asked.episodes, config.actions)
        expert = load_expert(config.task, task)
        plans, acts = config.horizon > 1, policy.acts(policy.params)
        if plans:
            steps = round(TAKEOVER * task.spec.episode_seconds / task.spec.control_dt)
            demonstrator = takeover_demonstrator(expert, acts, steps)
        else:
            demonstrator = dagger_demonstrator(expert, acts, asked.mixing**number)
        random = np.random.default_rng((config.seed, _SEEDS, number))
        seeds = random.integers(2**32, size=asked.episodes, dtype=np.uint32)
        rollouts = make_recorder(task, demonstrator)(seeds)
        # Of a plan, only what led to success is worth copying; a label is right whatever became of the rollout.
        episodes = to_episodes(rollouts, config.task, labels=True, failures=not plans)
    kept = "ended in success and are kept" if plans else "are kept"
    console.print(f"round {number}: {len(episodes)} of {asked.episodes} rollouts {kept}", highlight=False)
    if not episodes:
        raise UserError(f"no usable rollouts in round {number}: see with play.py what the policy does.")
    partial = path.with_name(f".{path.name}.partial")
    remove(partial)
    lerobot.write(partial, episodes, **describe_robot(task.spec))
    partial.rename(path)


def learn(asked: Dagger, first: BCRun, previous: Path, path: Path, number: int) -> None:
    """Goes on learning from the first demonstrations and the labels of all rounds."""
    folder = path / f"round_{number}"
    run = dataclasses.replace(
        first,
        demos=first.demos or str(Path(asked.run) / "demonstrations"),
        extra_datasets=(*first.extra_datasets, *(str(path / f"labels_{n}") for n in range(1, number + 1))),
        init_from=str(previous),
        steps=asked.steps,
        run_dir=str(folder),
        resume=(folder / "config.json").exists(),
        evaluations=1,
        eval_episodes=asked.eval_episodes,
    )
    complete(run, RECIPE, outer=path)


def success_of(folder: Path) -> Estimate:
    """The success rate of a finished run.

    Raises:
      UserError: the run is not finished.
    """
    path = folder / "evaluation.json"
    if not path.exists():
        raise UserError(
            f"{folder} is not finished (it has no evaluation.json): go on with bc_pretrain.py --resume first."
        )
    return read_success(path)


if __name__ == "__main__":
    with clean_errors():
        main(parse(Dagger, __doc__))
