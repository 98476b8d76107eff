"""A training process, timed from its start to the iteration in which it reaches a target."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mjx_policies.errors import UserError
from mjx_policies.training.metrics import read_metrics
from mjx_policies.training.preemption import exit_code

EXPERIMENTS = Path(__file__).parents[1]
POLL = 0.05  # s


@dataclasses.dataclass(frozen=True)
class Reached:
    """The time when a figure first was at the target: since the start of the process, and in environment steps."""

    seconds: float
    steps: int


@dataclasses.dataclass(frozen=True)
class Watched:
    """The outcome of a process.

    Attributes:
      iteration: the first iteration at the target, if there was one.
      mean: the first at which the mean of the last `window` iterations was.
      seconds: s, from the start of the process to its last iteration.
      steps: environment steps up to then.
      last: the mean of the last `window` iterations.
      best: the highest such mean.
      started: s, to the end of the first iteration: imports and compilation for the most part.
      rate: environment steps per second after that.
    """

    iteration: Reached | None
    mean: Reached | None
    seconds: float
    steps: int
    last: float
    best: float
    started: float
    rate: float


def our_training(folder: Path, task: str, seed: int, num_envs: int = 0, steps: int = 0) -> list[str]:
    """The command of the default training; zeros are its own defaults."""
    command = [sys.executable, str(EXPERIMENTS / "ppo_locomotion.py"), "--task", task, "--seed", str(seed)]
    command += ["--run-dir", str(folder)]
    command += ["--num-envs", str(num_envs)] if num_envs else []
    return command + (["--steps", str(steps)] if steps else [])


def watch(
    command: Sequence[str],
    folder: Path,
    metric: str,
    target: float,
    budget: float = math.inf,
    window: int = 5,
    say: Callable[[str], None] = lambda line: None,
) -> Watched:
    """Runs a process until `metric` has reached the target, alone and as a mean, or the time is up.

    Iterations are timed when their row appears in the table, to a twentieth of a second.

    Args:
      command: a process that writes `folder/metrics.csv` as `MetricsCsv` does.
      folder: of its run; what it prints goes to `output.txt` beside it.
      metric: column of the table.
      target: value to reach.
      budget: s, of wall clock from the start of the process.
      window: iterations that the mean is taken over.
      say: told how it goes, once a row.

    Raises:
      UserError: the process failed, or its table lacks the metric.
    """
    rows: list[tuple[float, int, float]] = []  # seconds, steps, value
    means: list[float] = []
    iteration = mean = None
    # Nothing compiled by an earlier process may be found again.
    surroundings = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    output = folder.with_name(f"{folder.name}-output.txt")
    output.parent.mkdir(parents=True, exist_ok=True)
    with open(output, "w", encoding="utf-8") as file:
        begin = time.monotonic()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=surroundings)
        try:
            seen = None
            while True:
                running, now = process.poll() is None, time.monotonic() - begin
                with contextlib.suppress(FileNotFoundError):
                    table = folder / "metrics.csv"
                    if seen != (seen := (table.stat().st_mtime_ns, table.stat().st_size)):
                        steps, values = _read(table, metric)
                        for step, value in zip(steps[len(rows) :], values[len(rows) :], strict=True):
                            rows.append((now, step, value))
                            means.append(statistics.fmean(value for *_, value in rows[-window:]))
                            if iteration is None and value >= target:
                                iteration = Reached(now, step)
                            if mean is None and len(rows) >= window and means[-1] >= target:
                                mean = Reached(now, step)
                            say(f"{now:.0f} s, {step:,} steps, {metric} {means[-1]:.3f}")
                if (iteration and mean) or not running or now > budget:
                    break
                time.sleep(POLL)
        finally:
            stop(process)
    if not rows:
        if process.returncode > 0 and process.returncode != exit_code("SIGTERM"):  # which `stop` sent
            lines = output.read_text(encoding="utf-8").splitlines()
            raise UserError(f"{' '.join(command)} failed with code {process.returncode}: {' '.join(lines[-1:])}")
        return Watched(None, None, budget, 0, last=math.nan, best=math.nan, started=math.nan, rate=math.nan)
    (started, first_step, _), (seconds, step, _) = rows[0], rows[-1]
    rate = (step - first_step) / (seconds - started) if seconds > started else math.nan
    return Watched(iteration, mean, seconds, step, means[-1], max(means), started, rate)


def stop(process: subprocess.Popen) -> None:
    """Asks a process to end, and ends it after a minute."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _read(table: Path, metric: str) -> tuple[list[int], list[float]]:
    found = read_metrics(table)
    if len(found["step"]) and metric not in found:
        raise UserError(f"the run reports no {metric}; it reports {', '.join(sorted(found))}.")
    return [int(step) for step in found["step"]], [float(value) for value in found.get(metric, ())]
