"""The control loop in real time on a busy computer: python experiments/benchmarks/control_loop.py POLICY --seconds 600

A simulated robot in its own thread is stood up and driven with random commands while every core is kept busy by
another process. Prints the jitter of the period, missed deadlines, late readings and faults.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import tyro

from mjx_policies.deploy import loop
from mjx_policies.deploy.controller import Controller, Mode, Request
from mjx_policies.deploy.policy import load_policy
from mjx_policies.deploy.simulation.sim_to_sim import Scene
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors

MODEL = Path(__file__).parents[2] / "envs" / "models" / "go2.xml"


@dataclasses.dataclass(frozen=True)
class Drive:
    """Drives a simulated robot in real time, beside other work."""

    policy: tyro.conf.Positional[Path]  # exported ONNX file
    seconds: float = 600.0  # length of the measurement (s)
    load: int = -1  # number of processes that keep cores busy; -1: one for each core
    seed: int = 0  # random seed of the commands

    def __post_init__(self) -> None:
        if not 1 <= self.seconds <= 86_400:
            raise ValueError(f"seconds is {self.seconds:g}, it must lie between 1 and 86400")
        if self.load < -1 or self.seed < 0:
            raise ValueError("load must be at least -1, and seed at least 0")


class SteadyOperator:
    """Stands the robot up, then commands something else every few seconds; clears faults and starts over."""

    def __init__(self, controller: Controller, seed: int):
        self.controller = controller
        self.random = np.random.default_rng(seed)
        self.low, self.high = np.array([[c.low, c.high] for c in controller.contract.commands]).T
        self.command, self.ticks = np.zeros(len(self.low)), 0

    def poll(self) -> tuple[np.ndarray, str | None]:
        """See `loop.Operator`."""
        self.ticks += 1
        if self.ticks % 200 == 0:
            self.command = self.random.uniform(self.low, self.high)
        ask = {Mode.FAULT: Request.CLEAR, Mode.IDLE: Request.STAND, Mode.DAMP: Request.STAND, Mode.STAND: Request.RUN}
        return self.command, ask.get(self.controller.mode)


def burn() -> None:
    """Keeps one core busy."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        sum(range(10_000))


def main(drive: Drive) -> None:
    """Runs and prints."""
    console = open_console()
    with clean_errors(ValueError):
        policy = load_policy(drive.policy)
        scene = Scene(MODEL)
    robot = scene.robot(policy.contract)
    controller = Controller(policy, robot.joint_names)
    count = (os.cpu_count() or 1) if drive.load < 0 else drive.load
    burners = [multiprocessing.get_context("fork").Process(target=burn, daemon=True) for _ in range(count)]
    for burner in burners:
        burner.start()
    begin = time.monotonic()
    try:
        robot.start()
        with console.status(f"driving for {drive.seconds:g} s beside {count} busy processes"):
            found = loop.run(robot, controller, SteadyOperator(controller, drive.seed), seconds=drive.seconds)
    finally:
        for burner in burners:
            burner.kill()
    console.print(
        f"{found.ticks:,} ticks in {time.monotonic() - begin:.0f} s beside {count} busy processes on {os.cpu_count()} "
        f"cores: {found.missed} deadlines missed, jitter of the period p50 {1e3 * found.jitter_p50:.2f} ms, p99 "
        f"{1e3 * found.jitter_p99:.2f} ms, most {1e3 * found.jitter_max:.1f} ms; {found.late} late readings, "
        f"{found.held} targets held, {len(found.faults)} faults"
    )
    for fault in found.faults[:10]:
        console.print(f"  {fault.name}: {fault.sentence}")


if __name__ == "__main__":
    with clean_errors(ValueError):
        main(parse_arguments(Drive, __doc__))
