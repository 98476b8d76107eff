"""Positions of features in pictures: a softmax over the places of a feature map, its mean place, Levine et al. 2016.

(arXiv:1504.00702, section 5.1.) A feature that moves moves its point by as much, which a dense layer has to learn for
every place. Axes: h by w places, F features, P points.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.types import Array


def expected_places(maps: Array, temperature: Array | float = 1.0) -> Array:  # [..., h, w, F] -> [..., F, 2]
    """The mean place (x, y) of each feature under softmax(map / temperature).

    x is the column and y the row, from -1 at the centre of the first to 1 at that of the last.
    """
    *lead, height, width, features = maps.shape
    weights = jax.nn.softmax(maps.reshape(*lead, height * width, features) / temperature, axis=-2)
    x, y = jnp.meshgrid(jnp.linspace(-1.0, 1.0, width), jnp.linspace(-1.0, 1.0, height))
    places = jnp.stack([x.ravel(), y.ravel()], axis=-1).astype(maps.dtype)  # [h w, 2]
    return jnp.einsum("...pf,pd->...fd", weights, places)


class SpatialSoftmax(nn.Module):
    """`expected_places` with a temperature that is learnt.

    Attributes:
      points: P, learned mixtures of the features, each located in the picture; 0: the features themselves.
    """

    points: int = 0

    @nn.compact
    def __call__(self, maps: Array) -> Array:  # [..., h, w, F] -> [..., 2 P]
        """x and y of each point in turn."""
        if self.points:
            maps = nn.Dense(self.points)(maps)
        temperature = jnp.exp(self.param("log_temperature", nn.initializers.zeros, ()))
        found = expected_places(maps, temperature)
        return found.reshape(*found.shape[:-2], -1)
