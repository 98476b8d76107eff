"""What ppo_locomotion.py and ppo_manipulation.py share: a run of PPO from its first step to its film."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import jax
from demos import check_same
from rich.console import Console

from mjx_policies.agents import ppo_run
from mjx_policies.agents.on_policy import OnPolicyState
from mjx_policies.compiler import compiler_options
from mjx_policies.envs.physics import resolve_backend
from mjx_policies.evaluation.episodes import Episodes
from mjx_policies.evaluation.outcomes import goal_in_words
from mjx_policies.evaluation.report import evaluation_table, write_evaluation
from mjx_policies.training.checkpoints import checkpoint_steps
from mjx_policies.training.clock import Clock
from mjx_policies.training.config import may_change
from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.loop import Job, Outcome, Schedule, train
from mjx_policies.training.memory import check_room
from mjx_policies.training.plots import plot_curves
from mjx_policies.training.preemption import Preempted, Preemption, exit_code
from mjx_policies.training.progress import open_console
from mjx_policies.training.run_folder import RunFolder, read_config
from mjx_policies.training.waiting import working


class Display(NamedTuple):
    """What a script shows of its runs.

    Attributes:
      progress: metrics beside the progress bar.
      curves: those in curves.png.
      film: name of the film.
    """

    progress: tuple[str, ...]
    curves: tuple[str, ...]
    film: str


@dataclasses.dataclass(frozen=True)
class Run(ppo_run.Config):
    """Trains a robot with PPO, evaluates it and films it."""

    steps: int = may_change(0)  # environment steps; 0: as many as the script finds enough on this device
    run_dir: str = may_change("")  # folder of the run; empty: runs/<task>-<time>
    resume: bool = may_change(False)  # continue the run in run_dir; what is not given is as it was there
    evaluations: int = may_change(1)  # short ones on the way, before the one of the finished policy; 0: none
    robots: int = may_change(256)  # robots of the final evaluation, for one whole episode each
    checkpoint_seconds: float = may_change(20.0)  # s, between checkpoints; more where saving takes over 5 % of the time

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("steps", 0), ("evaluations", 0), ("robots", 1), ("checkpoint_seconds", 0)):
            if not getattr(self, name) >= least:  # true of NaN too
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least {least}")


def complete(run: Run, default_steps: int, display: Display) -> None:
    """Trains, or continues, and leaves a finished run folder.

    Args:
      run: what to do.
      default_steps: environment steps where `run.steps` is 0.
      display: what to show.
    """
    console = open_console()
    path = Path(run.run_dir or f"runs/{run.task}-{datetime.now():%Y%m%d-%H%M%S}")
    iteration = run.num_envs * run.rollout_length
    steps = -(-(run.steps or default_steps) // iteration) * iteration
    if run.resume and (path / "evaluation.json").exists():
        reached = checkpoint_steps(path / "checkpoints")
        if not reached:
            raise UserError(
                f"{path} holds the results of a finished run, but no checkpoint to go on from: put its checkpoints "
                "back, or choose another --run-dir for a new run."
            )
        shown = [path / name for name in ("curves.png", display.film)]
        before = read_config(path, type(run))
        if reached[-1] >= steps and all(file.exists() for file in shown) and before.robots == run.robots:
            check_same(path, before, run)
            console.print(
                f"{path} is finished: {reached[-1]:,} steps, evaluated, and nothing is left to do. Train on with more "
                f"--steps, or evaluate anew with evaluate.py --run {path}."
            )
            return
    if run.steps and steps != run.steps:
        console.print(
            f"--steps {run.steps:,} becomes {steps:,}: an iteration takes {iteration:,}, {run.rollout_length} of each "
            f"of {run.num_envs:,} robots"
        )
    # Before there is a folder: a run that cannot be built leaves none.
    with clean_errors(ValueError), working(console, "building the task"):
        if not run.resume:
            run = dataclasses.replace(run, backend=resolve_backend(run.backend))  # wherever it is resumed
        parts = ppo_run.build(run)
        evaluate = ppo_run.make_evaluation(run, parts.learner, batch=min(64, run.robots))
        init = jax.jit(parts.runner.init, compiler_options=compiler_options(runs_once=True))
        state = init.eval_shape(jax.random.key(run.seed), run.hyper)
        check_room(state, f"--num-envs {run.num_envs:,}", "choose fewer robots")
    with RunFolder.start(path, run, run.resume) as folder, Preemption() as preemption:
        job = Job(
            init=lambda: init(jax.random.key(run.seed), run.hyper),
            step=parts.runner.step,
            steps_per_iteration=parts.runner.steps_per_iteration,
            evaluate=lambda state: brief(evaluate(state.learner, min(64, run.robots), ["randomized"])[0]),
            watch=lambda state: state.learner,
            may_be_nan=("env/standing_speed", "env/side"),  # nobody stands, nobody has passed
            compiler_options=compiler_options(),
        )
        schedule = Schedule(
            total_steps=steps,
            eval_every=spacing(steps // iteration, run.evaluations),
            checkpoint_seconds=run.checkpoint_seconds,
        )
        outcome = train(job, folder, schedule, show=display.progress, console=console, preemption=preemption)
        if outcome.status != "done":
            raise SystemExit(exit_code(preemption.requested))
        try:
            words = goal_in_words(parts.envs.spec.criteria)
            finish(run, display, words, folder, evaluate, outcome, preemption, console)
        except Preempted as signal:
            console.print(
                f"{signal} asked to stop: training is complete and saved. Run again with --resume and the same "
                f"--run-dir ({path}) to evaluate and film."
            )
            raise SystemExit(signal.exit_code) from None


def spacing(iterations: int, evaluations: int) -> int:
    """Iterations from one evaluation to the next; 0: never.

    None falls on the end, which has its own, unless there are hardly more iterations than evaluations.
    """
    return iterations // (evaluations + 1) + 1 if evaluations else 0


def brief(evaluation: ppo_run.Evaluation) -> dict[str, float]:
    """The figures of the randomized robots, for the learning curves."""
    return {name: figure.value for name, figure in evaluation["randomized"].items() if "/" not in name}


def finish(
    run: Run,
    display: Display,
    goal: str,
    folder: RunFolder,
    evaluate: Callable[..., tuple[ppo_run.Evaluation, Episodes]],
    outcome: Outcome[OnPolicyState],
    preemption: Preemption,
    console: Console,
) -> None:
    """Writes and shows what a run leaves behind; a signal ends it at the next seam with `Preempted`."""
    clock = Clock(outcome.seconds)
    with working(console, "evaluating") as say, clock("evaluate"):

        def report(condition: str, done: int) -> None:
            preemption.check()
            say(f"evaluating {condition} robots: {done} of {run.robots}")

        evaluation, episodes = evaluate(outcome.state.learner, run.robots, report=report)
    try:  # files before tables, for they stay; and the table all the same where they cannot be written
        about = {"task": run.task, "steps": outcome.step, "goal": goal}
        write_evaluation(folder.path / "evaluation.json", evaluation, about)
        last = {f"eval/{name}": value for name, value in brief(evaluation).items()}
        plot_curves(folder.path / "metrics.csv", folder.path / "curves.png", display.curves, title=run.task, last=last)
    finally:
        console.print(evaluation_table(evaluation, f"{run.task} after {outcome.step:,} steps"))
        if goal:
            console.print(goal, highlight=False)
    preemption.check()
    with working(console, f"drawing {display.film}"), clock("film"):
        ppo_run.film_episode(run, episodes, folder.path / display.film)
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in clock.seconds.items())
    console.print(f"{spent}\nrun folder: {folder.path}")
