"""The base of the Franka's tasks: an episode from its beginning, and how an action becomes motion.

Control at 20 Hz. Axes: S physics substeps, A actions, J joints (7), U actuators (8).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import mujoco
from flax import struct

from mjx_policies.draws import draw_uniform
from mjx_policies.envs.base import EnvSpec, restart, transition
from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.actions import ActionSpace
from mjx_policies.envs.franka.robot import OPENING
from mjx_policies.envs.franka.scenes import READY
from mjx_policies.envs.mocap import place
from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.envs.progress import Progress, advance, begin, progress_metrics
from mjx_policies.spec import Table
from mjx_policies.types import Array, Observation, TimeStep, assemble

CONTROL_DT = 0.05
JOINT_SPREAD = 0.02  # rad, half-width of each joint's start: 1 or 2 cm at the gripper


@struct.dataclass
class FrankaState:
    """The state of an episode.

    Attributes:
      data: physics; goals and fixtures are its mocap bodies.
      dynamics: replaced model fields.
      target: [U] what the actuators were told last.
      last_action: [A] the action before this one, within -1..1.
      progress: what has been achieved.
    """

    data: Data
    dynamics: Dynamics
    target: Array
    last_action: Array
    progress: Progress


def start_arm(uniform: Array, opening: float = OPENING) -> Array:  # [J] in [0, 1) -> [9]
    """Coordinates of the robot near `READY`, each finger `opening` m from the middle."""
    joints = jnp.asarray(READY) + JOINT_SPREAD * (2 * uniform - 1)
    return jnp.append(joints, jnp.full(2, opening))


def between(uniform: Array, low: Any, high: Any) -> Array:
    """Uniform draws in [0, 1) taken to a range."""
    return jnp.asarray(low) + (jnp.asarray(high) - jnp.asarray(low)) * uniform


def away_from(place: Array, apart: float, uniform: Array, low: Any, high: Any) -> Array:  # [D], [D] in [0, 1) -> [D]
    """A uniform draw from a box, but none nearer than `apart` to a place: so that no episode begins solved.

    What would be nearer is taken half the box further along every axis, around its ends. That is far enough where half
    the box's diagonal is twice `apart`, and every other draw stays what it is.
    """
    drawn = between(uniform, low, high)
    further = between((uniform + 0.5) % 1.0, low, high)
    return jnp.where(jnp.linalg.norm(drawn - place) < apart, further, drawn)


def begin_episode(
    actions: ActionSpace, data: Data, dynamics: Dynamics, stages: tuple[str, ...], width: float | None = None
) -> FrankaState:
    """The state of a robot at rest; `width` is what the gripper is told, where its fingers are by default."""
    joints, opening = data.qpos[:7], data.qpos[7] if width is None else jnp.asarray(width)
    target = actions.init(joints, opening)
    return FrankaState(data, dynamics, target, jnp.zeros(actions.table.size), begin(stages))


def move(
    actions: ActionSpace, physics: Physics, state: FrankaState, action: Array, applied: Array | None
) -> FrankaState:
    """The state one control period on, but for progress and last action, which the task's reward still needs."""
    rows = jnp.broadcast_to(action, (physics.substeps, actions.table.size)) if applied is None else applied
    target, ctrl = actions.command(state.target, rows)
    return dataclasses.replace(state, data=physics.step(state.data, ctrl, state.dynamics), target=target)


def conclude(state: FrankaState, action: Array, reached: Mapping[str, Array]) -> FrankaState:
    """Notes what was reached (see `progress.advance`) and the action that led here."""
    progress = advance(state.progress, reached, CONTROL_DT)
    return dataclasses.replace(state, progress=progress, last_action=jnp.clip(action, -1.0, 1.0))


def action_change(action: Array, last_action: Array) -> Array:  # [A], [A] -> [] in [0, 1]
    """Mean square of an action's change, relative to the largest there can be."""
    return jnp.mean(jnp.square(jnp.clip(action, -1.0, 1.0) - last_action)) / 4


