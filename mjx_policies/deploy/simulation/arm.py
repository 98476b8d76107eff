"""An arm at a table in MuJoCo's C engine, with a tracker that sees the things on it.

What sets it apart from `SimulatedRobot`:
- Targets are not jumped to. Within `target_period` they move linearly from where the last ones left them, as the loop
  of an arm's own makes a way of them.
- Joints that an equality couples, such as the two fingers of a hand that one motor drives, are read as one: their mean.
- A reading also holds `<name>_position` [3] m and `<name>_orientation` [4] w, x, y, z of each thing, in the world's
  frame, which must be that of the arm's base. They come with the same latency as everything else.

Axes: A joints, in the order of `joint_names`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from mjx_policies.deploy.simulation.robot import SimulatedRobot


class SimulatedArm(SimulatedRobot):
    """A simulated arm behind the protocol `Robot`. See the module.

    Args:
      model: see `SimulatedRobot`.
      joint_names: likewise.
      name: of the robot.
      things: names of the bodies that the tracker sees.
      target_period: s from one write to the next, the policy's control period.
      more: for `SimulatedRobot`.

    Raises:
      ValueError: the model has no such body, or what `SimulatedRobot` refuses.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        joint_names: Sequence[str] | None = None,
        name: str = "franka",
        *,
        things: Sequence[str] = (),
        target_period: float = 0.05,
        **more: Any,
    ):
        bodies = [model.body(i).name for i in range(model.nbody)]
        if unknown := [thing for thing in things if thing not in bodies]:
            raise ValueError(f"the model has no body {unknown[0]!r} to be tracked; it has {', '.join(bodies[1:])}")
        self._things = {thing: model.body(thing).id for thing in things}
        self._mates = _mates(model)
        self._period_steps = max(1, round(target_period / model.opt.timestep))
        self._stride, self._strides = np.zeros(model.nu), 0
        super().__init__(model, joint_names, name, **more)

    def reset(self, qpos: np.ndarray | None = None, qvel: np.ndarray | None = None) -> None:
        """See `SimulatedRobot.reset`."""
        super().reset(qpos, qvel)
        self._strides = 0

    def sense(self) -> dict[str, np.ndarray]:
        """See `SimulatedRobot.sense`."""
        with self._lock:
            values = super().sense()
            for i, actuator in enumerate(self._actuators):
                if (mates := self._mates.get(int(self._model.actuator_trnid[actuator, 0]))) is not None:
                    values["joint_position"][i] = self.data.qpos[self._model.jnt_qposadr[mates]].mean()
                    values["joint_velocity"][i] = self.data.qvel[self._model.jnt_dofadr[mates]].mean()
            for thing, body in self._things.items():
                values[f"{thing}_position"] = self.data.xpos[body].copy()
                values[f"{thing}_orientation"] = self.data.xquat[body].copy()
            return values

    def _aim(self, actuators: np.ndarray, position: np.ndarray) -> None:
        if self.damped:  # whoever led it elsewhere meanwhile, it sets out from there
            self.data.ctrl[self._actuators] = self.data.qpos[self._angles]
        self._stride = np.zeros_like(self._stride)
        self._stride[actuators] = (position - self.data.ctrl[actuators]) / self._period_steps
        self._strides = self._period_steps

    def _drive(self) -> None:
        if self._strides:
            self.data.ctrl += self._stride
            self._strides -= 1


def _mates(model: mujoco.MjModel) -> dict[int, np.ndarray]:
    """Both joints, for each one that moves as another one does."""
    found = {}
    for kind, one, other in zip(model.eq_type, model.eq_obj1id, model.eq_obj2id, strict=True):
        if kind == mujoco.mjtEq.mjEQ_JOINT and other >= 0:
            found[int(one)] = found[int(other)] = np.array([one, other])
    return found
