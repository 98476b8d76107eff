"""Cost of a sweep of several seeds, in the iterations of one run: the very program of `--seeds`.

    python experiments/benchmarks/sweep_cost.py --seeds 8 --json sweep_cost.json

One run and the sweep take turns. Below the number of seeds the sweep is the cheaper way, whatever it spares in
compilation: each program is compiled once.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from typing import Any

import jax
from measuring import Call, alternate, report_file, write_report
from rich.table import Table

from mjx_policies.agents.sweep import sweep
from mjx_policies.compiler import compiler_options
from mjx_policies.experiments.runs import ppo as ppo_run
from mjx_policies.experiments.runs.grid import beginning
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.config import at_least
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors
from mjx_policies.training.trees import own_buffers


@dataclasses.dataclass(frozen=True)
class SweepCost:
    """Measures the cost of a sweep."""

    seeds: int = 8  # number of seeds of the sweep
    task: str = "Go2JoystickFlat"  # task name, as listed in the README
    num_envs: int = 0  # number of parallel environments of each run; 0: the default of training
    iterations: int = 6  # iterations of the sweep in a measurement; one run has as many times the seeds
    repeats: int = 5  # number of measurements of each; medians are reported
    quick: bool = False  # smoke test: few environments and small networks
    json: str = ""  # JSON file for all times measured
    overwrite: bool = False  # replace the file that --json names

    def __post_init__(self) -> None:
        at_least(self, seeds=2, iterations=1, repeats=1)

    def config(self, seeds: int) -> ppo_run.PPORun:
        """A training run, or a sweep of them."""
        config = ppo_run.PPORun(task=self.task, num_envs=self.num_envs or ppo_run.default_num_envs(), seeds=seeds)
        if not self.quick:
            return config
        return dataclasses.replace(config, num_envs=16, rollout_length=2, policy_layers=(8,), critic_layers=(8,))


def main(bench: SweepCost) -> None:
    console, report = open_console(), report_file(bench)
    if bench.quick:
        jax.config.update("jax_disable_most_optimizations", True)  # compiles in half the time
    traces = {1: 0, bench.seeds: 0}
    calls = {
        "one run": Call(program(bench.config(1), bench.iterations * bench.seeds, traces)),
        f"{bench.seeds} seeds": Call(program(bench.config(bench.seeds), bench.iterations, traces)),
    }
    one, several = alternate(calls, 2 if bench.quick else bench.repeats, console).values()
    # Both measurements are of as many updates, and each pair of the same minutes.
    ratios = [bench.seeds * b / a for a, b in zip(one.seconds, several.seconds, strict=True)]
    table = Table(title=f"{bench.task} on {jax.device_count()} x {jax.devices()[0].device_kind}", title_justify="left")
    for title in ("", "iteration [s]", "compile [s]", "traced"):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    for name, timing, each, seeds in zip(
        calls, (one, several), (bench.iterations * bench.seeds, bench.iterations), traces, strict=True
    ):
        compiling = f"{timing.first - timing.median:.1f}"
        table.add_row(name, f"{timing.median / each:.4f}", compiling, str(traces[seeds]))
    console.print(table)
    median = statistics.median(ratios)
    console.print(
        f"an iteration of {bench.seeds} seeds takes {median:.2f} times that of one run "
        f"({min(ratios):.2f} to {max(ratios):.2f})",
        highlight=False,
    )
    seconds = {name: timing.seconds for name, timing in zip(calls, (one, several), strict=True)}
    write_report(
        report, bench, {"ratio": median, "ratios": ratios, "seconds": seconds, "traces": list(traces.values())}
    )


def program(config: ppo_run.PPORun, iterations: int, traces: dict[int, int]) -> Any:
    """A function that runs so many iterations, from where the last call ended, as the training loop runs them."""
    built = ppo_run.build(config)
    runner = sweep(built.runner) if config.seeds > 1 else built.runner

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=compiler_options())
    def step(state: Any) -> Any:
        traces[config.seeds] += 1
        return runner.step(state)

    init = jax.jit(runner.init, compiler_options=compiler_options(runs_once=True))
    carry = [own_buffers(init(*beginning(config)))]

    def run() -> Any:
        for _ in range(iterations):
            carry[0], info = step(carry[0])
        return carry[0], info

    return run


if __name__ == "__main__":
    with clean_errors(ValueError):
        main(parse_arguments(SweepCost, __doc__))
