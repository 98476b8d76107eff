"""Types shared by every part of the library: arrays, observations and time steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.spec import ActionTable, Table

Array = jax.Array
PyTree = Any
Observation = dict[str, Array]
"""`"state"` [D]: what the robot senses. `"privileged"` [P]: what only a simulator knows. `"pixels"` uint8 [H, W, C].
`"extrinsics"` [E]: what sets a randomized robot apart from its model, see `envs.base.Draw`."""

if TYPE_CHECKING:
    Number = Array | float
else:
    Number = float  # what a command line and a stored configuration can hold
"""A number of a run: a float in its configuration, an array once it is traced or there is a batch of runs."""


@struct.dataclass
class TimeStep:
    """The output of one environment step.

    Attributes:
      obs: the observation to act on next.
      reward: [] float32, of the step that led here.
      terminated: [] bool, the task ended: the value of what follows is zero.
      truncated: [] bool, the episode was cut off: the value of what follows is that of `final_obs`. Never true
        together with `terminated`.
      metrics: named scalars, for people; NaN where there is nothing to measure. Nothing learns from them.
      final_obs: the observation that the step really led to. It differs from `obs` exactly where an episode ended and
        `obs` already belongs to the next one; `None` from an environment that does not reset itself.
    """

    obs: Observation
    reward: Array
    terminated: Array
    truncated: Array
    metrics: dict[str, Array]
    final_obs: Observation | None = None


def assemble(table: Table, values: Mapping[str, Array]) -> Array:  # {name: [size]} -> [D]
    """Concatenates `scale * value` in the order of the table; names and sizes must match it exactly."""
    expected = {term.name for term in table}
    if set(values) != expected:
        raise ValueError(f"observation terms {sorted(values)} do not match the table's {sorted(expected)}")
    parts = []
    for term in table:
        value = jnp.asarray(values[term.name], jnp.float32)
        if value.shape != (term.size,):
            raise ValueError(f"observation term {term.name!r} has shape {value.shape}, the table says ({term.size},)")
        parts.append(value if term.scale == 1.0 else value * term.scale)
    return jnp.concatenate(parts)


def actuator_targets(table: ActionTable, action: Array) -> Array:  # [..., A] -> [..., A]
    """The actuator targets for an action, see `ActionTable`."""
    if table.clip:
        action = jnp.clip(action, -table.clip, table.clip)
    target = jnp.asarray(table.default) + jnp.asarray(table.scale) * action
    return jnp.clip(target, jnp.asarray(table.lower), jnp.asarray(table.upper))
