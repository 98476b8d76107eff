"""The C engine on all cores, called from compiled code: `mujoco.batch.Batch` behind a JAX callback.

`buffer_callback` hands NumPy views of XLA's own buffers to the engine, so nothing is copied through JAX arrays inside
the callback. That also removes the known way to hang: `pure_callback` allocates JAX arrays on the very thread pool that
waits for it (jax-ml/jax #24255, #25861).

Axes: B robots, however many dimensions of `vmap` they came from; S substeps.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import mujoco.batch
import numpy as np
from flax import struct
from jax.experimental.buffer_callback import buffer_callback

from mjx_policies.envs.physics.base import Dynamics, check_dynamics, check_inputs, field_template

STATE_FIELDS = ("time", "qpos", "qvel", "act", "history", "qacc_warmstart", "mocap_pos", "mocap_quat")
OUTPUT_FIELDS = (
    "sensordata",
    "xpos",
    "xquat",
    "xmat",
    "site_xpos",
    "site_xmat",
    "geom_xpos",
    "geom_xmat",
    "cam_xpos",
    "cam_xmat",
    "subtree_com",
    "cvel",
    "actuator_force",
    "qfrc_actuator",
)


@struct.dataclass
class CpuData:
    """The state of one robot under MuJoCo's names, and the derived fields that `CpuPhysics` was asked to keep."""

    time: jax.Array
    qpos: jax.Array
    qvel: jax.Array
    act: jax.Array
    history: jax.Array
    qacc_warmstart: jax.Array
    mocap_pos: jax.Array
    mocap_quat: jax.Array
    sensordata: jax.Array | None = None
    xpos: jax.Array | None = None
    xquat: jax.Array | None = None
    xmat: jax.Array | None = None
    site_xpos: jax.Array | None = None
    site_xmat: jax.Array | None = None
    geom_xpos: jax.Array | None = None
    geom_xmat: jax.Array | None = None
    cam_xpos: jax.Array | None = None
    cam_xmat: jax.Array | None = None
    subtree_com: jax.Array | None = None
    cvel: jax.Array | None = None
    actuator_force: jax.Array | None = None
    qfrc_actuator: jax.Array | None = None


class CpuPhysics:
    """`Physics` by the C engine on all cores.

    Args:
      model: the robot.
      substeps: physics steps in one control period.
      outputs: derived fields to keep, from `OUTPUT_FIELDS`; each costs a copy every step.
      num_threads: threads of the engine; 0 for one per core.

    Raises:
      ValueError: JAX does not run on the CPU, or there is no such output.
    """

    def __init__(
        self, model: mujoco.MjModel, substeps: int, outputs: tuple[str, ...] = ("sensordata",), num_threads: int = 0
    ):
        if jax.default_backend() != "cpu":
            raise ValueError(
                f"the cpu physics backend needs JAX on the CPU, but JAX runs on {jax.default_backend()}: "
                "set JAX_PLATFORMS=cpu, or choose the backend mjx or warp"
            )
        unknown = sorted(set(outputs) - set(OUTPUT_FIELDS))
        if unknown:
            raise ValueError(f"the cpu backend has no output {', '.join(unknown)}; it has: {', '.join(OUTPUT_FIELDS)}")
        model = copy.copy(model)
        # A diverged robot must show its NaN, so that it can be quarantined; the engine would silently reset it.
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self.model = model
        self.substeps = substeps
        self._outputs = outputs
        self._num_threads = num_threads
        data = mujoco.MjData(model)
        shapes = {name: np.shape(getattr(data, name)) for name in (*STATE_FIELDS, *outputs)}
        like: dict[str, Any] = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
        self._result = CpuData(**like)  # shapes and types in place of arrays
        self._mocap = {"mocap_pos": jnp.asarray(data.mocap_pos), "mocap_quat": jnp.asarray(data.mocap_quat)}
        self._idle: dict[tuple[int, tuple[str, ...]], list[_Engine]] = {}
        self._lock = threading.Lock()

    def init(self, qpos: jax.Array, qvel: jax.Array, dynamics: Dynamics) -> CpuData:
        """See `Physics.init`."""
        check_dynamics(self.model, dynamics)
        state = {name: jnp.zeros(getattr(self._result, name).shape, jnp.float32) for name in STATE_FIELDS}
        state |= {"qpos": qpos, "qvel": qvel, **self._mocap}
        return self._call(self._forward, state, dynamics)

    def step(self, data: CpuData, ctrl: jax.Array, dynamics: Dynamics) -> CpuData:
        """See `Physics.step`."""
        check_dynamics(self.model, dynamics)
        check_inputs(self, ctrl)
        state = {name: getattr(data, name) for name in STATE_FIELDS}
        return self._call(self._rollout, state, dynamics, ctrl)

    def where(self, mask: jax.Array, a: CpuData, b: CpuData) -> CpuData:
        """See `Physics.where`."""
        return jax.tree.map(lambda x, y: jnp.where(mask, x, y), a, b)

    def take(self, data: CpuData, index: jax.Array) -> CpuData:
        """See `Physics.take`."""
        return jax.tree.map(lambda x: x[index], data)

    def _call(self, run, state, dynamics, *ctrl):
        args = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (state, dict(dynamics), *ctrl))
        return buffer_callback(run, self._result, vmap_method="broadcast_all")(*args)

    def _forward(self, context, out, state, dynamics):
        del context

        def forward(engine: _Engine) -> None:
            # A used engine still holds the last row of its last rollout, which would show in forces and warm starts.
            engine.batch.bind("ctrl")[...] = 0.0
            engine.refused[...] = False
            engine.batch.forward()

        self._run(out, state, dynamics, forward)

    def _rollout(self, context, out, state, dynamics, ctrl):
        del context

        def rollout(engine: _Engine) -> None:
            engine.ctrl[...] = np.asarray(ctrl).reshape(engine.ctrl.shape)
            # Of a policy that diverged. The engine would refuse it too, with a line on standard error for each robot.
            engine.refused[...] = ~(np.abs(engine.ctrl) <= mujoco.mjMAXVAL).all(axis=(1, 2))
            engine.ctrl[engine.refused] = 0.0
            engine.batch.rollout(self.substeps, engine.ctrl, record=())

        self._run(out, state, dynamics, rollout)

    def _run(self, out, state, dynamics, advance) -> None:
        num = int(np.prod(np.asarray(state["qpos"]).shape[:-1], dtype=int))
        engine = self._checkout(num, tuple(dynamics))
        try:
            engine.write(state, dynamics)
            advance(engine)
            engine.read(out, (*STATE_FIELDS, *self._outputs))
        except mujoco.batch.SimulationError as error:
            # The engine is not used again: what it last saw is not what it simulates.
            raise RuntimeError(f"the C engine failed in environment {int(error.ids[0])} of {num}: {error}") from error
        with self._lock:
            self._idle[num, tuple(dynamics)].append(engine)

    def _checkout(self, num: int, fields: tuple[str, ...]) -> _Engine:
        # XLA may run two callbacks at once, and an engine belongs to one thread at a time.
        with self._lock:
            idle = self._idle.setdefault((num, fields), [])
            if idle:
                return idle.pop()
        return _Engine(self.model, num, fields, self._outputs, self.substeps, self._num_threads)


