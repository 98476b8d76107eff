"""One-dimensional U-Net over the steps of a chunk, Janner et al. 2022 (arXiv:2205.09991); for policies Chi et al. 2023.

(arXiv:2303.04137, section 4.2.) Convolutions along time, at fewer and fewer steps and back, told of time and embedding
by a scale and a shift of every channel (FiLM, Perez et al. 2018, arXiv:1709.07871). Neighbouring steps share weights,
so actions come out smooth; where they must jump, a transformer does better (section 4.2 there). Steps are doubled by
repetition and a convolution, which leaves no checkerboard (Odena et al. 2016, doi:10.23915/distill.00003).
Axes: E embedding, H horizon, A action, T times, C channels, D numbers of what is told.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.networks.initializers import small
from mjx_policies.networks.time_embedding import TimeEmbedding
from mjx_policies.types import Array


class Convolution(nn.Module):
    """Along time, with zeros before the first and after the last step.

    As the product of a matrix with neighbouring steps side by side: on a CPU, XLA's own convolution of a batch of short
    chunks takes four times as long with its gradient.

    Attributes:
      channels: C.
      kernel: steps that it spans, odd.
      stride: steps from one output to the next.
    """

    channels: int
    kernel: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [H, C'] -> [H / stride, C]
        """Convolves along the steps."""
        steps, reach = len(x), self.kernel // 2
        edge = jnp.zeros_like(x[:1])  # a padding that can be exported, for a batch of any size
        padded = jnp.concatenate([edge] * reach + [x] + [edge] * reach)
        neighbours = [padded[i : i + steps : self.stride] for i in range(self.kernel)]
        return nn.Dense(self.channels)(jnp.concatenate(neighbours, axis=1))


class ConvolutionBlock(nn.Module):
    """Convolution along time, group norm, activation.

    Attributes:
      channels: C.
      kernel: steps that it spans.
      groups: of the norm, at most; fewer where they do not divide C.
    """

    channels: int
    kernel: int
    groups: int

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [H, C'] -> [H, C]
        """Convolves along the steps, normalises and activates."""
        x = Convolution(self.channels, self.kernel)(x)
        groups = next(n for n in range(min(self.groups, self.channels), 0, -1) if self.channels % n == 0)
        # The axes: by default flax takes the first one for a batch, and each step would be normalised alone.
        return jax.nn.silu(nn.GroupNorm(groups, reduction_axes=(-2, -1))(x))


class ResidualBlock(nn.Module):
    """Two convolutions, between which every channel is scaled and shifted by what is told.

    Attributes:
      channels: C.
      kernel, groups: see `ConvolutionBlock`.
    """

    channels: int
    kernel: int
    groups: int

    @nn.compact
    def __call__(self, x: Array, told: Array) -> Array:  # [H, C'], [D] -> [H, C]
        """Computes the features under a condition."""
        scale, shift = jnp.split(nn.Dense(2 * self.channels)(jax.nn.silu(told)), 2)
        h = ConvolutionBlock(self.channels, self.kernel, self.groups)(x)
        h = ConvolutionBlock(self.channels, self.kernel, self.groups)(h * (1 + scale) + shift)
        return h + (x if x.shape[-1] == self.channels else nn.Dense(self.channels)(x))


class TemporalUNet(nn.Module):
    """The network, called as those of `networks.denoiser`.

    Attributes:
      channels: of each level; the paper's are (256, 512, 1024). Each but the last halves the steps.
      kernel: steps that a convolution spans.
      groups: of the norms.
      time_features: of each time.
    """

    channels: tuple[int, ...] = (64, 128, 256)
    kernel: int = 5
    groups: int = 8
    time_features: int = 32

    @nn.compact
    def __call__(self, x: Array, time: Array, embedding: Array) -> Array:  # [H, A], [] or [T], [E] -> [H, A]
        """The network's prediction, shaped like x."""
        shape, halvings = x.shape, len(self.channels) - 1
        if len(shape) != 2 or shape[0] % 2**halvings:
            raise ValueError(
                f"TemporalUNet halves the steps {halvings} times and needs chunks [H, A] with H a multiple of "
                f"{2**halvings}, not {shape}: choose another horizon or fewer channels"
            )
        told = TimeEmbedding(self.time_features)(time).astype(x.dtype)
        told = nn.Dense(self.channels[0])(jax.nn.silu(nn.Dense(4 * self.channels[0])(told)))
        told = jnp.concatenate([told, embedding])

        def residual(x: Array, channels: int) -> Array:
            for _ in range(2):
                x = ResidualBlock(channels, self.kernel, self.groups)(x, told)
            return x

        skipped = []
        for channels in self.channels[:-1]:
            x = residual(x, channels)
            skipped.append(x)
            x = Convolution(channels, 3, stride=2)(x)
        x = residual(residual(x, self.channels[-1]), self.channels[-1])
        for channels in reversed(self.channels[:-1]):
            x = Convolution(channels, 3)(jnp.repeat(x, 2, axis=0))
            x = residual(jnp.concatenate([x, skipped.pop()], axis=1), channels)
        x = ConvolutionBlock(self.channels[0], self.kernel, self.groups)(x)
        return nn.Dense(shape[1], kernel_init=small)(x)
