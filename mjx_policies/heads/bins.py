"""A categorical distribution over bins for each number of the action, Brohan et al. 2022 (arXiv:2212.06817).

Each number has several peaks if it needs them, but numbers are drawn independently: of two ways around an obstacle, the
steps of a chunk may take either in turn. Bins divide [-1, 1] evenly; what lies outside falls into the outermost. Of few
demonstrations the fullest bin is a matter of chance, unless each also counts a little for the bins beside its own.
Axes: E embedding, C bins, H horizon, A action; an action is [A] or [H, A].
"""

from __future__ import annotations

import math

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.heads.base import ActionHead, Noise, masked_mean, one_decision
from mjx_policies.losses import gaussian_histogram, smoothed_cross_entropy
from mjx_policies.networks.apply import apply
from mjx_policies.networks.outputs import Outputs
from mjx_policies.types import Array, PyTree


def bin_index(action: Array, num_bins: int) -> Array:  # [...] -> [...] int32
    """The bin that a number lies in."""
    index = jnp.floor((action + 1) / 2 * num_bins)
    return jnp.clip(index, 0, num_bins - 1).astype(jnp.int32)


def bin_center(index: Array, num_bins: int) -> Array:  # [...] int -> [...]
    """The middle of a bin: at most half a bin, 1 / C, from any number that lies in it."""
    return (2 * index + 1) / num_bins - 1


def bin_label(action: Array, num_bins: int, spread: float) -> Array:  # [...] -> [..., C]
    """The label of a number: its own bin, or a Gaussian around it."""
    if spread:
        return gaussian_histogram(action, jnp.linspace(-1.0, 1.0, num_bins + 1), spread)
    return jax.nn.one_hot(bin_index(action, num_bins), num_bins)


def peak(probability: Array, reach: int) -> Array:  # [..., C] -> [...]
    """The mean over the fullest bin and those at most `reach` bins away from it, as many on either side.

    At an edge that are fewer: a mean over more of one side would be drawn inwards.
    """
    index, fullest = jnp.arange(probability.shape[-1]), jnp.argmax(probability, axis=-1, keepdims=True)
    either_side = jnp.minimum(reach, jnp.minimum(fullest, len(index) - 1 - fullest))
    near = probability * (jnp.abs(index - fullest) <= either_side)
    return (near @ bin_center(index, len(index))) / near.sum(axis=-1)


def bins_head(
    net: nn.Module, shape: int | tuple[int, ...], num_bins: int = 256, smoothing: float = 0.0, spread: float = 0.0
) -> ActionHead:
    """Builds the head. A decision is the bins' indices, [A] or [H, A] int32, with a probability rather than a density.

    `mode` is the `peak`, with a reach of three standard deviations of the labels: it locates a single
    peak to less than a bin, as the mean over all bins does in Imani and White 2018 (arXiv:1806.04613), and only one.

    Args:
      net: embedding [E] -> features, of any size.
      shape: of the action; A for [A].
      num_bins: C.
      smoothing: probability that the label keeps for all bins alike.
      spread: standard deviation of the label around its number, in units of the action. Its variance is added to that
        of samples, and numbers at an edge are drawn inwards.

    Raises:
      ValueError: fewer than two bins, a smoothing outside [0, 1), or a negative spread.
    """
    if num_bins < 2:
        raise ValueError(f"num_bins is {num_bins}, it must be at least 2")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing is {smoothing}, it must lie in [0, 1)")
    if not 0 <= spread < math.inf:
        raise ValueError(f"spread is {spread}, it must be 0 or more")
    shape = (shape,) if isinstance(shape, int) else shape
    outputs = Outputs(net, {"logits": (*shape, num_bins)})
    reach = round(1.5 * spread * num_bins)  # bins within three standard deviations of a label

    def logits(params: PyTree, embedding: Array) -> Array:  # [(H), A, C]
        return apply(outputs, params, embedding)["logits"]

    def distribution(params: PyTree, embedding: Array) -> distrax.Distribution:
        return distrax.Independent(distrax.Categorical(logits(params, embedding)), len(shape))

    def loss(params: PyTree, key: Array, embedding: Array, action: Array, mask: Array | None = None) -> Array:
        """Cross-entropy of one control step; of a chunk, the mean over its steps."""
        del key
        label = bin_label(action, num_bins, spread)
        errors = smoothed_cross_entropy(logits(params, embedding), label, smoothing).sum(axis=-1)
        return errors if errors.ndim == 0 else masked_mean(errors, mask)

    def decode(decision: Array) -> Array:
        return bin_center(decision, num_bins)

    def draw(params: PyTree, embedding: Array, noise: Array) -> Array:
        return jnp.argmax(logits(params, embedding) + noise, axis=-1).astype(jnp.int32)

    noise = Noise((*shape, num_bins), "gumbel")

    def sample(params: PyTree, key: Array, embedding: Array) -> tuple[Array, Array]:
        decision = draw(params, embedding, noise.draw(key))
        return decode(decision), one_decision(decision)

    def log_prob(params: PyTree, embedding: Array, decision: Array) -> Array:
        return distribution(params, embedding).distribution.log_prob(decision)

    def mode(params: PyTree, embedding: Array) -> Array:
        return peak(jax.nn.softmax(logits(params, embedding), axis=-1), reach)

    def sample_from_noise(params: PyTree, embedding: Array, noise: Array) -> Array:
        return decode(draw(params, embedding, noise))

    return ActionHead(
        outputs.init,
        loss,
        sample,
        log_prob,
        mode=mode,
        distribution=distribution,
        noise=noise,
        sample_from_noise=sample_from_noise,
    )
