"""Tasks by name."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from mjx_policies.envs.base import Env, EnvSpec
from mjx_policies.envs.physics import Backend, make_physics
from mjx_policies.envs.quadruped import joystick, scenes
from mjx_policies.envs.quadruped.robot import action_table


def _joystick(model, terrain, backend: Backend, num_envs: int) -> Env:
    physics = make_physics(model, joystick.CONTROL_DT, backend, ("sensordata", "actuator_force"), num_envs)
    spec = EnvSpec(
        observation=joystick.OBSERVATION,
        privileged=joystick.PRIVILEGED,
        action=action_table(model),
        control_dt=joystick.CONTROL_DT,
        episode_seconds=20.0,
    )
    return joystick.Go2Joystick(
        weights=joystick.JoystickWeights(),
        commands=joystick.Commands(),
        difficulty=jnp.asarray(1.0),
        physics=physics,
        spec=spec,
        terrain=terrain,
    )


def go2_joystick_flat(backend: Backend = "auto", num_envs: int = 8192) -> Env:
    """A Go2 follows velocity commands on flat ground."""
    return _joystick(scenes.flat(), None, backend, num_envs)


def go2_joystick_rough(backend: Backend = "auto", num_envs: int = 8192) -> Env:
    """A Go2 follows velocity commands over bumps, slopes and stairs; `difficulty` says how high they get."""
    terrain = scenes.make_terrain()
    return _joystick(scenes.rough(terrain), terrain, backend, num_envs)


TASKS: dict[str, Callable[..., Env]] = {
    "Go2JoystickFlat": go2_joystick_flat,
    "Go2JoystickRough": go2_joystick_rough,
}


def load(name: str, backend: Backend = "auto", num_envs: int = 8192) -> Env:
    """Builds a task.

    Args:
      name: a key of `TASKS`.
      backend, num_envs: see `make_physics`.

    Raises:
      ValueError: no such task; the message lists those there are.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; known tasks: {', '.join(TASKS)}")
    return TASKS[name](backend, num_envs)
