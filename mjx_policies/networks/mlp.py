"""Multilayer perceptrons. Axes: D input, W width, T another input."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn

from mjx_policies.networks.activations import elu
from mjx_policies.networks.initializers import orthogonal, small
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


class ResidualMLP(nn.Module):
    """Residual perceptron with SiLU, whose first outputs are near zero: the trunk of most heads for states.

    With the same data, loss and weight decay, regression on it imitates an arm far better than on an `MLP`, see
    RESULTS.md.

    Attributes:
      width: W.
      depth: hidden layers after the first.
      features: of the output; 0: there is none, the last hidden layer is returned before its activation.
    """

    width: int = 512
    depth: int = 3
    features: int = 0

    @nn.compact
    def __call__(self, x: Array, condition: Array | None = None) -> Array:  # [D], [T] -> [features]
        """Applies the layers, each of which is told the condition anew if there is one."""
        h = nn.Dense(self.width)(x)
        for _ in range(self.depth):
            layer = nn.Dense(self.width)  # before that of the condition, since flax numbers layers in this order
            h = h + layer(nn.silu(h if condition is None else h + nn.Dense(self.width)(condition)))
        return nn.Dense(self.features, kernel_init=small)(nn.silu(h)) if self.features else h
