"""Mocap bodies by name: goals and obstacles that stay where an episode puts them."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import mujoco

from mjx_policies.envs.physics.base import Data
from mjx_policies.types import Array


def mocap_id(model: mujoco.MjModel, name: str) -> int:
    """Row of a mocap body in `mocap_pos` and `mocap_quat`."""
    return int(model.body(name).mocapid[0])


def place(model: mujoco.MjModel, data: Data, positions: Mapping[str, Array]) -> Data:
    """Puts mocap bodies at world positions [3]. What is derived from them is right after the next step."""
    rows = jnp.asarray([mocap_id(model, name) for name in positions])
    return data.replace(mocap_pos=data.mocap_pos.at[rows].set(jnp.stack(list(positions.values()))))
