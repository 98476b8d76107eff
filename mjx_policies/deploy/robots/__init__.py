"""Robots, one module each, which imports what its robot needs. Here is what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mjx_policies.deploy.robot import Targets

Clock = Callable[[], float]
"""Seconds, as `time.monotonic` counts them."""

MAX_ANGLE, MAX_SPEED = 10.0, 100.0
"""rad and rad/s, more than any joint here can do: an encoder that says so is at fault, whatever the task."""


def usable(position: np.ndarray, velocity: np.ndarray) -> bool:
    """Whether an adapter may compute with angles and speeds, both [A], before the controller has checked them."""
    return bool((np.abs(position) <= MAX_ANGLE).all() and (np.abs(velocity) <= MAX_SPEED).all())  # NaN is not


def ticks(period: float, stopped: Callable[[], bool], clock: Clock, sleep: Callable[[float], None]) -> Iterator[float]:
    """Yields the time once every `period` (s), until `stopped`.

    Deadlines are multiples of the period after the first, so the rate does not drift. What is missed is skipped: a loop
    that was held up does not run in a burst afterwards.
    """
    deadline = clock()
    while not stopped():
        yield clock()
        now = clock()
        deadline += period * max(1, -int((deadline - now) // period))
        if deadline > now:
            sleep(deadline - now)


def check_targets(targets: Targets, joints: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # three of [A]
    """Position, stiffness and damping as arrays of the robot's own.

    Raises:
      ValueError: a shape, a number that is not finite, or a negative gain.
    """
    found = []
    for name in ("position", "stiffness", "damping"):
        value = np.array(getattr(targets, name), np.float64)  # a copy: what the caller does to it later changes nothing
        if value.shape != (joints,):
            raise ValueError(f"the targets' {name} has shape {value.shape}, this robot takes ({joints},)")
        if not np.isfinite(value).all():
            raise ValueError(f"the targets' {name} is not finite: {value}")
        if name != "position" and (value < 0).any():
            raise ValueError(f"the targets' {name} is negative: {value}; gains start at 0")
        found.append(value)
    position, stiffness, damping = found
    return position, stiffness, damping
