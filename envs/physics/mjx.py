"""MJX-JAX: the simulator itself as XLA code. Runs on every JAX device and is differentiable."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from mjx_policies.envs.physics.base import Data, Dynamics, check_dynamics, check_inputs

with contextlib.redirect_stdout(io.StringIO()):  # it prints that it has no warp-lang, which this backend does not need
    from mujoco import mjx


def reject_unsupported(model: mujoco.MjModel) -> None:
    """Raises ValueError for what MJX-JAX would ignore without a word, or fail on only inside `step`."""
    if model.nhistory:
        raise ValueError(
            "MJX-JAX ignores the delay and history attributes of actuators and sensors, which this model uses: "
            "choose the backend cpu or warp, or remove them and wrap the task in randomization.ActionDelay"
        )
    if model.opt.integrator not in (
        mujoco.mjtIntegrator.mjINT_EULER,
        mujoco.mjtIntegrator.mjINT_RK4,
        mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
    ):
        name = mujoco.mjtIntegrator(model.opt.integrator).name.removeprefix("mjINT_").lower()
        raise ValueError(f"MJX-JAX has no integrator {name!r}: choose the backend cpu, or Euler, RK4 or implicitfast")


def uncommitted(tree: Any) -> Any:
    """The same arrays, bound to no device.

    MJX commits its arrays to one, and a state made of them would have other kinds of arrays before its first step than
    after it: the step would be compiled twice.
    """
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), tree)


class MjxPhysics:
    """`Physics` by MJX-JAX. On a CPU, compile it with `mjx_policies.compiler.compiler_options()`, or it may hang.

    Args:
      model: the robot.
      substeps: physics steps in one control period.

    Raises:
      ValueError: the model uses something that MJX-JAX lacks, with the backend to choose instead.
    """

    def __init__(self, model: mujoco.MjModel, substeps: int):
        reject_unsupported(model)
        try:
            self._model = uncommitted(mjx.put_model(model, impl="jax"))
        except NotImplementedError as error:
            raise ValueError(f"MJX-JAX cannot simulate this model ({error}): choose the backend cpu or warp") from error
        self._data = uncommitted(mjx.make_data(model, impl="jax"))
        self.model = model
        self.substeps = substeps

    def init(self, qpos: jax.Array, qvel: jax.Array, dynamics: Dynamics) -> Data:
        """See `Physics.init`."""
        check_dynamics(self.model, dynamics)
        with jax.default_matmul_precision("highest"):  # TF32 makes contacts drift on recent GPUs
            return mjx.forward(self._model.tree_replace(dict(dynamics)), self._data.replace(qpos=qpos, qvel=qvel))

    def step(self, data: Data, ctrl: jax.Array, dynamics: Dynamics) -> Data:
        """See `Physics.step`."""
        check_dynamics(self.model, dynamics)
        check_inputs(self, ctrl)
        model = self._model.tree_replace(dict(dynamics))

        def substep(data, ctrl):
            return mjx.step(model, data.replace(ctrl=ctrl)), None

        with jax.default_matmul_precision("highest"):
            return jax.lax.scan(substep, data, ctrl)[0]

    def where(self, mask: jax.Array, a: Data, b: Data) -> Data:
        """See `Physics.where`."""
        return b.where(mask, a)

    def take(self, data: Data, index: jax.Array) -> Data:
        """See `Physics.take`."""
        return data[index]
