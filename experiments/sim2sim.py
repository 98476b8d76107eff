"""A policy file against robots it has not met, in plain MuJoCo: python experiments/sim2sim.py runs/a/policy.onnx

The gate before hardware. Each condition is 100 robots that differ from the model in one way, driven by the controller
that drives a real one. A robot fails if it falls (any part of its trunk touches the floor, or it tilts by more than 60
degrees) or if the controller stops it. The exit code is 0 if all conditions that count pass, and 1 if one does not or
none of them counts. A condition marked with a star goes more than twice as far from the model as the policy's training
did: its figures are shown, and it does not count. The folder beside the file gets the results, a video of the worst
robot and a plot of what its joints and feet did. After Ctrl-C it gets the results of the robots that were done.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import concurrent.futures
import concurrent.futures.process
import dataclasses
import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mjx_policies.deploy.contract import Contract, ContractError
from mjx_policies.deploy.policy import PolicyError, load_policy
from mjx_policies.deploy.simulation.sim_to_sim import CONDITIONS, Episode, Scene, run_episode
from mjx_policies.evaluation import statistics
from mjx_policies.evaluation.statistics import Estimate
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.files import output_file, write_json
from mjx_policies.training.preemption import Preemption, exit_code
from mjx_policies.training.progress import open_console
from mjx_policies.training.waiting import counting, working

MODEL = Path(__file__).parents[1] / "envs" / "models" / "go2.xml"
FILES = ("sim2sim.json", "worst.png", "worst.mp4")


@dataclasses.dataclass(frozen=True)
class Gate:
    """Robots and what is asked of them."""

    policy: tyro.conf.Positional[Path]  # an exported file
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    robots: int = 100  # in each condition
    seconds: float = 10.0  # that each walks
    max_failures: float = 0.05  # share of robots that may fall or be stopped by the controller
    min_tracking: float = 0.7  # mean of exp(-|v - v*|^2 / 0.25)
    seed: int = 0
    processes: int = 0  # 0: one for each core
    out: Path | None = None  # folder; sim2sim beside the file by default
    overwrite: bool = False  # replace files that are in the folder of --out already
    model: Path = MODEL  # MJCF of the robot

    def __post_init__(self) -> None:
        unknown = sorted(set(self.conditions) - set(CONDITIONS))
        if unknown:
            raise ValueError(
                f"--conditions names {', '.join(unknown)}, which are unknown; known: {', '.join(CONDITIONS)}"
            )
        if not self.conditions or len(set(self.conditions)) < len(self.conditions):
            raise ValueError("--conditions must name at least one, and none twice")
        if self.robots < 2:
            raise ValueError(f"--robots is {self.robots}, an interval needs at least 2")
        if not 0.1 <= self.seconds <= 3600:
            raise ValueError(f"--seconds is {self.seconds:g}, it must lie between 0.1 and 3600")
        for name in ("processes", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} is {getattr(self, name)}, it must not be negative")
        for name in ("max_failures", "min_tracking"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}, it must lie between 0 and 1")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The result of one condition.

    Attributes:
      failures: share of robots that fell or were stopped.
      falls: robots that fell.
      stops: robots that the controller stopped, by the kind of its fault; none of them is among `falls`.
      faults: an example of each kind of fault, as the controller told it.
      track_linear, track_yaw: means over robots, up to where each failed.
      covered: whether the condition counts, see `Condition.covered`.
      passed: whether it passes; None where it does not count, or not all robots ran.
    """

    failures: Estimate
    falls: int
    stops: Mapping[str, int]
    faults: Mapping[str, str]
    track_linear: Estimate
    track_yaw: Estimate
    covered: bool
    passed: bool | None


