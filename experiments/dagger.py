"""Lets an expert correct a cloned policy where it goes itself: python experiments/dagger.py --run runs/a --rounds 5

DAgger, Ross et al. 2011 (arXiv:1011.0686): in each round the policy acts, the expert says in every state what it would
have done, and the policy goes on learning from all that was ever shown to it. Where a policy plans ahead, the expert
takes over on the way instead and shows how to go on from there, since what it would have done in one state after the
other is no plan. The folder `dagger` in the run folder ends with a run folder for each round, metrics.csv and
rounds.png: success against rounds.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from mjx_policies.data import lerobot
from mjx_policies.envs.experts.registry import load_expert
from mjx_policies.envs.registry import load
from mjx_policies.experiments.collection.demonstration_files import check_same, describe_robot
from mjx_policies.experiments.collection.demonstrators import dagger_demonstrator, takeover_demonstrator
from mjx_policies.experiments.collection.rollouts import make_recorder, to_episodes
from mjx_policies.experiments.runs.bc import BCRun
from mjx_policies.experiments.runs.bc_recipe import RECIPE
from mjx_policies.experiments.runs.demonstrations import check_datasets
from mjx_policies.experiments.runs.grid import members
from mjx_policies.experiments.runs.opening import load_policy
from mjx_policies.experiments.runs.run import complete
from mjx_policies.training.checkpoint import remove
from mjx_policies.training.command_line import parse
from mjx_policies.training.config import may_change
from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.files import read_json, replacing
from mjx_policies.training.metrics import MetricsCsv
from mjx_policies.training.plots import BLUE, GREY
from mjx_policies.training.progress import open_console
from mjx_policies.training.run_folder import RunFolder, read_config
from mjx_policies.training.waiting import working

_SEEDS = 0x646167  # tells attempts of rounds from those of a campaign
MAX_EVALUATION = 2**20  # bytes
TAKEOVER = 0.5  # portion of an episode's time in which an expert may take over: it needs the rest to succeed


@dataclasses.dataclass(frozen=True)
class Dagger:
    """Lets an expert correct a cloned policy where it goes itself."""

    run: str  # folder of a finished run of bc_pretrain.py
    rounds: int = may_change(5)  # of acting, labelling and learning
    episodes: int = 50  # that the policy attempts in each round
    steps: int = 3_000  # gradient steps of a round
    mixing: float = 0.0  # portion of round 1 in which the expert acts, its powers later; for policies of one action
    run_dir: str = may_change("")  # folder of the rounds; empty: dagger in the run's folder. --resume wants it
    resume: bool = may_change(False)  # go on with the rounds in run_dir
    robots: int = may_change(256)  # of each round's evaluation

    def __post_init__(self) -> None:
        for name in ("rounds", "episodes", "steps", "robots"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
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
            "for the expert takes over within every attempt."
        )
    results = [result(first, 0)]
    with RunFolder.start(path, asked, asked.resume), open_table(path / "metrics.csv") as rows:
        rows.write(results[0])
        for number in range(1, asked.rounds + 1):
            folder = path / f"round_{number}"
            if not (folder / "evaluation.json").exists():
                previous = path / f"round_{number - 1}" if number > 1 else first
                label(asked, previous, path / f"labels_{number}", number, console)
                try:
                    learn(asked, policy.config, previous, path, number)
                except SystemExit:
                    if not (folder / "evaluation.json").exists() and folder.exists():
                        console.print(f"Run again with --resume and --run-dir {path} to go on with round {number}.")
                    raise
            results.append(result(folder, number))
            rows.write(results[-1])
        draw(path / "rounds.png", results, f"{policy.config.task}, {policy.config.head}")
    console.print(table(results))
    best = max(results, key=lambda row: row["success"])
    console.print(f"best after {best['step']:.0f} rounds; rounds: {path}", highlight=False)


def open_table(path: Path) -> contextlib.closing[MetricsCsv]:
    """The table of rounds, begun anew: each row is read from the folder of its round."""
    path.unlink(missing_ok=True)
    return contextlib.closing(MetricsCsv(path))


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
            actor = takeover_demonstrator(
                expert, acts, round(TAKEOVER * task.spec.episode_seconds / task.spec.control_dt)
            )
        else:
            actor = dagger_demonstrator(expert, acts, asked.mixing**number)
        random = np.random.default_rng((config.seed, _SEEDS, number))
        seeds = random.integers(2**32, size=asked.episodes, dtype=np.uint32)
        attempts = make_recorder(task, actor)(jax.vmap(jax.random.key)(seeds))
        fps = 1 / task.spec.control_dt
        # Of a plan, only what led to success is worth copying; a label is right whatever became of the attempt.
        episodes = to_episodes(attempts, seeds, config.task, fps, expert.strategies, labels=True, failures=not plans)
    of_use = "ended in success and are kept" if plans else "are kept"
    console.print(f"round {number}: {len(episodes)} of {asked.episodes} attempts {of_use}", highlight=False)
    if not episodes:
        raise UserError(f"no attempt of round {number} is of any use: see with play.py what the policy does.")
    partial = path.with_name(f".{path.name}.partial")
    if partial.exists():
        remove(partial)
    lerobot.write(partial, episodes, **describe_robot(task.spec))
    partial.rename(path)


def learn(asked: Dagger, first: Any, previous: Path, path: Path, number: int) -> None:
    """Goes on learning from the first demonstrations and the labels of all rounds."""
    folder = path / f"round_{number}"
    complete(
        dataclasses.replace(
            first,
            demos=first.demos or str(Path(asked.run) / "demonstrations"),
            more=(*first.more, *(str(path / f"labels_{n}") for n in range(1, number + 1))),
            begin=str(previous),
            steps=asked.steps,
            run_dir=str(folder),
            resume=(folder / "config.json").exists(),
            evaluations=1,
            robots=asked.robots,
        ),
        RECIPE,
    )


def result(folder: Path, number: int) -> dict[str, float]:
    """Success after a round.

    Raises:
      UserError: the run is not finished.
    """
    path = folder / "evaluation.json"
    if not path.exists():
        raise UserError(
            f"{folder} is not finished (it has no evaluation.json): go on with bc_pretrain.py --resume first."
        )
    found = read_json(path, MAX_EVALUATION)
    try:
        success = found["conditions"]["nominal"]["success"]
        return {"step": number, "success": success["value"], "low": success["low"], "high": success["high"]}
    except (KeyError, TypeError):
        raise UserError(f"{path} says nothing of success: it was written by another program.") from None


def table(results: list[dict[str, float]]) -> Table:
    """One row for each round."""
    found = Table(title="success after each round of corrections", title_justify="left")
    found.add_column("round", justify="right")
    found.add_column("success [95 %]", justify="right")
    for row in results:
        found.add_row(str(row["step"]), f"{row['success']:.3f} [{row['low']:.3f}, {row['high']:.3f}]")
    return found


def draw(path: Path, results: list[dict[str, float]], title: str) -> None:
    """Success against rounds, with its interval."""
    figure = Figure(figsize=(5, 3.2), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rounds, value, low, high = (
        np.array([row[name] for row in results], float) for name in ("step", "success", "low", "high")
    )
    axes.errorbar(rounds, value, [value - low, high - value], color=BLUE, marker="o", markersize=4, capsize=3)
    axes.set_xticks(rounds)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("rounds of corrections", fontsize=8, color=GREY)
    axes.set_title(f"success, {title}", fontsize=10, loc="left", color="#111827")
    axes.grid(color="#e5e7eb", linewidth=0.7)
    axes.tick_params(labelsize=8, colors=GREY, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


if __name__ == "__main__":
    with clean_errors():
        main(parse(Dagger, __doc__))
