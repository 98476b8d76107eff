"""The observation of a contract, built from what a robot senses, as the policy saw it in training.

| term | raw value, before clip and scale |
|---|---|
| `gyro` | as read, rad/s in the imu's frame |
| `gravity` | unit vector that points down, in the imu's frame |
| `joint_position` | angle - home, rad, of the policy's first joints: as many as the term is long |
| `joint_velocity` | as read, rad/s, of the same |
| `last_action` | the action before this one, zero at the start |
| `command` | the operator's, in the contract's order |
| `gait` | cosine and sine of the gait's phase, both zero while the robot stands |

Any other term needs a source of its own. Axes: D observation, A joints in the policy's order, C commands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mjx_policies.deploy.contract import Contract, ContractError, ContractTerm

Source = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""From the reading's values, joints in the policy's order, to the raw value [size] of a term."""


class ObservationError(ValueError):
    """An observation cannot be built; the message says of which term and why."""


def gravity(orientation: np.ndarray) -> np.ndarray:  # [4] w, x, y, z -> [3]
    """The unit vector that points down, in the rotated frame; a quaternion slightly off unit length is forgiven."""
    w, x, y, z = orientation / np.linalg.norm(orientation)
    return np.array([2 * (w * y - x * z), -2 * (y * z + w * x), 2 * (x * x + y * y) - 1])


class ObservationBuilder:
    """Builds one observation for each control period, and keeps the histories and the gait's phase.

    Args:
      contract: of the policy.
      sources: by name, what measures the terms that this library does not know.

    Raises:
      ContractError: a term is unknown and has no source, or has a size that does not fit the robot.
    """

    def __init__(self, contract: Contract, sources: Mapping[str, Source] | None = None):
        self.contract = contract
        self._home = np.array([joint.home for joint in contract.joints])
        self._sources = dict(sources or {})
        _check_terms(contract, self._sources)
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the robot stands, and the first reading fills the histories."""
        gait = self.contract.gait
        self._histories: dict[str, np.ndarray] = {}
        self._command: np.ndarray | None = None
        self._time = 0.0
        self._phase = np.float32(0)
        self._braking_steps = round(gait.braking_seconds / self.contract.timing.control_dt) if gait else 0
        self._age = self._braking_steps  # control steps since the command changed: told to stand, it stands already

    def build(
        self, values: Mapping[str, np.ndarray], command: np.ndarray, last_action: np.ndarray, time: float
    ) -> np.ndarray:
        """The observation [D] float32; call it once for every action.

        Args:
          values: of a reading, joints in the policy's order.
          command: [C].
          last_action: [A].
          time: s, of this control step. Where steps were left out, the gait goes on by as many.

        Raises:
          ObservationError: a value is missing or misshapen.
        """
        self._advance_gait(np.asarray(command, np.float32), time)
        parts = []
        for term in self.contract.observation:
            try:
                raw = np.asarray(self._raw(term, values, last_action), np.float64)
            except KeyError as error:
                raise ObservationError(f"observation term {term.name!r} needs {error}, which was not read") from None
            if raw.shape != (term.size,):
                raise ObservationError(f"observation term {term.name!r} has shape {raw.shape}, not ({term.size},)")
            if term.clip > 0:
                raw = np.clip(raw, -term.clip, term.clip)
            parts.append(self._stack(term, raw * term.scale))
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, which the reader must refuse
            return np.concatenate(parts, dtype=np.float32, casting="same_kind")

    def _raw(self, term: ContractTerm, values: Mapping[str, np.ndarray], last_action: np.ndarray) -> np.ndarray:
        match term.name:
            case "gyro":
                return values["gyro"]
            case "joint_velocity":
                return values["joint_velocity"][: term.size]
            case "gravity":
                return gravity(values["orientation"])
            case "joint_position":
                return (values["joint_position"] - self._home)[: term.size]
            case "last_action":
                return last_action
            case "command":
                return self._command if self._command is not None else np.zeros(term.size)
            case "gait":
                angle = 2 * np.pi * self._phase
                return np.array([np.cos(angle), np.sin(angle)]) if self._steps_out() else np.zeros(2)
            case _:
                return self._sources[term.name](values)

    def _stack(self, term: ContractTerm, value: np.ndarray) -> np.ndarray:  # [size] -> [size * history]
        if term.history == 1:
            return value
        rows = self._histories.get(term.name)  # [history, size], the newest first
        if rows is None:
            rows = np.tile(value, (term.history, 1)) if term.fill == "first" else np.zeros((term.history, term.size))
        rows = np.concatenate([value[None], rows[:-1]])
        self._histories[term.name] = rows
        return (rows if term.newest_first else rows[::-1]).ravel()

    def _steps_out(self) -> bool:
        """Whether the clock runs: the robot is told to move, or was a moment ago."""
        return bool(np.any(self._command != 0)) or self._age < self._braking_steps

    def _advance_gait(self, command: np.ndarray, time: float) -> None:
        """One step of the clock under the command so far, in float32 as in training, and then the new command."""
        if self._command is None:
            self._command, self._time = command.copy(), time
            return
        gait, control_dt = self.contract.gait, self.contract.timing.control_dt
        steps = max(1, round((time - self._time) / control_dt))
        if gait is not None:
            moving = bool(np.any(self._command != 0))
            running = steps if moving else min(steps, max(0, self._braking_steps - self._age))
            self._phase = np.float32((self._phase + np.float32(gait.hz * control_dt * running)) % np.float32(1))
        self._age += steps
        if not np.array_equal(command, self._command):
            self._command, self._age = command.copy(), 0
        self._time = time


def _check_terms(contract: Contract, sources: Mapping[str, Source]) -> None:
    joints = len(contract.joints)
    sizes = {
        "gyro": 3,
        "gravity": 3,
        "joint_position": joints,
        "joint_velocity": joints,
        "last_action": joints,
        "command": len(contract.commands),
        "gait": 2,
    }
    names = {term.name for term in contract.observation}
    if useless := sorted(name for name in sources if name not in names or name in sizes):
        raise ContractError(
            f"a source was given for {', '.join(useless)}, which the policy does not observe or this library builds"
        )
    if unknown := sorted(names - sizes.keys() - sources.keys()):
        raise ContractError(
            f"the policy observes {', '.join(unknown)}, which this library does not know: give a source for each"
        )
    for term in contract.observation:
        if term.name in ("joint_position", "joint_velocity") and term.size < joints:
            continue  # a gripper is observed by a term of its own
        if term.size != sizes.get(term.name, term.size):
            raise ContractError(
                f"observation term {term.name!r} has size {term.size}, this robot makes it {sizes[term.name]}"
            )
    if "gait" in names and contract.gait is None:
        raise ContractError("the policy observes gait, but the contract has no clock for it: export it again")