def main(gate: Gate) -> int:
    """Writes the folder, prints the table and returns the exit code."""
    folder = gate.policy.parent / "sim2sim"
    with clean_errors(ValueError, OSError):
        policy, _ = open_policy(gate)
        named = [None if gate.out is None else gate.out / name for name in FILES]
        results, plot, video = (
            output_file(path, "--out", gate.overwrite, default=folder / name)
            for path, name in zip(named, FILES, strict=True)
        )
    console = open_console()
    with clean_errors(ValueError):
        episodes, stopped = run(gate, console)
    verdicts = {name: judge(gate, name, policy.contract, found) for name, found in episodes.items() if found}
    if not verdicts:
        print(f"error: {stopped} came before any robot was done, so there is nothing to write.", file=sys.stderr)
        return exit_code(stopped)
    with clean_errors(OSError):
        write_verdicts(results, gate, verdicts, stopped)
    worst_name, worst = find_worst(episodes)
    try:
        if not stopped:
            with clean_errors(OSError), working(console, "drawing the worst robot"):
                draw(worst, f"worst robot: {worst_name}", gate, plot)
                record_episode(worst, policy.contract, video)
    finally:  # who has waited so long sees the table even where the video fails
        console.print(table(gate, verdicts, stopped))
        for line in legend(gate, verdicts):
            console.print(line)
    if stopped:
        console.print(f"{results}: of {sum(map(len, episodes.values()))} robots, stopped by {stopped}")
        return exit_code(stopped)
    console.print(f"{results}; worst robot ({worst_name}): {video}, {plot}")
    counted = [verdict.passed for verdict in verdicts.values() if verdict.covered]
    if not counted:
        console.print("no verdict: none of these conditions counts for this policy; add nominal to --conditions")
    return 0 if counted and all(counted) else 1


def open_policy(gate: Gate):
    """The policy and the scene.

    Raises:
      UserError: a file that is refused, or a model that does not fit.
    """
    try:
        policy = load_policy(gate.policy)
    except (ContractError, PolicyError) as error:
        raise UserError(str(error)) from None
    try:
        scene = Scene(gate.model)
    except ValueError as error:
        raise UserError(f"{gate.model} is no model that MuJoCo reads: {error}") from None
    sensors = {scene.model.sensor(i).name for i in range(scene.model.nsensor)}
    if absent := sorted({"gyro", "orientation", "local_linvel"} - sensors):
        raise UserError(f"{gate.model} has no sensors {', '.join(absent)}, which this gate reads.")
    if len(policy.contract.commands) != 3:
        raise UserError(f"{gate.policy} follows no velocity commands, which this gate is about.")
    missing = sorted(set(policy.contract.joint_names) - {scene.model.actuator(i).name for i in range(scene.model.nu)})
    if missing:
        raise UserError(f"{gate.model} has no actuators {', '.join(missing)}, which {gate.policy} drives.")
    return policy, scene


_opened: dict[str, tuple] = {}  # of a worker process


def work(gate: Gate, name: str, robot: int) -> Episode:
    """One robot, in a worker."""
    key = str(gate.policy)
    if key not in _opened:
        _opened[key] = open_policy(gate)
    policy, scene = _opened[key]
    return run_episode(policy, scene, CONDITIONS[name], gate.seconds, seed=gate.seed * 1_000_003 + robot)


