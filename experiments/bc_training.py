"""What bc_pretrain.py and the tools that open its runs share: a run of behaviour cloning, from data to film."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from demos import check_rate, check_same, check_task, describe_robot
from rich.console import Console

from mjx_policies.agents import bc_run
from mjx_policies.agents.bc import BCHyper, BCState, Cloner
from mjx_policies.agents.bc_loop import CloningState, cloning
from mjx_policies.agents.bc_run import Demonstrations
from mjx_policies.agents.campaign import MAX_SEED, Account, Campaign, collect
from mjx_policies.agents.demonstrations import Attempts, expert_actor, make_recorder
from mjx_policies.agents.restore import Policy, load_policy
from mjx_policies.agents.trials import EVALUATION_SEED, film_trial, make_trials
from mjx_policies.data import lerobot
from mjx_policies.data.dataset import Dataset, readable
from mjx_policies.data.episodes import Episode
from mjx_policies.data.formats import read
from mjx_policies.data.store import Store, build, fingerprint, in_memory, open_store
from mjx_policies.envs.base import Env
from mjx_policies.envs.experts.registry import load_expert
from mjx_policies.envs.physics import resolve_backend
from mjx_policies.envs.registry import load
from mjx_policies.evaluation.report import Evaluation, evaluation_table, write_evaluation
from mjx_policies.evaluation.statistics import mean
from mjx_policies.evaluation.trials import Trials
from mjx_policies.heads import registry
from mjx_policies.randomization.conditions import conditions
from mjx_policies.training.checkpoint import read_checkpoint
from mjx_policies.training.checkpoints import checkpoint_steps, newest_intact
from mjx_policies.training.clock import Clock
from mjx_policies.training.config import may_change
from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.files import read_json, replacing, write_json
from mjx_policies.training.loop import Job, Outcome, Schedule, train
from mjx_policies.training.plots import plot_curves
from mjx_policies.training.preemption import Preempted, Preemption, exit_code
from mjx_policies.training.progress import open_console
from mjx_policies.training.run_folder import RunFolder, read_config
from mjx_policies.training.waiting import working
from mjx_policies.types import table_size

ITERATION = 100  # gradient steps, at most
BATCH = 64  # robots at once
ATTEMPTS = 128  # of an expert at once
CHOICE_SEED = EVALUATION_SEED + 1  # episodes that choose among checkpoints must not be those that judge the chosen
IN_MEMORY = 2**30  # bytes of demonstrations; more are mapped from a file
FINGERPRINT = "demonstrations.json"  # in the run folder: tells whether datasets change while a run is stopped
RESULTS = ("evaluation.json", "curves.png", "episode.mp4")  # of a finished run, in the order they are written
PORTIONS = ("success", "completion", "failures")
CURVES = (
    "eval/success",
    "action/error",
    "loss/train",
    "loss/validation",
    "gradient/norm",
    "learning_rate",
)


# A few hundred demonstrations are soon known by heart, and then the way beside them is forgotten. Each step takes off
# learning_rate * weight_decay of the weights.
CLONING = BCHyper(learning_rate=1e-3, weight_decay=3.0)


@dataclasses.dataclass(frozen=True)
class CloningRun(bc_run.Config):
    """Clones a demonstrator, evaluates the policy and films it."""

    hyper: BCHyper = dataclasses.field(default_factory=lambda: CLONING)  # its total_steps is `steps`, whatever it says
    demos: str = ""  # dataset to learn from; empty: the task's expert demonstrates, into the run folder
    episodes: int = 200  # demonstrations to learn from, the first of the dataset; 0: all of it
    more: tuple[str, ...] = ()  # further datasets, of which all is taken
    # folder of a run whose policy goes on learning; empty: from random weights. Its scales stay: it never takes actions
    # beyond those of its first demonstrations
    begin: str = ""
    run_dir: str = may_change("")  # folder of the run; empty: runs/<task>-<head>-<time>
    resume: bool = may_change(False)  # continue the run in run_dir; what is not given is as it was there
    evaluations: int = 5  # in simulation on the way, the last at the end; the best checkpoint stays
    trials: int = may_change(64)  # episodes of each of these
    robots: int = may_change(256)  # of the final evaluation, for one whole episode each
    checkpoint_seconds: float = may_change(20.0)  # s, between checkpoints; more where saving takes over 5 % of the time

    def __post_init__(self) -> None:
        super().__post_init__()
        least = {"episodes": 0, "evaluations": 1, "trials": 1, "robots": 1, "checkpoint_seconds": 0}
        for name, value in least.items():
            if not getattr(self, name) >= value:  # true of NaN too
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least {value}")
        if self.evaluations > self.steps:
            raise ValueError(f"evaluations is {self.evaluations}, more than the {self.steps} steps between them")
        if not self.demos and not self.episodes:
            raise ValueError("episodes is 0, all of a dataset, and there is none: name one with --demos")
        if self.begin and self.seeds > 1:
            raise ValueError(f"seeds is {self.seeds}, but one policy alone goes on learning from --begin")


class Parts(NamedTuple):
    """A run, put together.

    Attributes:
      demonstrations: what it learns from.
      cloner: the learner.
      begin: a policy that goes on learning, if there is one.
    """

    demonstrations: Demonstrations
    cloner: Cloner
    begin: BCState | None


def complete(run: CloningRun) -> None:
    """Trains, or continues, and leaves a finished run folder.

    Raises:
      SystemExit: a signal stopped it, see `exit_code`.
    """
    console = open_console()
    path = Path(run.run_dir or f"runs/{run.task}-{run.head}-{datetime.now():%Y%m%d-%H%M%S}")
    if run.resume and all((path / name).exists() for name in RESULTS):
        check_same(path, read_config(path, CloningRun), run)
        console.print(f"{path} is finished, its results are in evaluation.json: there is nothing to resume.")
        return
    if run.resume and (path / "evaluation.json").exists() and not checkpoint_steps(path / "checkpoints"):
        raise UserError(
            f"{path} holds the results of a finished run, but no checkpoint to go on from: put its checkpoints back, "
            "or choose another --run-dir for a new run."
        )
    # Before there is a folder: a run that cannot be built leaves none.
    with clean_errors(ValueError), working(console, "building the task and checking the datasets"):
        if not run.resume:
            run = dataclasses.replace(run, backend=resolve_backend(run.backend))  # wherever it is resumed
        task = load(run.task, run.backend, min(BATCH, run.robots), run.actions)
        check(run, task)
    stopped = ""
    with RunFolder.start(path, run, run.resume) as folder, Preemption() as preemption:
        try:
            with clean_errors(ValueError):  # demonstrations that do not suit the head
                parts = assemble(run, task, folder, preemption, console)
            if learn(run, task, parts, folder, preemption, console) == "preempted":
                stopped = preemption.requested or "SIGTERM"  # which another host was sent
        except Preempted as signal:
            console.print(f"{signal} asked to stop. Run again with --resume and the same --run-dir ({path}).")
            stopped = str(signal)
    if stopped:
        raise SystemExit(exit_code(stopped))


def check(run: CloningRun, task: Env) -> None:
    """That a run makes sense, before anything is written.

    Raises:
      UserError: there is no such dataset, or nobody to demonstrate the task.
      ValueError: what the configuration asks for does not exist or does not fit.
    """
    if not task.spec.stages:
        raise ValueError(f"{run.task} has no stages to solve, by which checkpoints are compared: take another --task")
    if not run.demos:
        load_expert(run.task, task)
    check_datasets(run, task)
    if run.begin:
        open_begun(run)
    if run.head not in registry.FITTED:  # those are built once they are fitted
        bc_run.make_cloner(run, task.spec)


def check_datasets(run: CloningRun, task: Env) -> None:
    """That every dataset of a run is of the task, at its rate and with actions of its kind.

    Raises:
      UserError: there is no such dataset, or it is of another task or rate or has other actions.
    """
    for path in (*([run.demos] if run.demos else []), *run.more):
        check_dataset(path, run.task, task)


def check_dataset(path: str, name: str, task: Env) -> None:
    """See `check_datasets`."""
    dataset = read(path)
    check_task(dataset, path, name)
    check_rate(dataset, path, name, task.spec.control_dt)
    found, table = dataset.features["action"], task.spec.action
    if found.shape != (table.size,):
        raise UserError(
            f"the actions in {path} have {found.shape[0]} numbers, those of {name} {table.size}: "
            "choose the --actions that were recorded."
        )
    if found.names and found.names != table.names:
        raise UserError(
            f"the actions in {path} are {', '.join(found.names)}, those of {name} {', '.join(table.names)}: "
            "choose the --actions that were recorded."
        )


def assemble(run: CloningRun, task: Env, folder: RunFolder, preemption: Preemption, console: Console) -> Parts:
    """Demonstrations, and the learner that suits them."""
    with working(console, "reading demonstrations"):
        store = open_demonstrations(run, task, folder.path, preemption, console)
        demonstrations = bc_run.prepare(store, run, task.spec)
    shape = (run.horizon, task.spec.action.size)
    begin = None
    if run.begin:
        begun = open_begun(run)
        begin, fitted = begun.state, registry.read_fitted(run.head, shape, Path(run.begin))
        demonstrations = dataclasses.replace(demonstrations, scales=begin.scales)
        registry.save_fitted(fitted, folder.path)
    elif folder.resumed and checkpoint_steps(folder.path / "checkpoints"):
        fitted = registry.read_fitted(run.head, shape, folder.path)
    else:
        with working(console, "fitting the head to what it will say"):
            fitted = bc_run.fit_head(run, demonstrations, task.spec)
            registry.save_fitted(fitted, folder.path)
    return Parts(demonstrations, bc_run.make_cloner(run, task.spec, fitted), begin)


def open_begun(run: CloningRun) -> Policy:
    """The policy that goes on learning.

    Raises:
      UserError: its network is another one.
    """
    begun = load_policy(Path(run.begin), CloningRun, run.backend)
    for name in ("task", "actions", "head", "size", "horizon", "remember", "unseen", "seeds"):
        before, now = getattr(begun.config, name), getattr(run, name)
        if before != now:
            raise UserError(f"the policy of {run.begin} has {name} {before!r}, this run {now!r}: they must agree.")
    return begun


def open_demonstrations(run: CloningRun, task: Env, folder: Path, preemption: Preemption, console: Console) -> Store:
    """The states and actions of the first demonstrations, in memory or, if they are many, mapped from a file."""
    path = Path(run.demos) if run.demos else folder / "demonstrations"
    if not run.demos:
        demonstrate(run, task, path, preemption, console)
    dataset = read(path)
    count = min(run.episodes, len(dataset)) if run.episodes else len(dataset)
    if not count:
        raise UserError(f"{path} holds no demonstration.")
    if count < run.episodes:
        raise UserError(f"{path} holds {count} demonstrations, fewer than --episodes {run.episodes}; 0 takes all.")
    datasets = [(dataset, count), *((more, len(more)) for more in map(read, run.more))]
    for each, _ in datasets:
        for sentence in each.notes:
            console.print(f"{each.path}: {sentence}", highlight=False)

    def say(sentence: str) -> None:
        console.print(sentence, highlight=False)

    def episodes() -> Iterator[Episode]:
        for each, count in datasets:
            for episode in readable(each, say, count):
                preemption.check()
                yield episode

    names = [bc_run.OBSERVATION]
    if (folder / "store").exists():  # the run's own copy
        store = open_store(folder / "store")
    elif sum(sum(each.lengths[:count]) * row_bytes(each) for each, count in datasets) <= IN_MEMORY:
        store = in_memory(episodes(), names)
        check_unchanged(store, folder / FINGERPRINT)
    else:
        store = build(folder / "store", episodes(), names)
    size = table_size(task.spec.observation)
    if store.arrays[bc_run.OBSERVATION].shape[1:] != (size,):
        found = list(store.arrays[bc_run.OBSERVATION].shape[1:])
        raise UserError(f"{path} has a state of {found} numbers, {run.task} one of [{size}]: record it again.")
    return store


def check_unchanged(store: Store, path: Path) -> None:
    """That a run which goes on learns from what it began with: its scales and held-out episodes belong to that.

    Args:
      store: what there is to learn from now.
      path: where what there was is remembered; written if it is not there yet.

    Raises:
      UserError: it is something else.
    """
    now = fingerprint(store)
    before = read_json(path) if path.exists() else None
    if before is None:
        write_json(path, now)
    elif before != now:
        counts = [
            " and ".join(f"{each.get(name)} {name}" for name in ("episodes", "steps"))
            if isinstance(each, dict)
            else "?"
            for each in (before, now)
        ]
        raise UserError(
            f"the demonstrations have changed since the run in {path.parent} began: {counts[0]} then, {counts[1]} "
            f"{'with other numbers ' if counts[0] == counts[1] else ''}now. Restore the datasets to resume it, or "
            "choose another --run-dir for a new run."
        )


def row_bytes(dataset: Dataset) -> int:
    """Of the state and the action of one step, in float32."""
    features = [dataset.features[name] for name in (bc_run.OBSERVATION, "action") if name in dataset.features]
    return sum(4 * math.prod(feature.shape) for feature in features)


def demonstrate(run: CloningRun, task: Env, path: Path, preemption: Preemption, console: Console) -> None:
    """Lets the task's expert demonstrate until there are enough successes; goes on where an earlier process ended."""
    if lerobot.recognise(path) and len(lerobot.read(path)) >= run.episodes:
        return
    expert = load_expert(run.task, task)
    campaign = Campaign(
        record=make_recorder(task, expert_actor(expert)),
        strategies=expert.strategies,
        task=run.task,
        fps=1 / task.spec.control_dt,
        seed=run.seed % MAX_SEED,
        batch=ATTEMPTS,
    )
    with (
        lerobot.Writer(path, append=path.exists(), **describe_robot(task.spec)) as writer,
        working(console, f"the expert gets ready for {run.episodes} demonstrations") as say,
    ):

        def report(account: Account, attempts: Attempts) -> bool:
            del attempts
            say(f"{len(writer)} of {run.episodes} demonstrations, {account.attempts} attempts")
            return preemption.requested is None

        collect(campaign, run.episodes, writer, Account(), report)  # those that there are already count
        preemption.check()


