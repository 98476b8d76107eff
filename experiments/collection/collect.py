"""Collecting demonstrations: an expert acts again and again, until enough of its rollouts have succeeded.

Rollouts are numbered from 0, and their seeds follow from the collection's. They run in batches on a fixed grid and
count in the order of their numbers up to the one that brings the last success wanted. So what is collected does not
depend on how often the collection was stopped and taken up again.

Axes: B rollouts at once.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from rich.console import Console

from mjx_policies.data.episodes import Episode
from mjx_policies.data.formats import EpisodeWriter
from mjx_policies.diagnosis.report import Tally
from mjx_policies.errors import UserError
from mjx_policies.evaluation.statistics import proportion
from mjx_policies.experiments.collection.rollouts import Rollouts, to_episodes
from mjx_policies.training.preemption import Preemption
from mjx_policies.training.waiting import counting, working

SEEDS = 1_000_000  # rollouts that a collection's seed stands for
MAX_SEED = 2_000  # times as many still are 32-bit numbers
MIN_SUCCESS_RATE = 0.05  # minimum success rate, below which a collection ends
MIN_ROLLOUTS = 100  # before that


@dataclasses.dataclass(frozen=True)
class CollectionProgress:
    """The progress of a collection. Demonstrations may be ahead of it, if its process was killed.

    Attributes:
      tally: what became of the rollouts so far; their number is also that of the next.
      seconds: spent on each part of the work.
    """

    tally: Tally = dataclasses.field(default_factory=Tally)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Collection:
    """A collection of demonstrations.

    Attributes:
      record: `seeds [B] -> Rollouts`, see `make_recorder`.
      task: its name.
      seed: of the collection, at least 0 and below `MAX_SEED`.
      batch: rollouts at once.
      labels: whether demonstrations hold what the expert meant instead of what was executed.
    """

    record: jax.stages.Wrapped
    task: str
    seed: int
    batch: int
    labels: bool = False

    def compile(self) -> None:
        """Compiles the program that simulates a batch."""
        self.record.lower(self._seeds(0)).compile()

    def simulate(self, start: int) -> Rollouts:
        """The batch that begins with rollout `start`, the same whenever it is asked for."""
        return jax.device_get(self.record(self._seeds(start)))

    def _seeds(self, start: int) -> np.ndarray:  # [B]
        return self.seed * SEEDS + start + np.arange(self.batch)


def collect_until(
    wanted: int,
    collection: Collection,
    writer: EpisodeWriter,
    progress: CollectionProgress,
    console: Console,
    preemption: Preemption,
    save: Callable[[CollectionProgress], None] = lambda progress: None,
) -> tuple[CollectionProgress, Rollouts | None]:
    """Compiles and collects, and reports progress, until there is enough or a signal arrives; see `collect`.

    Args:
      save: is told the progress after each batch.

    Returns:
      The progress at the end, and the first batch of all if it was simulated here.
    """
    if progress.tally.successes >= wanted:
        return progress, None
    began = time.perf_counter()
    with working(console, "compiling"):
        collection.compile()
    compiling = progress.seconds.get("compiling", 0.0) + time.perf_counter() - began
    progress = dataclasses.replace(progress, seconds=progress.seconds | {"compiling": compiling})
    begins, first = progress.tally.rollouts < collection.batch, None
    with (
        counting(console, "episodes", wanted, first=len(writer)) as count,
        contextlib.closing(collect(wanted, collection, writer, progress)) as batches,
    ):
        count(len(writer))
        for progress, rollouts in batches:
            save(progress)
            rate = proportion(progress.tally.successes, progress.tally.rollouts)
            success = f"success {rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}]"
            count(len(writer), success, f"{rate.count:,} rollouts")
            first = first or (rollouts if begins else None)
            if preemption.requested is not None:
                break
    return progress, first


def collect(
    wanted: int, collection: Collection, writer: EpisodeWriter, progress: CollectionProgress
) -> Generator[tuple[CollectionProgress, Rollouts], None, None]:
    """Goes on until the writer holds as many demonstrations as are wanted, or nobody asks for the next batch.

    While one batch is written the next is simulated: writing waits for the disk, and uses one core.

    Args:
      wanted: demonstrations in all.
      collection: what is collected.
      writer: holds the demonstrations so far.
      progress: so far.

    Yields:
      The progress and the rollouts of each batch, once its demonstrations are written.

    Raises:
      UserError: hardly any rollout succeeds, the seeds are used up, or the writer holds what was not collected so.
    """
    ahead = len(writer) - progress.tally.successes
    if ahead < 0:
        raise UserError(
            f"the dataset holds {len(writer):,} demonstrations, {progress.tally.successes:,} were written: "
            "episodes were taken out of it, so begin another one."
        )
    seconds = {"simulating": 0.0, "writing": 0.0} | progress.seconds
    batches = _batches(wanted, collection, progress.tally)
    with ThreadPoolExecutor(1) as simulating:
        upcoming = simulating.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            tally, episodes, rollouts, spent = batch
            upcoming = simulating.submit(next, batches, None)
            began = time.perf_counter()
            for episode in episodes[ahead:]:
                writer.add(episode)
            ahead = max(0, ahead - len(episodes))
            seconds["simulating"] += spent
            seconds["writing"] += time.perf_counter() - began
            yield CollectionProgress(tally, dict(seconds)), rollouts
            _check_success_rate(tally, wanted, collection.task, seconds["simulating"])


def _batches(
    wanted: int, collection: Collection, tally: Tally
) -> Iterator[tuple[Tally, list[Episode], Rollouts, float]]:
    """The tally after each batch, its successes up to the last one wanted, all its rollouts, and its seconds."""
    while tally.successes < wanted:
        began = time.perf_counter()
        tally, start = copy.deepcopy(tally), tally.rollouts - tally.rollouts % collection.batch
        if start + collection.batch > SEEDS:
            raise UserError(f"the {SEEDS:,} rollouts of seed {collection.seed} are used up: use another --seed.")
        rollouts, kept = collection.simulate(start), set()
        named = outcomes(rollouts)
        for row in range(tally.rollouts - start, collection.batch):
            if tally.successes == wanted:
                break
            tally.add(rollouts.strategies[int(rollouts.strategy[row])], named[row])
            if named[row] == "success":
                kept.add(int(rollouts.seed[row]))
        every = to_episodes(rollouts, collection.task, collection.labels)
        yield tally, [episode for episode in every if episode.seed in kept], rollouts, time.perf_counter() - began


def outcomes(rollouts: Rollouts) -> list[str]:  # [B]
    """The outcome of each rollout: `success`, `lost`, `too late` or `diverged`."""
    conditions = [rollouts.diverged, rollouts.success, rollouts.terminated]
    return np.select(conditions, ["diverged", "success", "lost"], "too late").tolist()


def _check_success_rate(tally: Tally, wanted: int, task: str, seconds: float) -> None:
    if tally.rollouts < MIN_ROLLOUTS or tally.successes >= wanted:
        return
    rate = proportion(tally.successes, tally.rollouts)
    if rate.high < MIN_SUCCESS_RATE:
        hours = wanted / rate.high * seconds / tally.rollouts / 3600
        raise UserError(
            f"the expert solved {task} in {tally.successes:,} of {tally.rollouts:,} rollouts: {wanted:,} "
            f"demonstrations would take more than {hours:.1f} h. Choose other actions, or robots that vary less."
        )
