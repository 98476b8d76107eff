"""Progress of an episode of a manipulation task: stages that stay reached, and a success that has to last.

Success counts once its condition has held for `HOLD_SECONDS` without a break, so that flying past a goal is none.
Axes: K stages, in order, of which the last is success.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.types import Array

HOLD_SECONDS = 0.5


@struct.dataclass
class Progress:
    """The progress of an episode so far.

    Attributes:
      held: [] int32, control periods in a row in which the condition of success has held.
      stages: [K] bool, reached at some time. A stage also counts as reached once a later one is.
    """

    held: Array
    stages: Array

    @property
    def success(self) -> Array:  # [] bool
        """Whether the condition of success has lasted for `HOLD_SECONDS` at some time."""
        return self.stages[-1]


def begin(stages: tuple[str, ...]) -> Progress:
    """Progress at the start of an episode: nothing is reached yet."""
    return Progress(jnp.zeros((), jnp.int32), jnp.zeros(len(stages), bool))


def advance(progress: Progress, reached: Mapping[str, Array], control_dt: float) -> Progress:
    """Progress one control period later.

    Args:
      progress: so far.
      reached: name of each stage, in order -> [] bool, whether its condition holds now.
      control_dt: s, length of the period.
    """
    *before, succeeded = reached.values()
    held = jnp.where(succeeded, progress.held + 1, 0)
    periods = math.ceil(HOLD_SECONDS / control_dt - 1e-6)
    now = progress.stages | jnp.stack([*before, held >= periods])
    return Progress(held, jax.lax.cummax(now.astype(jnp.int32), reverse=True) > 0)


def progress_metrics(progress: Progress, stages: tuple[str, ...]) -> dict[str, Array]:
    """`"success"` and a `"stage/<name>"` each, 0 or 1: the values at the last step say what the episode achieved."""
    values = progress.stages.astype(jnp.float32)
    return {"success": values[-1]} | {f"stage/{name}": values[i] for i, name in enumerate(stages)}


def metric_names(stages: tuple[str, ...]) -> tuple[str, ...]:
    """The names in `progress_metrics`."""
    return ("success", *(f"stage/{name}" for name in stages))
