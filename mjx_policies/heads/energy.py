"""Implicit behaviour cloning, Florence et al. 2021 (arXiv:2109.00137): actions of low energy E(embedding, action).

The energy learns to tell the demonstrated action from uniform ones (InfoNCE, section 2), and so becomes minus the log
density up to a constant. The paper's variant with negatives that Langevin dynamics found is left out: it flattens the
energy where the policy already is (Singh et al. 2023, arXiv:2309.05803). Acting moves a cloud of candidates to where
energies are low, by one of the rules below, which draw all their numbers from one array of normal noise.

Three warnings. There is no `log_prob`. The paper's two rules find good actions rather than draw fairly, for what they
end with is weighed by exp(-E) once more, and `derivative_free` does so in every round: of two ways it nearly always
takes the one that is a little better; `metropolis` draws fairly where the first candidates cover the space. And uniform
actions are hardly ever near a chunk of many numbers, so there is little to learn from them: take a diffusion or flow
head beyond ten or so.
Axes: E embedding, N candidates, M of them that move, S steps, D = H A numbers of an action.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, cast, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.heads.base import ActionHead, Noise, one_decision
from mjx_policies.heads.mixture import choose
from mjx_policies.losses import contrastive
from mjx_policies.types import Array, Number, PyTree

BOUND = 1.05
"""Candidates lie within: a little outside the data, so that its border is no place where energies need not rise."""

Energy = Callable[[Array], Array]
"""[N, D] -> [N]"""
Rule = Literal["langevin", "derivative_free", "metropolis"]


def uniform(normal: Array) -> Array:
    """Numbers within the bound, all as likely, made of normal noise."""
    return BOUND * (2 * jax.scipy.stats.norm.cdf(normal) - 1)


def copies(chosen: Array, x: Array) -> Array:  # [..., N], [N, D] -> [..., D]
    """The candidates that are 1 in `chosen`: in full precision, or some devices would round what they copy."""
    return jnp.matmul(chosen, x, precision="highest")


def langevin(
    energy: Energy, x: Array, noise: Array, step: Number, decay: float = 2.0, max_move: Number = 0.1
) -> Array:  # [N, D], [S, N, D + 1] -> [N, D]
    """x <- x - step/2 dE/dx + sqrt(step) noise: samples of exp(-E) if steps are small and many (section B.3).

    Steps shrink with the power `decay` to a hundredth; moves along the gradient are cut off at `max_move`. The paper's
    code multiplies noise by the step rather than by its root, which is a temperature near zero.
    """
    gradient = jax.grad(lambda x: energy(x).sum())
    for s, numbers in enumerate(noise):
        left = 1 - s / max(1, len(noise) - 1)
        size = step * (0.01 + 0.99 * left**decay) if decay else step
        move = jnp.clip(size / 2 * gradient(x), -max_move, max_move)
        x = jnp.clip(x - move + jnp.sqrt(size) * numbers[:, :-1], -BOUND, BOUND)
    return x


def derivative_free(
    energy: Energy, x: Array, noise: Array, spread: Number = 0.33, shrink: Number = 0.5
) -> Array:  # [N, D], [S, N, D + 1] -> [N, D]
    """Draws candidates again in proportion to exp(-E), then moves each a little, algorithm 1.

    Each round makes the cloud narrower than the density. For few dimensions: N must cover the space.
    """
    for s, numbers in enumerate(noise):
        x = copies(choose(jax.nn.softmax(-energy(x)), numbers[:, -1]), x)
        x = jnp.clip(x + spread * shrink**s * numbers[:, :-1], -BOUND, BOUND)
    return x


def metropolis(
    energy: Energy, x: Array, noise: Array, spread: Number = 0.33, shrink: Number = 0.5
) -> Array:  # [N, D], [S, M, D + 1] -> [M, D]
    """Draws M candidates again in proportion to exp(-E), then moves each a little S - 1 times, if chance allows.

    Moves that raise the energy by d are allowed with probability exp(-d), which leaves the density of the cloud at
    exp(-E), however many and however wide they are: Metropolis et al. 1953 (doi:10.1063/1.1699114).
    """
    x = copies(choose(jax.nn.softmax(-energy(x)), noise[0, :, -1]), x)
    energies = energy(x)
    for s, numbers in enumerate(noise[1:]):
        moved = x + spread * shrink**s * numbers[:, :-1]
        there = energy(moved)
        allowed = (jnp.abs(moved) <= BOUND).all(axis=-1)
        taken = allowed & (jnp.log(jax.scipy.stats.norm.cdf(numbers[:, -1])) < energies - there)
        x, energies = jnp.where(taken[:, None], moved, x), jnp.where(taken, there, energies)
    return x


def energy_head(
    net: nn.Module,
    shape: int | tuple[int, ...],
    rule: Rule = "derivative_free",
    num_candidates: int = 128,
    num_steps: int = 3,
    num_negatives: int = 64,
    step: float = 0.01,
) -> ActionHead:
    """Builds the head of implicit behaviour cloning.

    `sample` of `metropolis` is what became of one candidate, of the other rules one of the last in proportion to
    exp(-E). `mode` takes the lowest of those found from noise that is always the same.

    Args:
      net: embedding and action, [E + D] -> one number, the energy.
      shape: of the action; A for [A].
      rule: how candidates move. `langevin` wants more steps, 10 or so, and fewer candidates.
      num_candidates: N.
      num_steps: S.
      num_negatives: uniform actions in the loss.
      step: of `langevin`, at first; about the variance of the demonstrated actions.

    Raises:
      ValueError: a number of candidates, steps or negatives below 1, or no such rule.
    """
    for name, value in (("num_candidates", num_candidates), ("num_steps", num_steps), ("num_negatives", num_negatives)):
        if value < 1:
            raise ValueError(f"{name} is {value}, it must be at least 1")
    if rule not in get_args(Rule):
        raise ValueError(f"rule is {rule!r}, it must be one of {', '.join(get_args(Rule))}")
    shape = (shape,) if isinstance(shape, int) else shape
    size = math.prod(shape)

    def init(key: Array, embedding: Array) -> PyTree:
        return net.init(key, jnp.concatenate([embedding, jnp.zeros(size)]))

    def energy(params: PyTree, embedding: Array) -> Energy:
        def of_one(x: Array) -> Array:
            return cast(Array, net.apply(params, jnp.concatenate([embedding, x]))).reshape(())

        return jax.vmap(of_one)

    def move(energy: Energy, x: Array, noise: Array) -> Array:
        match rule:
            case "langevin":
                return langevin(energy, x, noise, step)
            case "derivative_free":
                return derivative_free(energy, x, noise)
            case "metropolis":
                return metropolis(energy, x, noise)

    def loss(params: PyTree, key: Array, embedding: Array, action: Array, mask: Array | None = None) -> Array:
        of = energy(params, embedding)
        real = jnp.ones(shape) if mask is None else jnp.broadcast_to(mask.reshape(-1, 1), shape)
        negatives = BOUND * jax.random.uniform(key, (num_negatives, size), minval=-1.0)
        # All agree where there is nothing to learn.
        negatives = jnp.where(real.ravel() > 0, negatives, action.ravel())
        scores = -of(jnp.concatenate([action.ravel()[None], negatives]))
        return jnp.where(real.any(), contrastive(scores), 0.0)

    noise = Noise((1 + num_steps, num_candidates, size + 1))

    def candidates(of: Energy, noise: Array) -> tuple[Array, Array]:  # [N, D], [N] energies
        x = move(of, uniform(noise[0, :, :-1]), noise[1:])
        return x, of(x)

    def sample_from_noise(params: PyTree, embedding: Array, noise: Array) -> Array:
        of = energy(params, embedding)
        if rule == "metropolis":
            return metropolis(of, uniform(noise[0, :, :-1]), noise[1:, :1]).reshape(shape)
        x, energies = candidates(of, noise)
        return copies(choose(jax.nn.softmax(-energies), noise[0, 0, -1]), x).reshape(shape)

    def sample(params: PyTree, key: Array, embedding: Array) -> tuple[Array, Array]:
        action = sample_from_noise(params, embedding, noise.draw(key))
        return action, one_decision(action)

    def mode(params: PyTree, embedding: Array) -> Array:
        # NumPy's, so that they are constants of a graph rather than a generator in it.
        always = np.random.default_rng(0).standard_normal(noise.shape, np.float32)
        x, energies = candidates(energy(params, embedding), jnp.asarray(always))
        return copies(jax.nn.one_hot(jnp.argmin(energies), num_candidates), x).reshape(shape)

    return ActionHead(init, loss, sample, mode=mode, noise=noise, sample_from_noise=sample_from_noise)
