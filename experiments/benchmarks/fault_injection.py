"""Faults injected into a simulated robot under its controller: python experiments/benchmarks/fault_injection.py POLICY

A simulated robot walks; then one thing goes wrong. The table says after how long the robot was damped, how long it may
take, and what the log would say. Time is the simulation's own. The exit code is 1 if one fault is not caught in time.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro
from rich.table import Table
from rich.text import Text

from mjx_policies.deploy.controller import Controller, Mode, Request
from mjx_policies.deploy.policy import ExportedPolicy, PolicyError, load_policy
from mjx_policies.deploy.simulation.robot import Faults, Push, SimulatedRobot
from mjx_policies.deploy.simulation.sim_to_sim import Scene
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors

MODEL = Path(__file__).parents[2] / "envs" / "models" / "go2.xml"
COMMAND = np.array([0.5, 0.0, 0.3])


@dataclasses.dataclass(frozen=True)
class Inject:
    """Breaks one thing at a time under an exported policy."""

    policy: tyro.conf.Positional[Path]  # exported ONNX file


class Sabotaged:
    """A policy that can be made to fail in different ways."""

    def __init__(self, policy: ExportedPolicy):
        self.policy, self.contract = policy, policy.contract
        self.way = ""
        self.seconds = 0.0  # that its steps have taken, in the controller's eyes

    def initial_state(self):
        """The state of the policy at its start."""
        return self.policy.initial_state()

    def step(self, observation, state):
        """One step, or what has become of it."""
        step = self.policy.step(observation, state)
        match self.way:
            case "nan":
                return step._replace(action=np.full_like(step.action, np.nan))
            case "saturated":
                return step._replace(action=np.full_like(step.action, 1e6))
            case "shape":
                return step._replace(target=step.target[:5])
            case "raises":
                raise PolicyError("the accelerator is gone")
            case "slow":
                self.seconds += 10 * 0.5 * self.contract.timing.control_dt
        return step


@dataclasses.dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
      name: for people.
      strike: makes it happen.
      bound: s, within which it must be noticed; damping follows within one control period.
    """

    name: str
    strike: Callable[[SimulatedRobot, Sabotaged], None]
    bound: float


def faulty(**faults) -> Callable[[SimulatedRobot, Sabotaged], None]:
    """The robot has these faults from now on."""
    return lambda robot, policy: setattr(robot, "faults", Faults(**faults))


def sabotage(way: str) -> Callable[[SimulatedRobot, Sabotaged], None]:
    """The policy fails in this way from now on."""
    return lambda robot, policy: setattr(policy, "way", way)


def push(robot: SimulatedRobot, policy: Sabotaged) -> None:
    """Tips the robot over."""
    robot.pushes = (Push(robot.time(), 0.15, (0.0, 900.0, 0.0)),)


CASES = (
    Case("gyro reads nan", faulty(broken={"gyro": np.nan}), 0.0),
    Case("joint velocity reads inf", faulty(broken={"joint_velocity": np.inf}), 0.0),
    Case("joint position reads 9 rad", faulty(broken={"joint_position": 9.0}), 0.0),
    Case("orientation reads 7", faulty(broken={"orientation": 7.0}), 0.0),
    Case("sensors freeze", faulty(freeze=True), 0.2),
    Case("all readings are lost", faulty(drop_readings=1.0), 0.04),
    Case("readings 50 ms old", faulty(observation_latency=0.05), 0.04),
    Case("joints in another order than named", faulty(joint_order="lying"), 0.0),
    Case("the robot is knocked over", push, 1.5),
    Case("the policy returns nan", sabotage("nan"), 0.0),
    Case("the policy saturates", sabotage("saturated"), 0.5),
    Case("the policy's targets have a wrong shape", sabotage("shape"), 0.0),
    Case("the policy raises", sabotage("raises"), 0.0),
    Case("inference takes 10 times the limit", sabotage("slow"), 0.0),
)
HARMLESS = (
    Case("30 % of readings lost", faulty(drop_readings=0.3), np.inf),
    Case("readings overtake each other", faulty(reorder=0.3), np.inf),
)


def walk(policy: ExportedPolicy, scene: Scene, case: Case, seconds: float = 3.0) -> tuple[float, str]:
    """Seconds from the fault until the robot is damped, infinite if it is not, and why."""
    contract = policy.contract
    dt = contract.timing.control_dt
    robot = scene.robot(contract)
    sabotaged = Sabotaged(policy)
    controller = Controller(sabotaged, robot.joint_names, clock=lambda: robot.time() + sabotaged.seconds)
    robot.advance(dt)
    struck = np.inf
    while robot.time() - struck < seconds:
        if controller.mode is Mode.RUN and robot.time() > 5.0 and struck == np.inf:
            struck = robot.time()
            case.strike(robot, sabotaged)
            robot.advance(dt)  # or what was measured before the fault would be read once more
        request = {Mode.IDLE: Request.STAND, Mode.STAND: Request.RUN}.get(controller.mode)
        output = controller.tick(robot.time(), robot.read(), COMMAND, request)
        robot.write(output.targets)
        if output.mode is Mode.FAULT:
            assert not output.targets.stiffness.any(), "a fault that does not damp"
            assert output.fault is not None
            return robot.time() - struck, f"{output.fault.name}: {output.fault.sentence}"
        robot.advance(dt)
    return np.inf, ""


def main(inject: Inject) -> int:
    """Prints the table and returns the exit code."""
    with clean_errors(ValueError):
        policy = load_policy(inject.policy)
        scene = Scene(MODEL)
    dt = policy.contract.timing.control_dt
    table = Table(title="a fault while the robot walks")
    for column in ("fault", "damped after", "at most", "log"):
        table.add_column(column)
    late = 0
    for case in (*CASES, *HARMLESS):
        after, why = walk(policy, scene, case)
        allowed = case.bound + dt
        in_time = after <= allowed + 1e-9
        late += not in_time
        damped = f"{1e3 * after:.0f} ms" if np.isfinite(after) else "walks on"
        bound = f"{1e3 * allowed:.0f} ms" if np.isfinite(allowed) else "need not"
        table.add_row(case.name, damped if in_time else Text(damped, "bold red"), bound, why)
    open_console().print(table)
    return int(late > 0)


if __name__ == "__main__":
    with clean_errors():
        sys.exit(main(parse_arguments(Inject, __doc__)))
