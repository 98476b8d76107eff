"""The environment protocol.

An environment is a frozen `flax.struct.dataclass`: its numbers (reward weights, command ranges, difficulty, wrapper
ranges) are leaves that a curriculum may change and `vmap` may batch; everything else is static. Write for one robot.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.spec import EnvSpec
from mjx_policies.types import Array, Observation, TimeStep

EnvState = Any
S = TypeVar("S")


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
          action: [A], what the policy commands, observed as the last action and penalised as such.
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


@struct.dataclass
class Draw:
    """The robot of an episode, as its sampler drew it.

    Attributes:
      dynamics: the model fields to replace.
      extrinsics: [E] what was drawn, each number in [-1, 1] from end to end of its range; E is 0 where the sampler does
        not tell. `vectorize` offers them as `obs["extrinsics"]`.
    """

    dynamics: Dynamics
    extrinsics: Array = struct.field(default_factory=lambda: jnp.zeros(0))


class DynamicsSampler(Protocol):
    """Draws the robot of an episode; a pytree, so that its ranges may change during training."""

    def __call__(self, key: Array) -> Draw:
        """Draws the robot of an episode."""
        ...


@struct.dataclass
class Nominal:
    """The robot as its model says, every time."""

    def __call__(self, key: Array) -> Draw:
        """Draws the nominal robot: no field is replaced."""
        del key
        return Draw({})


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
