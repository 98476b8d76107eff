"""Losses of imitation, distillation and co-training, as plain functions; learners choose and add them.

| | |
|---|---|
| errors of a prediction | `squared_error`, `absolute_error`, `huber`, `quantile`, `gaussian_nll`, `beta_nll` |
| of a class | `focal_cross_entropy`, `smoothed_cross_entropy`, `gaussian_histogram` |
| of a plan | `time_weights`, `velocity_penalty`, `acceleration_penalty`, `soft_barrier`, `motion_barrier` |
| between policies | `kl_to_base`, `kl_from_samples`, `distillation`, `action_distillation`, `with_replay` |
| across data | `per_source`, `contrastive`, `alignment` |

Functions of a prediction and its target return the error of each entry, so that who calls them masks and weighs: the
loss of a chunk is `heads.base.masked_mean(error, mask * time_weights(...))`.
Axes: N examples, H horizon, A action, C classes, D features, S sources.
"""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
import optax

from mjx_policies.types import Array, Number

# Errors of a prediction


def squared_error(prediction: Array, target: Array) -> Array:  # [...], [...] -> [...]
    """(y - y*)²; its minimiser is the mean (Gneiting 2011, arXiv:0912.0902, which treats the next two as well)."""
    return (prediction - target) ** 2


def absolute_error(prediction: Array, target: Array) -> Array:  # [...], [...] -> [...]
    """|y - y*|; its minimiser is the median."""
    return jnp.abs(prediction - target)


def huber(prediction: Array, target: Array, delta: float = 1.0) -> Array:  # [...], [...] -> [...]
    """Half the squared error up to `delta`, linear beyond, Huber 1964 (doi:10.1214/aoms/1177703732)."""
    return optax.huber_loss(prediction, target, delta=delta)


def quantile(prediction: Array, target: Array, level: Number) -> Array:  # [...], [...], [] -> [...]
    """max(q e, (q - 1) e) of e = y* - y, Koenker and Bassett 1978 (doi:10.2307/1913643); minimised by quantile q."""
    error = target - prediction
    return jnp.maximum(level * error, (level - 1) * error)


def gaussian_nll(mean: Array, log_std: Array, target: Array) -> Array:  # [...] each -> [...]
    """(y* - y)² / 2 sigma² + log sigma + log(2 pi) / 2: minus the log density, with a deviation for each prediction.

    Nix and Weigend 1994 (doi:10.1109/ICNN.1994.374138).
    """
    return -distrax.Normal(mean, jnp.exp(log_std)).log_prob(target)


def beta_nll(mean: Array, log_std: Array, target: Array, beta: Number = 0.5) -> Array:  # [...] each -> [...]
    """`gaussian_nll` times the variance^beta, Seitzer et al. 2022 (arXiv:2203.09168).

    The plain density teaches the mean least where it is worst, since there the variance is large: its gradient is
    divided by it. With beta 1 the mean learns as from squared errors, with 0 as from the density. No gradient passes
    the factor.
    """
    weight = jax.lax.stop_gradient(jnp.exp(2 * beta * log_std))
    return weight * gaussian_nll(mean, log_std, target)


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


# Plans


def time_weights(horizon: int, decay: Number) -> Array:  # -> [H]
    """exp(-decay h), with mean 1: how much the steps of a plan count, where the first are sure to be executed.

    Times the mask of padded steps they are what `heads.base.masked_mean` takes.
    """
    weights = jnp.exp(-decay * jnp.arange(horizon))
    return weights / weights.mean()


def velocity_penalty(actions: Array, period: Number, mask: Array | None = None) -> Array:  # [H, A], [], [H] -> []
    """Mean of ((a_h+1 - a_h) / period)², in (the action's unit/s)², as Mysore et al. 2021 (arXiv:2012.06644).

    Equation 3 there, squared. Differences with a step that is padding do not count.
    """
    return _mean_square(jnp.diff(actions, axis=0) / period, mask)


