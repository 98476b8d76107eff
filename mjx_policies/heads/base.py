"""The protocol of an action head: what turns an embedding into an action. Axes: E embedding, A action.

Every function is for one example; batches come from `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import distrax

from mjx_policies.types import Array, PyTree


class ActionHead(NamedTuple):
    """A bundle of pure functions.

    Attributes:
      init: `(key, embedding [E]) -> params`.
      loss: `(params, key, embedding, action [A]) -> []`, what imitation minimises.
      sample: `(params, key, embedding) -> (action, trace)`. The trace is the quantity that has a density: the action
        before squashing, the mixture's sample, the chain of a denoiser.
      log_prob: `(params, embedding, trace) -> []`, or `None` if the head has no density.
      mode: `(params, embedding) -> action`, the one to deploy, or `None`.
      distribution: `(params, embedding) -> distrax.Distribution` over traces, for exact entropies, or
        `None` where only samples are to be had.
      decode: `trace -> action`, so that who has the distribution need not run the network again to sample.
    """

    init: Callable[[Array, Array], PyTree]
    loss: Callable[[PyTree, Array, Array, Array], Array]
    sample: Callable[[PyTree, Array, Array], tuple[Array, PyTree]]
    log_prob: Callable[[PyTree, Array, PyTree], Array] | None = None
    mode: Callable[[PyTree, Array], Array] | None = None
    distribution: Callable[[PyTree, Array], distrax.Distribution] | None = None
    decode: Callable[[PyTree], Array] = lambda trace: trace
