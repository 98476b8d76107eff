"""The physics protocol. Axes: S substeps in one control period, nu actuators.

Write for one robot; batches come from `vmap`. `dynamics` is a flat dict of replaced `mjModel` fields, such as
`{"body_mass": [nbody], "geom_friction": [ngeom, 3], "opt.gravity": [3]}`; `{}` is the nominal robot.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import mujoco
import numpy as np

Dynamics = dict[str, jax.Array]
Data = Any
"""Carries MuJoCo's own names: `qpos`, `qvel`, `sensordata`, `site_xpos`, ... Has `.replace(qpos=...)`."""


@runtime_checkable
class Physics(Protocol):
    """One model simulated by one backend.

    Derived fields (`sensordata`, `xpos`, ...) are those before the last substep, as after `mj_step`.
    """

    model: mujoco.MjModel
    substeps: int

    def init(self, qpos: jax.Array, qvel: jax.Array, dynamics: Dynamics) -> Data:
        """The state with these coordinates and current derived fields. [nq], [nv]."""
        ...

    def step(self, data: Data, ctrl: jax.Array, dynamics: Dynamics) -> Data:
        """Advances `substeps` steps of `model.opt.timestep`; row s of `ctrl` [S, nu] acts during substep s."""
        ...

    def where(self, mask: jax.Array, a: Data, b: Data) -> Data:
        """`a` where `mask` [] is true, else `b`."""
        ...

    def take(self, data: Data, index: jax.Array) -> Data:
        """Rows `index` [N] of a batch of data [B, ...]; what all robots of a batch share stays as it is."""
        ...


def field_template(model: mujoco.MjModel, name: str) -> np.ndarray:
    """The nominal value of a model field, float32; `opt.*` fields are reached by their dotted name."""
    owner, attribute = (model.opt, name[4:]) if name.startswith("opt.") else (model, name)
    value = getattr(owner, attribute, None)
    if value is None or np.asarray(value).dtype.kind != "f":
        arrays = {field: getattr(model, field) for field in dir(model) if "_" in field and not field.startswith("_")}
        floats = [field for field, array in arrays.items() if getattr(array, "dtype", np.dtype(int)).kind == "f"]
        close = difflib.get_close_matches(name, floats, n=5, cutoff=0.3)
        raise ValueError(f"dynamics: the model has no float field {name!r}; fields like it: {', '.join(close)}")
    return np.asarray(value, np.float32)


def check_dynamics(model: mujoco.MjModel, dynamics: Mapping[str, Any]) -> None:
    """Raises ValueError for a field that the model lacks or a shape that is not the field's.

    Runs in Python before tracing, because MJX accepts a wrong shape silently.
    """
    for name, value in dynamics.items():
        expected, got = field_template(model, name).shape, np.shape(value)
        if got != expected:
            raise ValueError(f"dynamics[{name!r}] has shape {got}, the model's field has {expected}")


def check_inputs(physics: Physics, ctrl: Any) -> None:
    """Raises ValueError unless `ctrl` has one row for each substep and one column for each actuator."""
    expected, got = (physics.substeps, physics.model.nu), np.shape(ctrl)
    if got != expected:
        raise ValueError(f"ctrl has shape {got}, expected {expected}: one row per substep, one column per actuator")
