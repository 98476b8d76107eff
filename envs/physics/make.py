"""Choosing a backend."""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

import jax
import mujoco

from mjx_policies.envs.physics.base import Physics
from mjx_policies.envs.physics.cpu import CpuPhysics

Backend = Literal["auto", "cpu", "mjx", "warp"]


def resolve_backend(backend: Backend) -> Backend:
    """`auto` is `cpu` where JAX has only a CPU, `warp` on NVIDIA where it is installed, else `mjx`."""
    if backend not in get_args(Backend):
        raise ValueError(f"unknown physics backend {backend!r}; known: {', '.join(get_args(Backend))}")
    if backend != "auto":
        return backend
    if jax.default_backend() == "cpu":
        return "cpu"
    if jax.default_backend() == "gpu" and importlib.util.find_spec("warp") is not None:
        return "warp"
    return "mjx"


def make_physics(
    model: mujoco.MjModel,
    control_dt: float,
    backend: Backend = "auto",
    outputs: tuple[str, ...] = ("sensordata",),
    num_envs: int = 8192,
) -> Physics:
    """Puts a model on a backend.

    Args:
      model: the robot; `model.opt.timestep` is the physics step.
      control_dt: seconds between actions, a multiple of the physics step.
      backend: see `resolve_backend`.
      outputs: derived fields the task reads, for `cpu`; the other backends keep them all.
      num_envs: robots simulated at once, for `warp`, which allocates contacts for the whole batch.

    Raises:
      ValueError: unknown backend, a control period that is no multiple of the step, a model the backend cannot run.
    """
    substeps = round(control_dt / model.opt.timestep)
    if substeps < 1 or abs(substeps * model.opt.timestep - control_dt) > 1e-9:
        raise ValueError(f"control_dt {control_dt} s is not a multiple of the physics step {model.opt.timestep} s")
    match resolve_backend(backend):
        case "cpu":
            return CpuPhysics(model, substeps, outputs)
        case "mjx":
            from mjx_policies.envs.physics.mjx import (
                MjxPhysics,  # without warp-lang, MJX complains where it is imported
            )

            return MjxPhysics(model, substeps)
        case _:
            from mjx_policies.envs.physics.warp import WarpPhysics  # its import costs seconds and needs warp-lang

            # 24 contacts and 128 rows hold a quadruped lying on stairs; the batch average is far below.
            return WarpPhysics(model, substeps, max_contacts=24 * num_envs, max_constraints=128)
