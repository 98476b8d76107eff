"""Data whose denoisers are known in closed form, and whether two sets of samples are of one distribution.

Axes: N samples, D numbers, M modes, H horizon, A action, P permutations.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist

from mjx_policies.schedules import schedule

LEVELS = 100
EMBEDDING = jnp.asarray([0.5, -0.3, 1.0])
ANGLES = np.arange(8) * np.pi / 4
RING, SPREAD = 0.75 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1), 0.05


def ring(seed, count):  # -> [N, 2]
    """Eight Gaussians on a circle."""
    rng = np.random.default_rng(seed)
    return RING[rng.integers(8, size=count)] + SPREAD * rng.normal(size=(count, 2))


def moons(seed, count):  # -> [N, 2]
    """Two interleaved half circles."""
    rng = np.random.default_rng(seed)
    angle, which = np.pi * rng.random(count), rng.integers(2, size=count)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    return 0.5 * (np.where(which[:, None], upper, lower) - [0.5, 0.25]) + 0.04 * rng.normal(size=(count, 2))


def expected_action(x, signal, noise, centers, spread):  # [D], [], [], [M, D], [] -> [D]
    """Mean of the actions that x = signal action + noise epsilon may come from, of Gaussians with equal weights."""
    variance = (signal * spread) ** 2 + noise**2
    off = x - signal * centers
    weights = jax.nn.softmax(-0.5 * (off**2).sum(axis=1) / variance)
    return weights @ (centers + signal * spread**2 / variance * off)


class KnownDenoiser(nn.Module):
    """What a network would answer that had learnt a mixture of Gaussians perfectly.

    Attributes:
      centers: [M][D].
      spread: standard deviation.
      target: of a `Denoiser` with the cosine schedule; `velocity` or `action` for a flow.
    """

    centers: tuple[tuple[float, ...], ...]
    spread: float
    prediction_type: str

    @nn.compact
    def __call__(self, x, time, embedding):
        centers = jnp.asarray(self.centers)
        if self.prediction_type in ("velocity", "action"):
            action = expected_action(x.ravel(), time, 1 - time, centers, self.spread).reshape(x.shape)
            return action if self.prediction_type == "action" else (action - x) / jnp.maximum(1 - time, 1e-3)
        level = jnp.round((1 - time) * LEVELS - 1).astype(int)
        alpha_bar = jnp.asarray(schedule("cosine", LEVELS), jnp.float32)[level]
        signal, noise = jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)
        action = expected_action(x.ravel(), signal, noise, centers, self.spread).reshape(x.shape)
        epsilon = (x - signal * action) / noise
        return {"epsilon": epsilon, "x0": action, "v": signal * epsilon - noise * action}[self.prediction_type]


def known(centers, spread, prediction_type):
    """A `KnownDenoiser`, whose attributes must be hashable."""
    return KnownDenoiser(tuple(tuple(map(float, row)) for row in centers), spread, prediction_type)


def draws(head, params, count, seed=7):  # -> [N, ...]
    """Samples."""
    keys = jax.random.split(jax.random.key(seed), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: head.sample(params, key, EMBEDDING)[0]))(keys))


def p_value(first, second, permutations=500):  # [N, D], [N, D] -> float
    """Permutation test of the energy distance, Szekely and Rizzo 2013 (doi:10.1016/j.jspi.2013.03.018): the p-value."""
    both = np.concatenate([first, second])
    distances = cdist(both, both)
    sign = np.repeat([1 / len(first), -1 / len(second)], [len(first), len(second)])
    rng = np.random.default_rng(0)
    signs = np.stack([sign] + [rng.permutation(sign) for _ in range(permutations)])  # [1 + P, 2 N]
    energy = -((signs @ distances) * signs).sum(axis=1)
    return (energy >= energy[0] - 1e-12).mean()
