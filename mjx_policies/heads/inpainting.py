"""Chunks that continue the one being executed: real-time chunking, Black et al. 2025 (arXiv:2506.07339).

While a chunk is computed the robot goes on with the last one, and a new chunk that went another way would be a jump.
So samplers are pulled towards what is left of the last chunk: fully in the steps that are executed meanwhile, less and
less in those after, not at all where there was no plan yet. The pull is the gradient of the distance between the clean
chunk that the network expects and the last one (Song et al. 2023, ICLR, pseudoinverse guidance), so the free steps
follow the way that the held ones go. Nothing is trained for it. The held steps come out near their old values rather
than equal: execute the old ones. Axes: H horizon, A action, S steps of a sampler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.types import Array, Number

MAX_WEIGHT = 5.0
"""The largest weight of the pull, section 4.2 there: more makes samplers of few steps diverge."""


class Prefix(NamedTuple):
    """The planned actions that a chunk continues.

    Attributes:
      action: [H, A] planned before, from now on; anything finite where the weight is 0.
      weight: [H] in [0, 1], how much each step is held. Zeros: a sample like any other.
    """

    action: Array
    weight: Array


Estimate = Callable[[Array], tuple[Array, Any]]
"""Noisy x -> the clean chunk expected, and anything else."""


def soft_mask(horizon: int, frozen: int, planned: int) -> np.ndarray:  # -> [H]
    """Weights of a prefix, equation 5 there.

    Args:
      horizon: H.
      frozen: steps executed before the new chunk is there: 1.
      planned: steps that the last chunk has an action for: they fall from 1 after the frozen ones to 0.

    Raises:
      ValueError: unless `0 <= frozen <= planned <= horizon`.
    """
    if not 0 <= frozen <= planned <= horizon:
        raise ValueError(f"a prefix needs 0 <= frozen <= planned <= horizon, not {frozen}, {planned}, {horizon}")
    left = np.clip((planned - np.arange(horizon)) / (planned - frozen + 1), 0.0, 1.0)
    return np.where(np.arange(horizon) < frozen, 1.0, left * np.expm1(left) / np.expm1(1.0)).astype(np.float32)


def pull(
    estimate: Estimate, x: Array, time: Number, prefix: Prefix, max_weight: float = MAX_WEIGHT
) -> tuple[Array, Array, Any]:  # [H, A] -> [H, A], [H, A]
    """The clean chunk expected, what to add to the velocity towards it (equations 2 to 4), and the estimate's rest.

    Along the path x = (1 - t) noise + t action. A velocity that changes by w changes the clean chunk by (1 - t) w.

    Args:
      estimate: of the clean chunk.
      x: noisy chunk on that path.
      time: t.
      prefix: what to continue.
      max_weight: of the pull, which has no bound at either end of the path.
    """
    clean, gradient, rest = jax.vjp(estimate, x, has_aux=True)
    error = prefix.weight[:, None] * (prefix.action - clean)
    weight = jnp.minimum((time**2 + (1 - time) ** 2) / jnp.maximum(time * (1 - time), 1e-6), max_weight)
    return clean, weight * gradient(error)[0], rest
