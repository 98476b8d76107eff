"""Times as waves of many periods, so that a network can tell near ones apart. Axes: T times, F features of one."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mjx_policies.types import Array


class TimeEmbedding(nn.Module):
    """sin and cos of 2 pi t / period, Vaswani et al. 2017 (arXiv:1706.03762), section 3.5. It has no parameters.

    Attributes:
      features: F, even.
      min_period, max_period: in the unit of the times; in between periods grow by a constant factor. Those of Black et
        al. 2024 (arXiv:2410.24164): two fifths of the step between a hundred levels of noise, up to four times [0, 1].
    """

    features: int = 32
    min_period: float = 4e-3
    max_period: float = 4.0

    @nn.compact
    def __call__(self, time: Array) -> Array:  # [] or [T] -> [T F]
        """The features of all times, side by side."""
        if self.features < 2 or self.features % 2:
            raise ValueError(f"features is {self.features}, it must be even and at least 2")
        frequency = 2 * np.pi / np.geomspace(self.min_period, self.max_period, self.features // 2)
        angle = jnp.atleast_1d(time)[:, None] * jnp.asarray(frequency, jnp.float32)
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1).ravel()
