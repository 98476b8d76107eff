"""Scales of what networks see, and running moments of observations to make them of. Axes: N samples, D numbers.

Welford's update for batches (Chan, Golub, LeVeque 1979): merging two sets of moments is associative, so the order of
rollouts, minibatches or devices does not matter beyond rounding.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.types import Array, PyTree

MIN_STD = 1e-2  # no number is divided by less, as in Zhao et al. 2023 (arXiv:2304.13705), code


@struct.dataclass
class Scale:
    """`y = (x - offset) / size`, by number.

    Attributes:
      offset, size: [D], NumPy's or JAX's.
    """

    offset: Any
    size: Any

    def apply(self, values: Any) -> Any:  # [..., D] -> [..., D]
        """Converts numbers to the scale of a network."""
        return (values - self.offset) / self.size

    def invert(self, values: Any) -> Any:  # [..., D] -> [..., D]
        """Converts scaled numbers back to their units."""
        return values * self.size + self.offset


@struct.dataclass
class Normalizer:
    """Moments of every entry of an observation.

    Attributes:
      count: [] float32, samples seen; starts small, so that the first batch decides.
      mean, variance: shaped like one observation.
    """

    count: Array
    mean: PyTree
    variance: PyTree

    def part(self, name: str) -> Normalizer:
        """The moments of one entry of a dict."""
        return Normalizer(self.count, self.mean[name], self.variance[name])


def init_normalizer(example: PyTree) -> Normalizer:
    """The identity, for observations shaped like `example`."""
    return Normalizer(
        count=jnp.asarray(1e-4, jnp.float32),
        mean=jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), example),
        variance=jax.tree.map(lambda x: jnp.ones(x.shape, jnp.float32), example),
    )


def moments(batch: PyTree) -> Normalizer:  # [N, ...]
    """The moments of one batch."""
    leaves = jax.tree.leaves(batch)
    return Normalizer(
        count=jnp.asarray(leaves[0].shape[0] if leaves else 0, jnp.float32),
        mean=jax.tree.map(lambda x: jnp.mean(x, axis=0), batch),
        variance=jax.tree.map(lambda x: jnp.var(x, axis=0), batch),
    )


def without_outliers(normalizer: Normalizer, batch: PyTree, deviations: float = 30.0) -> PyTree:  # [N, ...]
    """`batch`, cut at so many deviations from the mean so far: what one batch can do to the moments is bounded.

    A network sees no more than `clip` deviations anyway, while a single sample far beyond would raise the deviation of
    all that follow. A deviation counts as 0.1 at least, so that an entry that has not moved yet can begin to, and
    nothing is cut before there are moments to compare with.
    """

    def cut(x, mean, variance):
        width = jnp.where(normalizer.count >= 1, deviations * jnp.maximum(jnp.sqrt(variance), 0.1), jnp.inf)
        return jnp.clip(x, mean - width, mean + width)

    return jax.tree.map(cut, batch, normalizer.mean, normalizer.variance)


def merge(a: Normalizer, b: Normalizer) -> Normalizer:
    """The moments of both sets of samples together."""
    count = a.count + b.count
    share = b.count / count
    mean = jax.tree.map(lambda x, y: x + (y - x) * share, a.mean, b.mean)
    variance = jax.tree.map(
        lambda va, vb, ma, mb: (1 - share) * va + share * vb + share * (1 - share) * jnp.square(mb - ma),
        a.variance,
        b.variance,
        a.mean,
        b.mean,
    )
    return Normalizer(count=count, mean=mean, variance=variance)


def scale_of(normalizer: Normalizer) -> Scale:
    """The scale to mean zero and deviation one, with a floor: a number that hardly varies must not fill an input."""
    return Scale(normalizer.mean, jnp.maximum(jnp.sqrt(normalizer.variance), MIN_STD))
