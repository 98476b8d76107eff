"""Losses that several heads and learners share, as plain functions of a prediction and its target.

They return the error of each entry, so that whoever calls them masks and weighs it (`heads.base.masked_mean`).
Axes: N samples, C classes, K scores.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from mjx_policies.types import Array, Number


def squared_error(prediction: Array, target: Array) -> Array:  # [...], [...] -> [...]
    """(y - y*)²; its minimiser is the mean (Gneiting 2011, arXiv:0912.0902)."""
    return (prediction - target) ** 2


def absolute_error(prediction: Array, target: Array) -> Array:  # [...], [...] -> [...]
    """|y - y*|; its minimiser is the median."""
    return jnp.abs(prediction - target)


def focal_cross_entropy(logits: Array, label: Array, gamma: float = 2.0) -> Array:  # [..., C], [...] int -> [...]
    """-(1 - p)^gamma log p of the true class, Lin et al. 2017 (arXiv:1708.02002), equation 4, for many classes.

    Classes that are already right count little, so that rare ones are heard.
    """
    log_p = -optax.softmax_cross_entropy_with_integer_labels(logits, label)
    # -expm1 keeps the small differences, and its floor the gradient of a power below one where p rounds to 1.
    return -(jnp.maximum(-jnp.expm1(log_p), 1e-12) ** gamma) * log_p


def smoothed_cross_entropy(logits: Array, label: Array, smoothing: float) -> Array:  # [..., C], [..., C] -> [...]
    """Cross-entropy to a label that keeps `smoothing` for all classes alike, Szegedy et al. 2016 (arXiv:1512.00567).

    The label is the probability of each class: one class's, or those that `gaussian_histogram` gives.
    """
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(label, smoothing))


def gaussian_histogram(value: Array, edges: Array, std: Number) -> Array:  # [...], [C + 1] -> [..., C]
    """Probability of each bin under N(value, std^2) within the edges: the labels of HL-Gauss.

    p_i = (F(e_i+1) - F(e_i)) / (F(e_C) - F(e_0)), Imani and White 2018 (arXiv:1806.04613), section 3. Neighbouring bins
    then learn of each other, which classes of their own do not. Values outside the edges count as the nearest edge.
    """
    value = jnp.clip(value, edges[0], edges[-1])[..., None]
    below = jax.scipy.stats.norm.cdf(edges, value, std)
    return (below[..., 1:] - below[..., :-1]) / (below[..., -1:] - below[..., :1])


def kl_from_samples(log_ratio: Array) -> Array:  # [...] -> [...]
    """r - 1 - log r of r = q / p, whose mean over samples of p is KL(p || q), from the log of r.

    Never negative, with less variance than -log r (Schulman 2020, joschu.net/blog/kl-approx.html, estimator k3), and
    the same for every head. It is a measurement: its gradient through the log densities is not that of the divergence.
    """
    return jnp.expm1(log_ratio) - log_ratio


def contrastive(scores: Array, positive: Array | int = 0) -> Array:  # [..., K], [...] int -> [...]
    """Cross-entropy of telling the positive from K - 1 negatives, InfoNCE of Oord et al. 2018 (arXiv:1807.03748)."""
    label = jnp.broadcast_to(jnp.asarray(positive), scores.shape[:-1])
    return optax.softmax_cross_entropy_with_integer_labels(scores, label)
