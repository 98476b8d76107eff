"""Tests an exported policy in plain MuJoCo: python experiments/sim2sim.py runs/a/policy.onnx

The gate before hardware. Each condition is 100 episodes of robots that differ from the model in one way, under the
controller that runs on a real one. An episode fails if the robot falls (any part of its trunk touches the floor, or it
tilts by more than 60 degrees) or if the controller stops it. The exit code is 0 if all conditions that count pass, else
1, also if none counts. A condition marked with a star goes more than twice as far from the model as the training of the
policy did, and does not count. The folder beside the file gets the results, a video of the worst episode and a plot of
what joints and feet did. After Ctrl-C it gets the results so far.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import dataclasses
import functools
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from mjx_policies.deploy.contract import Contract
from mjx_policies.deploy.policy import PolicyError, load_policy
from mjx_policies.deploy.simulation.sim_to_sim import CONDITIONS, GateEpisode, Scene, run_episode
from mjx_policies.errors import UserError
from mjx_policies.evaluation import statistics
from mjx_policies.evaluation.statistics import Estimate
from mjx_policies.experiments.workers import ExportedEpisodes, conclude, run_in_workers
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.config import at_least
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors

MODEL = Path(__file__).parents[1] / "envs" / "models" / "go2.xml"
FILES = ("sim2sim.json", "worst.png", "worst.mp4")
Episodes = dict[str, list[GateEpisode]]  # by condition


@dataclasses.dataclass(frozen=True)
class Gate(ExportedEpisodes):
    """Tests an exported policy in plain MuJoCo."""

    conditions: tuple[str, ...] = tuple(CONDITIONS)  # conditions, in which robots differ from the model
    seconds: float = 10.0  # length of an episode (s)
    max_failures: float = 0.05  # maximum portion of episodes that end in a fall or a stop by the controller
    min_tracking: float = 0.7  # minimum linear tracking, mean of exp(-|v - v*|^2 / 0.25)
    seed: int = 0  # random seed of the episodes
    model: Path | None = None  # MJCF of the robot; None: this library's Go2

    def __post_init__(self) -> None:
        unknown = sorted(set(self.conditions) - set(CONDITIONS))
        if unknown:
            raise ValueError(
                f"--conditions names {', '.join(unknown)}, which are unknown; known: {', '.join(CONDITIONS)}"
            )
        if not self.conditions or len(set(self.conditions)) < len(self.conditions):
            raise ValueError("--conditions must name at least one, and none twice")
        # With one episode there would be no interval.
        at_least(self, episodes=2, seconds=0.1, processes=0, seed=0, max_failures=0, min_tracking=0)
        for name, most in (("seconds", 3600), ("max_failures", 1), ("min_tracking", 1)):
            if getattr(self, name) > most:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at most {most}")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The result of one condition.

    Attributes:
      about: in what robots differ from the model.
      failures: share of episodes in which the robot fell or was stopped.
      falls: episodes in which the robot fell.
      stops: episodes that the controller stopped, by the kind of its fault; none of them is among `falls`.
      faults: an example of each kind of fault, as the controller told it.
      track_linear, track_yaw: means over episodes, up to where each failed.
      covered: whether the condition counts, see `GateCondition.covered`.
      passed: whether it passes; None where it does not count, or not all episodes ran.
    """

    about: str
    failures: Estimate
    falls: int
    stops: dict[str, int]
    faults: dict[str, str]
    track_linear: Estimate
    track_yaw: Estimate
    covered: bool
    passed: bool | None