def run(gate: Gate, console: Console) -> tuple[dict[str, list[Episode]], str]:
    """All robots of all conditions, on all cores; and the name of the signal that ended it early, empty without one."""
    found: dict[str, dict[int, Episode]] = {name: {} for name in gate.conditions}
    workers = gate.processes or os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=leave_signals_alone)
    finished = False
    try:
        with Preemption() as preemption, counting(console, "robots", len(gate.conditions) * gate.robots) as progress:
            jobs = {
                pool.submit(work, gate, name, robot): (name, robot)
                for name in gate.conditions
                for robot in range(gate.robots)
            }
            waiting = set(jobs)
            while waiting and not preemption.requested:
                done, waiting = concurrent.futures.wait(waiting, 0.5, concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    name, robot = jobs[future]
                    found[name][robot] = future.result()
                episodes = [episode for each in found.values() for episode in each.values()]
                failures = sum(episode.failed for episode in episodes)
                progress(len(episodes), f"{failures} failed")
        finished = not waiting
    except concurrent.futures.process.BrokenProcessPool:
        raise UserError(
            "a process of the simulation died, perhaps for want of memory: try fewer --processes."
        ) from None
    finally:
        if not finished:  # the pool itself would finish what it has begun
            for worker in list(pool._processes.values()):
                worker.kill()
        pool.shutdown(wait=finished, cancel_futures=True)
    return {name: [each[robot] for robot in sorted(each)] for name, each in found.items()}, preemption.requested or ""


def leave_signals_alone() -> None:
    """In a worker: a signal may reach the whole group, and the parent ends the workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def judge(gate: Gate, name: str, contract: Contract, episodes: list[Episode]) -> Verdict:
    """Whether a condition passes."""
    failures = statistics.proportion(sum(episode.failed for episode in episodes), len(episodes))
    linear = statistics.mean([episode.track_linear for episode in episodes], lowest=0.0, highest=1.0)
    yaw = statistics.mean([episode.track_yaw for episode in episodes], lowest=0.0, highest=1.0)
    covered = CONDITIONS[name].covered(contract)
    passed = failures.value <= gate.max_failures and linear.value >= gate.min_tracking
    stopped = [episode for episode in episodes if episode.fault and not episode.fallen]
    return Verdict(
        failures=failures,
        falls=sum(episode.fallen for episode in episodes),
        stops=dict(Counter(episode.fault_name for episode in stopped)),
        faults={episode.fault_name: episode.fault for episode in reversed(stopped)},
        track_linear=linear,
        track_yaw=yaw,
        covered=covered,
        passed=passed if covered and len(episodes) == gate.robots else None,
    )


def find_worst(episodes: dict[str, list[Episode]]) -> tuple[str, Episode]:
    """The robot that fell first, or else the one that followed its commands least."""
    everyone = [(name, episode) for name, found in episodes.items() for episode in found]
    failed = [(name, episode) for name, episode in everyone if episode.failed]
    if failed:
        return min(failed, key=lambda pair: len(pair[1].qpos))
    return min(everyone, key=lambda pair: pair[1].track_linear)


def table(gate: Gate, verdicts: dict[str, Verdict], stopped: str) -> Table:
    """For a terminal of 80 columns: one row for each condition."""
    count = f"{gate.robots} robots" if not stopped else f"up to {gate.robots} robots, stopped by {stopped}"
    found = Table(title=Text(f"{gate.policy}: {count}, {gate.seconds:g} s each"), box=box.SIMPLE_HEAD, padding=(0, 1))
    for column in ("condition", "failures [95 %]", "fell", "stopped", "linear", "yaw", "result"):
        found.add_column(column, justify="left" if column in ("condition", "result") else "right", no_wrap=True)
    styles = {True: ("pass", "green"), False: ("fail", "bold red"), None: ("-", "")}
    for name, verdict in verdicts.items():
        word, style = styles[verdict.passed]
        found.add_row(
            name if verdict.covered else f"{name} *",
            str(verdict.failures),
            str(verdict.falls),
            str(sum(verdict.stops.values())),
            f"{verdict.track_linear.value:.3f}",
            f"{verdict.track_yaw.value:.3f}",
            Text(word, style=style),
        )
    return found


def legend(gate: Gate, verdicts: dict[str, Verdict]) -> list[str]:
    """What the words of the table mean, and why robots were stopped."""
    lines = [
        f"pass: failures at most {gate.max_failures:g}, linear at least {gate.min_tracking:g}",
        "fell: the trunk or the head touched the floor, or it tilted by more than 60 degrees",
        "stopped: by the controller, before it fell; failures: share of both",
        "linear, yaw: tracking, mean of exp(-error^2 / 0.25)",
    ]
    if not all(verdict.covered for verdict in verdicts.values()):
        lines.append("*: more than twice as far from the model as the training of this policy went; it does not count")
    lines += [f"{name}: {CONDITIONS[name].about}" for name in verdicts]
    stops: Counter[str] = Counter()
    for verdict in verdicts.values():
        stops.update(verdict.stops)
    examples = {kind: text for verdict in verdicts.values() for kind, text in verdict.faults.items()}
    lines += [f"stopped by {kind}, {number} of them, such as: {examples[kind]}" for kind, number in stops.most_common()]
    return lines


def write_verdicts(path: Path, gate: Gate, verdicts: dict[str, Verdict], stopped: str) -> None:
    """As JSON."""
    about = {name: str(value) if isinstance(value, Path) else value for name, value in vars(gate).items()}
    found = {
        name: dataclasses.asdict(verdict) | {"about": CONDITIONS[name].about} for name, verdict in verdicts.items()
    }
    write_json(path, {"gate": about, "stopped_by": stopped, "verdicts": found})


def draw(episode: Episode, title: str, gate: Gate, path: Path) -> None:
    """Speeds, joint targets and angles, and contacts of one robot."""
    from matplotlib.figure import Figure

    policy, scene = open_policy(gate)
    contract = policy.contract
    time = np.arange(len(episode.qpos)) * contract.timing.control_dt
    names = contract.joint_names
    figure = Figure(figsize=(12, 13), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots(6, 3)
    figure.suptitle(f"{title}, {episode.fault or ('fell' if episode.fallen else 'walked to the end')}")
    for axis, column, command in zip(axes[0], range(3), contract.commands, strict=True):
        axis.plot(time, episode.velocities[:, column], label="measured")
        axis.plot(time, episode.commands[:, column], "k--", label="command")
        axis.set_title(f"{command.name} ({command.unit})", fontsize=9)
    axes[0, 0].legend(fontsize=8)
    for joint, axis in enumerate(axes[1:5].ravel()):
        axis.plot(time, episode.angles[:, joint], label="angle")
        axis.plot(time, episode.targets[:, joint], linewidth=0.8, label="target")
        limits = contract.joints[joint]
        axis.set_title(f"{names[joint]} (rad), {limits.soft_lower:.2f} to {limits.soft_upper:.2f}", fontsize=9)
    axes[1, 0].legend(fontsize=8)
    feet = [scene.model.geom(i).name for i in scene.feet]
    grid = axes[5, 0].get_gridspec()
    for axis in axes[5]:
        axis.remove()
    axis = figure.add_subplot(grid[5, :])
    axis.imshow(
        episode.contacts.T, aspect="auto", cmap="Greys", extent=(0, time[-1], len(feet), 0), interpolation="none"
    )
    axis.set_yticks(np.arange(len(feet)) + 0.5, feet)
    axis.set_xlabel("s")
    axis.set_title("feet on the ground", fontsize=9)
    figure.savefig(path)


def record_episode(episode: Episode, contract: Contract, path: Path, seconds: float = 6.0, fps: int = 25) -> None:
    """The last seconds."""
    from mjx_policies.envs.film import film
    from mjx_policies.envs.registry import scene

    dt = contract.timing.control_dt
    rows = slice(-round(seconds / dt), None, max(1, round(1 / (fps * dt))))
    commands = episode.commands[rows]
    captions = [f"command {x:+.2f} m/s  {y:+.2f} m/s  {yaw:+.2f} rad/s" for x, y, yaw in commands]
    film(scene(contract.training.task), episode.qpos[rows], path, fps, [[caption] for caption in captions])


if __name__ == "__main__":
    with clean_errors(ValueError):
        chosen = parse_arguments(Gate, __doc__)
    with clean_errors():
        sys.exit(main(chosen))
