"""The protocol of a robot: what the runtime reads and writes. Axes: A joints, in the robot's own order.

Everything is matched by name; the order of a robot's joints need not be the policy's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class Reading:
    """The newest that the robot sensed.

    Attributes:
      stamp: s, when it was measured, on the clock of `time.monotonic`.
      sequence: counts measurements; a smaller or equal number than before is old news.
      values: by name: `gyro` [3] rad/s in the imu's frame, `orientation` [4] of the imu as w, x, y, z,
        `joint_position` [A] rad, `joint_velocity` [A] rad/s, and what else the robot has.
    """

    stamp: float
    sequence: int
    values: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Targets:
    """The targets of the servos: torque = stiffness * (position - angle) - damping * velocity.

    Attributes:
      position: [A] rad.
      stiffness, damping: [A] N m / rad, N m s / rad. Zero stiffness with some damping lets the robot sink down gently.
    """

    position: np.ndarray
    stiffness: np.ndarray
    damping: np.ndarray


class Robot(Protocol):
    """A robot, real or simulated. Neither call blocks for longer than a fraction of a control period."""

    @property
    def name(self) -> str:
        """The robot's name, such as `go2`; must be that of the contract."""
        ...

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The names of the joints in the order of `read` and `write`."""
        ...

    def read(self) -> Reading | None:
        """The newest measurement, or None before the first."""
        ...

    def write(self, targets: Targets) -> None:
        """Sends targets, which hold until the next ones, or until the robot's own watchdog gives up waiting."""
        ...

    def close(self) -> None:
        """Leaves the robot damped and lets go of it."""
        ...
