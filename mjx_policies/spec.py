"""The tables of a task, in NumPy alone: what a policy senses, what it does, and what else is to be known of them.

An observation is a table of named terms. The one table builds the vector, its noise, its documentation and the
contract of an exported policy, so none of them can disagree.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

Kind = Literal["scalars", "vector", "pseudovector", "planar_twist", "gait", "joints", "feet"]
"""How a term transforms under a left-right reflection: `vector` (x, y, z) flips y, `pseudovector` (an angular velocity)
flips x and z, `planar_twist` (vx, vy, yaw rate) flips vy and the yaw rate, `gait` (cosine and sine of a phase that left
and right share in turns) goes on by half a turn, `joints` and `feet` swap left and right."""


@dataclasses.dataclass(frozen=True)
class Term:
    """One row of an observation table.

    Attributes:
      name: unique in the table.
      size: number of scalars.
      unit: SI unit of the raw value, `"1"` for none.
      frame: frame the value is expressed in, empty for none.
      kind: how the term mirrors, see `Kind`.
      scale: the observation holds `scale * value`.
      noise: half-width of the uniform noise drawn every step, in `unit`.
      bias: half-width of the uniform error drawn once an episode, in `unit`.
      measured: False for what the controller itself keeps (command, last action): never noisy, never late.
    """

    name: str
    size: int
    unit: str
    frame: str = ""
    kind: Kind = "scalars"
    scale: float = 1.0
    noise: float = 0.0
    bias: float = 0.0
    measured: bool = True

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"term {self.name!r}: size is {self.size}, it must be at least 1")
        if self.noise < 0 or self.bias < 0:
            raise ValueError(f"term {self.name!r}: noise and bias are half-widths and must not be negative")


Table = tuple[Term, ...]


def table_size(table: Table) -> int:
    """Length of the vector that the table describes."""
    return sum(term.size for term in table)


def table_slices(table: Table) -> dict[str, slice]:
    """The slice of each term in the vector."""
    ends = np.cumsum([term.size for term in table])
    return {term.name: slice(int(end) - term.size, int(end)) for term, end in zip(table, ends, strict=True)}


def table_column(table: Table, attribute: Literal["scale", "noise", "bias", "measured"]) -> np.ndarray:  # [D]
    """A numeric column of the table, repeated for every scalar of each term."""
    return np.concatenate([np.full(term.size, getattr(term, attribute), np.float32) for term in table])


def table_markdown(table: Table) -> str:
    """The table as people read it: index, name, unit, frame, scale, noise."""
    rows = ["| index | term | unit | frame | scale | noise | bias |", "|---|---|---|---|---|---|---|"]
    for term, where in zip(table, table_slices(table).values(), strict=True):
        index = f"{where.start}" if term.size == 1 else f"{where.start}..{where.stop - 1}"
        noise, bias = (f"±{x:g}" if x else "–" for x in (term.noise, term.bias))
        cells = (index, term.name, term.unit, term.frame or "–", f"{term.scale:g}", noise, bias)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


@dataclasses.dataclass(frozen=True)
class CommandRange:
    """A number that an operator chooses, and the range it is drawn from in training."""

    name: str
    unit: str
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A condition of success on one of the task's metrics.

    Attributes:
      about: the condition in words.
      metric: its name.
      least: the value it must have.
      seconds: for which it must have it without a break, up to the end of the episode; None: on average over the
        episode.
    """

    about: str
    metric: str
    least: float
    seconds: float | None = None

    def __str__(self) -> str:
        if self.seconds is None:
            return f"{self.about} on average over the episode"
        return f"{self.about} throughout the last {self.seconds:g} s"

    def steps(self, control_dt: float) -> int:
        """The number of control steps in `seconds`."""
        return 0 if self.seconds is None else math.ceil(self.seconds / control_dt - 1e-6)


@dataclasses.dataclass(frozen=True)
class GaitClock:
    """A clock that the observation shows as the cosine and sine of its phase.

    Attributes:
      hz: turns per second.
      braking_seconds: for which it goes on after the command became zero; then both numbers are zero.
    """

    hz: float
    braking_seconds: float


