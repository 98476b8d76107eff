"""Checks of what goes into and comes out of a policy on a robot, and the filters of its targets, each a pure function.

In order: age, shape, finite, quaternion, tilt, gyro, joint_position, joint_velocity, frozen; the policy with its
deadline; action, saturation; then the filters `clip_action`, `clamp_position`, `limit_rate`, `clamp_torque`, and
`check_target` on what they made. A check returns None or a `Fault`, which ends in damping. Filters take batches.
Axes: A joints in the policy's order, ... any batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mjx_policies.deploy.contract import Contract

FAULTS = {
    "age": "the newest reading was too old, or its stamp was not of this clock",
    "shape": "a reading lacked a value, or one was not numbers of the expected shape",
    "finite": "a reading held a value that is not finite",
    "quaternion": "the orientation was not a unit quaternion",
    "tilt": "the robot leaned too far",
    "gyro": "the gyroscope read more than it can measure",
    "joint_position": "a joint angle was outside what the joint can reach",
    "joint_velocity": "a joint was faster than it can be",
    "frozen": "a sensor repeated exactly the same values",
    "command": "the operator's command was not finite numbers of the expected shape",
    "request": "the operator asked for something unknown",
    "observation": "the observation could not be built",
    "policy": "the policy failed",
    "deadline": "the policy took too long",
    "action": "the policy's output was not finite numbers of the expected shape",
    "saturation": "the policy asked for the utmost for too long",
    "target": "a target was outside its limits after all filters",
    "clock": "the clock of the loop ran backwards or leapt",
    "robot": "the robot could not be read or written",
    "operator": "the operator's device failed",
    "internal": "the runtime itself failed",
}
"""What each fault means, by name."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """The fault for which a robot is damped.

    Attributes:
      name: the check that tripped, a key of `FAULTS`.
      sentence: what was found, the limit, and what to do.
    """

    name: str
    sentence: str

    def __post_init__(self) -> None:
        if self.name not in FAULTS:
            raise ValueError(f"no fault is named {self.name!r}; there are: {', '.join(FAULTS)}")


@dataclasses.dataclass(frozen=True)
class SafetyLimits:
    """Numbers of all checks and filters; `limits_of` makes them for a contract. Arrays are [A].

    Attributes:
      fresh_age: s, up to which a reading is acted on; between this and `lost_age` the last targets hold.
      lost_age: s, beyond which a reading is a fault.
      ahead: s, by which a reading's stamp may lie in the future.
      gap: s, longest time from one tick to the next while the robot is driven.
      quaternion_error: of the orientation's norm from 1.
      tilt: rad, between the imu's up and the world's.
      gyro: rad/s, of the imu about any of its axes.
      lower, upper: rad, plausible joint angles.
      velocity: rad/s, plausible joint speeds.
      frozen_periods: readings in a row with identical values.
      inference_seconds: for one step of the policy.
      action_clip: bound of the absolute action; inf for none.
      action_bound: of the absolute action, beyond which more of it changes nothing.
      saturation_periods: actions in a row at the clip in all joints, or beyond the bound in any.
      soft_lower, soft_upper: rad, of targets.
      target_step: rad, change of a target from one tick to the next; of all joints, or [A].
      effort: N m, of the torque that a target asks for.
    """

    fresh_age: float
    lost_age: float
    ahead: float
    gap: float
    quaternion_error: float
    tilt: float
    gyro: float
    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    frozen_periods: int
    inference_seconds: float
    action_clip: float
    action_bound: np.ndarray
    saturation_periods: int
    soft_lower: np.ndarray
    soft_upper: np.ndarray
    target_step: float | np.ndarray
    effort: np.ndarray

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = np.asarray(getattr(self, field.name))
            if np.any(np.isnan(value)):
                raise ValueError(f"limits: {field.name} is not a number")
            if value.ndim == 0 and value <= 0:
                raise ValueError(f"limits: {field.name} is {value}, it must be above zero")
            if value.ndim and value.shape != self.lower.shape:
                raise ValueError(f"limits: {field.name} has shape {value.shape}, not {self.lower.shape}")
        if self.fresh_age > self.lost_age:
            raise ValueError(f"limits: fresh_age {self.fresh_age} s lies beyond lost_age {self.lost_age} s")
        if not np.all((self.lower <= self.soft_lower) & (self.soft_lower < self.soft_upper)):
            raise ValueError("limits: lower <= soft_lower < soft_upper does not hold for every joint")
        if not np.all(self.soft_upper <= self.upper):
            raise ValueError("limits: soft_upper <= upper does not hold for every joint")


def limits_of(contract: Contract, **changes: Any) -> SafetyLimits:
    """The limits that suit the robot and the policy of a contract.

    Args:
      contract: of the policy.
      changes: fields of `SafetyLimits` to replace.
    """

    def column(name: str) -> np.ndarray:
        return np.array([getattr(joint, name) for joint in contract.joints])

    control_dt, clip = contract.timing.control_dt, contract.action.clip
    rounding = 1 + 1e-6  # a reading of the last tick is one period old, not a hair more
    lower, upper, effort, stiffness = (column(name) for name in ("lower", "upper", "effort", "stiffness"))
    # From one end of the range, a target beyond the other by effort / stiffness already asks for the full torque there.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        bound = (upper - lower + np.where(stiffness > 0, effort / stiffness, 0.0)) / np.abs(column("scale"))
    limits = SafetyLimits(
        fresh_age=rounding * min(control_dt, contract.timing.max_observation_age),
        lost_age=rounding * 2 * control_dt,
        ahead=0.1 * control_dt,
        gap=5 * control_dt,  # 0.1 s at 50 Hz, after which motor drivers give up by themselves
        quaternion_error=0.1,
        tilt=1.0,
        gyro=35.0,  # 2000 degrees/s, where the widest range of such sensors ends
        lower=lower - 0.2,  # encoders are off, and end stops give
        upper=upper + 0.2,
        velocity=2 * column("velocity"),  # a foot that is knocked moves its joint faster than the motor could
        frozen_periods=10,
        inference_seconds=0.5 * control_dt,
        action_clip=clip if clip > 0 else np.inf,
        action_bound=np.nan_to_num(bound, nan=np.inf),
        saturation_periods=max(1, round(0.5 / control_dt)),
        soft_lower=column("soft_lower"),
        soft_upper=column("soft_upper"),
        target_step=contract.action.rate_limit * control_dt,
        effort=effort,
    )
    return dataclasses.replace(limits, **changes)


def is_numbers(value: Any) -> bool:
    """Whether `value` is an array of real numbers."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiu"


