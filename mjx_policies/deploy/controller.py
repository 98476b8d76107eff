"""The controller of a robot: one call a control period, from a reading to targets, without any input or output.

| mode | the robot | leaves when |
|---|---|---|
| `IDLE` | is damped and waits | asked to `stand` |
| `STAND` | moves to the pose of its stance in 2 s and holds it | asked to `run` (once it stands) or to `damp` |
| `RUN` | does what the policy says | asked to `stand` or to `damp` |
| `DAMP` | is damped because the operator asked | asked to `stand` |
| `FAULT` | is damped because something was wrong | asked to `clear`, with good readings; then `IDLE` |

Whatever `safety` objects to while the robot is driven leads to `FAULT` in the same tick. A tick without a fresh reading
holds the last targets until readings are two control periods old. Damped means no stiffness and some damping.
Axes: A joints, in the policy's order but for readings and targets, which are in the robot's; C commands; D observation.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mjx_policies.deploy import safety
from mjx_policies.deploy.contract import Contract, ContractError
from mjx_policies.deploy.observation import ObservationBuilder, ObservationError, Source
from mjx_policies.deploy.robot import Reading, Targets
from mjx_policies.deploy.safety import Fault, SafetyLimits

STAND_SECONDS = 2.0  # from the pose measured to the one to stand in
STAND_STIFFNESS = (
    3.0  # times the contract's stiffness; unitree_rl_mjlab stands a Go2 at 2 to 4 times that of its policy
)
STAND_DAMPING = 4.0  # times the contract's damping; there 2 to 5 times
DAMP_DAMPING = 6.0  # times the contract's damping, which is 3 N m s / rad for a Go2, what that code damps with


class Mode(enum.IntEnum):
    """The mode of the controller, see the module."""

    IDLE = 0
    STAND = 1
    RUN = 2
    DAMP = 3
    FAULT = 4


class Request(enum.StrEnum):
    """The mode that an operator asks for."""

    STAND = "stand"
    RUN = "run"
    DAMP = "damp"
    CLEAR = "clear"


class PolicyStep(Protocol):
    """The result of a policy's step: action [A], target [A] and its next state."""

    @property
    def action(self) -> np.ndarray: ...  # noqa: D102

    @property
    def target(self) -> np.ndarray: ...  # noqa: D102

    @property
    def state(self) -> Any: ...  # noqa: D102


class ControlPolicy(Protocol):
    """The protocol of a policy that the controller needs, see `policy.ExportedPolicy`."""

    @property
    def contract(self) -> Contract:
        """The contract of the policy."""
        ...

    def initial_state(self) -> Any:
        """The state that the first step starts from."""
        ...

    def step(self, observation: np.ndarray, state: Any) -> PolicyStep:
        """One step from an observation [D] float32."""
        ...


@dataclasses.dataclass(frozen=True)
class Output:
    """The output of one tick.

    Attributes:
      targets: to be written to the robot, in its order of joints.
      mode: after the tick.
      fault: why, in `FAULT`.
      note: why a request was refused; empty if none was.
      fresh: whether there was a new reading young enough to act on.
      held: whether the last targets were repeated because there was none.
      reordered: whether a reading older than one before arrived; it was dropped.
      age: s, of the newest reading; NaN before the first.
      inference_seconds: of the policy's step; NaN without one.
      command: [C] within the contract's ranges; NaN unless the policy ran.
      values: of the newest good reading, joints in the policy's order; empty before the first.
      observation: [D]; None unless the policy ran.
      action: [A]; None unless the policy ran and answered with numbers.
      target: [A], the position of `targets` in the policy's order.
    """

    targets: Targets
    mode: Mode
    fault: Fault | None
    note: str
    fresh: bool
    held: bool
    reordered: bool
    age: float
    inference_seconds: float
    command: np.ndarray
    values: Mapping[str, np.ndarray]
    observation: np.ndarray | None
    action: np.ndarray | None
    target: np.ndarray


