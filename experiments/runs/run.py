"""One run, from its configuration to a finished folder: what all algorithms do alike.

    RunFolder/  config.json  checkpoints/  metrics.csv  tensorboard/  curves.png  evaluation.json  episode.mp4

`--seeds` and `--grid` make it a sweep: many runs in one program and one folder, which has a `sweep.csv` as well. Each
of them has a number, by which its policy is evaluated, exported and played like that of a run alone.

An algorithm adds a `Recipe`: how its learner is put together and what there is to show.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from mjx_policies.envs.physics import resolve_backend
from mjx_policies.envs.registry import load
from mjx_policies.errors import UserError
from mjx_policies.experiments.runs.evaluation import BATCH
from mjx_policies.experiments.runs.grid import Member, members
from mjx_policies.experiments.runs.recipe import Recipe, RunConfig
from mjx_policies.experiments.runs.results import VIDEO, Evaluator, finish
from mjx_policies.training.checkpoints import checkpoint_steps
from mjx_policies.training.config import differences
from mjx_policies.training.loop import Outcome, Schedule, train
from mjx_policies.training.memory_usage import check_room
from mjx_policies.training.preemption import Preempted, Preemption, exit_code
from mjx_policies.training.progress import open_console
from mjx_policies.training.run_folder import RunFolder, read_config
from mjx_policies.training.script import clean_errors
from mjx_policies.training.waiting import working


def complete(run: RunConfig, recipe: Recipe, outer: Path | None = None) -> None:
    """Trains, or continues, and leaves a finished run folder.

    Args:
      run: its configuration.
      recipe: of its algorithm.
      outer: the folder to resume after a signal, of a script that this run is a part of; by default the run's own.

    Raises:
      SystemExit: a signal stopped it, see `exit_code`.
    """
    console = open_console()
    path = Path(run.run_dir or f"runs/{recipe.name(run)}-{datetime.now():%Y%m%d-%H%M%S}")
    if run.resume:
        refuse_fewer_steps(path, run)
    if run.resume and is_finished(path, run, recipe):
        console.print(
            f"{path} is finished: {checkpoint_steps(path / 'checkpoints')[-1]:,} steps, evaluated, and nothing is left "
            f"to do. Evaluate anew with evaluate.py --run {path}."
        )
        return
    # Before there is a folder: a run that cannot be built leaves none.
    with clean_errors(ValueError), working(console, "building the task and checking what it needs"):
        if not run.resume:
            run = dataclasses.replace(run, backend=resolve_backend(run.backend))  # wherever it is resumed
        task = load(run.task, run.backend, min(BATCH, run.eval_episodes), run.actions)
        runs = members(run)
        shapes = recipe.check(run, task)
        room = check_room(shapes, *needing(run), copies=len(runs))
    if len(runs) > 1:
        held = f"; they hold {room}" if jax.tree.leaves(shapes) else ""
        console.print(f"{describe(run, runs)}{held}. Steps and speed are those of each.", highlight=False)
    stopped = ""
    with RunFolder.start(path, run, run.resume) as folder, Preemption() as preemption:
        try:
            with contextlib.ExitStack() as stack:
                try:
                    parts = stack.enter_context(recipe.assemble(run, task, folder, console, preemption))
                except ValueError as error:  # demonstrations that do not suit the head; later ones are bugs
                    raise UserError(str(error)) from error
                evaluator = Evaluator(run, task, parts, recipe)
                outcome = learn(evaluator, folder, console, preemption)
            if outcome.status == "done":
                finish(evaluator, outcome, folder, console, preemption)
            else:
                stopped = preemption.requested or "SIGTERM"  # which another host was sent
        except Preempted as signal:
            stopped = str(signal)
    if stopped:
        console.print(f"{stopped} ended it: go on with --resume --run-dir {outer or path}", highlight=False)
        raise SystemExit(exit_code(stopped))


def refuse_fewer_steps(path: Path, run: RunConfig) -> None:
    """A run does not go back: its results would be told as those of fewer steps than it has learned from.

    Raises:
      UserError: it is asked for fewer steps than it has taken.
    """
    reached = checkpoint_steps(path / "checkpoints")
    if not reached or not hasattr(run, "steps") or not run.steps < min(reached[-1], read_config(path, type(run)).steps):
        return
    raise UserError(
        f"{path} has taken {reached[-1]:,} steps already, more than the {run.steps:,} of --steps: leave --steps out, "
        "ask for more, or choose another --run-dir for a new run."
    )


def is_finished(path: Path, run: RunConfig, recipe: Recipe) -> bool:
    """Whether a run that is to be resumed has all its results, for as many steps and episodes as it is asked for.

    Raises:
      UserError: it has results but no checkpoint, or is another run.
    """
    if not (path / "evaluation.json").exists():
        return False
    reached = checkpoint_steps(path / "checkpoints")
    if not reached:
        raise UserError(
            f"{path} holds the results of a finished run, but no checkpoint to go on from: put its checkpoints back, "
            "or choose another --run-dir for a new run."
        )
    before = read_config(path, type(run))
    changed = differences(before, run)
    if changed:
        raise UserError(f"{path} goes on as it began, but {'; '.join(changed)}. Leave out what differs, or start anew.")
    results = [path / name for name in ("curves.png", VIDEO)]
    same = all(getattr(before, name) == getattr(run, name) for name in ("steps", "eval_episodes") if hasattr(run, name))
    return same and all(file.exists() for file in results)


def learn(evaluator: Evaluator, folder: RunFolder, console: Console, preemption: Preemption) -> Outcome[Any]:
    """Trains up to the last step, or until a signal."""
    run, recipe, parts = evaluator.run, evaluator.recipe, evaluator.parts
    iterations = -(-parts.total_steps // parts.job.steps_per_iteration)
    schedule = Schedule(
        total_steps=parts.total_steps,
        eval_every=spacing(iterations, run.evaluations, last=bool(recipe.keep_best)),
        checkpoint_seconds=run.checkpoint_seconds,
        keep_best=recipe.keep_best,
    )
    names = [each.name for each in evaluator.members] if len(evaluator.members) > 1 else []
    job = dataclasses.replace(parts.job, evaluate=lambda state: evaluator.brief(state.learner), runs=names)
    return train(job, folder, schedule, show=recipe.display.progress, console=console, preemption=preemption)


def spacing(iterations: int, evaluations: int, last: bool) -> int:
    """Iterations from one evaluation to the next; 0: never.

    The last falls on the end where it chooses the result. Otherwise none does, since the finished policy has its own,
    unless there are hardly more iterations than evaluations.
    """
    if not evaluations:
        return 0
    return iterations // evaluations if last else iterations // (evaluations + 1) + 1


def needing(run: RunConfig) -> tuple[str, str]:
    """The flag that decides the memory, and advice where it is too much."""
    runs = len(members(run))
    if runs == 1 and hasattr(run, "num_envs"):
        return f"--num-envs {run.num_envs:,}", "choose fewer environments"
    if runs == 1:
        return "the run", "choose a smaller network"
    return f"a sweep of {runs:,} runs", "choose fewer seeds, a smaller grid or smaller runs"


def describe(run: RunConfig, runs: Sequence[Member]) -> str:
    """A sweep in words."""
    points = len(runs) // run.seeds
    grid = f"{points} points of the grid, {run.seeds} {'seeds' if run.seeds > 1 else 'seed'} each"
    return f"{len(runs)} runs side by side: " + (grid if points > 1 else f"seeds {run.seed} to {runs[-1].config.seed}")
