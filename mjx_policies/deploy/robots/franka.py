"""A Franka arm, through `franky`: a policy of 20 to 50 Hz writes targets, a loop at 1 kHz makes a smooth way of them.

The way (`Interpolator`) keeps position, velocity, acceleration and jerk within limits, whatever is written; the loop
(`Franka`) keeps torques and their rate within theirs. Axes: J = 7 joints.

Why the limits hold. Two motions are chained. The first is chosen each millisecond, with an acceleration of at most `a`
that always leaves room to stop before the ends of the range; it may jerk. The second is the average of the first over
the last W milliseconds. Averages of positions, velocities and accelerations that lie within bounds lie within them,
and the average's jerk is the difference of two accelerations over W, at most 2 a / W. An FR3's velocity bounds depend
on the position q, v <= min(v_max, sqrt(k (q_end - q)) - c): the region below is convex, so averages stay in it too. The
first motion is in it because it brakes on v <= sqrt(2 a s), s being what is left of the range: with a <= k / 4 this
lies below the bound if the range ends at least 2 c^2 / k before q_end. `ArmLimits` is checked for that.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from mjx_policies.deploy.robot import Reading, Targets
from mjx_policies.deploy.robots import Clock, check_targets, ticks, usable

JOINTS = tuple(f"joint{i}" for i in range(1, 8))
PERIOD = 0.001  # s
COMMAND_TIMEOUT = 0.1  # s without a write, after which the arm stops
HOLD = 1.0  # s that it keeps its position then, before its stiffness fades
DAMPING = np.array((10.0, 10.0, 10.0, 10.0, 3.0, 3.0, 3.0))  # N m s / rad, of an arm without stiffness
MAX_STIFFNESS, MAX_DAMPING = 1000.0, 100.0
MAX_ERROR = 0.1  # rad, by which the spring is stretched at most: bounds the force when something is in the way
FADE = 0.5  # s in which gains go from one end of their range to the other
WINDOW = 20  # steps averaged

_SEVEN = tuple[float, float, float, float, float, float, float]


@dataclasses.dataclass(frozen=True)
class ArmLimits:
    """The documented limits of a model of the arm.

    Attributes:
      lower, upper: [J] rad, ends of the range.
      velocity, acceleration, jerk: [J] rad/s, rad/s^2, rad/s^3.
      effort: [J] N m.
      effort_rate: N m / s.
      bound_c, bound_k, bound_lower, bound_upper: [J] of the velocity bounds by position, see the module; k is 0 where
        there are none.
    """

    lower: _SEVEN
    upper: _SEVEN
    velocity: _SEVEN
    acceleration: _SEVEN
    jerk: _SEVEN
    effort: _SEVEN = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)
    effort_rate: float = 1000.0
    bound_c: _SEVEN = (0.0,) * 7
    bound_k: _SEVEN = (0.0,) * 7
    bound_lower: _SEVEN = (0.0,) * 7
    bound_upper: _SEVEN = (0.0,) * 7

    def velocity_bounds(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [J] -> [J], [J]
        """The lowest and the highest velocity allowed at a position."""
        top, c, k = (np.array(value) for value in (self.velocity, self.bound_c, self.bound_k))
        up = np.sqrt(np.maximum(k * (np.array(self.bound_upper) - position), 0)) - c
        down = np.sqrt(np.maximum(k * (position - np.array(self.bound_lower)), 0)) - c
        return (
            -np.where(k > 0, np.clip(down, 0, top), top),
            np.where(k > 0, np.clip(up, 0, top), top),
        )


FER = ArmLimits(  # the first generation, also called Panda; server versions up to 5
    lower=(-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
    upper=(2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
    velocity=(2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
    acceleration=(15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0),
    jerk=(7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0),
)
FR3 = ArmLimits(  # before system version 5.9.0: the ranges lie within those of later ones, so they do for them too
    lower=(-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159),
    upper=(2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159),
    velocity=(2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26),
    acceleration=(10.0,) * 7,
    jerk=(5000.0,) * 7,
    bound_c=(0.30, 0.20, 0.20, 0.30, 0.35, 0.35, 0.35),
    bound_k=(12.0, 5.17, 7.0, 8.0, 34.0, 11.0, 34.0),
    bound_lower=(-2.7501, -1.7918, -2.9065, -3.0481, -2.8101, 0.54092, -3.0196),
    bound_upper=(2.7501, 1.7918, 2.9065, -0.1458, 2.8101, 4.5205, 3.0196),
)


class Interpolator:
    """The way to the newest target. Deterministic; its time is the count of its steps.

    Attributes:
      lower, upper: [J] ends of the range used, `margin` within the arm's.
      position, velocity: [J] where it is.
    """

    def __init__(self, limits: ArmLimits, position: np.ndarray, share: float = 0.5, margin: float = 0.05):
        """Starts at rest.

        Args:
          limits: of the arm.
          position: [J] start.
          share: of velocity, acceleration and jerk that is used, in (0, 0.9].
          margin: rad kept from the ends of the range.

        Raises:
          ValueError: `share` or `margin` outside their range; the module tells how small a margin may be.
        """
        if not 0 < share <= 0.9:
            raise ValueError(f"share is {share}, it must lie above 0 and not above 0.9")
        self.lower, self.upper = np.array(limits.lower) + margin, np.array(limits.upper) - margin
        if not (margin >= 0 and (self.lower < self.upper).all()):
            raise ValueError(f"margin is {margin}, it must be at least 0 and leave some of the range")
        self._top = share * np.array(limits.velocity)
        jerk = share * np.array(limits.jerk)
        most = np.minimum(share * np.array(limits.acceleration), jerk * WINDOW * PERIOD / 2)
        k, c = np.array(limits.bound_k), np.array(limits.bound_c)
        bounded = k > 0
        self._most = np.where(bounded, np.minimum(most, k / 4), most)
        room = np.minimum(np.array(limits.bound_upper) - self.upper, self.lower - np.array(limits.bound_lower))
        if (bounded & (room * k < 2 * c**2)).any():
            raise ValueError(f"margin is {margin} rad: this arm's velocity bounds near the ends of its range need more")
        self.restart(position)

    def restart(self, position: np.ndarray) -> None:  # [J]
        """Stands at `position`, from now on."""
        self._ahead = np.array(position, np.float64)  # of the first motion
        self._ahead_velocity = np.zeros(7)
        self._window = np.tile(self._ahead, (WINDOW, 1))
        self._oldest = 0
        self.position, self.velocity = self._ahead.copy(), np.zeros(7)
        self._point = self._ahead.copy()  # moves on a straight line from target to target
        self._stride = np.zeros(7)
        self._strides = 0
        self._stopping = False

    @property
    def resting(self) -> bool:
        """Whether the point to be followed stands still."""
        return not self._ahead_velocity.any() and not self.velocity.any()

    def aim(self, target: np.ndarray, steps: int) -> None:  # [J]
        """Heads for `target`, which the point to be followed reaches in `steps`, the time between targets."""
        self._strides = max(int(steps), 1)
        self._stride = (np.clip(target, self.lower, self.upper) - self._point) / self._strides
        self._stopping = False

    def stop(self) -> None:
        """Brakes, and stays where that ends."""
        self._stopping = True

    def step(self) -> None:
        """Advances by one millisecond."""
        if self._strides > 0:
            self._point = self._point + self._stride
            self._strides -= 1
        change = self._most * PERIOD
        if self._stopping:
            wanted = np.zeros(7)
        else:
            away = self._point - self._ahead
            wanted = np.sign(away) * np.minimum(self._fastest(np.abs(away)), np.abs(away) / PERIOD)
        wanted = np.clip(wanted, -self._top, self._top)
        self._ahead_velocity = np.clip(wanted, self._ahead_velocity - change, self._ahead_velocity + change)
        self._ahead = self._ahead + self._ahead_velocity * PERIOD
        if self._stopping:
            self._point, self._strides = self._ahead.copy(), 0
        self._window[self._oldest] = self._ahead
        self._oldest = (self._oldest + 1) % WINDOW
        position = self._window.mean(axis=0)
        self.velocity = (position - self.position) / PERIOD  # exactly zero where it stands
        self.position = position

    def _fastest(self, room: np.ndarray) -> np.ndarray:  # [J] >= 0 -> [J]
        """The velocity of the next step from which braking step by step ends after exactly `room`.

        The point followed stays within the range, so what leaves room before the point leaves room before the ends.
        """
        half = self._most * PERIOD / 2
        return np.sqrt(half**2 + 2 * self._most * room) - half


@dataclasses.dataclass(frozen=True)
class ArmCommand:
    """The input of the arm's impedance law: stiffness (position - q) + damping (velocity - dq) + torque; all [J]."""

    position: np.ndarray
    velocity: np.ndarray
    stiffness: np.ndarray
    damping: np.ndarray
    torque: np.ndarray


