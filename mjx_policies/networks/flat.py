"""Observations as one vector, for heads with perceptrons. Axes: O stacked observations, D numbers of one."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from mjx_policies.types import Array, Observation


class Flat(nn.Module):
    """All that is seen side by side, names in alphabetical order, the oldest first. It has no parameters.

    Attributes:
      kept: which of the D numbers of each observation are seen; all of those that are not named.
    """

    kept: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @nn.compact
    def __call__(self, observation: Observation) -> Array:  # {name: [O, D]} -> [E]
        """Flattens the observation and joins it to one vector."""
        kept = dict(self.kept)
        rows = {name: observation[name] for name in sorted(observation)}
        seen = [rows[name][:, jnp.asarray(kept[name])] if name in kept else rows[name] for name in rows]
        return jnp.concatenate([x.ravel() for x in seen])
