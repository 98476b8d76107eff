"""Tasks by name."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import jax.numpy as jnp
import mujoco

from mjx_policies.envs.base import Env, EnvSpec
from mjx_policies.envs.control import cartpole, obstacle2d, pendulum
from mjx_policies.envs.physics import Backend, make_physics
from mjx_policies.envs.quadruped import getup, joystick, scenes
from mjx_policies.envs.quadruped.robot import action_table
from mjx_policies.envs.quadruped.scenes import Terrain

_MODELS = pathlib.Path(__file__).parent / "models"


def go2_joystick_flat(backend: Backend = "auto", num_envs: int = 8192) -> Env:
    """A Go2 follows velocity commands on flat ground."""
    return _go2_joystick(scenes.flat(lean=True), None, backend, num_envs)


def go2_joystick_rough(backend: Backend = "auto", num_envs: int = 8192) -> Env:
    """A Go2 follows velocity commands over bumps, slopes and stairs.

    `load("Go2JoystickRough").replace(difficulty=0.5)` starts robots on tiles up to half as high as the hardest.
    """
    terrain = scenes.make_terrain()
    return _go2_joystick(scenes.rough(terrain, lean=True), terrain, backend, num_envs)


def go2_getup(backend: Backend = "auto", num_envs: int = 8192) -> Env:
    """A Go2 gets up from any pose."""
    model = scenes.flat(lean=True)
    physics = make_physics(model, getup.CONTROL_DT, backend, ("sensordata", "actuator_force"), num_envs)
    spec = EnvSpec(
        observation=getup.OBSERVATION,
        privileged=getup.PRIVILEGED,
        action=action_table(model, getup.ACTION_SCALE),
        control_dt=getup.CONTROL_DT,
        episode_seconds=6.0,
        robot="go2",
        symmetric=True,
    )
    return getup.Go2Getup(getup.GetupWeights(), physics, spec)


def pendulum_swingup(backend: Backend = "auto", num_envs: int = 8192) -> Env:
    """A weak motor swings a rod up."""
    model = mujoco.MjModel.from_xml_path(str(_MODELS / "pendulum.xml"))
    physics = make_physics(model, pendulum.CONTROL_DT, backend, (), num_envs)
    return pendulum.Pendulum(pendulum.PendulumWeights(), physics)


def cartpole_swingup(backend: Backend = "auto", num_envs: int = 8192) -> Env:
    """A cart swings its pole up."""
    model = mujoco.MjModel.from_xml_path(str(_MODELS / "cartpole.xml"))
    physics = make_physics(model, cartpole.CONTROL_DT, backend, (), num_envs)
    return cartpole.CartpoleSwingup(cartpole.CartpoleWeights(), physics)


def obstacle_2d(backend: Backend = "auto", num_envs: int = 8192) -> Env:
    """A point robot drives to a goal around an obstacle, on either side."""
    model = mujoco.MjModel.from_xml_path(str(_MODELS / "obstacle2d.xml"))
    physics = make_physics(model, obstacle2d.CONTROL_DT, backend, (), num_envs)
    return obstacle2d.Obstacle2D(obstacle2d.DENSE, physics)


TASKS: dict[str, Callable[[Backend, int], Env]] = {
    "Go2JoystickFlat": go2_joystick_flat,
    "Go2JoystickRough": go2_joystick_rough,
    "Go2Getup": go2_getup,
    "CartpoleSwingup": cartpole_swingup,
    "Pendulum": pendulum_swingup,
    "Obstacle2D": obstacle_2d,
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


def scene(name: str) -> mujoco.MjModel:
    """The model of a task with everything that is there to be looked at, for pictures and viewers.

    Coordinates are those of the task's own model, which may leave decoration out.
    """
    match name:
        case "Go2JoystickFlat" | "Go2Getup":
            return scenes.flat()
        case "Go2JoystickRough":
            return scenes.rough()
        case _:
            return load(name, num_envs=1).physics.model


def _go2_joystick(model: mujoco.MjModel, terrain: Terrain | None, backend: Backend, num_envs: int) -> Env:
    physics = make_physics(model, joystick.CONTROL_DT, backend, ("sensordata", "actuator_force"), num_envs)
    commands = joystick.Commands()
    spec = EnvSpec(
        observation=joystick.OBSERVATION,
        privileged=joystick.PRIVILEGED,
        action=action_table(model, joystick.ACTION_SCALE),
        control_dt=joystick.CONTROL_DT,
        episode_seconds=20.0,
        robot="go2",
        symmetric=True,
        score="track_linear",
        commands=joystick.command_ranges(commands),
        gait=joystick.GAIT,
    )
    return joystick.Go2Joystick(
        weights=joystick.JoystickWeights(),
        commands=commands,
        difficulty=jnp.asarray(1.0),
        physics=physics,
        spec=spec,
        terrain=terrain,
    )
