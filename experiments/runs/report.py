"""Trained policies evaluated in the same episodes, and the page that shows it; for evaluate.py and compare.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console

from mjx_policies.envs.base import Env
from mjx_policies.envs.physics import Backend, resolve_backend
from mjx_policies.envs.registry import load
from mjx_policies.errors import UserError, disk_is_full
from mjx_policies.evaluation.outcomes import goal_in_words
from mjx_policies.evaluation.report_html import EvaluationReport, Video, render
from mjx_policies.experiments.runs.demonstrations import check_dataset
from mjx_policies.experiments.runs.evaluation import BATCH, EVALUATION_SEED, make_evaluator, record_video, time_policy
from mjx_policies.experiments.runs.loading import TrainedPolicy
from mjx_policies.files import output_file, write_atomic
from mjx_policies.randomization.conditions import Condition, conditions
from mjx_policies.training.config import at_least, none_twice
from mjx_policies.training.waiting import working

MAX_DEMONSTRATIONS = 200  # whose actions are compared with


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """The episodes in which policies are evaluated."""

    backend: Backend = "auto"  # physics engine: MuJoCo's C engine (cpu), MJX or MJX-Warp
    episodes: int = 256  # number of episodes in each condition
    seed: int = EVALUATION_SEED  # random seed of initial states, commands and dynamics
    # nominal, randomized, one randomization alone, or all
    conditions: tuple[str, ...] = ("nominal", "randomized")
    demos: str = ""  # dataset of demonstrations to compare the policy's actions with
    videos: bool = True  # record a successful episode and a failed one
    overwrite: bool = False  # replace files that --report and --json name

    def __post_init__(self) -> None:
        at_least(self, episodes=1)
        if not self.conditions:
            raise ValueError("--conditions is empty: name one at least, such as nominal")
        none_twice(self, "conditions")

    @property
    def batch(self) -> int:
        """The number of parallel environments."""
        return min(BATCH, self.episodes)


def chosen(task: Env, config: EvaluationConfig) -> dict[str, Condition]:
    """The conditions asked for, in the order asked for.

    Raises:
      UserError: the task cannot be tested so; the message lists how it can.
    """
    known = conditions(task)
    if config.conditions == ("all",):
        return known
    unknown = [name for name in config.conditions if name not in known]
    if unknown:
        raise UserError(f"there is no condition {unknown[0]!r} for this task; choose all, or of {', '.join(known)}.")
    return {name: known[name] for name in config.conditions}


def evaluate(
    policies: Mapping[str, TrainedPolicy], config: EvaluationConfig, console: Console, title: str
) -> EvaluationReport:
    """Evaluates policies of one task, by name, in the same episodes.

    Raises:
      UserError: a condition or a dataset does not suit the task.
      ValueError: the task does not exist on this backend.
    """
    runs = [policy.config for policy in policies.values()]
    name = runs[0].task
    tasks = {run.actions: load(name, config.backend, config.batch, run.actions) for run in runs}
    task = tasks[runs[0].actions]
    asked = chosen(task, config)
    demonstrated = demonstrations(config.demos, name, task) if config.demos else []
    results, latency = {}, {}
    with working(console, "compiling the evaluation") as update:
        for who, policy in policies.items():

            def report(condition: str, done: int, who: str = who) -> None:
                compiling = not done and condition == next(iter(asked))  # one program for all conditions
                words = f"evaluating {who}, {condition}: {done} of {config.episodes} episodes"
                update(f"compiling the evaluation of {who}" if compiling else words)

            run = make_evaluator(tasks[policy.config.actions], policy.acts, asked, config.batch, config.seed)
            results[who] = run(policy.params, config.episodes, report=report)
            latency[who] = time_policy(policy.task, policy.acts(policy.params))
    backend = resolve_backend(config.backend)
    found = EvaluationReport(
        title=title,
        summary=", ".join(f"{who} after {policy.steps:,} steps" for who, policy in policies.items())
        + f"; {config.episodes:,} episodes in each condition, on {backend}",
        policies=results,
        condition="randomized" if "randomized" in asked else next(iter(asked)),
        explained={key: condition.about for key, condition in asked.items()},
        episode_seconds=task.spec.episode_seconds,
        goal=goal_in_words(task.spec.criteria),
        action_limits=task.spec.action.reach,
        action_names=task.spec.action.names if len(tasks) == 1 else (),  # or they mean different things
        control_dt=task.spec.control_dt,
        demonstrated=demonstrated,
        latency=latency,
        about={
            "task": name,
            "seed": f"{config.seed}, {config.batch} parallel environments",
            "physics": backend,
            **{package: version(package) for package in ("mjx-policies", "mujoco", "jax")},
        },
    )
    return dataclasses.replace(found, videos=videos(found, name, config.seed, console)) if config.videos else found


def videos(report: EvaluationReport, task: str, seed: int, console: Console) -> list[Video]:
    """Videos of each policy's first episode that achieved the goal and its first that did not."""
    rendered = []
    for who, results in report.policies.items():
        found = results[report.condition]
        for achieved, recorded in found.examples.items():
            words = found.outcomes.goal if achieved else f"no {found.outcomes.goal}"
            with working(console, f"rendering the video of {who}: {words}"):
                mp4 = record_video(task, recorded, report.control_dt, words)
            episode = f"episode {recorded.number} of seed {seed}, {recorded.seconds:.1f} s"
            rendered.append(Video(mp4, f"{who}, {report.condition}, {words}, {episode}"))
    return rendered


def demonstrations(path: str, name: str, task: Env) -> list[np.ndarray]:  # each [T, A]
    """Actions of the first demonstrations of a dataset.

    Raises:
      UserError: there is no such dataset, it is empty, or it does not suit the task.
    """
    dataset = check_dataset(path, name, task)
    if not len(dataset):
        raise UserError(f"{path} holds no demonstration.")
    return [dataset[i].action for i in range(min(len(dataset), MAX_DEMONSTRATIONS))]


def output_files(config: EvaluationConfig, report: str, json: str, default: Path) -> tuple[Path, Path | None]:
    """The paths of the page and of the figures.

    Raises:
      UserError: nothing can be written there, or there is something already.
    """
    page = output_file(report, "--report", config.overwrite, default)
    figures = output_file(json, "--json", config.overwrite) if json else None
    if figures is not None and figures.resolve() == page.resolve():
        raise UserError(f"--report and --json both name {page}: choose two files.")
    return page, figures


def publish(
    report: EvaluationReport, page: Path, figures: Path | None, write: Callable[[Path], None], show: Callable[[], None]
) -> None:
    """Files before tables, for they stay; and the tables all the same where files cannot be written.

    Args:
      report: to be rendered.
      page: where to.
      figures: file for the figures, if there is one, which `write` writes.
      write: see `figures`.
      show: prints the tables.
    """
    try:
        if figures is not None:
            write(figures)
        write_atomic(page, render(report))
    except OSError as error:
        if disk_is_full(error):
            raise
        raise UserError(f"cannot write {error.filename or page}: {error.strerror}.") from None
    finally:
        show()