def acceleration_penalty(actions: Array, period: Number, mask: Array | None = None) -> Array:  # [H, A], [], [H] -> []
    """Mean of ((a_h+2 - 2 a_h+1 + a_h) / period²)², in (the action's unit/s²)².

    Unlike `velocity_penalty` it leaves steady motion alone: the rougher of two plans pays, not the faster. The sum of
    squared accelerations is what smoothing splines minimise, Reinsch 1967 (doi:10.1007/BF02162161).
    """
    return _mean_square(jnp.diff(actions, 2, axis=0) / period**2, mask)


def _mean_square(differences: Array, mask: Array | None) -> Array:  # [H - d, A], [H] -> []
    if mask is None:
        return jnp.mean(differences**2)
    width = len(mask) - len(differences) + 1
    real = jnp.stack([mask[i : i + len(differences)] > 0 for i in range(width)]).all(axis=0)[:, None]
    # A choice, not a product: what padding holds may be NaN.
    squares = jnp.where(real, differences, 0.0) ** 2
    return squares.sum() / jnp.maximum(real.sum() * differences.shape[1], 1)


def soft_barrier(x: Array, lower: Array, upper: Array, relaxation: float = 0.1) -> Array:  # [...] each -> [...]
    """Relaxed logarithmic barrier of limits, Feller and Ebenbauer 2015 (arXiv:1503.03314).

    -log z of the distance z to each limit, in halves of the range, so 0 in its middle; below `relaxation` the parabola
    that continues value, slope and curvature, so finite beyond the limits too, and pulling back harder the farther out.
    For joint positions, velocities and torques against the robot's limits, and positions against a workspace, all in
    the units of the limits; a limit on a magnitude is `lower = -upper`.
    """
    half = (upper - lower) / 2

    def barrier(z: Array) -> Array:
        inside = -jnp.log(jnp.maximum(z, relaxation))
        beyond = 0.5 * (((z - 2 * relaxation) / relaxation) ** 2 - 1) - jnp.log(relaxation)
        return jnp.where(z > relaxation, inside, beyond)

    return barrier((x - lower) / half) + barrier((upper - x) / half)


def motion_barrier(
    positions: Array, period: Number, lower: Array, upper: Array, velocity: Array, relaxation: float = 0.1
) -> Array:  # [H, A], [], [A], [A], [A] -> []
    """Mean `soft_barrier` of a plan's positions, plus that of its velocities (p_h+1 - p_h) / period.

    Of joints, or of a hand in a workspace; barriers of torques are `soft_barrier(torque, -effort, effort)`.

    Args:
      positions: `period` seconds apart.
      period: in s.
      lower, upper: of positions.
      velocity: the largest, either way.
      relaxation: see `soft_barrier`.
    """
    speeds = jnp.diff(positions, axis=0) / period
    within = soft_barrier(positions, lower, upper, relaxation).mean()
    return within + soft_barrier(speeds, -velocity, velocity, relaxation).mean()


# Between policies


def kl_to_base(policy: distrax.Distribution, base: distrax.Distribution) -> Array:  # -> []
    """KL(policy || base), exactly: keeps fine-tuning near the policy that it began with, Ziegler et al. 2019.

    For distributions that have it in closed form (arXiv:1909.08593). The base takes no gradient: stop it in
    its parameters. Otherwise see `kl_from_samples`.
    """
    return policy.kl_divergence(base)


def kl_from_samples(log_prob: Array, base_log_prob: Array) -> Array:  # [N], [N] -> [N]
    """r - 1 - log r of r = base / policy, whose mean over the *policy's* samples is KL(policy || base).

    Never negative, with less variance than -log r (Schulman 2020, joschu.net/blog/kl-approx.html, estimator k3). It is
    a measurement: its gradient through the log densities is not the gradient of the divergence, since the samples
    themselves move with the policy.
    """
    log_ratio = base_log_prob - log_prob
    return jnp.expm1(log_ratio) - log_ratio


