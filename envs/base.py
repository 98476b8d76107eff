"""The environment protocol.

An environment is a frozen `flax.struct.dataclass`: its numbers (reward weights, command ranges, difficulty, wrapper
ranges) are leaves that a curriculum may change and `vmap` may batch; everything else is static. Write for one robot.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.types import ActionTable, Array, CommandRange, Criterion, GaitClock, Observation, Table, TimeStep

EnvState = Any
S = TypeVar("S")


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """What a policy, an exporter and a reader need to know of a task.

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


class Env(Protocol):
    """One task, or a wrapper around one. Wrappers write out every member: nothing is forwarded by magic."""

    @property
    def spec(self) -> EnvSpec:
        """Tables and times of the task."""
        ...

    @property
    def physics(self) -> Physics:
        """The physics that the task runs on."""
        ...

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[EnvState, TimeStep]:
        """Starts an episode of the robot that `dynamics` describes."""
        ...

    def step(self, state: EnvState, action: Array, applied: Array | None = None) -> tuple[EnvState, TimeStep]:
        """Advances one control period.

        Args:
          state: of `reset` or `step`.
          action: [A], what the policy commands, remembered and judged as such.
          applied: [S, A], what reaches the actuators in each physics substep, if that differs (delay, interpolation).
        """
        ...

    def hold(self, state: EnvState) -> Array:  # -> [A]
        """The action that goes on with what the actuators were told last, such as the pose that a servo holds.

        It is what a robot does until the first command of an episode reaches it.
        """
        ...

    def data(self, state: EnvState) -> Data:
        """The physics data inside the state."""
        ...

    def replace_data(self, state: EnvState, data: Data) -> EnvState:
        """The state with other physics data."""
        ...


class DynamicsSampler(Protocol):
    """Draws the robot of an episode; a pytree, so that its ranges may change during training."""

    def __call__(self, key: Array) -> Dynamics:
        """The model fields to replace."""
        ...


@struct.dataclass
class Nominal:
    """The robot as its model says, every time."""

    def __call__(self, key: Array) -> Dynamics:
        """No field is replaced."""
        del key
        return {}


def restart(obs: Observation, metrics: dict[str, Array]) -> TimeStep:
    """The time step that opens an episode; `metrics` are zeros with the names that `step` will report."""
    false = jnp.zeros((), bool)
    return TimeStep(obs=obs, reward=jnp.zeros(()), terminated=false, truncated=false, metrics=metrics)


def transition(
    obs: Observation,
    reward: Array,
    terminated: Array,
    metrics: dict[str, Array],
    truncated: Array | bool = False,
) -> TimeStep:
    """The time step of a task, which leaves time limits to `vectorize`; `truncated` where it cannot go on here."""
    return TimeStep(
        obs=obs,
        reward=jnp.asarray(reward, jnp.float32),
        terminated=terminated,
        truncated=jnp.asarray(truncated, bool) & ~terminated,
        metrics=metrics,
    )


def select(env: Env, mask: Array, a: S, b: S) -> S:
    """Environment state `a` where `mask` [] is true, else `b`.

    Physics data goes through `Physics.where`, because not every backend can be selected leaf by leaf.
    """
    data = env.physics.where(mask, env.data(a), env.data(b))
    merged = jax.tree.map(lambda x, y: jnp.where(mask, x, y), env.replace_data(a, None), env.replace_data(b, None))
    return env.replace_data(merged, data)


def take(env: Env, states: S, index: Array) -> S:
    """Rows `index` [N] of a batch of environment states [B, ...]; physics data goes through `Physics.take`."""
    data = env.physics.take(env.data(states), index)
    rest = jax.tree.map(lambda x: x[index], env.replace_data(states, None))
    return env.replace_data(rest, data)
