"""Multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn

from mjx_policies.networks.activations import elu
from mjx_policies.networks.initializers import orthogonal
from mjx_policies.types import Array


class MLP(nn.Module):
    """Dense layers with an activation between them, and none after the last.

    Attributes:
      features: width of each layer, the output's last.
      activation: between layers.
      output_scale: variance scale of the last layer's kernel; small values start a policy near zero.
    """

    features: tuple[int, ...]
    activation: Callable[[Array], Array] = elu
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [..., D] -> [..., features[-1]]
        """Applies the layers."""
        *hidden, last = self.features
        for width in hidden:
            x = self.activation(nn.Dense(width, kernel_init=orthogonal(2**0.5))(x))
        return nn.Dense(last, kernel_init=orthogonal(self.output_scale))(x)
