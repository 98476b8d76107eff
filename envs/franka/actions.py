"""Action spaces of the Franka tasks: joint angles, changes of them, or changes of the hand's pose.

| name | numbers | suits |
|---|---|---|
| `joint_target` | 8: angles, opening | imitation |
| `joint_delta` | 8: changes of them | imitation, learning by reward |
| `pose_delta` | 10: changes of position, rotation (6), opening | imitation across robots |
| `top_down_delta` | 5: changes of position, turn about the vertical, opening | learning by reward: no hand that leans |

Every action lies in [-1, 1] and its last number is the gripper: more opens. An action space turns actions into targets
of the servos, which move linearly within a control period from where the last one left them, as a robot's own 1 kHz
loop interpolates. It keeps targets within `SOFT_LIMIT` of the joint ranges and their speed within `SPEED` of the
published one, as the controller of a real arm does.
In the spaces of changes a zero action means stay.

Rows are the actions that act during the substeps of one period, and each counts from the substep on in which it
arrives: an action that comes four substeps late moves nothing before, and goes on for the first four of the next
period. So delayed motion is the undelayed one, later. A change is spread over the substeps of a period, one share for
each row. A joint target is approached on a straight line that takes a whole period from its arrival; the approach that
a period finds under way, its first row, ends when the next action arrives.

Axes: J = 7 joints, A numbers of an action, S substeps of a control period. A target [J + 1] is what the joints (rad)
and each finger (m) are told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.envs.franka.ik import follow
from mjx_policies.envs.franka.kinematics import pointing_down, tcp_pose, turn_of
from mjx_policies.envs.franka.robot import (
    ACTUATORS,
    DAMPING,
    GRIPPER_SPEED,
    HOME,
    OPENING,
    SOFT_LIMIT,
    STIFFNESS,
    JointLimits,
    Variant,
    joint_limits,
    within,
)
from mjx_policies.rotations import (
    from_matrix,
    from_rotation_vector,
    from_sixd,
    to_matrix,
    to_rotation_vector,
    to_sixd,
)
from mjx_policies.spec import ActionTable
from mjx_policies.types import Array, actuator_targets

SPEED = 0.5  # share of the published joint speeds; the robot slows down by itself near the ends of its ranges
TCP_SPEED = 0.4  # m/s along each axis, of 3.0 published
TCP_TURN = 2.0  # rad/s, of 2.5 published
WORKSPACE = ((0.1, -0.6, 0.012), (0.85, 0.6, 1.0))
"""m, corners: where changes of the hand's pose lead the TCP. Fingertips that point down end 2 mm above the table.

