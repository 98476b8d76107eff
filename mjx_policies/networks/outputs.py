"""A network with several outputs, as heads want that predict more than an action. Axes: E embedding."""

from __future__ import annotations

import math
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from mjx_policies.networks.initializers import small
from mjx_policies.types import Array


class Outputs(nn.Module):
    """A linear layer for each output, on features that they share.

    Attributes:
      net: [E] -> features; they pass an activation, since the last layer of a `ResidualMLP` without an output has none.
      shapes: of each output.
    """

    net: nn.Module
    shapes: Mapping[str, tuple[int, ...]]

    @nn.compact
    def __call__(self, embedding: Array) -> dict[str, Array]:  # [E]
        """Computes the outputs, by name."""
        features = nn.silu(jnp.ravel(self.net(embedding)))
        # Small first outputs: whatever a head makes of zeros is where it starts from.
        return {
            name: nn.Dense(math.prod(shape), kernel_init=small, name=name)(features).reshape(shape)
            for name, shape in self.shapes.items()
        }