def main(gate: Gate) -> int:
    """Writes the folder, prints the table and returns the exit code."""
    with clean_errors(ValueError, OSError, PolicyError):
        policy, scene = load_policy(gate.policy), Scene(gate.model or MODEL)
        if len(policy.contract.commands) != 3:
            raise UserError(f"{gate.policy} follows no velocity commands, which this gate is about.")
        scene.robot(policy.contract)  # which says where it does not fit
        results, plot, video = gate.output_files("sim2sim", *FILES)
    console = open_console()
    found, stopped = run_in_workers(
        functools.partial(begin, gate),
        [(name, number) for name in gate.conditions for number in range(gate.episodes)],
        gate.processes,
        console,
        lambda episodes: f"{sum(episode.failed for episode in episodes)} failed",
    )
    episodes: Episodes = {}
    for (name, _), episode in found.items():
        episodes.setdefault(name, []).append(episode)
    verdicts = {name: evaluate(gate, name, policy.contract, found) for name, found in episodes.items()}

    def draw() -> str:
        name, worst = find_worst(episodes)
        name += "" if verdicts[name].covered else ", a condition that does not count"
        draw_episode(worst, f"worst episode: {name}", policy.contract, scene, plot)
        record_episode(worst, policy.contract, video)
        return f"; worst episode ({name}): {video}, {plot}"

    written = {"verdicts": {name: dataclasses.asdict(verdict) for name, verdict in verdicts.items()}}
    tables = [table(gate, verdicts, stopped), *legend(gate, verdicts)]
    if ended := conclude(gate, stopped, results, written, draw, tables, console):
        return ended
    counted = [verdict.passed for verdict in verdicts.values() if verdict.covered]
    if not counted:
        console.print("no verdict: none of these conditions counts for this policy; add nominal to --conditions")
    return 0 if counted and all(counted) else 1


def begin(gate: Gate) -> Callable[[tuple[str, int]], GateEpisode]:
    """Builds a worker's function, (condition, number) -> episode."""
    policy, scene = load_policy(gate.policy), Scene(gate.model or MODEL)
    seed = gate.seed * 1_000_003
    return lambda job: run_episode(policy, scene, CONDITIONS[job[0]], gate.seconds, seed + job[1])


def evaluate(gate: Gate, name: str, contract: Contract, episodes: Sequence[GateEpisode]) -> Verdict:
    """The figures of a condition, and whether it passes."""
    failures = statistics.proportion(sum(episode.failed for episode in episodes), len(episodes))
    linear = statistics.mean([episode.track_linear for episode in episodes], lowest=0.0, highest=1.0)
    yaw = statistics.mean([episode.track_yaw for episode in episodes], lowest=0.0, highest=1.0)
    covered = CONDITIONS[name].covered(contract)
    passed = failures.value <= gate.max_failures and linear.value >= gate.min_tracking
    stopped = [episode for episode in episodes if episode.fault and not episode.fallen]
    return Verdict(
        about=CONDITIONS[name].about,
        failures=failures,
        falls=sum(episode.fallen for episode in episodes),
        stops=dict(Counter(episode.fault_name for episode in stopped)),
        faults={episode.fault_name: episode.fault for episode in reversed(stopped)},
        track_linear=linear,
        track_yaw=yaw,
        covered=covered,
        passed=passed if covered and len(episodes) == gate.episodes else None,
    )


def find_worst(episodes: Episodes) -> tuple[str, GateEpisode]:
    """The episode whose robot fell first, or else the one that followed its commands least."""
    everyone = [(name, episode) for name, found in episodes.items() for episode in found]
    failed = [pair for pair in everyone if pair[1].failed]
    if failed:
        return min(failed, key=lambda pair: len(pair[1].qpos))
    return min(everyone, key=lambda pair: pair[1].track_linear)


def table(gate: Gate, verdicts: dict[str, Verdict], stopped: str) -> Table:
    """The verdicts as a table for a terminal of 80 columns, with one row for each condition."""
    done = sum(verdict.failures.count for verdict in verdicts.values())
    whole = f"{done:,} of {len(gate.conditions) * gate.episodes:,} episodes, stopped by {stopped}"
    count = whole if stopped else f"{gate.episodes} episodes"
    found = Table(title=Text(f"{gate.policy}: {count}, {gate.seconds:g} s each"), box=box.SIMPLE_HEAD, padding=(0, 1))
    for column in ("condition", "failures [95 %]", "fell", "stopped", "linear", "yaw", "result"):
        found.add_column(column, justify="left" if column in ("condition", "result") else "right", no_wrap=True)
    styles = {True: ("pass", "green"), False: ("fail", "bold red"), None: ("-", "")}
    for name, verdict in verdicts.items():
        found.add_row(
            name if verdict.covered else f"{name} *",
            str(verdict.failures),
            str(verdict.falls),
            str(sum(verdict.stops.values())),
            f"{verdict.track_linear.value:.3f}",
            f"{verdict.track_yaw.value:.3f}",
            Text(*styles[verdict.passed]),
        )
    return found


