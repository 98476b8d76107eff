"""Multilayer perceptron that commutes with a reflection, as a left-right symmetric robot's policy should.

Hidden layers consist of two halves which change places when the input is reflected. To that end weights are tied, by
group convolution over the two elements of the reflection group, Cohen and Welling 2016 (arXiv:1602.07576): the
arithmetic is that of a plain perceptron with half the parameters, and every sample teaches its mirror image too. Su et
al. 2024 (arXiv:2403.17320) found such policies of legged robots to learn from fewer samples than a mirror loss does.
Axes: D input, W half a hidden width, A output.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.networks.activations import elu
from mjx_policies.networks.initializers import orthogonal
from mjx_policies.types import Array

Reflection = Callable[[Array], Array]
"""[..., N] -> [..., N]: changes the order and the signs of entries, and is its own inverse."""


class SymmetricMLP(nn.Module):
    """`net(reflect_input(x)) == reflect_output(net(x))`, whatever the parameters.

    Attributes:
      features: width of each layer, the output's last; at least one hidden width, and all of them even.
      reflect_input: [..., D] -> [..., D].
      reflect_output: [..., A] -> [..., A]; the identity for a value, which reflection does not change.
      activation: between layers.
      output_scale: variance scale of the last layer's kernel; small values start a policy near zero.
    """

    features: tuple[int, ...]
    reflect_input: Reflection
    reflect_output: Reflection
    activation: Callable[[Array], Array] = elu
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [..., D] -> [..., features[-1]]
        """Applies the layers."""
        *hidden, last = self.features
        if not hidden or any(width % 2 for width in hidden):
            raise ValueError(f"hidden widths {hidden} of a symmetric network must be even, and at least one of them")
        kernel_init = orthogonal(2**0.5)
        zeros = jax.nn.initializers.zeros
        for depth, width in enumerate(hidden):
            rows = x.shape[-1] // (2 if depth else 1)
            own = self.param(f"own_{depth}", kernel_init, (rows, width // 2))
            if depth == 0:
                kernel = jnp.hstack([own, self.reflect_input(own.T).T])
            else:
                cross = self.param(f"cross_{depth}", kernel_init, own.shape)
                kernel = jnp.block([[own, cross], [cross, own]]) / 2**0.5
            bias = self.param(f"bias_{depth}", zeros, width // 2)
            # Not jnp.tile, which XLA fuses into index arithmetic that makes this layer three times as slow on a CPU.
            x = self.activation(x @ kernel + jnp.concatenate([bias, bias]))
        own = self.param("own_out", orthogonal(self.output_scale), (hidden[-1] // 2, last))
        kernel = jnp.vstack([own, self.reflect_output(own)]) / 2**0.5
        bias = self.param("bias_out", zeros, last)
        return x @ kernel + (bias + self.reflect_output(bias)) / 2