@dataclasses.dataclass(frozen=True)
class ActionTable:
    """The meaning of actions: `target = clip(default + scale * action, lower, upper)`, in the units of the actuator.

    An action beyond its own `clip` counts as one at it, for the target and as the `last_action` that is observed.

    Attributes:
      names: actuator names, in the order of the action.
      default: target of a zero action (rad for joint position servos).
      scale: target change for one unit of action.
      lower, upper: limits of the target.
      stiffness, damping: gains of the servo the target is sent to (N m / rad, N m s / rad); empty for a torque.
      velocity: highest speed of each joint (rad/s); empty if unknown.
      clip: bound of the absolute action; 0 for none.
    """

    names: tuple[str, ...]
    default: tuple[float, ...]
    scale: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    stiffness: tuple[float, ...] = ()
    damping: tuple[float, ...] = ()
    velocity: tuple[float, ...] = ()
    clip: float = 0.0

    def __post_init__(self) -> None:
        for field in ("default", "scale", "lower", "upper", "stiffness", "damping", "velocity"):
            values = getattr(self, field)
            if field in ("stiffness", "damping", "velocity") and not values:
                continue
            if len(values) != len(self.names):
                raise ValueError(f"action table: {field} has {len(values)} entries for {len(self.names)} names")

    @property
    def size(self) -> int:
        """The number of actions."""
        return len(self.names)

    @property
    def reach(self) -> tuple[np.ndarray, np.ndarray]:  # [A], [A]
        """The least and the greatest action that changes the target: `lower` and `upper` in units of the action."""
        default, scale = np.asarray(self.default), np.asarray(self.scale)
        ends = np.stack([(np.asarray(end) - default) / scale for end in (self.lower, self.upper)])
        return ends.min(axis=0), ends.max(axis=0)

    def markdown(self) -> str:
        """The table as people read it: index, name, target of a zero action, its change for one unit, limits."""
        rows = ["| index | actuator | default | scale | lower | upper |", "|---|---|---|---|---|---|"]
        columns = zip(self.names, self.default, self.scale, self.lower, self.upper, strict=True)
        for index, (name, *numbers) in enumerate(columns):
            rows.append(f"| {index} | {name} | {' | '.join(f'{number:g}' for number in numbers)} |")
        return "\n".join(rows)


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """The specification of a task, for policies, exporters and readers.

    Attributes:
      observation: table of `obs["state"]`.
      privileged: table of `obs["privileged"]`, which holds what `"state"` does not; empty if there is none.
      action: table of the action.
      control_dt: seconds between actions.
      episode_seconds: time limit, the default of `vectorize`.
      robot: name under which randomization knows the robot; empty if it has no preset.
      symmetric: whether the reflection of `envs.mirror` leaves robot and task as they are.
      score: metric, from 0 to 1, that says how far a policy has got; empty if there is none.
      commands: what the observation's `command` holds, in its order; empty if the task has none.
      gait: the clock behind the observation's `gait`; None if the task has none.
      stages: what an episode of a manipulation task achieves one after the other, the last of which is success; empty
        if the task has none.
      criteria: what an episode has to meet, all of it, to count as a success, or for commands as tracking; empty where
        the metric `success` says so, or nothing does.
      bounded_metrics: those that lie in [0, 1].
      home: for each action, the joint's angle at which the observation's `joint_position` is zero; empty where that is
        the target of a zero action.
      max_speed: m/s or rad/s, beyond what any coordinate reaches while the simulation is sound; a robot that is faster
        has diverged, see `vectorize.sound`.
      n_obs_steps: O, where every entry of an observation but `extrinsics` holds the last O of its kind, [O, ...], each
        as its table says (`wrappers.History`); 0: one, without such an axis.
      n_action_steps: K, where an action is [H, A], H at least K, each row as the table says, of which the first K are
        executed in one step (`wrappers.ActionChunk`); 0: an action is [A].
    """

    observation: Table
    privileged: Table
    action: ActionTable
    control_dt: float
    episode_seconds: float
    robot: str = ""
    symmetric: bool = False
    score: str = ""
    commands: tuple[CommandRange, ...] = ()
    gait: GaitClock | None = None
    stages: tuple[str, ...] = ()
    criteria: tuple[Criterion, ...] = ()
    bounded_metrics: tuple[str, ...] = ()
    home: tuple[float, ...] = ()
    max_speed: float = 300.0
    n_obs_steps: int = 0
    n_action_steps: int = 0