Without a floor the target sinks ever deeper and the servos press the hand against the table, which no robot puts up
with; a policy that learns by reward finds that this levers a cube up."""

ActionName = Literal["joint_target", "joint_delta", "pose_delta", "top_down_delta"]


class ActionSpace(Protocol):
    """A way to read the numbers of an action as targets of the arm."""

    @property
    def name(self) -> str:
        """The name by which `action_space` finds it."""
        ...

    @property
    def table(self) -> ActionTable:
        """Names, scales and limits of the numbers of an action."""
        ...

    def init(self, q: Array, width: Array) -> Array:  # [J], [] -> [J + 1]
        """The target that keeps joints at `q` (rad) and each finger at `width` (m)."""
        ...

    def hold(self, target: Array) -> Array:  # [J + 1] -> [A]
        """The action that leaves the target where it is."""
        ...

    def command(self, target: Array, rows: Array) -> tuple[Array, Array]:  # [J + 1], [S, A] -> [J + 1], [S, J + 1]
        """The target at the end of a period, and what reaches the actuators in each substep on the way there.

        Args:
          target: where the period before left it.
          rows: what acts in each substep, see the module.
        """
        ...

    def toward(self, target: Array, q: Array, position: Array, rotation: Array, width: Array) -> Array:  # -> [A]
        """The action that leads the TCP along a straight line to a pose, and each finger to `width`.

        It covers what a period can cover at the highest speeds; whoever wants to go slower names a nearer pose.

        Args:
          target: [J + 1], where the last action led.
          q: [J], where the joints are. The spaces here do without: servos lag, so what they change is the target.
          position, rotation: [3] m and [3, 3] of the TCP.
          width: [] m.
        """
        ...


def action_space(name: ActionName, control_dt: float, variant: Variant = "fr3") -> ActionSpace:
    """The action space of this name for periods of `control_dt` seconds.

    Raises:
      ValueError: unknown name or variant, or a period that is not positive.
    """
    if name not in get_args(ActionName):
        raise ValueError(f"unknown action space {name!r}; known: {', '.join(get_args(ActionName))}")
    if not control_dt > 0:
        raise ValueError(f"control_dt is {control_dt} s, it must be positive")
    kinds: dict[str, Callable[[float, JointLimits], ActionSpace]] = {
        "joint_target": JointTarget,
        "joint_delta": JointDelta,
        "pose_delta": PoseDelta,
        "top_down_delta": TopDownDelta,
    }
    return kinds[name](control_dt, within(joint_limits(variant), SOFT_LIMIT))


@dataclasses.dataclass(frozen=True)
class JointTarget:
    """Absolute joint angles about `HOME` and an absolute opening; the numbers span the ranges, of which the middle
    nine tenths of the arm's are gone to.

    Targets far away are approached at the highest speed.
    """

    control_dt: float
    limits: JointLimits
    name = "joint_target"

    @property
    def table(self) -> ActionTable:
        """See `ActionSpace`."""
        lower, upper = _range(self.limits)
        first, last = _range(within(self.limits, 1 / SOFT_LIMIT))
        default = np.array([*HOME, OPENING / 2])
        return ActionTable(
            names=ACTUATORS,
            default=tuple(default.tolist()),
            scale=tuple(np.maximum(last - default, default - first).tolist()),
            lower=tuple(lower.tolist()),
            upper=tuple(upper.tolist()),
            stiffness=STIFFNESS,
            damping=DAMPING,
            velocity=tuple(_reach(self.limits, 1.0).tolist()),
            clip=1.0,
        )

    def init(self, q: Array, width: Array) -> Array:
        """See `ActionSpace`."""
        return _clip(jnp.append(q, width), self.limits)

    def hold(self, target: Array) -> Array:
        """See `ActionSpace`."""
        return (target - jnp.asarray(self.table.default)) / jnp.asarray(self.table.scale)

    def command(self, target: Array, rows: Array) -> tuple[Array, Array]:
        """See `ActionSpace`."""
        substeps = len(rows)
        most = _reach(self.limits, self.control_dt) / substeps
        begins = jnp.append(True, jnp.any(rows[1:] != rows[:-1], axis=1))  # [S] with each action that arrives
        under_way = jnp.cumsum(begins) == 1
        left = jnp.where(under_way, jnp.sum(under_way), substeps)  # [S] substeps that the approach takes

        def substep(carry, row):
            target, stride = carry
            wanted, begins, left = row
            stride = jnp.where(begins, jnp.clip((wanted - target) / left, -most, most), stride)
            return (target + stride, stride), target + stride

        wanted = actuator_targets(self.table, rows)
        (target, _), ctrl = jax.lax.scan(substep, (target, jnp.zeros_like(target)), (wanted, begins, left))
        return target, ctrl

    def toward(self, target: Array, q: Array, position: Array, rotation: Array, width: Array) -> Array:
        """See `ActionSpace`."""
        del q
        wanted = _next_target(target, position, rotation, width, self.control_dt, self.limits)
        return jnp.clip((wanted - jnp.asarray(self.table.default)) / jnp.asarray(self.table.scale), -1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class JointDelta:
    """Changes of joint angles and opening in one period; one is the highest speed."""

    control_dt: float
    limits: JointLimits
    name = "joint_delta"

    @property
    def table(self) -> ActionTable:
        """See `ActionSpace`."""
        reach = tuple(_reach(self.limits, self.control_dt).tolist())
        return ActionTable(
            names=tuple(f"{name}_change" for name in ACTUATORS),
            default=(0.0,) * len(ACTUATORS),
            scale=reach,
            lower=tuple(-x for x in reach),
            upper=reach,
            clip=1.0,
        )

    def init(self, q: Array, width: Array) -> Array:
        """See `ActionSpace`."""
        return _clip(jnp.append(q, width), self.limits)

    def hold(self, target: Array) -> Array:
        """See `ActionSpace`."""
        del target
        return jnp.zeros(8)

    def command(self, target: Array, rows: Array) -> tuple[Array, Array]:
        """See `ActionSpace`."""
        changes = jnp.asarray(_reach(self.limits, self.control_dt)) * jnp.clip(rows, -1.0, 1.0) / len(rows)

        def substep(target: Array, change: Array) -> tuple[Array, Array]:
            target = _clip(target + change, self.limits)
            return target, target

        return jax.lax.scan(substep, target, changes)

    def toward(self, target: Array, q: Array, position: Array, rotation: Array, width: Array) -> Array:
        """See `ActionSpace`."""
        del q
        wanted = _next_target(target, position, rotation, width, self.control_dt, self.limits)
        return jnp.clip((wanted - target) / _reach(self.limits, self.control_dt), -1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class PoseDelta:
    """Changes of the TCP's pose in the robot's frame, and of the opening, in one period.

    Three numbers move the TCP along x, y and z. Six turn it about itself, by the rotation whose first two columns are
    those of the identity plus the numbers, made orthonormal (`rotations.from_sixd`). Joints follow by `ik.follow`.
    """

    control_dt: float
    limits: JointLimits
    name = "pose_delta"

    @property
    def table(self) -> ActionTable:
        """See `ActionSpace`."""
        step, turn, opening = (speed * self.control_dt for speed in (TCP_SPEED, TCP_TURN, GRIPPER_SPEED))
        scale = (step,) * 3 + (turn,) * 6 + (opening,)
        columns = tuple(f"{axis}_axis_{to}" for axis in "xy" for to in "xyz")
        return ActionTable(
            names=("x_change", "y_change", "z_change", *columns, "gripper_change"),
            default=(0.0,) * 10,
            scale=scale,
            lower=tuple(-x for x in scale),
            upper=scale,
            clip=1.0,
        )

    def init(self, q: Array, width: Array) -> Array:
        """See `ActionSpace`."""
        return _clip(jnp.append(q, width), self.limits)

    def hold(self, target: Array) -> Array:
        """See `ActionSpace`."""
        del target
        return jnp.zeros(10)

    def command(self, target: Array, rows: Array) -> tuple[Array, Array]:
        """See `ActionSpace`."""
        share = 1 / len(rows)

        def turned(rotation: Array, change: Array) -> Array:
            turn = to_rotation_vector(from_matrix(from_sixd(to_sixd(jnp.eye(3)) + change[3:9] / share)))
            return to_matrix(from_rotation_vector(share * turn)) @ rotation

        changes = share * jnp.asarray(self.table.scale) * jnp.clip(rows, -1.0, 1.0)
        return _lead(target, changes, turned, self.control_dt, self.limits)

    def toward(self, target: Array, q: Array, position: Array, rotation: Array, width: Array) -> Array:
        """See `ActionSpace`."""
        del q
        at, turned = tcp_pose(target[:-1])
        position, turn = _waypoint(at, turned, position, rotation, self.control_dt)
        change = jnp.concatenate([position - at, to_sixd(turn) - to_sixd(jnp.eye(3)), (width - target[-1])[None]])
        return jnp.clip(change / jnp.asarray(self.table.scale), -1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class TopDownDelta:
    """Changes of the TCP's position in the robot's frame, of its turn about the vertical, and of the opening.

    The hand points straight down; one that leans is set upright as soon as it moves. Random actions in it explore where
    hands do something, instead of leaning the hand over until the arm is at its limits.
    """

    control_dt: float
    limits: JointLimits
    name = "top_down_delta"

    @property
    def table(self) -> ActionTable:
        """See `ActionSpace`."""
        step, turn, opening = (speed * self.control_dt for speed in (TCP_SPEED, TCP_TURN, GRIPPER_SPEED))
        scale = (step,) * 3 + (turn, opening)
        return ActionTable(
            names=("x_change", "y_change", "z_change", "turn_change", "gripper_change"),
            default=(0.0,) * 5,
            scale=scale,
            lower=tuple(-x for x in scale),
            upper=scale,
            clip=1.0,
        )

    def init(self, q: Array, width: Array) -> Array:
        """See `ActionSpace`."""
        return _clip(jnp.append(q, width), self.limits)

    def hold(self, target: Array) -> Array:
        """See `ActionSpace`."""
        del target
        return jnp.zeros(5)

    def command(self, target: Array, rows: Array) -> tuple[Array, Array]:
        """See `ActionSpace`."""
        changes = jnp.asarray(self.table.scale) * jnp.clip(rows, -1.0, 1.0) / len(rows)

        def turned(rotation: Array, change: Array) -> Array:
            return pointing_down(turn_of(rotation) + change[3])

        return _lead(target, changes, turned, self.control_dt, self.limits)

    def toward(self, target: Array, q: Array, position: Array, rotation: Array, width: Array) -> Array:
        """See `ActionSpace`; of the rotation, the turn about the vertical."""
        at, turned = tcp_pose(target[:-1])
        start, end = pointing_down(turn_of(turned)), pointing_down(turn_of(rotation))
        position, turn = _waypoint(at, start, position, end, self.control_dt)
        turn_change = turn_of(turn @ turned) - turn_of(turned)
        turn_change = jnp.arctan2(jnp.sin(turn_change), jnp.cos(turn_change))  # the short way
        change = jnp.concatenate([position - at, turn_change[None], (width - target[-1])[None]])
        return jnp.clip(change / jnp.asarray(self.table.scale), -1.0, 1.0)


def _lead(
    target: Array,
    changes: Array,
    turned: Callable[[Array, Array], Array],
    control_dt: float,
    limits: JointLimits,
) -> tuple[Array, Array]:  # -> [J + 1], [S, J + 1]
    """The targets of a hand whose pose changes in each substep, within `WORKSPACE`.

    Where a change says nothing of the pose, the arm stays bit for bit.

    Args:
      target: [J + 1] at first.
      changes: [S, A], first of the TCP's position (m), last of the opening (m).
      turned: `(rotation, change) -> rotation`, by a change.
      control_dt: s, of all S.
      limits: of the arm.
    """
    low, high = jnp.asarray(WORKSPACE)
    reach = _reach(limits, control_dt) / len(changes)

    def substep(carry: tuple[Array, Array, Array], change: Array) -> tuple[tuple[Array, Array, Array], Array]:
        target, position, rotation = carry
        moves = jnp.any(change[:-1] != 0)
        position = jnp.where(moves, jnp.clip(position + change[:3], low, high), position)
        rotation = jnp.where(moves, turned(rotation, change), rotation)
        # What one step of inverse kinematics leaves of some millimetres, the next one makes up for.
        q, _ = follow(target[:-1], position, rotation, limits, steps=1)
        step = jnp.where(moves, q - target[:-1], 0.0)
        target = _clip(target + _shorten(jnp.append(step, change[-1]), reach), limits)
        return (target, position, rotation), target

    (target, _, _), ctrl = jax.lax.scan(substep, (target, *tcp_pose(target[:-1])), changes)
    return target, ctrl


def _next_target(
    target: Array, position: Array, rotation: Array, width: Array, control_dt: float, limits: JointLimits
) -> Array:  # -> [J + 1]
    """Targets one period from now on the way to a pose, no joint faster than it may be."""
    at, turned = tcp_pose(target[:-1])
    position, turn = _waypoint(at, turned, position, rotation, control_dt)
    q, _ = follow(target[:-1], position, turn @ turned, limits)
    return target + _shorten(jnp.append(q, width) - target, _reach(limits, control_dt))


def _waypoint(
    at: Array, turned: Array, position: Array, rotation: Array, control_dt: float
) -> tuple[Array, Array]:  # -> [3], [3, 3]
    """The position one period ahead on a straight line, and the turn to make meanwhile: both arrive together."""
    distance = position - at
    turn = to_rotation_vector(from_matrix(rotation @ turned.T))
    angle = jnp.sin(TCP_TURN * control_dt)  # up to which `PoseDelta` can say it
    share = 1 / jnp.maximum(
        jnp.maximum(jnp.max(jnp.abs(distance)) / (TCP_SPEED * control_dt), jnp.linalg.norm(turn) / angle), 1.0
    )
    return at + share * distance, to_matrix(from_rotation_vector(share * turn))


def _shorten(step: Array, reach: np.ndarray) -> Array:  # [J + 1], [J + 1] -> [J + 1]
    """The step, joints slowed down together so that the TCP keeps its direction; the gripper by itself."""
    q = step[:-1] / jnp.maximum(jnp.max(jnp.abs(step[:-1]) / reach[:-1]), 1.0)
    return jnp.append(q, jnp.clip(step[-1], -reach[-1], reach[-1]))


def _range(limits: JointLimits) -> tuple[np.ndarray, np.ndarray]:  # [J + 1], [J + 1]
    return np.array([*limits.lower, 0.0]), np.array([*limits.upper, OPENING])


def _clip(target: Array, limits: JointLimits) -> Array:
    lower, upper = _range(limits)
    return jnp.clip(target, jnp.asarray(lower), jnp.asarray(upper))


def _reach(limits: JointLimits, seconds: float) -> np.ndarray:  # [J + 1]
    """The largest change of targets in this time, rad and m."""
    return (seconds * np.array([*(SPEED * np.array(limits.velocity)), GRIPPER_SPEED])).astype(np.float32)
