"""The loop that runs a robot: read, think, write, at a fixed rate.

Deadlines lie on a grid from the start and do not drift. One that passes unserved is counted and left out: the robot
never gets two sets of targets in a burst. However the loop ends, the robot is damped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from mjx_policies.deploy.contract import ContractError
from mjx_policies.deploy.controller import Controller, Output
from mjx_policies.deploy.log import tick_values
from mjx_policies.deploy.robot import Robot
from mjx_policies.deploy.safety import Fault


class Operator(Protocol):
    """The protocol of whoever drives the robot."""

    def poll(self) -> tuple[np.ndarray, str | None]:
        """The command [C] of now, and what was requested since the last call, or None. Never blocks."""
        ...


class Log(Protocol):
    """The protocol of a log of ticks, such as `log.RingLog`."""

    def write(self, values: Mapping[str, Any]) -> None:
        """Writes one tick, see `log.tick_values`."""
        ...


@dataclasses.dataclass(frozen=True)
class LoopStatistics:
    """The timing of a run of the loop.

    Attributes:
      ticks: how many there were.
      missed: deadlines that passed unserved.
      jitter_p50, jitter_p99, jitter_max: s, of the absolute difference between the time from one tick to the next and
        the control period, the first two rounded up to 10 microseconds; NaN before the second tick.
      late: ticks without a fresh reading.
      held: ticks that repeated the last targets for want of one.
      reordered: readings that were older than one before.
      faults: all there were, in order.
    """

    ticks: int
    missed: int
    jitter_p50: float
    jitter_p99: float
    jitter_max: float
    late: int
    held: int
    reordered: int
    faults: tuple[Fault, ...]


def run(
    robot: Robot,
    controller: Controller,
    operator: Operator,
    *,
    seconds: float | None = None,
    until: Callable[[], bool] = lambda: False,
    log: Log | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> LoopStatistics:
    """Runs the robot until its time is up, it is done, or SIGINT or SIGTERM comes, damps it and lets go of it.

    Args:
      robot: closed at the end, whatever happens.
      controller: made for the robot's joints.
      operator: asked once a tick. Without a request to stand and to run the robot stays damped.
      seconds: to run; None for ever.
      until: asked before each tick whether it is done.
      log: with `tick_fields`; the caller closes it.
      clock: s, that of the readings' stamps.
      sleep: waits for s.

    Raises:
      ContractError: robot and controller do not belong together.
      Exception: whatever the robot, the operator or the log raised; the robot was damped first.
    """
    record = _Recorder(controller.contract.timing.control_dt, log)
    with _signals() as signals:
        try:
            if robot.name != controller.contract.robot.name:
                made_for = controller.contract.robot.name
                raise ContractError(f"the policy was made for the robot {made_for!r}, this one is {robot.name!r}")
            if tuple(robot.joint_names) != controller.joint_names:
                raise ContractError("the robot's joints are not those, in that order, that the controller was made for")
            try:
                _ticks(robot, controller, operator, seconds, until, record, clock, sleep, signals)
            except BaseException as error:
                # Damps before all else: what comes after may fail, too.
                output = controller.stop(_fault(record.blamed, error))
                try:
                    robot.write(output.targets)
                finally:
                    if record.blamed != "log":
                        record.log(clock(), output)
                raise
            output = controller.stop()
            robot.write(output.targets)
            record.log(clock(), output)
        finally:
            robot.close()
    return record.statistics()


def _ticks(
    robot: Robot,
    controller: Controller,
    operator: Operator,
    seconds: float | None,
    until: Callable[[], bool],
    record: _Recorder,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    signals: list[int],
) -> None:
    """Runs the ticks until the end is due. Deadline number k is `start + k * control_dt`."""
    control_dt = controller.contract.timing.control_dt
    start, number = clock(), 0
    while True:
        overslept = max(0, math.floor((clock() - start) / control_dt + ROUNDING) - number)
        number += overslept
        record.missed += overslept
        if signals or until() or (seconds is not None and number * control_dt >= seconds - ROUNDING):
            return
        with record.blaming("robot"):
            reading = robot.read()
        with record.blaming("operator"):
            command, request = operator.poll()
        now = clock()
        output = controller.tick(now, reading, command, request)
        with record.blaming("robot"):
            robot.write(output.targets)
        record.tick(now, output)

        number += 1
        now = clock()
        overrun = max(0, math.ceil((now - start) / control_dt - ROUNDING) - number)
        number += overrun
        record.missed += overrun
        if (wait := start + number * control_dt - now) > 0:
            sleep(wait)


ROUNDING = 1e-6  # control periods, what a clock's last digits may be off
JITTER_STEP = 1e-5  # s, width of the bins that periods are counted in
JITTER_BINS = 10_000  # the last holds all above


class _Recorder:
    """Counts what happens, in constant memory, and logs it."""

    def __init__(self, control_dt: float, log: Log | None):
        self.missed = 0
        self.blamed = "internal"  # which part raised
        self._control_dt, self._log = control_dt, log
        self._ticks = self._late = self._held = self._reordered = 0
        self._faults: list[Fault] = []
        self._fault: Fault | None = None
        self._last: float | None = None
        self._jitter = np.zeros(JITTER_BINS, np.int64)
        self._jitter_max = math.nan

    @contextlib.contextmanager
    def blaming(self, part: str) -> Iterator[None]:
        """Marks an exception as one of this part."""
        try:
            yield
        except BaseException:
            self.blamed = part
            raise

    def tick(self, now: float, output: Output) -> None:
        """Counts what happened in a tick."""
        self._ticks += 1
        self._late += not output.fresh
        self._held += output.held
        self._reordered += output.reordered
        if output.fault is not None and output.fault is not self._fault:
            self._faults.append(output.fault)
        self._fault = output.fault
        if self._last is not None:
            jitter = abs(now - self._last - self._control_dt)
            self._jitter[min(int(jitter / JITTER_STEP), JITTER_BINS - 1)] += 1
            self._jitter_max = jitter if math.isnan(self._jitter_max) else max(self._jitter_max, jitter)
        self._last = now
        self.log(now, output)

    def log(self, now: float, output: Output) -> None:
        """Logs an output, also one that is no tick."""
        if self._log is not None:
            with self.blaming("log"):
                self._log.write(tick_values(now, output, self.missed))

    def statistics(self) -> LoopStatistics:
        """The figures until now."""
        return LoopStatistics(
            ticks=self._ticks,
            missed=self.missed,
            jitter_p50=self._percentile(0.5),
            jitter_p99=self._percentile(0.99),
            jitter_max=self._jitter_max,
            late=self._late,
            held=self._held,
            reordered=self._reordered,
            faults=tuple(self._faults),
        )

    def _percentile(self, share: float) -> float:
        counted = np.cumsum(self._jitter)
        if counted[-1] == 0:
            return math.nan
        return min(self._jitter_max, float(np.searchsorted(counted, share * counted[-1]) + 1) * JITTER_STEP)


def _fault(part: str, error: BaseException) -> Fault:
    name = part if part in ("robot", "operator") else "internal"
    text = " ".join(str(error).split()).rstrip(".")
    return Fault(name, f"the {part} part of the loop failed: {type(error).__name__}: {text}.")


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """A list in which SIGINT and SIGTERM are noted, instead of ending the process with the robot driven.

    Python delivers signals to the main thread only: a loop in another thread is ended by its operator.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, lambda number, frame: received.append(number)) for kind in kinds}
    try:
        yield received
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
