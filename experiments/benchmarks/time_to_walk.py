"""Wall-clock time from starting the training script to a robot that follows its commands.

    python experiments/benchmarks/time_to_walk.py --seeds 0 1 2 --json time_to_walk.json

Each seed is a process of its own that runs experiments/ppo_locomotion.py with its defaults and is stopped at the
target, so that imports, compilation, evaluations on the way and checkpoints all count. Tracking is the mean of
exp(-|error|^2 / 0.25) over all environments and steps of an iteration, taken while the policy explores.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from measuring import report_file, write_report
from rich.console import Console
from rich.table import Table
from watched_run import Watched, our_training, watch

from mjx_policies.errors import UserError
from mjx_policies.training.checkpoint import verify_checkpoint
from mjx_policies.training.checkpoints import newest_checkpoint
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors


@dataclasses.dataclass(frozen=True)
class TimeToWalk:
    """Times training runs."""

    seeds: tuple[int, ...] = (0, 1, 2)  # random seeds of the runs
    target: float = 0.8  # value of the metric to reach
    metric: str = "env/track_linear"  # metric of metrics.csv
    task: str = "Go2JoystickFlat"  # task name, as listed in the README
    num_envs: int = 0  # number of parallel environments; 0: the default of training
    steps: int = 0  # maximum number of environment steps; 0: the default of training
    window: int = 5  # iterations of the running mean
    quick: bool = False  # smoke test: a pendulum for a few iterations
    json: str = ""  # JSON file for the results
    overwrite: bool = False  # replace the file that --json names
    keep: str = ""  # folder for the run folders, which are deleted otherwise

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or self.window < 1:
            raise ValueError("there must be at least one seed, none twice, and a window of at least one iteration")


def main(bench: TimeToWalk) -> None:
    console, report = open_console(), report_file(bench)
    if bench.quick:
        quick = {"task": "Pendulum", "metric": "env/upright", "target": 0.0, "num_envs": 16, "steps": 16 * 24 * 7}
        bench = dataclasses.replace(bench, **quick, seeds=bench.seeds[:1])
    with tempfile.TemporaryDirectory() as temporary:
        found = {seed: run(bench, seed, Path(bench.keep or temporary), console) for seed in bench.seeds}

    table = Table(title=f"{bench.task}: seconds to {bench.metric} of {bench.target}", title_justify="left")
    for title in ("seed", "1 iteration", f"mean of {bench.window}", "compile", "env steps", "best"):
        table.add_column(title, justify="right", no_wrap=True)
    for seed, (watched, compiling) in found.items():
        steps = "not reached" if watched.mean is None else f"{watched.mean.steps:,}"
        times = (text(watched.iteration and watched.iteration.seconds), text(watched.mean and watched.mean.seconds))
        table.add_row(f"{seed}", *times, text(compiling), steps, f"{watched.best:.3f}")
    runs = [watched for watched, _ in found.values()]
    table.add_section()
    summary = {
        "iteration": spread([run.iteration and run.iteration.seconds for run in runs]),
        "mean": spread([run.mean and run.mean.seconds for run in runs]),
        "compile": spread([compiling for _, compiling in found.values()]),
    }
    table.add_row("median", *(text(median) for _, median, _ in summary.values()))
    table.add_row("range", *(f"{text(low)} - {text(high)}" for low, _, high in summary.values()))
    console.print(table)
    seeds = {f"{seed}": dataclasses.asdict(watched) | {"compile": c} for seed, (watched, c) in found.items()}
    write_report(report, bench, {"seeds": seeds, "low_median_high": summary})


def run(bench: TimeToWalk, seed: int, folder: Path, console: Console) -> tuple[Watched, float | None]:
    """One seed: what became of it, and the seconds it spent compiling."""
    path = folder / f"seed-{seed}"
    command = our_training(path, bench.task, seed, bench.num_envs, bench.steps)
    with console.status(f"seed {seed}") as status:
        watched = watch(
            command,
            path,
            bench.metric,
            bench.target,
            window=bench.window,
            say=lambda line: status.update(f"seed {seed}: {line}"),
        )
    console.print(f"seed {seed}: mean {watched.last:.3f} after {watched.seconds:.1f} s, {watched.steps:,} steps")
    return watched, compile_seconds(path)


def compile_seconds(path: Path) -> float | None:
    """The time that a run says it spent compiling, from the checkpoint it left when it was stopped."""
    try:
        return verify_checkpoint(newest_checkpoint(path / "checkpoints"))["meta"]["user"]["seconds"]["compile"]
    except (UserError, KeyError):
        return None


def spread(values: Sequence[float | None]) -> tuple[float | None, float | None, float | None]:
    """Lowest, median and highest; unknown ones count as later than all others."""
    late = sorted(float("inf") if value is None else value for value in values)
    chosen = (late[0], statistics.median(late), late[-1])
    return tuple(None if value == float("inf") else value for value in chosen)  # type: ignore[return-value]


def text(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f}"


if __name__ == "__main__":
    with clean_errors(ValueError):
        main(parse_arguments(TimeToWalk, __doc__))
