"""Commanding one robot from outside, through whatever wrappers are around its task."""

from __future__ import annotations

import jax.numpy as jnp

from mjx_policies.envs.base import Env, EnvState
from mjx_policies.envs.quadruped.sensing import trunk_motion
from mjx_policies.types import Array

HELD = 2**30  # control steps, longer than anyone drives


def innermost(state: EnvState) -> EnvState:
    """The state of the task inside its wrappers."""
    return innermost(state.inner) if hasattr(state, "inner") else state


def takes_commands(state: EnvState) -> bool:
    """Whether the task follows velocity commands."""
    return hasattr(innermost(state), "command")


def with_command(state: EnvState, command: Array) -> EnvState:  # [3]
    """The state with a command that holds until it is replaced; the observation tells it from the next step on.

    Args:
      state: of a task that `takes_commands`.
      command: forward and leftward velocity (m/s) and yaw rate (rad/s) in the base frame.

    Raises:
      ValueError: the task takes no commands.
    """
    if hasattr(state, "inner"):
        return state.replace(inner=with_command(state.inner, command))
    if not takes_commands(state):
        raise ValueError(f"{type(state).__name__} has no command: the task follows none")
    return state.replace(
        command=command,
        command_steps=jnp.full_like(state.command_steps, HELD),
        command_age=jnp.where(jnp.any(command != state.command), 0, state.command_age),
    )


def measured_twist(env: Env, state: EnvState) -> Array:  # -> [3]
    """The velocity that a command is about, as measured: forward and leftward velocity (m/s) and yaw rate (rad/s)."""
    trunk = trunk_motion(env.physics.model, env.data(state))
    return jnp.stack([trunk.velocity[0], trunk.velocity[1], trunk.gyro[2]])
