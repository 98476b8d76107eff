"""Tasks by name."""

from __future__ import annotations

import inspect
import pathlib
from collections.abc import Callable

import jax.numpy as jnp
import mujoco

from mjx_policies.envs.base import Env, EnvSpec
from mjx_policies.envs.control import cartpole, obstacle2d, pendulum
from mjx_policies.envs.franka import drawer, peg_insert, pick_cube, push, reach, stack
from mjx_policies.envs.franka import scenes as table
from mjx_policies.envs.franka.actions import ActionName, action_space
from mjx_policies.envs.franka.episode import CONTROL_DT as FRANKA_DT
from mjx_policies.envs.franka.episode import ArmTask
from mjx_policies.envs.physics import Backend, make_physics
from mjx_policies.envs.quadruped import getup, joystick, scenes
from mjx_policies.envs.quadruped.robot import action_table
from mjx_policies.envs.quadruped.scenes import Terrain
from mjx_policies.spec import Criterion, Term

TRACKED = ("track_linear", "track_yaw")  # metrics of a velocity task, see `joystick.reward_terms`
TRACKING = 0.8  # their mean over an episode that counts as tracking: off by 0.24 m/s and 0.24 rad/s all the time

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
        max_speed=200.0,  # rad/s; joints reach 80 under the wildest of actions
        symmetric=True,
        criteria=getup.CRITERIA,
        bounded_metrics=getup.METRICS,
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


def franka_reach(backend: Backend = "auto", num_envs: int = 8192, actions: ActionName = "joint_target") -> Env:
    """A Franka reaches a point in front of it."""
    return _franka(reach.FrankaReach, table.reach(lean=True), backend, num_envs, actions)


def franka_push(backend: Backend = "auto", num_envs: int = 8192, actions: ActionName = "joint_target") -> Env:
    """A Franka pushes a block across the table to a goal pose."""
    return _franka(push.FrankaPush, table.push(lean=True), backend, num_envs, actions)


def franka_pick_cube(backend: Backend = "auto", num_envs: int = 8192, actions: ActionName = "joint_target") -> Env:
    """A Franka picks up a cube and holds it at a goal."""
    return _franka(pick_cube.FrankaPickCube, table.pick_cube(lean=True), backend, num_envs, actions)


def franka_stack(backend: Backend = "auto", num_envs: int = 8192, actions: ActionName = "joint_target") -> Env:
    """A Franka puts one cube on another and lets go."""
    return _franka(stack.FrankaStack, table.stack(lean=True), backend, num_envs, actions)


def franka_peg_insert(backend: Backend = "auto", num_envs: int = 8192, actions: ActionName = "joint_target") -> Env:
    """A Franka puts the peg in its hand into a hole."""
    return _franka(peg_insert.FrankaPegInsert, table.peg_insert(lean=True), backend, num_envs, actions)


def franka_drawer(backend: Backend = "auto", num_envs: int = 8192, actions: ActionName = "joint_target") -> Env:
    """A Franka pulls a drawer open by its handle."""
    return _franka(drawer.FrankaDrawer, table.drawer(lean=True), backend, num_envs, actions)


TASKS: dict[str, Callable[..., Env]] = {
    "Go2JoystickFlat": go2_joystick_flat,
    "Go2JoystickRough": go2_joystick_rough,
    "Go2Getup": go2_getup,
    "CartpoleSwingup": cartpole_swingup,
    "Pendulum": pendulum_swingup,
    "Obstacle2D": obstacle_2d,
    "FrankaReach": franka_reach,
    "FrankaPush": franka_push,
    "FrankaPickCube": franka_pick_cube,
    "FrankaStack": franka_stack,
    "FrankaPegInsert": franka_peg_insert,
    "FrankaDrawer": franka_drawer,
}


def load(name: str, backend: Backend = "auto", num_envs: int = 8192, actions: ActionName | None = None) -> Env:
    """Builds a task by its name.

    Args:
      name: a key of `TASKS`.
      backend, num_envs: see `make_physics`.
      actions: what an action means, for the tasks of an arm, see `franka.actions`; the task's own choice by default.

    Raises:
      ValueError: no such task, or a task without a choice of actions; the message lists those there are.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; known tasks: {', '.join(TASKS)}")
    if actions is None:
        return TASKS[name](backend, num_envs)
    with_choice = [task for task, build in TASKS.items() if "actions" in inspect.signature(build).parameters]
    if name not in with_choice:
        raise ValueError(f"{name} has actions of its own; actions can be chosen for {', '.join(with_choice)}")
    return TASKS[name](backend, num_envs, actions)


def scene(name: str) -> mujoco.MjModel:
    """The model of a task with everything that is only drawn, for pictures and viewers.

    Coordinates are those of the task's own model, which may leave decoration out.
    """
    match name:
        case "Go2JoystickFlat" | "Go2Getup":
            return scenes.flat()
        case "Go2JoystickRough":
            return scenes.rough()
        case "FrankaReach":
            return table.reach()
        case "FrankaPush":
            return table.push()
        case "FrankaPickCube":
            return table.pick_cube()
        case "FrankaStack":
            return table.stack()
        case "FrankaPegInsert":
            return table.peg_insert()
        case "FrankaDrawer":
            return table.drawer()
        case _:
            return load(name, num_envs=1).physics.model


def _franka(task: type[ArmTask], model: mujoco.MjModel, backend: Backend, num_envs: int, actions: ActionName) -> Env:
    space = action_space(actions, FRANKA_DT)
    last_action = Term("last_action", space.table.size, unit="1", measured=False)
    spec = EnvSpec(
        observation=(*task.OBSERVATION, last_action),
        privileged=task.PRIVILEGED,
        action=space.table,
        control_dt=FRANKA_DT,
        episode_seconds=task.EPISODE_SECONDS,
        robot="franka",
        stages=task.STAGES,
        home=(0.0,) * space.table.size,  # angles are observed as they are
    )
    return task(task.DENSE, space, make_physics(model, FRANKA_DT, backend, ("sensordata",), num_envs), spec)


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
        max_speed=200.0,  # rad/s; joints reach 80 under the wildest of actions
        symmetric=True,
        score="track_linear",
        commands=joystick.command_ranges(commands),
        gait=joystick.GAIT,
        criteria=tuple(Criterion(f"{name} at least {TRACKING:g}", name, TRACKING) for name in TRACKED),
        bounded_metrics=TRACKED,
    )
    return joystick.Go2Joystick(
        weights=joystick.JoystickWeights(),
        commands=commands,
        difficulty=jnp.asarray(1.0),
        physics=physics,
        spec=spec,
        terrain=terrain,
    )
