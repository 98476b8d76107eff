"""The protocol of an action head: what turns an embedding into an action.

Every function is for one example; batches come from `vmap`. An action is an array of the head's own shape: [A] for one
control step, [H, A] for a chunk of them. Axes: E embedding, H horizon, A action.

Actions of generative heads are normalised: data lies in [-1, 1]. Time runs from 0 (noise) to 1 (action) everywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import distrax
import jax
import jax.numpy as jnp

from mjx_policies.heads.inpainting import Prefix
from mjx_policies.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Noise:
    """Random numbers that `ActionHead.act` takes in the place of a key, so that they can be inputs of a graph.

    Attributes:
      shape: of the array.
      distribution: standard normal, uniform in [0, 1), or standard Gumbel.
    """

    shape: tuple[int, ...]
    distribution: Literal["normal", "uniform", "gumbel"] = "normal"

    def draw(self, key: Array) -> Array:
        """The numbers of this key, float32."""
        draws = {"normal": jax.random.normal, "uniform": jax.random.uniform, "gumbel": jax.random.gumbel}
        return draws[self.distribution](key, self.shape)


class ActionHead(NamedTuple):
    """A bundle of pure functions.

    Attributes:
      init: `(key, embedding [E]) -> params`.
      loss: `(params, key, embedding, action, mask=None) -> []`, what imitation minimises. `mask` [H] is 0 for the steps
        of a chunk that are padding; None: all count. Padding teaches nothing, but many heads see a chunk as a whole, so
        it must hold what the robot would do then: its last action, as in `data.windows`.
      sample: `(params, key, embedding) -> (action, trace)`. The trace is the quantity that has a density: the action
        before squashing, the mixture's sample, the chain of a denoiser.
      log_prob: `(params, embedding, trace) -> []`, or `None` if the head has no density.
      mode: `(params, embedding) -> action`, the one to deploy, or `None` where only samples are to be had.
      distribution: `(params, embedding) -> distrax.Distribution` over traces, for exact entropies, or
        `None` where only samples are to be had.
      decode: `trace -> action`, so that who has the distribution need not run the network again to sample.
      noise: what `act` wants; `None` if the head has no `act`.
      act: `(params, embedding, noise) -> action`, a deterministic function: `sample` with the key's numbers given.
      inpaint: `(params, embedding, noise, prefix) -> action`, as `act`, but a chunk that continues an
        `inpainting.Prefix`; `None` where a head cannot.
    """

    init: Callable[[Array, Array], PyTree]
    loss: Callable[..., Array]
    sample: Callable[[PyTree, Array, Array], tuple[Array, PyTree]]
    log_prob: Callable[[PyTree, Array, PyTree], Array] | None = None
    mode: Callable[[PyTree, Array], Array] | None = None
    distribution: Callable[[PyTree, Array], distrax.Distribution] | None = None
    decode: Callable[[PyTree], Array] = lambda trace: trace
    noise: Noise | None = None
    act: Callable[[PyTree, Array, Array], Array] | None = None
    inpaint: Callable[[PyTree, Array, Array, Prefix], Array] | None = None


def masked_mean(errors: Array, mask: Array | None) -> Array:  # [H, ...], [H] -> []
    """The mean over the steps that are no padding, or weighed by any other weights; 0 if all are 0."""
    if mask is None:
        return errors.mean()
    per_step = errors.reshape(len(errors), -1).mean(axis=1)
    total = mask.sum()
    # A choice before the product: what padding holds may be infinite.
    return (jnp.where(mask > 0, per_step, 0.0) * mask).sum() / jnp.where(total > 0, total, 1.0)