def legend(gate: Gate, verdicts: dict[str, Verdict]) -> list[str]:
    """The meaning of the table's words, and why episodes were stopped."""
    lines = [
        f"pass: failures at most {gate.max_failures:g}, linear at least {gate.min_tracking:g}",
        "fell: the trunk or the head touched the floor, or it tilted by more than 60 degrees",
        "stopped: by the controller, before it fell; failures: share of both",
        "linear, yaw: tracking, mean of exp(-error^2 / 0.25)",
    ]
    if not all(verdict.covered for verdict in verdicts.values()):
        lines.append("*: more than twice as far from the model as the training of this policy went; it does not count")
    lines += [f"{name}: {verdict.about}" for name, verdict in verdicts.items()]
    stops: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for verdict in verdicts.values():
        stops.update(verdict.stops)
        examples |= verdict.faults
    return lines + [
        f"stopped by {kind}: {number} of the episodes, such as: {examples[kind]}"
        for kind, number in stops.most_common()
    ]


def draw_episode(episode: GateEpisode, title: str, contract: Contract, scene: Scene, path: Path) -> None:
    """Draws speeds, joint angles with their targets, and contacts."""
    from matplotlib.figure import Figure

    panels = [
        (f"{each.name} ({each.unit})", {"measured": episode.velocities[:, i], "command": episode.commands[:, i]})
        for i, each in enumerate(contract.commands)
    ]
    panels += [
        (
            f"{joint.name} (rad), {joint.soft_lower:.2f} to {joint.soft_upper:.2f}",
            {"angle": episode.angles[:, i], "target": episode.targets[:, i]},
        )
        for i, joint in enumerate(contract.joints)
    ]
    time = np.arange(len(episode.qpos)) * contract.timing.control_dt
    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(12, 2.2 * (rows + 1)), dpi=100, layout="constrained", facecolor="white")
    figure.suptitle(f"{title}, {episode.fault or ('fell' if episode.fallen else 'walked to the end')}")
    grid = figure.add_gridspec(rows + 1, 3)
    for place, (name, curves) in enumerate(panels):
        axis = figure.add_subplot(grid[place // 3, place % 3])
        for (label, values), style in zip(curves.items(), ("-", "--"), strict=True):
            axis.plot(time, values, style, linewidth=1, label=label)
        axis.set_title(name, fontsize=9)
        if place in (0, 3):
            axis.legend(fontsize=8)
    axis = figure.add_subplot(grid[rows, :])
    feet = [scene.model.geom(i).name for i in scene.feet]
    extent = (0, time[-1], len(feet), 0)
    axis.imshow(episode.contacts.T, aspect="auto", cmap="Greys", extent=extent, interpolation="none")
    axis.set_yticks(np.arange(len(feet)) + 0.5, feet)
    axis.set_xlabel("s")
    axis.set_title("feet on the ground", fontsize=9)
    figure.savefig(path)


def record_episode(episode: GateEpisode, contract: Contract, path: Path, seconds: float = 6.0, fps: int = 25) -> None:
    """Records a video of the last seconds."""
    from mjx_policies.experiments.runs.evaluation import render_task

    dt = contract.timing.control_dt
    rows = slice(-round(seconds / dt), None)
    captions = [[f"command {x:+.2f} m/s  {y:+.2f} m/s  {yaw:+.2f} rad/s"] for x, y, yaw in episode.commands[rows]]
    render_task(path, contract.training.task, episode.qpos[rows], None, captions, dt, fps)


if __name__ == "__main__":
    with clean_errors():
        sys.exit(main(parse_arguments(Gate, __doc__)))
