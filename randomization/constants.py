"""Constants that MuJoCo derives from other fields of the model, recomputed for a changed model.

The engine scales its constraints by such constants (`body_invweight0`, `dof_invweight0`, ...). It computes them when
a model is compiled, so a model whose masses were replaced afterwards is a slightly different robot until they follow.
The C engine recomputes them here, in float64, once per draw.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import mujoco
import mujoco.batch
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from mjx_policies.envs.physics.base import Dynamics, field_template
from mjx_policies.types import Array

INERTIAL = ("body_mass", "body_inertia", "body_ipos", "body_iquat", "dof_armature", "tendon_armature")
"""Fields that change the inertia matrix, and nothing of the kinematics."""

KINEMATIC = (
    "body_pos",
    "body_quat",
    "jnt_pos",
    "jnt_axis",
    "qpos0",
    "qpos_spring",
    "site_pos",
    "site_quat",
    "actuator_gear",
    "actuator_cranklength",
    "eq_data",
    "cam_pos",
    "cam_quat",
)

WITHOUT_CONSTANTS = ("body_gravcomp", "tendon_stiffness", "tendon_damping")
"""Fields that `mj_setConst` reads only to decide what may sleep."""

FROM_INERTIA = ("body_subtreemass", "body_invweight0", "dof_invweight0", "dof_M0", "tendon_invweight0", "actuator_acc0")
FROM_KINEMATICS = ("tendon_length0", "eq_data", "cam_pos0", "cam_poscom0", "cam_mat0")


def derived_fields(fields: Mapping[str, object], model: mujoco.MjModel) -> tuple[str, ...]:
    """The constants to recompute when `fields` of the model are replaced."""
    names: tuple[str, ...] = ()
    if any(field in INERTIAL + KINEMATIC for field in fields):
        names += FROM_INERTIA
    if any(field in KINEMATIC for field in fields):
        names += FROM_KINEMATICS
    return tuple(name for name in names if getattr(model, name).size)


def check_field(where: str, field: str, model: mujoco.MjModel) -> None:
    """Raises ValueError for a field that cannot be replaced in every backend alike."""
    field_template(model, field)
    known = INERTIAL + KINEMATIC + WITHOUT_CONSTANTS
    if field in FROM_INERTIA + FROM_KINEMATICS and field not in known:
        raise ValueError(f"{where}: {field} is derived from other fields; randomize those")
    if field in mujoco.MjModel._setconst_inputs and field not in known:
        raise ValueError(
            f"{where}: {field} also shapes collision volumes or other constants that not every backend can replace; "
            f"of such fields these can be randomized: {', '.join(known)}"
        )


def set_const(dynamics: Mapping[str, Array], model: mujoco.MjModel) -> Dynamics:
    """The constants that follow from the replaced fields, `{}` if none does.

    Works under `jit` and any nesting of `vmap`; treated as constants by differentiation. Entries equal to the nominal
    float32 value are taken as the model's own float64 value, so a nominal draw gives the nominal constants bit for bit.
    """
    names = derived_fields(dynamics, model)
    if not names:
        return {}
    inputs = {
        name: jax.lax.stop_gradient(jnp.asarray(value, jnp.float32))
        for name, value in dynamics.items()
        if name in INERTIAL + KINEMATIC
    }
    result = {name: jax.ShapeDtypeStruct(field_template(model, name).shape, jnp.float32) for name in names}

    def write(context, out, values):
        del context
        for name, value in _derive(model, {k: np.asarray(v) for k, v in values.items()}, names).items():
            np.asarray(out[name])[...] = value

    def compute(values):
        derived = _derive(model, {k: np.asarray(v) for k, v in values.items()}, names)
        return {name: value.astype(np.float32) for name, value in derived.items()}

    if jax.default_backend() == "cpu":
        # `pure_callback` can deadlock on the CPU: it needs a thread of the pool that waits for it (jax-ml/jax #24255).
        return buffer_callback(write, result, vmap_method="broadcast_all")(inputs)
    return jax.pure_callback(compute, result, inputs, vmap_method="broadcast_all")


def _derive(model: mujoco.MjModel, values: dict[str, np.ndarray], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Derived constants of each robot: `{field: [..., *shape]}` in, the same leading axes out."""
    field, value = next(iter(values.items()))
    batch_shape = value.shape[: value.ndim - getattr(model, field).ndim]
    num = int(np.prod(batch_shape, dtype=int))
    # A fresh batch costs a quarter of the computation itself, and is never shared between threads.
    batch = mujoco.batch.Batch(model, num, 0 if num > 64 else 1)
    for field, value in values.items():
        nominal = getattr(model, field)
        rows = value.reshape(num, *nominal.shape)
        batch.expand(field)[...] = np.where(rows == nominal.astype(np.float32), nominal, rows)
    batch.set_const()
    return {name: batch.expand(name).reshape(*batch_shape, *getattr(model, name).shape) for name in names}