class _Engine:
    """A batch of simulations, the buffers around it and the randomized fields it last saw."""

    def __init__(
        self,
        model: mujoco.MjModel,
        num: int,
        fields: tuple[str, ...],
        outputs: tuple[str, ...],
        substeps: int,
        num_threads: int,
    ):
        self.batch = mujoco.batch.Batch(model, num, num_threads)
        for name in outputs:  # a derived field that is bound only after a call reads zero
            self.batch.bind(name)
        self.ctrl = np.zeros((num, substeps, model.nu))
        self.refused = np.zeros(num, bool)  # robots whose last ctrl was no number
        self._expanded = {name: self.batch.expand(name).reshape(num, -1) for name in fields}
        self._nominal = {name: values.copy() for name, values in self._expanded.items()}
        self._seen = {
            name: np.broadcast_to(field_template(model, name).reshape(1, -1), values.shape).copy()
            for name, values in self._expanded.items()
        }
        self._warnings = self.batch.warning[..., 1].sum(axis=1)  # [num], of every kind

    def write(self, state: Mapping[str, np.ndarray], dynamics: Mapping[str, np.ndarray]) -> None:
        for name, value in state.items():
            target = self.batch.bind(name)
            target[...] = np.asarray(value).reshape(target.shape)
        redrawn = np.zeros(self.batch.nsim, bool)
        for name, value in dynamics.items():
            seen = self._seen[name]  # [B, size of the field]
            value = np.asarray(value).reshape(seen.shape)
            differing = np.flatnonzero(value != seen)
            if differing.size:  # only where an episode began
                changed = np.flatnonzero(np.bincount(differing // seen.shape[1]))
                nominal, rows = self._nominal[name][changed], value[changed]
                # Untouched entries keep the model's float64, so that an empty draw is the nominal robot to the bit.
                self._expanded[name][changed] = np.where(rows == nominal.astype(np.float32), nominal, rows)
                seen[changed] = rows
                redrawn[changed] |= name in mujoco.MjModel._setconst_inputs
        if redrawn.any():
            # Constants of the engine that are no floats, such as body_sameframe, cannot travel in `dynamics`.
            self.batch.set_const(np.flatnonzero(redrawn))

    def read(self, out: CpuData, fields: tuple[str, ...]) -> None:
        for name in fields:
            target = np.asarray(getattr(out, name))
            with np.errstate(over="ignore"):  # of a robot that diverges, whose infinity is what gives it away
                target[...] = self.batch.bind(name).reshape(target.shape)
        warnings = self.batch.warning[..., 1].sum(axis=1)
        stopped = (warnings != self._warnings) | self.refused
        if stopped.any():
            # A rollout stops a simulation that warns: a diverged one, or one out of contact memory. Neither is physics.
            np.asarray(out.qpos).reshape(len(stopped), -1)[stopped] = np.nan
            self._warnings = warnings
