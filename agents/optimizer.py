"""Optimizers of all learners, as optax chains. Numbers may be traced, so a batch of them is a batch of runs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from mjx_policies.types import Array, Number, PyTree

DECAYING, FIXED = ("kernel", "embedding"), ("codebook", "frozen", "scales")
"""Names of the parameters that decay, and of parts that no gradient reaches, where none does."""


def adam(
    learning_rate: Number,
    max_grad_norm: Number,
    weight_decay: Number = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    parts: tuple[str, ...] = (),
) -> optax.GradientTransformation:
    """AdamW, Loshchilov and Hutter 2019 (arXiv:1711.05101), of clipped gradients.

    Its state does not depend on the numbers, so a step may build it anew with those of the moment.

    Args:
      learning_rate: of this step.
      max_grad_norm: gradients are scaled down to it.
      weight_decay: a step takes away learning_rate * weight_decay of each kernel and embedding; biases and what is not
        trained stay.
      b1, b2, eps: of Adam.
      parts: entries of the parameters that are clipped by their own norm; by default all by their joint one.
    """
    clip = optax.clip_by_global_norm(max_grad_norm)
    return optax.chain(
        optax.partition(dict.fromkeys(parts, clip), {name: name for name in parts}) if parts else clip,
        optax.flatten(optax.scale_by_adam(b1, b2, eps)),  # one vector compiles sooner than a step of each leaf
        optax.add_decayed_weights(weight_decay, decays),
        optax.scale_by_learning_rate(learning_rate),
    )


def decays(params: PyTree) -> PyTree:
    """Tree of bools: the parameters that decay."""

    def one(path: tuple, leaf: Array) -> bool:
        del leaf
        names = [getattr(entry, "key", None) for entry in path]
        return names[-1] in DECAYING and not set(names) & set(FIXED)

    return jax.tree_util.tree_map_with_path(one, params)


def warmup_cosine(step: Array, learning_rate: Number, warmup_steps: Number, total_steps: Number) -> Array:  # [] -> []
    """The learning rate of a step: a linear warm-up, then half a cosine to zero.

    As `optax.warmup_cosine_decay_schedule`, but its lengths may be traced.
    """
    warm = (step + 1) / jnp.maximum(warmup_steps, 1.0)
    progress = (step - warmup_steps) / jnp.maximum(total_steps - warmup_steps, 1.0)
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))
    return learning_rate * jnp.minimum(jnp.minimum(warm, 1.0), cosine)


def ema_decay(step: Array, power: Number, largest: Number) -> Array:  # [] -> []
    """The decay of the weights' exponential moving average (EMA): 0 in the first step, `largest` in the end."""
    return jnp.minimum(largest, 1 - (1.0 + step) ** -power)