@dataclasses.dataclass(frozen=True)
class Stance:
    """The pose and the gains of a robot that stands or is damped. The defaults suit legs, whose servos are soft.

    Attributes:
      position: [A] pose, in the policy's order; None for the target of a zero action.
      stiffness, damping: times the contract's, of a standing robot.
      braking: times the contract's damping, of a damped one; more where less would not stop the fastest joint.
    """

    position: np.ndarray | None = None
    stiffness: float = STAND_STIFFNESS
    damping: float = STAND_DAMPING
    braking: float = DAMP_DAMPING


LEGS = Stance()


class Controller:
    """The state machine, see the module.

    Args:
      policy: what runs in `RUN`.
      joint_names: of the robot, in its order.
      limits: of everything, `safety.limits_of` the policy's contract unless given.
      sources: of observation terms that this library does not know.
      stance: how it stands.
      clock: what the policy's time is taken with, s.

    Raises:
      ContractError: the robot has other joints, or the policy is of a kind that this runtime does not drive.
      ValueError: `limits` are looser than the joints' hard limits; they or the stance are of another number of joints.
    """

    def __init__(
        self,
        policy: ControlPolicy,
        joint_names: Sequence[str],
        limits: SafetyLimits | None = None,
        *,
        sources: Mapping[str, Source] | None = None,
        stance: Stance = LEGS,
        clock: Callable[[], float] = time.monotonic,
    ):
        contract = policy.contract
        if contract.action.type != "joint_position":
            raise ContractError(f"this runtime drives joint_position policies, not {contract.action.type}")
        if contract.action.horizon != 1:
            raise ContractError(
                f"this runtime drives policies of one action a step, not {contract.action.horizon}: wrap this one in "
                "a deploy.chunks.ChunkedPolicy"
            )
        self.policy = policy
        self.contract = contract
        self.joint_names = tuple(joint_names)
        self.mode = Mode.IDLE
        self.fault: Fault | None = None
        self.limits = safety.limits_of(contract) if limits is None else limits
        self._from_robot, self._to_robot = joint_maps(contract.joint_names, self.joint_names)
        self._clock = clock
        self._builder = ObservationBuilder(contract, sources)

        def column(name: str) -> np.ndarray:
            return np.array([getattr(joint, name) for joint in contract.joints])

        self._default, self._scale = column("default"), column("scale")
        self._hard_lower, self._hard_upper = column("lower"), column("upper")
        if self.limits.effort.shape != self._default.shape:
            raise ValueError(f"limits are of {self.limits.effort.size} joints, the robot has {self._default.size}")
        if np.any(self.limits.soft_lower < self._hard_lower) or np.any(self.limits.soft_upper > self._hard_upper):
            raise ValueError("limits: soft_lower and soft_upper must lie within the joints' lower and upper limits")
        standing = self._default if stance.position is None else np.array(stance.position, np.float64)
        if standing.shape != self._default.shape or not np.isfinite(standing).all():
            raise ValueError(f"the stance is {stance.position}, it must be {self._default.size} finite numbers")
        self._standing = np.clip(standing, self.limits.soft_lower, self.limits.soft_upper)
        stiffness, damping = column("stiffness"), column("damping")
        # Brakes the highest speed with the full effort at least, for contracts with little or no damping.
        braking = np.maximum(stance.braking * damping, column("effort") / column("velocity"))
        self._gains = {
            Mode.STAND: (stance.stiffness * stiffness, stance.damping * damping),
            Mode.RUN: (stiffness, damping),
        }
        self._damp_gains = (np.zeros_like(stiffness), braking)
        self._command_low = np.array([command.low for command in contract.commands])
        self._command_high = np.array([command.high for command in contract.commands])

        observed = {term.name for term in contract.observation}
        joints = (len(self.joint_names),)
        self._shapes = {"joint_position": joints, "joint_velocity": joints}  # of what must be read
        if "gyro" in observed:
            self._shapes["gyro"] = (3,)
        if "gravity" in observed:
            self._shapes["orientation"] = (4,)

        self._now: float | None = None  # of the last tick
        self._sequence: int | None = None  # of the newest reading
        self._stamp = math.nan
        self._values: dict[str, np.ndarray] = {}  # of the newest good reading
        self._problem: Fault | None = None  # with the newest reading
        self._repeats: dict[str, int] = {name: 0 for name in ("gyro", "joint_velocity") if name in self._shapes}
        self._unchanged: dict[str, np.ndarray] = {}
        self._last_target = self._standing
        self._start = self._last_target  # of standing up: pose, and time
        self._start_time = 0.0
        self._state: Any = None
        self._last_action = np.zeros_like(self._default)
        self._saturated_periods = 0
        self._details: dict[str, Any] = {}
        self._begin()

    def tick(self, now: float, reading: Reading | None, command: np.ndarray, request: str | None = None) -> Output:
        """Runs one control period.

        Args:
          now: s, on the clock of the reading's stamp.
          reading: the newest of the robot, which may be the same as before, or None.
          command: [C], of the operator.
          request: a `Request`, or None.

        Returns:
          What to write and why. Never raises: whatever fails in here is a fault.
        """
        self._begin()
        try:
            self._tick(now, reading, command, request)
        except Exception as error:
            self._trip(Fault("internal", f"the controller failed: {_one_line(error)}. Report this."))
        return self._output()

    def stop(self, fault: Fault | None = None) -> Output:
        """Damps the robot outside of a tick: with `fault` in `FAULT`, else in `DAMP`."""
        self._begin()
        if fault is not None:
            self._trip(fault)
        elif self.mode is not Mode.FAULT:
            self.mode = Mode.DAMP
        return self._output()

    @property
    def driven(self) -> bool:
        """Whether the robot is driven rather than damped."""
        return self.mode in (Mode.STAND, Mode.RUN)

    def _begin(self) -> None:
        """The defaults of a tick's `Output`."""
        self._details = {
            "note": "",
            "fresh": False,
            "held": False,
            "reordered": False,
            "age": math.nan,
            "inference_seconds": math.nan,
            "command": np.full(len(self.contract.commands), np.nan),
            "observation": None,
            "action": None,
        }

    def _tick(self, now: float, reading: Reading | None, command: np.ndarray, request: str | None) -> None:
        if fault := self._check_clock(now):
            self._trip(fault)
            return
        now = float(now)  # of numpy, it would warn where it overflows
        self._sense(now, reading)
        if self.driven and self._problem is not None:
            self._trip(self._problem)
        if request is not None:
            self._heed(now, request)
        if not self.driven:
            return
        if not self._details["fresh"]:
            self._details["held"] = True
        elif self.mode is Mode.STAND:
            progress = min(1.0, (now - self._start_time) / STAND_SECONDS)
            self._send(self._start + progress * (self._standing - self._start))
        else:
            self._run(now, command)

    def _check_clock(self, now: float) -> Fault | None:
        last = self._now
        if not isinstance(now, float | int) or not math.isfinite(now):
            return Fault("clock", f"the time of this tick is {now!r}, it must be finite: check the clock.")
        self._now = float(now)
        if last is None:
            return None
        if now < last:
            return Fault("clock", f"this tick came {last - now:.3f} s before the last: use time.monotonic.")
        if self.driven and now - last > self.limits.gap:
            gap = f"{now - last:.3f} s after the last, the limit is {self.limits.gap:.3f} s"
            return Fault("clock", f"this tick came {gap}: free the computer.")
        return None

    def _sense(self, now: float, reading: Reading | None) -> None:
        """Takes in the reading if it is news, and sets the problem with the newest one."""
        if reading is not None:
            if fault := _check_message(reading):
                self._problem = fault
                return
            news = self._sequence is None or reading.sequence > self._sequence
            self._details["reordered"] = not news and reading.sequence != self._sequence
            # Behind a damped robot numbers may start over: it was switched off and on again.
            if news or (self._details["reordered"] and not self.driven):
                self._sequence, self._stamp = reading.sequence, float(reading.stamp)
                self._problem = self._check_values(reading.values)
                self._details["fresh"] = True
        age = now - self._stamp if self._sequence is not None else math.nan
        self._details["age"] = age
        if self._sequence is None:
            self._problem = Fault("age", "nothing was read from the robot yet: check the link to it.")
        else:
            self._problem = safety.check_age(age, self.limits) or self._problem
        self._details["fresh"] &= age <= self.limits.fresh_age and self._problem is None

    def _check_values(self, values: Mapping[str, Any]) -> Fault | None:
        shapes = self._shapes | ({"orientation": (4,)} if "orientation" in values else {})
        if fault := safety.check_shapes(values, shapes) or safety.check_finite({name: values[name] for name in shapes}):
            return fault
        # Copies, because the robot may overwrite its own. What is not numbers is of no use to anyone.
        read = {name: np.array(value) for name, value in values.items() if safety.is_numbers(value)}
        for name in ("joint_position", "joint_velocity"):
            read[name] = read[name][self._from_robot].astype(np.float64)
        for name in self._repeats:
            same = name in self._unchanged and np.array_equal(read[name], self._unchanged[name])
            self._repeats[name] = self._repeats[name] + 1 if same else 0
            self._unchanged[name] = read[name]
        known = {name: read[name] for name in shapes}
        fault = safety.check_values(known, self.contract.joint_names, self.limits)
        fault = fault or safety.check_frozen(self._repeats, self.limits)
        if fault is None:
            self._values = read
        return fault

    def _heed(self, now: float, request: str) -> None:
        """Changes the mode as asked, or notes why not."""
        try:
            request = Request(request)
        except ValueError:
            known = ", ".join(Request)
            self._trip(Fault("request", f"the operator asked for {request!r}, known are {known}: check the device."))
            return
        refusal = ""
        match request, self.mode:
            case Request.DAMP, Mode.FAULT:
                refusal = "the robot is damped already, by a fault"
            case Request.DAMP, _:
                self.mode = Mode.DAMP
            case Request.CLEAR, Mode.FAULT if self._problem is None:
                self.mode, self.fault = Mode.IDLE, None
            case Request.CLEAR, Mode.FAULT:
                refusal = self._problem.sentence if self._problem else ""
            case Request.CLEAR, _:
                refusal = "there is no fault to clear"
            case _, Mode.FAULT:
                refusal = "there was a fault: clear it first"
            case Request.STAND, Mode.STAND:
                refusal = "the robot is standing up already"
            case Request.STAND, _ if self._problem is not None:
                refusal = self._problem.sentence
            case Request.STAND, _:
                self.mode, self._start_time = Mode.STAND, now
                position = self._values["joint_position"]
                self._start = self._last_target = safety.clamp_position(position, self.limits)
            case Request.RUN, Mode.STAND if now - self._start_time >= STAND_SECONDS:
                self._start_policy()
            case Request.RUN, Mode.STAND:
                refusal = f"the robot stands only in {self._start_time + STAND_SECONDS - now:.1f} s"
            case Request.RUN, Mode.RUN:
                refusal = "the policy runs already"
            case Request.RUN, _:
                refusal = "the robot must stand first"
        if refusal:
            self._details["note"] = f"{request.value} is refused: {refusal}"

    def _start_policy(self) -> None:
        try:
            self._state = self.policy.initial_state()
        except Exception as error:
            self._trip(Fault("policy", f"the policy cannot start: {_one_line(error)}. Export it again."))
            return
        self._builder.reset()
        self._last_action = np.zeros_like(self._default)
        self._saturated_periods = 0
        self.mode = Mode.RUN

    def _run(self, now: float, command: np.ndarray) -> None:
        """Runs one step of the policy."""
        if fault := safety.check_command(command, len(self.contract.commands)):
            self._trip(fault)
            return
        command = np.clip(command, self._command_low, self._command_high)
        self._details["command"] = command
        try:
            observation = self._builder.build(self._values, command, self._last_action, now)
        except ObservationError as error:
            self._trip(Fault("observation", f"{_one_line(error)}. Check the robot's adapter and the sources."))
            return
        except Exception as error:  # of a source
            self._trip(Fault("observation", f"the observation cannot be built: {_one_line(error)}. Check the sources."))
            return
        self._details["observation"] = observation
        if not np.isfinite(observation).all():
            where = int(np.argmin(np.isfinite(observation)))
            self._trip(Fault("observation", f"observation[{where}] is {observation[where]}, it must be finite."))
            return

        start = self._clock()
        try:
            step = self.policy.step(observation, self._state)
            action, target, state = step.action, step.target, step.state
        except Exception as error:
            self._trip(Fault("policy", f"the policy failed: {_one_line(error)}."))
            return
        seconds = self._clock() - start
        self._details["inference_seconds"] = seconds
        if fault := safety.check_action(action, target, len(self._default)):
            self._trip(fault)
            return
        action, target = action.astype(np.float64), target.astype(np.float64)
        self._details["action"] = action
        self._saturated_periods = self._saturated_periods + 1 if safety.saturated(action, self.limits) else 0
        fault = safety.check_inference(seconds, self.limits)
        if fault := fault or safety.check_saturation(self._saturated_periods, self.limits):
            self._trip(fault)
            return
        self._state = state
        self._last_action, target = safety.clip_action(action, target, self._default, self._scale, self.limits)
        self._send(target)

    def _send(self, target: np.ndarray) -> None:
        """Filters a target and makes it the last one."""
        stiffness, damping = self._gains[self.mode]
        position, velocity = self._values["joint_position"], self._values["joint_velocity"]
        target = safety.safe_target(target, self._last_target, position, velocity, stiffness, damping, self.limits)
        if fault := safety.check_target(target, self.contract.joint_names, self.limits):
            self._trip(fault)
            return
        self._last_target = target

    def _trip(self, fault: Fault) -> None:
        """Latches the first fault."""
        if self.mode is not Mode.FAULT:
            self.mode, self.fault = Mode.FAULT, fault

    def _output(self) -> Output:
        if self.driven:
            target, (stiffness, damping) = self._last_target, self._gains[self.mode]
        else:
            self._details["held"] = False
            # Where the joints are, though without stiffness it does not matter.
            target = np.clip(self._values.get("joint_position", self._default), self._hard_lower, self._hard_upper)
            stiffness, damping = self._damp_gains
        targets = Targets(target[self._to_robot], stiffness[self._to_robot], damping[self._to_robot])
        return Output(
            targets=targets,
            mode=self.mode,
            fault=self.fault,
            values=self._values,
            target=target.copy(),
            **self._details,
        )


