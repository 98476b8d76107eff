"""A campaign: an expert attempts a task again and again, until enough attempts have succeeded.

Attempts are numbered from 0, and their seeds follow from the campaign's. They run in batches on a fixed grid and count
in the order of their numbers up to the one that brings the last success wanted. So what is collected does not depend on
how often the campaign was stopped and taken up again.

Axes: B attempts at once.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import jax
import numpy as np

from mjx_policies.data.episodes import Episode
from mjx_policies.data.quality import Tally
from mjx_policies.evaluation.statistics import proportion
from mjx_policies.experiments.collection.rollouts import Rollouts, to_episodes
from mjx_policies.training.errors import UserError
from mjx_policies.types import Array

SEEDS = 1_000_000  # attempts that a campaign's seed stands for
MAX_SEED = 2_000  # times as many still are 32-bit numbers
HOPELESS = 0.05  # success rate below which a campaign is given up
PATIENCE = 100  # attempts before that


class Writer(Protocol):
    """Where demonstrations go."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def add(self, episode: Episode) -> int:
        """Writes one; it is safe when this returns."""
        ...


@dataclasses.dataclass(frozen=True)
class Account:
    """How far a campaign has got. Demonstrations may be ahead of it, if the campaign was killed.

    Attributes:
      counts: {strategy: {outcome: attempts}}, see `quality.Tally`; `attempts` of them.
      seconds: spent on each part of the work.
    """

    counts: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def tally(self) -> Tally:
        """The counts; a copy."""
        return Tally({name: dict(row) for name, row in self.counts.items()})

    @property
    def attempts(self) -> int:
        """So far, which is also the number of the next."""
        return self.tally.attempts

    @property
    def successes(self) -> int:
        """Of them."""
        return sum(row.get("success", 0) for row in self.counts.values())


@dataclasses.dataclass(frozen=True)
class Campaign:
    """What is attempted.

    Attributes:
      record: `keys [B] -> Rollouts`, see `make_recorder`.
      strategies: of the expert.
      task: its name.
      fps: control steps per second.
      seed: of the campaign.
      batch: attempts at once.
      labels: whether demonstrations hold what the expert meant instead of what was executed.

    Raises:
      UserError: a seed or a batch that is out of range.
    """

    record: Callable[[Array], Rollouts]
    strategies: Sequence[str]
    task: str
    fps: float
    seed: int
    batch: int
    labels: bool = False

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not 1 <= self.batch <= SEEDS:
            raise UserError(f"batch is {self.batch}, it must be at least 1 and no more than {SEEDS:,}.")


def collect(
    campaign: Campaign,
    wanted: int,
    writer: Writer,
    account: Account,
    report: Callable[[Account, Rollouts], bool],
) -> Account:
    """Goes on until the writer holds as many demonstrations as are wanted.

    While one batch is written the next is simulated: writing waits for the disk, and uses one core.

    Args:
      campaign: what is attempted.
      wanted: demonstrations in all.
      writer: holds those so far.
      account: of the campaign so far.
      report: is told the account and the attempts of each batch once its demonstrations are written, and says whether
        to go on.

    Returns:
      The account at the end.

    Raises:
      UserError: hardly any attempt succeeds, the seeds are used up, or the writer holds what is not of this campaign.
    """
    ahead = len(writer) - account.successes
    if ahead < 0:
        raise UserError(
            f"the dataset holds {len(writer):,} demonstrations, the campaign wrote {account.successes:,}: "
            "episodes were taken out of it, so begin another one."
        )
    seconds = {"simulating": 0.0, "writing": 0.0} | account.seconds
    counts = account.counts  # of all that was simulated; the account's are of what was written
    with ThreadPoolExecutor(1) as writing:
        pending: tuple[Future[float], dict[str, dict[str, int]], Rollouts] | None = None

        def settle() -> bool:
            nonlocal account
            if pending is None:
                return True
            written, counted, attempts = pending
            seconds["writing"] += written.result()
            account = Account(counted, dict(seconds))
            goes_on = report(account, attempts)
            _check_hope(account, wanted, campaign.task)
            return goes_on

        while Account(counts).successes < wanted:
            began = time.perf_counter()
            done = Account(counts).attempts
            start = done - done % campaign.batch
            if start + campaign.batch > SEEDS:
                raise UserError(f"the {SEEDS:,} attempts of seed {campaign.seed} are used up: use another --seed.")
            seeds, attempts = seeds_of(campaign, start), simulate(campaign, start)
            successes, counts = _count(campaign, attempts, range(done - start, campaign.batch), counts, wanted)
            seconds["simulating"] += time.perf_counter() - began
            if not settle():
                return account
            chosen = {seeds[row] for row in successes[ahead:]}
            ahead = max(0, ahead - len(successes))
            every = to_episodes(attempts, seeds, campaign.task, campaign.fps, campaign.strategies, campaign.labels)
            pending = (
                writing.submit(_write, writer, [episode for episode in every if episode.seed in chosen]),
                counts,
                attempts,
            )
        settle()
    return account


def seeds_of(campaign: Campaign, start: int) -> range:
    """Of the batch that begins with attempt `start`."""
    first = campaign.seed * SEEDS + start
    return range(first, first + campaign.batch)


def simulate(campaign: Campaign, start: int) -> Rollouts:
    """The batch that begins with attempt `start`, the same whenever it is asked for."""
    return jax.device_get(campaign.record(jax.vmap(jax.random.key)(np.array(seeds_of(campaign, start)))))


def check_seed(seed: int) -> None:
    """That a campaign can have this seed.

    Raises:
      UserError: it cannot.
    """
    if not 0 <= seed < MAX_SEED:
        raise UserError(f"seed is {seed}, it must be at least 0 and below {MAX_SEED:,}.")


def outcomes(attempts: Rollouts) -> list[str]:  # [B]
    """What became of each attempt: `success`, `lost`, `too late` or `diverged`."""
    names = []
    for success, lost, diverged in zip(attempts.success, attempts.terminated, attempts.diverged, strict=True):
        names.append("diverged" if diverged else "success" if success else "lost" if lost else "too late")
    return names


def _count(
    campaign: Campaign, attempts: Rollouts, rows: Sequence[int], counts: dict[str, dict[str, int]], wanted: int
) -> tuple[list[int], dict[str, dict[str, int]]]:
    """The rows that succeeded, up to the last one wanted, and the counts with all attempts up to there."""
    before, tally, named = Account(counts).successes, Account(counts).tally, outcomes(attempts)
    successes: list[int] = []
    for row in rows:
        if before + len(successes) == wanted:
            break
        tally.add(campaign.strategies[int(attempts.strategy[row])], named[row])
        if named[row] == "success":
            successes.append(row)
    return successes, tally.counts


def _write(writer: Writer, episodes: Sequence[Episode]) -> float:
    """Seconds that it took."""
    began = time.perf_counter()
    for episode in episodes:
        writer.add(episode)
    return time.perf_counter() - began


def _check_hope(account: Account, wanted: int, task: str) -> None:
    if account.attempts < PATIENCE or account.successes >= wanted:
        return
    rate = proportion(account.successes, account.attempts)
    if rate.high < HOPELESS:
        hours = wanted / rate.high * account.seconds["simulating"] / account.attempts / 3600
        raise UserError(
            f"the expert solved {account.successes:,} of {account.attempts:,} attempts at {task}: {wanted:,} "
            f"demonstrations would take more than {hours:.1f} h. Choose other actions, or robots that vary less."
        )
