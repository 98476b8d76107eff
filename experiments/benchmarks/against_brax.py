"""Time to a policy that follows its commands: our PPO against Brax's, on the same task, the same machine, in turn.

    python experiments/benchmarks/against_brax.py --budget-seconds 900 --json against_brax.json

Both are processes of their own, timed from their start, so that imports and compilation count. Ours runs
experiments/ppo_locomotion.py with its defaults; Brax's runs brax_ppo.py, which says with what settings. Both measure
tracking alike, over all environments and steps of a rollout. Up to the tracking at which our curriculum begins, 0.8,
both train the nominal robot. If the budget of one ends before it reaches the target, the ratio of times is a lower
bound.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from pathlib import Path

from measuring import report_file, write_report
from rich.console import Console
from rich.table import Table
from watched_run import Watched, our_training, watch

from mjx_policies.envs.physics import Backend
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors


@dataclasses.dataclass(frozen=True)
class AgainstBrax:
    """Compares two trainers."""

    seeds: tuple[int, ...] = (0,)  # random seeds of the runs
    target: float = 0.8  # value of the metric to reach, as a mean over five iterations
    metric: str = "track_linear"  # metric of the task
    task: str = "Go2JoystickFlat"  # task name, as listed in the README
    budget_seconds: float = 900.0  # wall-clock time of each process (s)
    brax_envs: int = 64  # parallel environments of Brax; 256 on MJX take over a minute a rollout on 2 cores
    brax_backend: Backend = "mjx"  # physics engine under Brax's trainer
    quick: bool = False  # smoke test: a pendulum for a few iterations
    json: str = ""  # JSON file for the results
    overwrite: bool = False  # replace the file that --json names

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or self.budget_seconds <= 0:
            raise ValueError("there must be at least one seed, none twice, and a budget")


def main(bench: AgainstBrax) -> None:
    console, report = open_console(), report_file(bench)
    if bench.quick:
        quick = {"task": "Pendulum", "metric": "upright", "target": 0.0, "brax_envs": 16, "brax_backend": "cpu"}
        bench = dataclasses.replace(bench, **quick, seeds=bench.seeds[:1])
    found: dict[str, list[Watched]] = {"ours": [], "brax": []}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in bench.seeds:
            for name in found:
                found[name].append(run(bench, name, seed, Path(temporary), console))

    table = Table(title=f"{bench.task}: seconds to {bench.metric} of {bench.target}", title_justify="left")
    for title in ("trainer", "seed", "seconds", "env steps", "steps/s", "best tracking"):
        table.add_column(title, justify="right" if table.columns else "left", no_wrap=True)
    for name, runs in found.items():
        for seed, watched in zip(bench.seeds, runs, strict=True):
            reached = watched.mean
            seconds = f"> {bench.budget_seconds:.0f}" if reached is None else f"{reached.seconds:.1f}"
            table.add_row(name, f"{seed}", seconds, f"{watched.steps:,}", f"{watched.rate:,.0f}", f"{watched.best:.3f}")
    console.print(table)
    ratio, complete = ratio_of_times(found, bench.budget_seconds)
    console.print(sentence(found, bench, ratio, complete))
    runs = {name: [dataclasses.asdict(watched) for watched in watched_runs] for name, watched_runs in found.items()}
    write_report(report, bench, {**runs, "brax_over_ours": ratio, "is_lower_bound": not complete})


def run(bench: AgainstBrax, name: str, seed: int, folder: Path, console: Console) -> Watched:
    """One process of one trainer."""
    path = folder / f"{name}-{seed}"
    if name == "ours":
        command = our_training(path, bench.task, seed, num_envs=16 if bench.quick else 0)
    else:
        command = [sys.executable, str(Path(__file__).with_name("brax_ppo.py")), "--folder", str(path)]
        command += ["--task", bench.task, "--metric", bench.metric, "--seed", f"{seed}"]
        command += ["--num-envs", f"{bench.brax_envs}", "--backend", bench.brax_backend]
    with console.status(f"{name}, seed {seed}") as status:
        watched = watch(
            command,
            path,
            f"env/{bench.metric}",
            bench.target,
            bench.budget_seconds,
            say=lambda line: status.update(f"{name}, seed {seed}: {line}"),
        )
    console.print(f"{name}, seed {seed}: {bench.metric} {watched.last:.3f} after {watched.seconds:.0f} s")
    return watched


def ratio_of_times(found: dict[str, list[Watched]], budget: float) -> tuple[float | None, bool]:
    """Brax's median time over ours, and whether it is exact; None if ours did not reach the target."""
    if any(watched.mean is None for watched in found["ours"]):
        return None, False
    ours = statistics.median(watched.mean.seconds for watched in found["ours"] if watched.mean)
    brax = statistics.median(budget if watched.mean is None else watched.mean.seconds for watched in found["brax"])
    return brax / ours, all(watched.mean is not None for watched in found["brax"])


def sentence(found: dict[str, list[Watched]], bench: AgainstBrax, ratio: float | None, complete: bool) -> str:
    """The meaning of the table in a sentence."""
    if ratio is None:
        return "Ours did not reach the target in its budget, so there is nothing to compare: raise --budget-seconds."
    if complete:
        return f"Brax took {ratio:.1f} times as long (medians over {len(bench.seeds)} seeds)."
    best = max(watched.best for watched in found["brax"])
    return (
        f"Brax had reached {best:.2f} when its {bench.budget_seconds:.0f} s ended: "
        f"it takes at least {ratio:.1f} times as long."
    )


if __name__ == "__main__":
    with clean_errors(ValueError):
        main(parse_arguments(AgainstBrax, __doc__))