def distillation(teacher: distrax.Distribution, student: distrax.Distribution) -> Array:  # -> []
    """KL(teacher || student): the student spreads over all that the teacher does, Rusu et al. 2016 (arXiv:1511.06295).

    For two actions rather than distributions see `action_distillation`. No gradient reaches the teacher.
    """
    return jax.lax.stop_gradient(teacher).kl_divergence(student)


def action_distillation(teacher: Array, student: Array) -> Array:  # [...], [...] -> [...]
    """(student - teacher)²: KL(teacher || student) of normal distributions of one fixed deviation, up to a factor.

    Where both are chunks of samples, only with the same noise: their means over noise would not do. No gradient reaches
    the teacher.
    """
    return squared_error(student, jax.lax.stop_gradient(teacher))


def with_replay(new: Array, remembered: Array, weight: Number) -> Array:  # [N], [M], [] -> []
    """Mean loss of new data, plus `weight` times the mean distance from the earlier policy on data of earlier tasks.

    Distilling on what is replayed keeps what was known, Rolnick et al. 2019 (arXiv:1811.11682).

    Args:
      new: losses of the task that is learnt.
      remembered: `distillation` or `action_distillation` of the earlier policy, where it was at home.
      weight: 0 forgets.
    """
    return new.mean() + weight * remembered.mean()


# Across data


def per_source(errors: Array, mask: Array, source: Array, weights: Array) -> Array:  # [N, ...]*2, [N] int, [S] -> []
    """sum_s w_s e_s / sum_s w_s of the mean error e_s of each source, however many examples each has in the batch.

    As if sources were drawn with these odds, but with the batch's own examples of each; embodiments whose actions have
    fewer numbers are padded and masked, as in the co-training of Black et al. 2024 (arXiv:2410.24164).

    Args:
      errors: of each number predicted.
      mask: 0 for what does not exist: padded steps, and dimensions that a source's robot lacks.
      source: of each example.
      weights: of each source. Those without an entry in the batch leave their weight to the others.
    """
    axes = tuple(range(1, errors.ndim))
    membership = jax.nn.one_hot(source, len(weights))  # [N, S]
    # A choice, not a product: the error of what does not exist may be NaN.
    total = jnp.where(mask > 0, errors * mask, 0.0).sum(axes) @ membership
    count = mask.sum(axes) @ membership
    present = jnp.where(count > 0, weights, 0.0)
    means = total / jnp.where(count > 0, count, 1.0)
    return (present * means).sum() / jnp.maximum(present.sum(), 1e-12)


def contrastive(scores: Array, positive: Array | int = 0) -> Array:  # [..., K], [...] int -> [...]
    """Cross-entropy of telling the positive from K - 1 negatives, InfoNCE of Oord et al. 2018 (arXiv:1807.03748)."""
    label = jnp.broadcast_to(jnp.asarray(positive), scores.shape[:-1])
    return optax.softmax_cross_entropy_with_integer_labels(scores, label)


def alignment(first: Array, second: Array, temperature: Number = 0.07) -> Array:  # [N, D], [N, D], [] -> []
    """Symmetric `contrastive` loss of pairs among all pairs of a batch, as Radford et al. 2021 (arXiv:2103.00020).

    Figure 3 there. Scores are cosines over the temperature: row i of one belongs to row i of the other, two views of a
    scene, or an image and its instruction. Chance gives log N: compare with that.
    """
    # The root of a sum that is never 0, where it would have no gradient.
    first, second = (x / jnp.sqrt((x**2).sum(axis=-1, keepdims=True) + 1e-12) for x in (first, second))
    scores = first @ second.T / temperature
    pairs = jnp.arange(len(scores))
    return (contrastive(scores, pairs).mean() + contrastive(scores.T, pairs).mean()) / 2