def learn(run: CloningRun, task: Env, parts: Parts, folder: RunFolder, preemption: Preemption, console: Console) -> str:
    """Trains and finishes a run; returns how training ended, see `training.job.Outcome`."""
    judge = Judge(run, task, parts.cloner)
    iterations = run.evaluations * -(-run.steps // (run.evaluations * ITERATION))  # so that the last is evaluated
    per_iteration = -(-run.steps // iterations)
    with cloning(run, parts.cloner, parts.demonstrations, per_iteration, begin=parts.begin) as job:
        console.print(describe(run, parts), highlight=False)
        outcome = train(
            Job(
                init=job.init,
                step=job.step,
                steps_per_iteration=per_iteration,
                evaluate=lambda state: judge.brief(state.learner),
                jit=False,
            ),
            folder,
            Schedule(
                total_steps=per_iteration * iterations,
                eval_every=iterations // run.evaluations,
                checkpoint_seconds=run.checkpoint_seconds,
                keep_best="eval/success",
            ),
            show=("loss/train", "action/error", "eval/success"),
            console=console,
            preemption=preemption,
        )
    if outcome.status == "done":
        finish(run, task, judge, outcome, folder, preemption, console)
    return outcome.status


def describe(run: CloningRun, parts: Parts) -> str:
    """What there is to learn from, and what an error means."""
    demonstrations = parts.demonstrations
    split = demonstrations.split
    rows = demonstrations.windows.store.arrays["action"]
    constant = float(np.abs(rows - np.median(rows, axis=0)).mean())
    return (
        f"{len(split.training)} demonstrations to learn from, {len(split.validation)} held out; "
        f"{len(demonstrations.training):,} windows of {run.horizon} actions. "
        f"An action that is always the same would be off by {constant:.3f}."
    )


class Judge:
    """Tries policies in simulation.

    Args:
      run: what to try.
      task: for `BATCH` robots or fewer.
      cloner: of the run.
    """

    def __init__(self, run: CloningRun, task: Env, cloner: Cloner):
        self.run, self.task = run, task
        tests = {name: condition for name, condition in conditions(task).items() if name in ("nominal", "randomized")}
        acts = lambda state: bc_run.make_policy(run, cloner, state)  # noqa: E731
        self._try = make_trials(task, acts, tests, min(BATCH, run.robots), EVALUATION_SEED)

    def brief(self, learner: BCState) -> dict[str, float]:
        """Mean figures of all policies, to choose among checkpoints."""
        tried = [self._try(each, self.run.trials, ["nominal"], seed=CHOICE_SEED) for each in self.members(learner)]
        figures = [trials["nominal"].figures for trials in tried]
        return {name: float(np.mean([each[name].value for each in figures])) for name in ("success", "completion")}

    def full(self, learner: BCState, report: Callable[[str, int], None]) -> list[dict[str, Trials]]:
        """Of each policy, in each condition."""
        return [self._try(each, self.run.robots, report=report) for each in self.members(learner)]

    def members(self, learner: BCState) -> list[BCState]:
        """The policies that learned side by side."""
        return [bc_run.member(self.run, learner, number) for number in range(self.run.seeds)]


def finish(
    run: CloningRun,
    task: Env,
    judge: Judge,
    outcome: Outcome[CloningState],
    folder: RunFolder,
    preemption: Preemption,
    console: Console,
) -> None:
    """Judges and films the best checkpoint; a signal ends it at the next seam with `Preempted`."""
    clock = Clock(outcome.seconds)
    template = outcome.state.learner
    learner, meta = newest_intact(
        folder.path / "checkpoints",
        lambda path: read_checkpoint(path, template, at="learner"),
        console.print,
        best=True,
    )
    with working(console, "evaluating") as say, clock("evaluate"):

        def report(condition: str, done: int) -> None:
            preemption.check()
            say(f"evaluating {condition} robots: {done} of {run.robots}")

        tried = judge.full(learner, report)
    evaluation = together(tried)
    successes = [trials["nominal"].figures["success"].value for trials in tried]
    about = {"task": run.task, "head": run.head, "steps": meta["step"], "success_of_each_seed": successes}
    try:  # files before tables, for they stay; and the table all the same where they cannot be written
        write_evaluation(folder.path / "evaluation.json", evaluation, about)
        last = {"eval/success": float(np.mean(successes))}
        plot_curves(
            folder.path / "metrics.csv",
            folder.path / "curves.png",
            CURVES,
            title=f"{run.task}, {run.head}",
            last=last,
            last_step=meta["step"],
            steps="gradient steps",
        )
    finally:
        console.print(evaluation_table(evaluation, f"{run.task} after {meta['step']:,} gradient steps"))
    preemption.check()
    with working(console, "drawing episode.mp4"), clock("film"):
        achieved, shown = next(iter(tried[0]["nominal"].shown.items()))
        words = f"{run.task}, {run.head}: {'success' if achieved else 'no success'}"
        with replacing(folder.path / "episode.mp4") as temporary:
            temporary.write_bytes(film_trial(run.task, shown, task.spec.control_dt, words))
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in clock.seconds.items())
    console.print(f"{spent}\nrun folder: {folder.path}")


def together(tried: Sequence[dict[str, Trials]]) -> Evaluation:
    """The figures of one policy over its episodes, or of several over the policies."""
    if len(tried) == 1:
        return {name: trials.figures for name, trials in tried[0].items()}
    found = {}
    for name, trials in tried[0].items():
        found[name] = {}
        for figure in trials.figures:
            values = [each[name].figures[figure].value for each in tried]
            portion = figure in PORTIONS or figure.startswith("stage/")
            found[name][figure] = mean(values, lowest=0.0, highest=1.0) if portion else mean(values)
    return found