class Arm(Protocol):
    """The little of `franky` that is used here."""

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """Angles and speeds, [J] and [J]; an exception if the arm's own safety stopped it."""
        ...

    def command(self, command: ArmCommand) -> None:
        """Takes effect within a millisecond."""
        ...

    def stop(self) -> None:
        """Comes to rest without stiffness, and lets go."""
        ...


def connect(host: str, limits: ArmLimits = FR3) -> Franka:
    """An arm whose loop runs; see `Franka`."""
    robot = Franka(host, limits=limits)
    robot.start()
    return robot


class Franka:
    """A Franka arm behind the protocol `Robot`. See the module.

    Until the first write, the arm is without stiffness and can be led by hand. Targets without stiffness first brake
    it. When nothing was written for `COMMAND_TIMEOUT` it brakes, keeps its position for `HOLD` and then loses its
    stiffness; the next write takes it up from where it is.
    """

    def __init__(
        self,
        host: str = "",
        *,
        limits: ArmLimits = FR3,
        name: str = "franka",
        target_period: float = 0.05,
        arm: Arm | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        """Connects.

        Args:
          host: address of the arm's controller.
          limits: of the arm, `FER` or `FR3`.
          name: of the robot, as in the contract.
          target_period: s from one write to the next, the policy's control period.
          arm: another way to the arm.
          clock, sleep: in s, the loop's.

        Raises:
          ImportError: `franky` is not installed.
          RuntimeError: the arm's state cannot be computed with.
          ValueError: a period beyond 0.02 to 0.05 s.
        """
        if not 0.02 <= target_period <= 0.05:
            raise ValueError(f"target_period is {target_period} s, this arm is for policies of 20 to 50 Hz")
        self._name, self._limits, self._target_steps = name, limits, round(target_period / PERIOD)
        self._arm: Arm = FrankyArm(host) if arm is None else arm
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._targets: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._written, self._fresh = -np.inf, False
        self._failure = ""
        position, velocity = _usable_state(self._arm)
        self._reading = Reading(clock(), 1, _values(position, velocity))
        self._way = Interpolator(limits, position)
        self._stiffness, self._damping = np.zeros(7), np.zeros(7)
        self._torque = np.zeros(7)
        self._rested = 0.0  # s that it stood still for want of targets
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="franka loop", daemon=True)

    @property
    def name(self) -> str:
        """The name of the robot."""
        return self._name

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The names of the joints, from the base to the hand."""
        return JOINTS

    def start(self) -> None:
        """Starts the loop."""
        self._thread.start()

    def read(self) -> Reading | None:
        """The newest measurement.

        Raises:
          RuntimeError: the loop ended, because the arm's own safety stopped it or the connection broke.
        """
        self._check()
        return self._reading

    def write(self, targets: Targets) -> None:
        """Heads for these targets.

        Raises:
          ValueError: they are not finite, not of this robot's shape or beyond the arm's range or gains. It brakes then.
          RuntimeError: as in `read`.
        """
        self._check()
        try:
            checked = self._check_limits(targets)
        except ValueError:
            with self._lock:
                self._targets = None
            raise
        with self._lock:
            self._targets, self._written, self._fresh = checked, self._clock(), True

    def close(self) -> None:
        """Brakes, fades and lets go."""
        with self._lock:
            self._targets = None
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._arm.stop()

    def step(self, now: float) -> None:
        """One millisecond: reads the arm, moves on, commands. The loop does this.

        Raises:
          Exception: the arm's own safety stopped it, or its state cannot be computed with. The arm is stopped then.
        """
        try:
            self._step(now)
        except Exception as error:
            self._fail(error)
            raise

    def _step(self, now: float) -> None:
        position, velocity = _usable_state(self._arm)
        self._reading = Reading(self._clock(), self._reading.sequence + 1, _values(position, velocity))
        with self._lock:
            if now - self._written > COMMAND_TIMEOUT:
                self._targets = None  # latched: what comes back must be written anew
            targets, fresh, self._fresh = self._targets, self._fresh, False
        driven = targets is not None and targets[1].any()
        if not self._stiffness.any() and self._way.resting:
            self._way.restart(position)  # a hand may have led it elsewhere
        if driven and targets is not None:
            if fresh:
                self._way.aim(targets[0], self._target_steps)
            self._rested = 0.0
            stiffness, damping = targets[1], targets[2]
        else:
            self._way.stop()
            self._rested = self._rested + PERIOD if self._way.resting else 0.0
            stays = not self._way.resting or (targets is None and self._rested < HOLD)
            stiffness = self._stiffness if stays else np.zeros(7)
            damping = self._damping if stays else DAMPING if targets is None else targets[2]
        self._way.step()
        self._stiffness = _towards(self._stiffness, stiffness, MAX_STIFFNESS * PERIOD / FADE)
        self._damping = _towards(self._damping, damping, MAX_DAMPING * PERIOD / FADE)
        way = self._way
        error, slip = way.position - position, self._damping * (way.velocity - velocity)
        wanted = self._stiffness * np.clip(error, -MAX_ERROR, MAX_ERROR) + slip
        most = 0.9 * np.array(self._limits.effort)
        self._torque = _towards(self._torque, np.clip(wanted, -most, most), 0.8 * self._limits.effort_rate * PERIOD)
        surplus = self._torque - self._stiffness * error - slip  # none unless one of the limits applies
        self._arm.command(ArmCommand(way.position, way.velocity, self._stiffness, self._damping, surplus))

    def _run(self) -> None:
        try:
            for now in ticks(PERIOD, self._stop.is_set, self._clock, self._sleep):
                self.step(now)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Stops the arm, and keeps the error for where the runtime calls, since the loop's thread cannot raise it."""
        if not self._failure:
            self._failure = f"the arm stopped: {type(error).__name__}: {error}"
            self._arm.stop()

    def _check(self) -> None:
        if self._failure:
            raise RuntimeError(self._failure)

    def _check_limits(self, targets: Targets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # three of [J]
        position, stiffness, damping = check_targets(targets, 7)
        lower, upper = np.array(self._limits.lower), np.array(self._limits.upper)
        beyond = (stiffness > 0) & ((position < lower) | (position > upper))
        if beyond.any():
            i = int(np.argmax(beyond))
            raise ValueError(
                f"the target of joint {JOINTS[i]} is {position[i]:.4g} rad, its limits are {lower[i]:g} to {upper[i]:g}"
            )
        for what, gains, limit in (("stiffness", stiffness, MAX_STIFFNESS), ("damping", damping, MAX_DAMPING)):
            if (gains > limit).any():
                i = int(np.argmax(gains))
                raise ValueError(
                    f"the {what} of joint {JOINTS[i]} is {gains[i]:.4g}, this arm is given {limit:g} at most"
                )
        return position, stiffness, damping


def _usable_state(arm: Arm) -> tuple[np.ndarray, np.ndarray]:  # [J], [J]
    """Angles and speeds of the arm. One NaN of theirs would stay in the torque for good.

    Raises:
      RuntimeError: they are not finite, or what no arm does.
    """
    position, velocity = arm.state()
    if not usable(position, velocity):
        told = f"angles {np.asarray(position).tolist()} rad and speeds {np.asarray(velocity).tolist()} rad/s"
        raise RuntimeError(f"the arm reports {told}: its sensors are at fault, switch it off and on again")
    return position, velocity


def _towards(now: np.ndarray, goal: np.ndarray, most: float) -> np.ndarray:  # [J], [J] -> [J]
    return now + np.clip(goal - now, -most, most)


def _values(position: np.ndarray, velocity: np.ndarray) -> dict[str, np.ndarray]:
    return {"joint_position": np.array(position, np.float64), "joint_velocity": np.array(velocity, np.float64)}


class FrankyArm:
    """`Arm` by franky's tracker of joint impedance, whose own loop in C++ meets the arm's deadlines."""

    def __init__(self, host: str):
        try:
            import franky
        except ImportError as error:
            raise ImportError(
                f"a Franka arm needs the package franky, which cannot be imported here ({error}): "
                "pip install franky-control"
            ) from error
        self._franky: Any = franky
        self._robot = franky.Robot(host)
        self._tracker: Any = None
        self._gains: tuple[Any, Any] | None = None

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Arm`."""
        state = self._robot.current_joint_state
        return np.array(state.position), np.array(state.velocity)

    def command(self, command: ArmCommand) -> None:
        """See `Arm`."""
        gains = command.stiffness.tolist(), command.damping.tolist()
        if self._tracker is None:
            tracker = self._franky.JointImpedanceTracker(
                self._robot, stiffness=gains[0], damping=gains[1], max_delta_tau=1.0
            )
            self._tracker = tracker.__enter__()
        elif gains != self._gains:
            self._tracker.set_gains(stiffness=gains[0], damping=gains[1])
        if not self._tracker.tick():
            raise RuntimeError("the arm ended its motion, as it does when its own safety stops it")
        self._gains = gains
        self._tracker.set_target(
            command.position.tolist(), dq=command.velocity.tolist(), tau_ff=command.torque.tolist()
        )

    def stop(self) -> None:
        """See `Arm`."""
        if self._tracker is not None:
            tracker, self._tracker = self._tracker, None
            try:
                self._robot.move(self._franky.TorqueStopMotion())
            finally:
                tracker.__exit__(None, None, None)
