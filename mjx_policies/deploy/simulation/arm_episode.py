"""Episodes of a simulated arm that brings a thing somewhere, run as a real arm is: controller, loop, planning thread.

The operator asks the arm to stand where the episode begins, then to run; the policy is told where the goal is and
never waits for a plan. In real time the arm is simulated in a thread of its own, and plans are made in another. These
two and the loop share Python's lock, which MuJoCo and onnxruntime let go of while they compute. In lock-step, time is
the simulation's, and a plan arrives in the step that it was asked in: the same seed gives the same episode.
Axes: T control steps of the policy, A joints, in the policy's order.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import numpy as np

from mjx_policies.deploy import chunks, loop
from mjx_policies.deploy.chunks import ChunkedPolicy, Inline
from mjx_policies.deploy.controller import STAND_SECONDS, Controller, ControlPolicy, Mode, Request
from mjx_policies.deploy.policy import ExportedPolicy
from mjx_policies.deploy.robots.franka_driving import franka_controller, late_steps
from mjx_policies.deploy.safety import Fault
from mjx_policies.deploy.sampling import SampledPolicy
from mjx_policies.deploy.simulation.arm import SimulatedArm
from mjx_policies.deploy.simulation.robot import Faults

STANDS_BY = STAND_SECONDS + 30.0  # s, by which an arm that can be driven at all runs its policy, however busy this is


@dataclasses.dataclass(frozen=True)
class Transport:
    """The task of bringing something to a goal.

    Attributes:
      thing: body that is to be brought there.
      radius: m from the goal, within which its middle is there.
      hold_seconds: that it has to stay there without a break.
      table: [2, 2] m, corners; the episode ends where the thing leaves it.
      seconds: after which the episode ends.
    """

    thing: str
    radius: float
    hold_seconds: float
    table: tuple[tuple[float, float], tuple[float, float]]
    seconds: float


@dataclasses.dataclass(frozen=True)
class InitialState:
    """The initial state of an episode.

    Attributes:
      qpos: [nq] coordinates of arm and things, at rest.
      goal: [3] m in the base's frame.
    """

    qpos: np.ndarray
    goal: np.ndarray


@dataclasses.dataclass(frozen=True)
class ArmEpisode:
    """The record of one episode of an arm.

    Attributes:
      success: whether the thing stayed at the goal for long enough.
      seconds: of the policy, until success where there was one.
      fault: what ended it, empty if nothing did.
      qpos: [T, nq] after each control step.
      age: [T] s, of the newest reading at each step.
      held: control steps that repeated the last targets for want of a reading.
      plan_seconds: what each plan took to make.
      loop: deadlines and periods, standing up included.
      chunks: plans that arrived, and steps that had none.
      skipped: s that the simulation could not keep up with real time.
    """

    success: bool
    seconds: float
    fault: str
    qpos: np.ndarray
    age: np.ndarray
    held: int
    plan_seconds: np.ndarray
    loop: loop.LoopStatistics
    chunks: chunks.ChunkStatistics
    skipped: float


def run_episode(
    policy: ExportedPolicy,
    model: mujoco.MjModel,
    task: Transport,
    begin: InitialState,
    *,
    seed: int,
    latency: float = 0.0,
    refill: float = 0.5,
    sample_actions: bool = True,
    real_time: bool = True,
) -> ArmEpisode:
    """Stands the arm where the episode begins, then lets the policy run.

    Args:
      policy: that plans ahead; not used elsewhere meanwhile.
      model: arm and things.
      task: what it is about.
      begin: where everything is.
      seed: of what the policy draws.
      latency: s, from a measurement to its arrival.
      refill: see `ChunkedPolicy`.
      sample_actions: whether a policy that can sample does, as where it was evaluated.
      real_time: else in lock-step.

    Raises:
      ContractError, ChunkError, ValueError: the policy cannot be driven like this.
    """
    contract = policy.contract
    robot = SimulatedArm(
        model,
        contract.joint_names,
        contract.robot.name,
        things=(task.thing,),
        target_period=contract.timing.control_dt,
        faults=Faults(observation_latency=latency),
        seed=seed,
    )
    robot.reset(begin.qpos)
    clock, sleep = (time.monotonic, time.sleep) if real_time else (robot.time, robot.advance)
    rest = robot.sense()["joint_position"]
    planner = _Timed(SampledPolicy(policy, seed) if sample_actions else policy)
    with ChunkedPolicy(
        planner,
        mode="asynchronous",
        refill=refill,
        rest=rest,
        late=late_steps(contract, latency),
        executor=None if real_time else Inline(),
        clock=clock,
    ) as chunked:
        planner.seconds.clear()  # of the warm-up
        controller = franka_controller(
            chunked, robot.joint_names, lambda: begin.goal, start=rest, latency=latency, clock=clock
        )
        operator = EpisodeOperator(robot, controller, task, begin.goal, clock)
        if real_time:
            robot.start()
        measured = loop.run(robot, controller, operator, until=operator.done, log=operator, clock=clock, sleep=sleep)
        return ArmEpisode(
            success=operator.success,
            seconds=operator.seconds,
            fault=(overloaded(controller.fault, measured.missed, robot.skipped) if real_time else "") or operator.fault,
            qpos=np.array(operator.rows),
            age=np.array(operator.ages),
            held=operator.held,
            plan_seconds=np.array(planner.seconds),
            loop=measured,
            chunks=chunked.statistics,
            skipped=robot.skipped,
        )


def overloaded(fault: Fault | None, missed: int, skipped: float) -> str:
    """Advice about the computer where a fault is one of time; empty for other faults.

    The simulated link loses nothing and its latency is known: whatever else is late is what this computer runs.

    Args:
      fault: of the controller.
      missed: deadlines.
      skipped: s that the simulation could not keep up with real time.

    Returns:
      A sentence without numbers, by which episodes are counted; `ArmEpisode` has the numbers.
    """
    if fault is None or fault.name not in ("age", "clock") or not (missed or skipped):
        return ""
    return (
        "the computer was too slow for real time (see deadlines missed, and simulation behind real time): free it, or "
        "run fewer --processes."
    )


class EpisodeOperator:
    """An operator who starts the policy and measures its success; and the loop's log, which says how it was driven.

    Attributes:
      success, seconds, rows, ages, held: see `ArmEpisode`.
    """

    def __init__(
        self,
        robot: SimulatedArm,
        controller: Controller,
        task: Transport,
        goal: np.ndarray,
        clock: Callable[[], float],
    ):
        self.success, self.seconds, self.held = False, 0.0, 0
        self.rows: list[np.ndarray] = []
        self.ages: list[float] = []
        self._robot, self._controller, self._task, self._goal, self._clock = robot, controller, task, goal, clock
        self._control_dt = controller.contract.timing.control_dt
        self._periods = math.ceil(task.hold_seconds / self._control_dt - 1e-6)
        self._there = 0  # control steps in a row
        self._created, self._began = clock(), math.nan
        self._ended = False

    def poll(self) -> tuple[np.ndarray, str | None]:
        """See `loop.Operator`."""
        if self._controller.mode is Mode.RUN:
            self._measure()
        request = {Mode.IDLE: Request.STAND, Mode.STAND: Request.RUN}.get(self._controller.mode)
        return np.zeros(len(self._controller.contract.commands)), request

    def done(self) -> bool:
        """Whether the episode is over."""
        return self._ended or bool(self.fault)

    @property
    def fault(self) -> str:
        """The reason why the episode ended before its time, empty if it did not."""
        if self._controller.fault is not None:
            return self._controller.fault.sentence
        if math.isnan(self._began) and self._clock() - self._created > STANDS_BY:
            return f"the policy did not run after {STANDS_BY:g} s: free the computer"
        return ""

    def write(self, values: Mapping[str, Any]) -> None:
        """See `loop.Log`."""
        if values["mode"] != Mode.RUN:
            return
        if math.isnan(self._began):
            self._began = values["time"]
        self.ages.append(values["age"])
        self.held += values["held"]

    def _measure(self) -> None:
        """Measures success after one more control step."""
        self.rows.append(self._robot.coordinates())
        thing = self._robot.sense()[f"{self._task.thing}_position"]
        there = np.linalg.norm(thing - self._goal) < self._task.radius
        self._there = self._there + 1 if there else 0
        self.seconds = self._clock() - self._began
        self.success = self._there >= self._periods
        low, high = np.array(self._task.table)
        lost = bool(((thing[:2] < low) | (thing[:2] > high)).any())
        self._ended = self.success or lost or self.seconds >= self._task.seconds - self._control_dt / 2


class _Timed:
    """A policy whose steps are timed."""

    def __init__(self, policy: ControlPolicy):
        self.contract = policy.contract
        self.seconds: list[float] = []
        self._policy = policy

    def initial_state(self) -> Any:
        return self._policy.initial_state()

    def step(self, observation: np.ndarray, state: Any) -> Any:
        start = time.perf_counter()
        step = self._policy.step(observation, state)
        self.seconds.append(time.perf_counter() - start)
        return step
