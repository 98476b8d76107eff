"""The results of a run: its policies evaluated, compared where there are many, curves, and a video of one of them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from mjx_policies.agents.sweep import member
from mjx_policies.envs.base import Env
from mjx_policies.evaluation.outcomes import goal_in_words
from mjx_policies.evaluation.report import Evaluation, as_json, evaluation_table, write_evaluation
from mjx_policies.evaluation.results import EvaluationResults
from mjx_policies.evaluation.sweeps import Point, compare_points, sweep_table
from mjx_policies.experiments.runs.evaluation import (
    BATCH,
    EVALUATION_SEED,
    EXAMPLE_SECONDS,
    make_evaluator,
    record_video,
)
from mjx_policies.experiments.runs.grid import members
from mjx_policies.experiments.runs.recipe import Parts, Recipe, RunConfig
from mjx_policies.files import replacing
from mjx_policies.randomization.conditions import conditions
from mjx_policies.training.checkpoint import read_checkpoint
from mjx_policies.training.checkpoints import newest_intact
from mjx_policies.training.clock import Clock
from mjx_policies.training.loop import Outcome
from mjx_policies.training.preemption import Preemption
from mjx_policies.training.run_folder import RunFolder
from mjx_policies.training.trees import not_finite
from mjx_policies.training.waiting import working
from mjx_policies.types import PyTree

CHOICE_SEED = EVALUATION_SEED + 1  # a checkpoint is not chosen by the episodes that evaluate it
FINAL = ("nominal", "randomized")  # conditions of the last evaluation
VIDEO = "episode.mp4"


class Evaluator:
    """Evaluates the policies of a run in simulation."""

    def __init__(self, run: RunConfig, task: Env, parts: Parts, recipe: Recipe):
        self.run, self.task, self.parts, self.recipe = run, task, parts, recipe
        self.members = members(run)
        chosen = {name: condition for name, condition in conditions(task).items() if name in FINAL}
        self._evaluate = make_evaluator(task, parts.acts, chosen, min(BATCH, run.eval_episodes))

    def brief(self, learner: Any) -> dict[str, Any]:
        """The figures of an interim evaluation, of a sweep [S]; NaN where a policy is not finite."""
        name, episodes = self.recipe.interim_condition, self.recipe.interim_episodes(self.run)
        found = [
            {} if not_finite(params) else brief(self._evaluate(params, episodes, [name], seed=CHOICE_SEED)[name])
            for params in self._params(learner)
        ]
        if len(found) == 1:
            return found[0]
        names = dict.fromkeys(name for each in found for name in each)
        return {name: np.array([each.get(name, np.nan) for each in found], np.float32) for name in names}

    def full(
        self, learner: Any, report: Callable[[str, int], None], diverged: Container[int] = ()
    ) -> list[dict[str, EvaluationResults]]:
        """The results of each policy in each condition; nothing of those that have diverged."""
        return [
            {}
            if number in diverged or not_finite(params)
            else self._evaluate(params, self.run.eval_episodes, report=report)
            for number, params in enumerate(self._params(learner))
        ]

    def compare(self, results: Sequence[Mapping[str, EvaluationResults]]) -> list[Point]:
        """The points of the grid, the best first; of a run alone its own figures."""
        names = [each.point or "all seeds" for each in self.members]
        bounded = self.task.spec.bounded_metrics
        return compare_points(names, [figures(each) for each in results], self.recipe.interim_condition, bounded)

    def _params(self, learner: Any) -> Iterator[PyTree]:
        for each in self.members:
            yield self.parts.params(learner if len(self.members) == 1 else member(learner, each.number))


def brief(found: EvaluationResults) -> dict[str, float]:
    """The figures of a policy in one condition that learning curves show."""
    return {name: estimate.value for name, estimate in found.figures.items() if "/" not in name}


def finish(
    evaluator: Evaluator, outcome: Outcome[Any], folder: RunFolder, console: Console, preemption: Preemption
) -> None:
    """Evaluates the result, shows it and records a video; a signal ends it at the next seam with `Preempted`."""
    run, recipe, clock = evaluator.run, evaluator.recipe, Clock(outcome.seconds)
    learner, steps = outcome.state.learner, outcome.step
    if recipe.keep_best:
        learner, meta = newest_intact(
            folder.path / "checkpoints",
            lambda path: read_checkpoint(path, outcome.state.learner, at="learner"),
            console.print,
            best=True,
        )
        steps = meta["step"]
    with working(console, "evaluating") as say, clock("evaluate"):

        def report(condition: str, done: int) -> None:
            preemption.check()
            say(f"evaluating {condition}: {done} of {run.eval_episodes} episodes")

        results = evaluator.full(learner, report, outcome.diverged)
    points = evaluator.compare(results)
    best = next((point.best for point in points if point.best is not None), 0)
    goal, title = goal_in_words(evaluator.task.spec.criteria), f"{run.task} after {steps:,} {recipe.display.steps}"
    about = {"task": run.task, "steps": steps, "goal": goal}
    try:  # files before tables, for they stay; and the table all the same where they cannot be written
        with working(console, "writing the evaluation"):
            if len(results) > 1:
                about |= describe_sweep(evaluator, points, results, outcome.diverged)
            # The figures of the whole are those of the best point.
            write_evaluation(folder.path / "evaluation.json", points[0].evaluation, about)
            draw_curves(evaluator, points, results, steps, folder)
    finally:
        if len(results) > 1:
            console.print(sweep_table(points, title, recipe.interim_condition))
            console.print("interquartile means over runs; other scripts take a run by its --number", highlight=False)
        else:
            console.print(evaluation_table(points[0].evaluation, title))
        if goal:
            console.print(goal, highlight=False)
    preemption.check()
    with working(console, f"recording {VIDEO}"), clock("video"):
        found = results[best]["nominal"]
        achieved, episode = next(iter(found.examples.items()))
        words = f"{recipe.name(run)}: {'' if achieved else 'no '}{found.outcomes.goal}"
        video = record_video(run.task, episode, evaluator.task.spec.control_dt, words, seconds=EXAMPLE_SECONDS)
        with replacing(folder.path / VIDEO) as temporary:
            temporary.write_bytes(video)
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in clock.seconds.items())
    console.print(f"{spent}\nrun folder: {folder.path}")
    preemption.check()  # for who goes on after this run


def draw_curves(
    evaluator: Evaluator,
    points: Sequence[Point],
    results: Sequence[Mapping[str, EvaluationResults]],
    steps: int,
    folder: RunFolder,
) -> None:
    """Learning curves of a run, or of a sweep with bands over seeds."""
    # Not at the top: importing matplotlib takes 0.4 s, and training need not wait for it.
    from mjx_policies.training.plots import plot_bands, plot_curves

    recipe, png = evaluator.recipe, folder.path / "curves.png"
    words: Any = {"title": recipe.name(evaluator.run), "steps": recipe.display.steps}
    if len(results) > 1:
        groups = {point.name: point.runs for point in points}
        plot_bands(folder.path / "sweep.csv", png, groups, recipe.display.curves, **words)
        return
    last = {f"eval/{name}": value for name, value in brief(results[0][recipe.interim_condition]).items()}
    table = folder.path / "metrics.csv"
    plot_curves(table, png, recipe.display.curves, last=last, last_step=steps, **words)


def describe_sweep(
    evaluator: Evaluator,
    points: Sequence[Point],
    results: Sequence[Mapping[str, EvaluationResults]],
    diverged: Mapping[int, int],
) -> dict[str, Any]:
    """The figures of each point of a grid and of each run, for JSON."""
    runs = evaluator.members
    of_points = [
        {"values": runs[point.runs[0]].values, "runs": point.runs, "diverged": point.diverged, "best": point.best}
        | {"conditions": as_json(point.evaluation)}
        for point in points
    ]
    of_runs = [
        {"number": each.number, "seed": each.config.seed, "values": each.values}
        | {"diverged": diverged.get(each.number), "conditions": as_json(figures(found))}
        for each, found in zip(runs, results, strict=True)
    ]
    return {"points": of_points, "runs": of_runs}


def figures(results: Mapping[str, EvaluationResults]) -> Evaluation:
    """The figures of a policy over its episodes."""
    return {name: found.figures for name, found in results.items()}
