"""Episodes of an exported policy in worker processes, and their results: shared by sim2sim.py and run_arm.py."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import dataclasses
import functools
import multiprocessing
import os
import signal
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
from rich.console import Console, RenderableType

from mjx_policies.deploy.chunks import ChunkError
from mjx_policies.deploy.contract import ContractError
from mjx_policies.deploy.policy import PolicyError
from mjx_policies.errors import UserError
from mjx_policies.files import output_file, write_json
from mjx_policies.training.config import to_json
from mjx_policies.training.preemption import Preempted, Preemption, exit_code
from mjx_policies.training.script import clean_errors
from mjx_policies.training.waiting import counting, working

J = TypeVar("J", bound=Hashable)
R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class ExportedEpisodes:
    """Episodes of an exported policy, and where their results go."""

    policy: tyro.conf.Positional[Path]  # exported ONNX file
    episodes: int = 100  # number of episodes; of the gate, in each condition
    processes: int = 0  # number of parallel processes; 0: one for each core
    out: Path | None = None  # output folder; None: one beside the file
    overwrite: bool = False  # replace existing files in --out

    def output_files(self, folder: str, *names: str) -> list[Path]:
        """The paths of results, by default in a folder of this name beside the policy; see `files.output_file`."""
        beside = self.policy.parent / folder
        return [output_file(self.out and self.out / name, "--out", self.overwrite, beside / name) for name in names]


def run_in_workers(
    begin: Callable[[], Callable[[J], R]],
    jobs: Sequence[J],
    processes: int,
    console: Console,
    words: Callable[[Sequence[R]], str],
) -> tuple[dict[J, R], str]:
    """Runs episodes in several processes, until a signal comes.

    Args:
      begin: called once in each process; returns `job -> result`, which runs one episode. No episode begins before all
        processes are ready, or the imports of the last would hold up what runs in real time.
      jobs: one for each episode, all different.
      processes: at once; 0: one for each core.
      console: for a bar.
      words: a few about the results so far.

    Returns:
      Results by job, in the order of the jobs, and the name of the signal that ended it early, empty without one.

    Raises:
      UserError: a process died.
      Preempted: a signal came before any episode was done.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(processes or cores, len(jobs))
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(begin, context.Barrier(workers))
    )
    found: dict[J, R] = {}
    finished = False
    try:
        with (
            clean_errors(ChunkError, ContractError, PolicyError),
            Preemption() as preemption,
            counting(console, "episodes", len(jobs)) as progress,
        ):
            futures = {pool.submit(_run, job): job for job in jobs}
            waiting = set(futures)
            while waiting and not preemption.requested:
                done, waiting = concurrent.futures.wait(waiting, 0.5, concurrent.futures.FIRST_COMPLETED)
                found.update((futures[future], future.result()) for future in done)
                progress(len(found), words(list(found.values())))
        finished = not waiting
    except concurrent.futures.process.BrokenProcessPool:
        raise UserError("a process died, perhaps for want of memory: try fewer --processes.") from None
    finally:
        if not finished:  # the pool itself would finish what it has begun
            for worker in list(pool._processes.values()):
                worker.kill()
        pool.shutdown(wait=finished, cancel_futures=True)
    if not found:
        raise Preempted(preemption.requested)
    return {job: found[job] for job in jobs if job in found}, preemption.requested or ""


_runs: list[Callable[[Any], Any]] = []  # of a worker process: what it begins with, one


def _begin(begin: Callable[[], Callable[[J], R]], ready: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # may reach the whole group, and the parent ends the workers
        signal.signal(number, signal.SIG_IGN)
    try:
        _runs.append(begin())
    except Exception as error:  # told by the first episode: an initializer that raises counts as a process that died
        _runs.append(functools.partial(_fail, error))
    ready.wait()


def _fail(error: Exception, job: Any) -> Any:
    raise error


def _run(job: Any) -> Any:
    return _runs[0](job)


def conclude(
    config: ExportedEpisodes,
    stopped: str,
    results: Path,
    found: Mapping[str, Any],
    draw: Callable[[], str],
    tables: Sequence[RenderableType],
    console: Console,
) -> int:
    """Writes results with their configuration, draws them unless a signal stopped the episodes, and prints them.

    They are printed also where `draw`, which says what it has drawn, fails: who has waited so long wants to see them.
    Returns the exit code of the signal, 0 without one.
    """
    with clean_errors(OSError):
        write_json(results, {"config": to_json(config), "stopped_by": stopped, **found})
    drawn = ""
    try:
        if not stopped:
            with clean_errors(OSError), working(console, "drawing"):
                drawn = draw()
    finally:
        for each in tables:
            console.print(each)
    console.print(f"{results}, stopped by {stopped}" if stopped else f"{results}{drawn}")
    return exit_code(stopped) if stopped else 0
