"""Collects demonstrations of a scripted expert: python experiments/collect_demos.py --task FrankaPickCube

OUT is a dataset that holds successes alone, demos/FrankaPickCube by default. Beside it, in OUT.about, lie the figures
of the campaign and of the set (quality.md, quality.json), a picture (demos.png) and a film of each strategy (film.mp4).

Ctrl-C, or a signal of a scheduler, leaves a dataset that can be read; `--resume --out OUT` goes on, and with more
--episodes enlarges it. The result is that of a campaign that was never stopped.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mjx_policies.data.formats import WritableFormat
from mjx_policies.data.paths import about
from mjx_policies.envs.base import Env, EnvSpec
from mjx_policies.envs.experts.registry import load_expert
from mjx_policies.envs.franka.actions import ActionName
from mjx_policies.envs.montage import Cell, film_montage
from mjx_policies.envs.physics import Backend, resolve_backend
from mjx_policies.envs.registry import load, scene
from mjx_policies.evaluation.statistics import proportion
from mjx_policies.experiments.collection import demonstration_files
from mjx_policies.experiments.collection.collect import Account, Campaign, check_seed, collect, simulate
from mjx_policies.experiments.collection.demonstration_files import (
    check_same,
    dataset_path,
    open_writer,
    prepare,
    robots,
    show,
)
from mjx_policies.experiments.collection.demonstrators import expert_demonstrator
from mjx_policies.experiments.collection.rollouts import Rollouts, make_recorder
from mjx_policies.training import config
from mjx_policies.training.config import may_change
from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.files import read_json, write_json
from mjx_policies.training.preemption import Preemption, exit_code
from mjx_policies.training.progress import duration, fitting, open_console, spinner
from mjx_policies.training.waiting import working

FILMED = 3  # episodes of each strategy
BAR = 12  # characters of the bar in a terminal
BESIDE = 1 + BAR + 8 + 3  # that are not for words: spinner, bar, elapsed time and the spaces between
FILE = "campaign.json"  # what was asked for, and how far it got


@dataclasses.dataclass(frozen=True)
class Collect:
    """Collects demonstrations of a scripted expert."""

    task: str  # one that has an expert
    episodes: int = may_change(1_000)  # successes wanted
    out: str = may_change("")  # folder, for robomimic a file that ends in .hdf5; empty: demos/TASK
    format: WritableFormat = "lerobot"  # of the dataset
    actions: ActionName | None = None  # what they mean, for the tasks of an arm; None: what the task chose
    labels: Literal["executed", "intended"] = "executed"  # intended: what was meant, without tremor and slips
    randomize: float = 0.0  # times the ranges of the robot's preset of masses, friction, motors; 0: as the model says
    seed: int = 0  # of the campaign; campaigns of different seeds share no attempt
    batch: int = 128  # attempts at once
    backend: Backend = "auto"  # to simulate on
    film: bool = may_change(True)  # of some episodes of each strategy
    resume: bool = may_change(False)  # go on with the campaign in OUT; what is not given is as it was

    def __post_init__(self) -> None:
        for name in ("episodes", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1.")
        check_seed(self.seed)
        if not 0 <= self.randomize < np.inf:
            raise ValueError(f"randomize is {self.randomize}, it must be a number from 0 on.")

    @property
    def path(self) -> Path:
        """Of the dataset."""
        return dataset_path(self.out, self.task, self.format)


def parse(arguments: Sequence[str] | None = None) -> Collect:
    """Reads the command line; with --resume, what it leaves out comes from the campaign that goes on.

    Raises:
      UserError: there is no such campaign.
    """
    return demonstration_files.parse(Collect, FILE, lambda path: read_campaign(path)[0], __doc__, arguments)


def main(asked: Collect) -> None:
    """Collects, then shows what was collected."""
    console = open_console()
    account = Account()
    if asked.resume:
        before, account = read_campaign(asked.path)
        check_same(asked.path, before, asked)
    with clean_errors(ValueError):
        if not asked.resume:
            asked = dataclasses.replace(asked, backend=resolve_backend(asked.backend))  # wherever it is resumed
        task = load(asked.task, asked.backend, asked.batch, asked.actions)
        expert = load_expert(asked.task, task)
        record = make_recorder(task, expert_demonstrator(expert), robots(task, asked.randomize))
    prepare(asked.path, asked.format, asked.resume, FILE)
    campaign = Campaign(
        record=record,
        strategies=expert.strategies,
        task=asked.task,
        fps=1 / task.spec.control_dt,
        seed=asked.seed,
        batch=asked.batch,
        labels=asked.labels == "intended",
    )
    with opened(asked, account, task.spec) as writer, Preemption() as preemption:
        save_campaign(asked, account)
        wanted = max(asked.episodes, len(writer))  # a killed process may have left more than it told of
        account, shown = attempt(asked, wanted, campaign, account, writer, preemption, console)
        done = len(writer)
        complete = account.successes >= wanted
        if complete or asked.format == "lerobot":
            writer.close()  # a file of robomimic is made once; until then its parts can be read
    if not complete:
        console.print(
            f"{asked.path}: stopped by {preemption.requested} with {done:,} of {wanted:,} demonstrations; "
            f"go on with --resume --out {asked.path}"
        )
        raise SystemExit(exit_code(preemption.requested or "SIGTERM"))
    title = f"{asked.task}: demonstrations of the scripted expert"
    show(asked.path, task, title, console, account.tally, account.seconds)
    if shown is not None:
        with working(console, "drawing film.mp4"):
            film(asked, task, shown, account.attempts, expert.strategies)
    beside = "figures, picture and film" if asked.film else "figures and picture"
    console.print(f"{asked.path}: {done:,} demonstrations; {beside} in {about(asked.path)}")


def attempt(
    asked: Collect,
    wanted: int,
    campaign: Campaign,
    account: Account,
    writer: Any,
    preemption: Preemption,
    console: Console,
) -> tuple[Account, Rollouts | None]:
    """Compiles and collects, until there is enough or a signal arrives; also returns the first batch, for the film."""
    if account.successes >= wanted and not asked.film:
        return account, None
    began = time.perf_counter()
    with working(console, "compiling"):
        record = campaign.record.lower(jax.vmap(jax.random.key)(np.arange(asked.batch))).compile()
    compiling = account.seconds.get("compiling", 0.0) + time.perf_counter() - began
    account = dataclasses.replace(account, seconds=account.seconds | {"compiling": compiling})
    campaign = dataclasses.replace(campaign, record=record)
    first: Rollouts | None = None
    begins = account.attempts < asked.batch
    with Bar(wanted, len(writer), console) as bar:

        def report(account: Account, attempts: Rollouts) -> bool:
            nonlocal first
            save_campaign(asked, account)
            bar.update(len(writer), account)
            if begins and first is None:
                first = attempts
            return preemption.requested is None

        account = collect(campaign, wanted, writer, account, report)
    if account.successes < wanted or not asked.film:
        return account, None
    if first is None:
        with working(console, "simulating the first batch again, for the film"):
            first = simulate(campaign, 0)
    return account, first


@contextlib.contextmanager
def opened(asked: Collect, account: Account, spec: EnvSpec) -> Iterator[Any]:
    """A writer of the dataset, also of a file of robomimic that is finished and needs no more."""
    finished = asked.resume and asked.format == "robomimic" and asked.path.exists()
    if finished and account.successes >= asked.episodes:
        yield Finished(account.successes)
        return
    with open_writer(asked.path, asked.format, spec, asked.resume) as writer:
        yield writer


@dataclasses.dataclass(frozen=True)
class Finished:
    """In the place of a writer that has nothing left to do."""

    episodes: int

    def __len__(self) -> int:
        return self.episodes

    def close(self) -> None:
        """Nothing."""


def save_campaign(asked: Collect, account: Account) -> None:
    kept = dataclasses.replace(asked, out=str(asked.path), resume=False)
    write_json(about(asked.path) / FILE, {"config": config.to_json(kept), "account": config.to_json(account)})


def read_campaign(path: Path) -> tuple[Collect, Account]:
    """What the campaign of a dataset was asked for, and how far it got.

    Raises:
      UserError: it cannot be read.
    """
    file = about(path) / FILE
    data = read_json(file)
    if not isinstance(data, dict) or set(data) != {"config", "account"}:
        raise UserError(f"{file} does not describe a campaign.")
    return config.from_json(Collect, data["config"]), config.from_json(Account, data["account"], "account")


class Bar:
    """How many demonstrations there are; a line every ten seconds where there is no terminal, however slow a batch."""

    def __init__(self, total: int, done: int, console: Console):
        self._total, self._done, self._console = total, done, console
        self._began = time.monotonic()
        self._shown = contextlib.ExitStack()
        self._progress: Progress | None = None
        self._say: Callable[[str], None] = lambda words: None

    def __enter__(self) -> Bar:
        if not self._console.is_terminal:
            self._say = self._shown.enter_context(working(self._console, "collecting"))
            return self
        self._progress = Progress(
            SpinnerColumn(spinner(self._console)),
            BarColumn(bar_width=BAR),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._bar = self._progress.add_task("collecting", total=self._total, completed=self._done)
        self._shown.enter_context(self._progress)
        return self

    def __exit__(self, *error: Any) -> None:
        self._shown.__exit__(*error)

    def update(self, done: int, account: Account) -> None:
        """Shows how far a campaign has got."""
        now = time.monotonic()
        rate = proportion(account.successes, account.attempts)
        parts = [f"{done:,} of {self._total:,} demonstrations"]
        if done > self._done:
            parts.append(f"{duration((self._total - done) * (now - self._began) / (done - self._done))} left")
        parts.append(f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}] of {account.attempts:,} attempts")
        if self._progress is not None:  # what does not fit is left out, the last first
            words = fitting(parts, self._console.width - BESIDE, ", ")
            self._progress.update(self._bar, completed=done, description=words)
            return
        self._say(", ".join(parts))
        if done >= self._total:
            self._console.print(", ".join(parts), highlight=False)


def film(asked: Collect, task: Env, attempts: Rollouts, counted: int, strategies: Sequence[str]) -> None:
    """The first successes of each strategy, a row each, among the first batch, of which so many attempts counted."""
    cells = []
    for number, strategy in enumerate(strategies):
        rows = np.flatnonzero((attempts.success & (attempts.strategy == number))[:counted])[:FILMED]
        for row in rows:
            length = int(attempts.length[row])
            words = f"{strategy}, {length * task.spec.control_dt:.1f} s"
            cells.append(Cell([words], attempts.qpos[: length + 1, row], attempts.mocap_pos[row]))
    if cells:
        film_montage(scene(asked.task), cells, FILMED, about(asked.path) / "film.mp4", task.spec.control_dt)


if __name__ == "__main__":
    with clean_errors(ValueError):
        chosen = parse()
    with clean_errors():
        main(chosen)
