"""The protocol of an action head: what turns an embedding into an action.

Every function is for one example; batches come from `vmap`. An action is an array of the head's own shape: [A] for one
control step, [H, A] for a chunk of them. Axes: E embedding, H horizon, A action.

Actions of generative heads are normalised: data lies in [-1, 1]. Time runs from 0 (noise) to 1 (action) everywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import distrax
import jax
import jax.numpy as jnp

from mjx_policies.heads.inpainting import Prefix
from mjx_policies.memory import Memory
from mjx_policies.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Noise:
    """Random numbers that `sample_from_noise` takes in the place of a key, so that they can be inputs of a graph.

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
    """An action head as a bundle of pure functions.

    An action is made in K decisions, K a static number: one draw of a Gaussian, the tuned steps of a denoising chain.
    The leaves of a trace lead with [K]; one entry of it is a decision, and has a density where the action may have
    none. A learner weighs and clips each decision, so the one policy gradient serves all heads.

    Attributes:
      init: `(key, embedding [E]) -> params`.
      loss: `(params, key, embedding, action, mask=None) -> []`, what imitation minimises. `mask` [H] is 0 for the steps
        of a chunk that are padding; None: all count. Padding teaches nothing, but many heads see a chunk as a whole, so
        it must hold what the robot would do then: its last action, as in `data.windows`.
      sample: `(params, key, embedding) -> (action, trace)`, where the trace holds the K decisions.
      log_prob: `(params, embedding, decision) -> [A], [H, A] or []`, the log density of one decision: of each of its
        numbers, or, where only that is known, of all together. `None` if the head has no density.
      action_log_prob: `(params, embedding, trace) -> []`, the log density of the action itself, of which the entropy of
        soft actor-critic is made. It differs from that of the decision where an action is squashed, and is `None` where
        it is not known, as of a denoising chain.
      mode: `(params, embedding) -> action`, the one to deploy, or `None` where only samples are to be had.
      distribution: `(params, embedding) -> distrax.Distribution` over a decision, for exact entropies, or `None` where
        there is none.
      noise: what `sample_from_noise` wants; `None` if the head has none.
      sample_from_noise: `(params, embedding, noise) -> action`, a deterministic function: `sample` with the key's
        numbers given.
      inpaint: `(params, embedding, noise, prefix) -> action`, as `sample_from_noise`, but a chunk that continues an
        `inpainting.Prefix`; `None` where a head cannot.
      decisions: K.
      memory: what an actor keeps between two steps of an episode; `None` for a head, and for an actor that acts on the
        newest observation alone. See `memory.Memory`.
    """

    init: Callable[[Array, Any], PyTree]
    loss: Callable[..., Array]
    sample: Callable[[PyTree, Array, Any], tuple[Array, PyTree]]
    log_prob: Callable[[PyTree, Any, PyTree], Array] | None = None
    action_log_prob: Callable[[PyTree, Any, PyTree], Array] | None = None
    mode: Callable[[PyTree, Any], Array] | None = None
    distribution: Callable[[PyTree, Any], distrax.Distribution] | None = None
    noise: Noise | None = None
    sample_from_noise: Callable[[PyTree, Any, Array], Array] | None = None
    inpaint: Callable[[PyTree, Any, Array, Prefix], Array] | None = None
    decisions: int = 1
    memory: Memory | None = None


class ChainStep(NamedTuple):
    """The decision of a head that makes an action in steps, from noise on: one of its steps.

    Attributes:
      before, after: [A] or [H, A].
      step: [] int32, which of the K.
    """

    before: Array
    after: Array
    step: Array


def chain_steps(chain: Array) -> ChainStep:  # [K + 1, ...] -> K steps
    """The trace of a chain of states."""
    return ChainStep(chain[:-1], chain[1:], jnp.arange(len(chain) - 1))


def one_decision(decision: PyTree) -> PyTree:  # [...] -> [1, ...]
    """The trace of an action that is made at once."""
    return jax.tree.map(lambda x: x[None], decision)


def masked_mean(errors: Array, mask: Array | None) -> Array:  # [H, ...], [H] -> []
    """The mean over the steps that are no padding, or weighed by any other weights; 0 if all are 0."""
    if mask is None:
        return errors.mean()
    per_step = errors.reshape(len(errors), -1).mean(axis=1)
    total = mask.sum()
    # A choice before the product: what padding holds may be infinite.
    return (jnp.where(mask > 0, per_step, 0.0) * mask).sum() / jnp.where(total > 0, total, 1.0)
