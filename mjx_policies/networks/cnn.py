"""Pictures as feature maps. Axes: H by W pixels, C channels, h by w places of a map, F features, E condition."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from mjx_policies.networks.initializers import orthogonal
from mjx_policies.types import Array


class CNN(nn.Module):
    """Convolutions of 3 by 3, as of Yarats et al. 2021 (arXiv:2107.09645), whose output may depend on what is wanted.

    A condition, a goal or an instruction, scales and shifts the features after each layer, FiLM of Perez et al. 2018
    (arXiv:1709.07871), and does nothing at first. Nothing is padded: the net sees no border that the picture has not.

    Attributes:
      features: F of each layer.
      strides: of each layer.
    """

    features: tuple[int, ...] = (32, 32, 32, 32)
    strides: tuple[int, ...] = (2, 1, 1, 1)

    @nn.compact
    def __call__(self, pixels: Array, condition: Array | None = None) -> Array:  # [..., H, W, C], [E] -> [..., h, w, F]
        """Computes the feature map. Pixels are uint8, or floats that have been scaled to [-1, 1]."""
        if len(self.features) != len(self.strides):
            raise ValueError(f"a CNN has {len(self.features)} layers of features and {len(self.strides)} strides")
        x = scaled(pixels)
        for depth, (width, stride) in enumerate(zip(self.features, self.strides, strict=True)):
            if min(x.shape[-3:-1]) < 3:
                size = f"{pixels.shape[-3]} by {pixels.shape[-2]} pixels"
                raise ValueError(f"pictures of {size} are too small for {len(self.features)} layers of convolutions")
            kernel = orthogonal(2**0.5)
            x = nn.Conv(width, (3, 3), stride, padding="VALID", kernel_init=kernel)(x)
            if condition is not None:
                zeros = nn.initializers.zeros
                gain, shift = jnp.split(nn.Dense(2 * width, kernel_init=zeros, name=f"film_{depth}")(condition), 2)
                x = (1 + gain) * x + shift
            x = nn.relu(x)
        return x


def scaled(pixels: Array) -> Array:  # [...] -> [...]
    """uint8 as floats in [-1, 1]; floats stay as they are.

    Raises:
      ValueError: other integers, of which nobody knows the range.
    """
    if pixels.dtype == jnp.uint8:
        return pixels.astype(jnp.float32) / 127.5 - 1
    if not jnp.issubdtype(pixels.dtype, jnp.floating):
        raise ValueError(f"pixels are {pixels.dtype}, they must be uint8, or floats in [-1, 1]")
    return pixels