def check_age(age: float, limits: SafetyLimits) -> Fault | None:
    """The fault of the newest reading's age, s, if any. NaN is a fault."""
    if -limits.ahead <= age <= limits.lost_age:
        return None
    if age > limits.lost_age:
        what = f"{1e3 * age:.1f} ms old, the limit is {1e3 * limits.lost_age:.1f} ms: check the link to the robot"
    else:
        what = f"stamped {-1e3 * age:.1f} ms ahead of this clock: readings must be stamped with time.monotonic"
    return Fault("age", f"the newest reading is {what}.")


def check_shapes(values: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Fault | None:
    """Checks that every name of `shapes` was read, as numbers of that shape."""
    for name, shape in shapes.items():
        if name not in values:
            return Fault("shape", f"the reading lacks {name}: check the robot's adapter.")
        value = values[name]
        if not is_numbers(value):
            kind = getattr(value, "dtype", type(value).__name__)
            return Fault("shape", f"{name} is {kind}, not an array of real numbers: check the robot's adapter.")
        if value.shape != shape:
            return Fault("shape", f"{name} has shape {value.shape}, not {shape}: check the robot's adapter.")
    return None


def check_finite(values: Mapping[str, np.ndarray]) -> Fault | None:
    """Checks that no value is NaN or infinite."""
    for name, value in values.items():
        if not np.isfinite(value).all():
            where = int(np.flatnonzero(~np.isfinite(value))[0])
            return Fault("finite", f"{name}[{where}] is {value.flat[where]}, it must be finite: check the sensor.")
    return None


def check_quaternion(orientation: np.ndarray, limits: SafetyLimits) -> Fault | None:  # [4]
    """Checks that the orientation is nearly of unit length."""
    norm = math.hypot(*orientation.tolist())
    if abs(norm - 1) <= limits.quaternion_error:
        return None
    return Fault("quaternion", f"the orientation has norm {norm:.4g}, not 1 ± {limits.quaternion_error:g}.")


def tilt(orientation: np.ndarray) -> float:  # [4] w, x, y, z -> rad
    """Angle between the imu's up and the world's."""
    w, x, y, z = orientation.tolist()
    return 2 * math.atan2(math.hypot(x, y), math.hypot(w, z))


def check_tilt(orientation: np.ndarray, limits: SafetyLimits) -> Fault | None:  # [4]
    """Checks that the robot is not falling over."""
    angle = tilt(orientation)
    if angle <= limits.tilt:
        return None
    return Fault("tilt", f"the robot leans by {angle:.2f} rad, the limit is {limits.tilt:.2f} rad: set it upright.")


def check_joint_position(position: np.ndarray, names: Sequence[str], limits: SafetyLimits) -> Fault | None:  # [A]
    """Checks that every joint is where it can be."""
    excess = np.maximum(limits.lower - position, position - limits.upper)
    worst = int(np.argmax(excess))
    if excess[worst] <= 0:
        return None
    lower, upper = limits.lower[worst], limits.upper[worst]
    return Fault(
        "joint_position",
        f"joint {names[worst]} is at {position[worst]:.4g} rad, outside {lower:.2f}..{upper:.2f} rad: "
        "check its encoder and the order of joints.",
    )


def check_joint_velocity(velocity: np.ndarray, names: Sequence[str], limits: SafetyLimits) -> Fault | None:  # [A]
    """Checks that every joint is as slow as it must be."""
    excess = np.abs(velocity) - limits.velocity
    worst = int(np.argmax(excess))
    if excess[worst] <= 0:
        return None
    return Fault(
        "joint_velocity",
        f"joint {names[worst]} moves at {velocity[worst]:.4g} rad/s, the limit is {limits.velocity[worst]:.1f} rad/s: "
        "check its encoder.",
    )


def check_frozen(repeats: Mapping[str, int], limits: SafetyLimits) -> Fault | None:
    """Checks that no sensor stands still; `repeats` counts how often each value came again since it last changed."""
    for name, count in repeats.items():
        if count >= limits.frozen_periods:
            return Fault("frozen", f"{name} was identical {count} times in a row: the sensor is frozen, restart it.")
    return None


def check_gyro(gyro: np.ndarray, limits: SafetyLimits) -> Fault | None:  # [3]
    """Checks that the robot turns no faster than an imu can tell."""
    speed = float(np.abs(gyro).max())
    if speed <= limits.gyro:
        return None
    return Fault("gyro", f"the gyroscope reads {speed:.4g} rad/s, the limit is {limits.gyro:.1f} rad/s: check the imu.")


def check_values(values: Mapping[str, np.ndarray], names: Sequence[str], limits: SafetyLimits) -> Fault | None:
    """The first fault in one reading's values [A] alone, of the right shapes and finite, in the order of the module.

    Args:
      values: `orientation` and `gyro` may be absent.
      names: [A] of the joints.
      limits: as ever.
    """
    fault = None
    if "orientation" in values:
        fault = check_quaternion(values["orientation"], limits) or check_tilt(values["orientation"], limits)
    if fault is None and "gyro" in values:
        fault = check_gyro(values["gyro"], limits)
    return (
        fault
        or check_joint_position(values["joint_position"], names, limits)
        or check_joint_velocity(values["joint_velocity"], names, limits)
    )


def check_command(command: Any, size: int) -> Fault | None:
    """Checks that the operator's command is `size` finite numbers."""
    if not is_numbers(command) or command.shape != (size,):
        shape = getattr(command, "shape", type(command).__name__)
        return Fault("command", f"the command is {shape}, not {size} numbers: check the operator's device.")
    if not np.isfinite(command).all():
        return Fault("command", f"the command is {command.tolist()}, it must be finite: check the operator's device.")
    return None


def check_inference(seconds: float, limits: SafetyLimits) -> Fault | None:
    """Checks that the policy was quick enough. NaN is a fault."""
    if seconds <= limits.inference_seconds:
        return None
    limit = 1e3 * limits.inference_seconds
    return Fault("deadline", f"the policy took {1e3 * seconds:.1f} ms, the limit is {limit:.1f} ms: free the computer.")


def check_action(action: Any, target: Any, joints: int) -> Fault | None:
    """Checks that the policy's output is [A] finite numbers each."""
    for name, value in (("action", action), ("target", target)):
        if not is_numbers(value) or value.shape != (joints,):
            shape = getattr(value, "shape", type(value).__name__)
            return Fault("action", f"the policy's {name} is {shape}, not {joints} numbers: export the policy again.")
        if not np.isfinite(value).all():
            where = int(np.flatnonzero(~np.isfinite(value))[0])
            return Fault("action", f"the policy's {name}[{where}] is {value[where]}, it must be finite.")
    return None


def saturated(action: np.ndarray, limits: SafetyLimits) -> np.ndarray:  # [..., A] -> [...] bool
    """Whether the policy asks for the utmost: all actions at the clip, or any beyond what has an effect."""
    size = np.abs(action)
    at_clip = (size >= (1 - 1e-6) * limits.action_clip).all(-1)
    return at_clip | (size > limits.action_bound).any(-1)


def check_saturation(periods: int, limits: SafetyLimits) -> Fault | None:
    """Checks that the policy has not been `saturated` for too many periods in a row."""
    if periods < limits.saturation_periods:
        return None
    return Fault(
        "saturation",
        f"the policy asked for the utmost {periods} times in a row, the limit is {limits.saturation_periods}: "
        "it does not know this situation.",
    )


def check_target(target: np.ndarray, names: Sequence[str], limits: SafetyLimits) -> Fault | None:  # [A]
    """Checks that the filters did their work. NaN is a fault."""
    good = (target >= limits.soft_lower) & (target <= limits.soft_upper)
    if good.all():
        return None
    worst = int(np.argmin(good))
    lower, upper = limits.soft_lower[worst], limits.soft_upper[worst]
    return Fault(
        "target", f"the target of {names[worst]} is {target[worst]} rad, outside {lower:.3f}..{upper:.3f} rad."
    )


def clip_action(
    action: np.ndarray, target: np.ndarray, default: np.ndarray, scale: np.ndarray, limits: SafetyLimits
) -> tuple[np.ndarray, np.ndarray]:  # all [..., A]
    """Action within its clip, and its target; where the action was not, the target becomes default + scale * action."""
    clipped = np.clip(action, -limits.action_clip, limits.action_clip)
    return clipped, np.where(clipped == action, target, default + scale * clipped)


def clamp_position(target: np.ndarray, limits: SafetyLimits) -> np.ndarray:  # [..., A] -> [..., A]
    """Clamps targets to the soft limits."""
    return np.clip(target, limits.soft_lower, limits.soft_upper)


def limit_rate(
    target: np.ndarray, last: np.ndarray, limits: SafetyLimits
) -> np.ndarray:  # [..., A], [..., A] -> [..., A]
    """Targets no farther than a step from the last ones."""
    return np.clip(target, last - limits.target_step, last + limits.target_step)


def clamp_torque(
    target: np.ndarray,
    position: np.ndarray,
    velocity: np.ndarray,
    stiffness: np.ndarray,
    damping: np.ndarray,
    limits: SafetyLimits,
) -> np.ndarray:  # all [..., A]
    """Targets moved just so far that the servo's torque, by the angles and speeds measured, stays within the effort.

    A servo without stiffness does not heed its target, which is then left as it is.
    """
    stiff = stiffness > 0
    gain = np.where(stiff, stiffness, 1.0)
    middle = position + damping * velocity / gain
    reach = limits.effort / gain
    return np.where(stiff, np.clip(target, middle - reach, middle + reach), target)


def safe_target(
    target: np.ndarray,
    last: np.ndarray,
    position: np.ndarray,
    velocity: np.ndarray,
    stiffness: np.ndarray,
    damping: np.ndarray,
    limits: SafetyLimits,
) -> np.ndarray:  # all [..., A]
    """All filters of a target in their order.

    For finite numbers the result lies within the soft limits, always. It asks for no more than the effort unless all
    targets within the soft limits do; then it is the one that asks for least. It is at most a step from the last target
    unless the effort, which comes first, demands more.
    """
    target = limit_rate(clamp_position(target, limits), clamp_position(last, limits), limits)
    target = clamp_torque(target, position, velocity, stiffness, damping, limits)
    return clamp_position(target, limits)