def weighted(weights: Any, terms: Mapping[str, Array]) -> Array:  # -> []
    """Reward of one control period for `terms`, whose weights are fields of the same names, per second."""
    return sum(getattr(weights, name) * term for name, term in terms.items()) * CONTROL_DT


class Arrangement(NamedTuple):
    """The arrangement that an episode begins with.

    Attributes:
      qpos: [nq] of a robot and objects at rest.
      mocap: {body: position [3]} of goals and fixtures.
      width: what the gripper is told; where its fingers are by default.
    """

    qpos: Array
    mocap: dict[str, Array] = {}  # noqa: RUF012
    width: float | None = None


@struct.dataclass
class ArmTask:
    """The base of the Franka's tasks. A task says what lies on the table, what is seen of it and what is wanted.

    Attributes:
      weights: of the terms of the reward, fields of the same names.
      actions: what an action means.
    """

    weights: Any
    actions: ActionSpace = struct.field(pytree_node=False)
    physics: Physics = struct.field(pytree_node=False)
    spec: EnvSpec = struct.field(pytree_node=False)

    OBSERVATION: ClassVar[Table]  # but for the last action
    PRIVILEGED: ClassVar[Table] = ()
    STAGES: ClassVar[tuple[str, ...]]
    EPISODE_SECONDS: ClassVar[float]
    DENSE: ClassVar[Any]  # weights
    DRAWS: ClassVar[int]  # numbers in [0, 1) that an arrangement takes

    def arrange(self, uniform: Array) -> Arrangement:  # [DRAWS]
        """The initial state of an episode; the arm near `READY`."""
        raise NotImplementedError

    def sense(self, data: Data) -> dict[str, Array]:
        """The values of the terms of both tables that are not the arm's own."""
        raise NotImplementedError

    @staticmethod
    def reached(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
        """Whether the condition of each stage holds."""
        raise NotImplementedError

    @staticmethod
    def reward_terms(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
        """The terms of the reward, each from 0 to 1."""
        raise NotImplementedError

    @staticmethod
    def lost(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
        """Whether the task can no longer be done; here: never."""
        del model, data
        return jnp.zeros((), bool)

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[FrankaState, TimeStep]:
        """See `Env.reset`."""
        model = self.physics.model
        begin = self.arrange(draw_uniform(key, self.DRAWS)[0])
        data = self.physics.init(begin.qpos, jnp.zeros(model.nv), dynamics)
        data = place(model, data, begin.mocap) if begin.mocap else data
        state = begin_episode(self.actions, data, dynamics, self.STAGES, begin.width)
        return state, restart(self._observe(state), progress_metrics(state.progress, self.STAGES))

    def step(self, state: FrankaState, action: Array, applied: Array | None = None) -> tuple[FrankaState, TimeStep]:
        """See `Env.step`."""
        model = self.physics.model
        state = move(self.actions, self.physics, state, action, applied)
        terms = self.reward_terms(model, state.data) | {"action_rate": action_change(action, state.last_action)}
        state = conclude(state, action, self.reached(model, state.data))
        reward, lost = weighted(self.weights, terms), self.lost(model, state.data)
        return state, transition(self._observe(state), reward, lost, progress_metrics(state.progress, self.STAGES))

    def hold(self, state: FrankaState) -> Array:
        """See `Env.hold`."""
        return self.actions.hold(state.target)

    def data(self, state: FrankaState) -> Data:
        """See `Env.data`."""
        return state.data

    def replace_data(self, state: FrankaState, data: Data) -> FrankaState:
        """See `Env.replace_data`."""
        return dataclasses.replace(state, data=data)

    def _observe(self, state: FrankaState) -> Observation:
        model, data = self.physics.model, state.data
        values = {**sensing.arm_values(model, data), **self.sense(data), "last_action": state.last_action}
        tables = {"state": self.spec.observation, "privileged": self.spec.privileged}
        return {name: assemble(table, _of(table, values)) for name, table in tables.items() if table}


def _of(table: Table, values: dict[str, Array]) -> dict[str, Array]:
    return {term.name: values[term.name] for term in table}
