"""MJX-Warp: MuJoCo's engine for NVIDIA GPUs behind the MJX interface (no gradients)."""

from __future__ import annotations

import importlib.util

import mujoco

from mjx_policies.envs.physics.mjx import MjxPhysics, mjx, uncommitted  # mjx, silenced where it is imported


class WarpPhysics(MjxPhysics):
    """`Physics` by MJX-Warp.

    Args:
      model: the robot.
      substeps: physics steps in one control period.
      max_contacts: room for contacts, of all robots of a batch together: what does not fit is dropped.
      max_constraints: room for constraint rows of one robot.

    Raises:
      ValueError: warp-lang is not installed or cannot start, or the model uses something that MJX-Warp lacks.
    """

    def __init__(self, model: mujoco.MjModel, substeps: int, max_contacts: int, max_constraints: int):
        if importlib.util.find_spec("warp") is None:
            raise ValueError("the warp backend needs warp-lang: pip install 'mjx-policies[warp]'")
        try:
            self._model = uncommitted(mjx.put_model(model, impl="warp"))
            data = mjx.make_data(model, impl="warp", naconmax=max_contacts, njmax=max_constraints)
            self._data = uncommitted(data)
        except NotImplementedError as error:  # also a RuntimeError
            raise ValueError(f"MJX-Warp cannot simulate this model ({error}): choose the backend cpu") from error
        except RuntimeError as error:
            raise ValueError(
                f"MJX-Warp cannot start here ({error}): check the versions of warp-lang and of the NVIDIA driver, "
                "or choose the backend mjx"
            ) from error
        self.model = model
        self.substeps = substeps
