"""A policy file against robots it has not met, in plain MuJoCo: python experiments/sim2sim.py runs/a/policy.onnx

The gate before hardware. Each condition is 100 robots that differ from training, driven by the controller that drives a
real one. The exit code is 0 if all conditions pass and 1 if one does not. The folder beside the file gets a table, a
film of the worst robot and a plot of what its joints and feet did.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mjx_policies.deploy.contract import Contract, ContractError
from mjx_policies.deploy.policy import PolicyError, load_policy
from mjx_policies.deploy.sim_to_sim import CONDITIONS, Episode, Scene, run_episode
from mjx_policies.evaluation import statistics
from mjx_policies.evaluation.statistics import Estimate
from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.files import write_json
from mjx_policies.training.progress import open_console

MODEL = Path(__file__).parents[1] / "envs" / "models" / "go2.xml"


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
    model: Path = MODEL  # MJCF of the robot

    def __post_init__(self) -> None:
        unknown = sorted(set(self.conditions) - set(CONDITIONS))
        if unknown:
            raise ValueError(f"unknown conditions {', '.join(unknown)}; known: {', '.join(CONDITIONS)}")
        if not self.conditions or len(set(self.conditions)) < len(self.conditions):
            raise ValueError("conditions must name at least one, and none twice")
        if self.robots < 2:
            raise ValueError(f"robots is {self.robots}, an interval needs at least 2")
        if not 0.1 <= self.seconds <= 3600:
            raise ValueError(f"seconds is {self.seconds:g}, it must lie between 0.1 and 3600")
        for name in ("processes", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, it must not be negative")
        for name in ("max_failures", "min_tracking"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must lie between 0 and 1")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Of one condition."""

    failures: Estimate
    track_linear: Estimate
    track_yaw: Estimate
    faults: tuple[str, ...]
    passed: bool


def main(gate: Gate) -> int:
    """Prints the table, writes the folder and returns the exit code."""
    out = gate.out or gate.policy.parent / "sim2sim"
    with clean_errors(ValueError, OSError):
        policy, _ = open_policy(gate)
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file: choose a folder for --out.")
        out.mkdir(parents=True, exist_ok=True)
    console = open_console()
    with clean_errors():
        episodes = run(gate, console)
    verdicts = {name: judge(gate, found) for name, found in episodes.items()}
    console.print(table(gate, verdicts))
    worst_name, worst = find_worst(episodes)
    with clean_errors(OSError):
        write_verdicts(out / "sim2sim.json", gate, verdicts)
        with console.status("drawing the worst robot"):
            draw(worst, f"worst robot: {worst_name}", gate, out / "worst.png")
            film_episode(worst, policy.contract, out / "worst.mp4")
    console.print(f"worst robot ({worst_name}): {out / 'worst.mp4'}, {out / 'worst.png'}")
    return 0 if all(verdict.passed for verdict in verdicts.values()) else 1


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


def run(gate: Gate, console) -> dict[str, list[Episode]]:
    """All robots of all conditions, on all cores."""
    jobs = [(name, robot) for name in gate.conditions for robot in range(gate.robots)]
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    found: dict[str, list[Episode]] = {name: [] for name in gate.conditions}
    workers = gate.processes or os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the workers would go on without us
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=leave_signals_alone)
    try:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("robots", total=len(jobs))
            futures = [pool.submit(work, gate, name, robot) for name, robot in jobs]
            for (name, _), future in zip(jobs, futures, strict=True):
                progress.update(bar, description=name)
                found[name].append(future.result())
                progress.advance(bar)
    except BaseException:
        for worker in list(pool._processes.values()):  # the pool itself would finish what it has begun
            worker.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    return found


def leave_signals_alone() -> None:
    """In a worker: Ctrl-C reaches the whole group, and the parent ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def judge(gate: Gate, episodes: list[Episode]) -> Verdict:
    """Whether a condition passes."""
    failed = [episode.fallen or bool(episode.fault) for episode in episodes]
    failures = statistics.proportion(sum(failed), len(failed))
    linear = statistics.mean(np.array([episode.track_linear for episode in episodes]))
    yaw = statistics.mean(np.array([episode.track_yaw for episode in episodes]))
    passed = failures.value <= gate.max_failures and linear.value >= gate.min_tracking
    faults = tuple(sorted({episode.fault for episode in episodes if episode.fault}))
    return Verdict(failures, linear, yaw, faults, passed)


def find_worst(episodes: dict[str, list[Episode]]) -> tuple[str, Episode]:
    """The robot that fell first, or else the one that followed its commands least."""
    everyone = [(name, episode) for name, found in episodes.items() for episode in found]
    failed = [(name, episode) for name, episode in everyone if episode.fallen or episode.fault]
    if failed:
        return min(failed, key=lambda pair: len(pair[1].qpos))
    return min(everyone, key=lambda pair: pair[1].track_linear)


def table(gate: Gate, verdicts: dict[str, Verdict]) -> Table:
    """For the terminal."""
    found = Table(title=f"{gate.policy}: {gate.robots} robots, {gate.seconds:g} s each")
    for column in ("condition", "failures [95 %]", "linear tracking [95 %]", "yaw tracking [95 %]", ""):
        found.add_column(column, justify="left" if column in ("condition", "") else "right")
    for name, verdict in verdicts.items():
        word = Text("pass", "green") if verdict.passed else Text("fail", "bold red")
        figures = (str(verdict.failures), str(verdict.track_linear), str(verdict.track_yaw))
        found.add_row(f"{name}: {CONDITIONS[name].about}", *figures, word)
    found.caption = f"pass: failures at most {gate.max_failures:g}, linear tracking at least {gate.min_tracking:g}"
    return found


def write_verdicts(path: Path, gate: Gate, verdicts: dict[str, Verdict]) -> None:
    """As JSON."""
    about = {name: str(value) if isinstance(value, Path) else value for name, value in vars(gate).items()}
    found = {name: dataclasses.asdict(verdict) for name, verdict in verdicts.items()}
    write_json(path, {"gate": about, "verdicts": found})


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


def film_episode(episode: Episode, contract: Contract, path: Path, seconds: float = 6.0, fps: int = 25) -> None:
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
        chosen = tyro.cli(Gate, description=__doc__)
    sys.exit(main(chosen))
