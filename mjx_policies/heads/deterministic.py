"""One action for each embedding, by regression.

Where demonstrations disagree it predicts what is between them, their mean under squared errors and their median under
absolute ones: a way around an obstacle on either side becomes a way into it. Axes: E embedding, H horizon, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import flax.linen as nn

from mjx_policies.heads.base import ActionHead, masked_mean, one_decision
from mjx_policies.losses import squared_error
from mjx_policies.types import Array, PyTree


def deterministic_head(
    net: nn.Module, shape: int | tuple[int, ...], error: Callable[[Array, Array], Array] = squared_error
) -> ActionHead:
    """Builds the regression head.

    Args:
      net: embedding [E] -> action.
      shape: of the action; A for [A].
      error: `(prediction, target) -> error of each number`, one of `mjx_policies.losses`, such as `absolute_error`.
    """
    shape = (shape,) if isinstance(shape, int) else shape

    def mode(params: PyTree, embedding: Array) -> Array:
        return cast(Array, net.apply(params, embedding)).reshape(shape)

    def loss(params: PyTree, key: Array, embedding: Array, action: Array, mask: Array | None = None) -> Array:
        del key
        return masked_mean(error(mode(params, embedding), action), mask)

    def sample(params: PyTree, key: Array, embedding: Array) -> tuple[Array, Array]:
        del key
        action = mode(params, embedding)
        return action, one_decision(action)

    return ActionHead(net.init, loss, sample, mode=mode)