def joint_maps(policy: Sequence[str], robot: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The places of the policy's joints [A] among the robot's, and of the robot's among the policy's.

    Raises:
      ContractError: they are not the same names, each once.
    """
    if len(set(robot)) != len(robot):
        twice = sorted({name for name in robot if robot.count(name) > 1})
        raise ContractError(f"the robot has joints of the same name: {', '.join(twice)}")
    missing, unknown = sorted(set(policy) - set(robot)), sorted(set(robot) - set(policy))
    if missing or unknown:
        faults = [f"lacks {', '.join(missing)}"] if missing else []
        faults += [f"also has {', '.join(unknown)}"] if unknown else []
        raise ContractError(f"the robot {' and '.join(faults)}: the policy was made for another robot")
    return np.array([robot.index(name) for name in policy]), np.array([policy.index(name) for name in robot])


def _check_message(reading: Any) -> Fault | None:
    """Checks that it is a reading at all."""
    if not isinstance(reading, Reading) or not isinstance(reading.values, Mapping):
        kind = type(reading).__name__
        return Fault("shape", f"the robot returned {kind}, not a reading of values: check the robot's adapter.")
    if isinstance(reading.sequence, bool) or not isinstance(reading.sequence, int | np.integer):
        return Fault("shape", f"a reading's sequence is {reading.sequence!r}, not an integer: check the adapter.")
    if not isinstance(reading.stamp, float | int) or not math.isfinite(reading.stamp):
        return Fault("age", f"a reading's stamp is {reading.stamp!r}, not a time: check the robot's adapter.")
    return None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
