"""One step of a diffusion policy as a Gaussian: what the network predicts, what follows from it, how likely it was.

A step from noisy x to less noisy y is y ~ Normal(mean(x), std), Ho et al. 2020 (arXiv:2006.11239), equation 6, or its
strided form, Song et al. 2021 (arXiv:2010.02502). The mean goes through an estimate of the clean action, cut off
at the bounds of the data; what then counts as noise is what is left. Axes: E embedding, H horizon, A action, S steps.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, NamedTuple, cast, get_args

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.heads.inpainting import Prefix, pull
from mjx_policies.networks.apply import apply
from mjx_policies.schedules import ScheduleName, Spacing, sampler_steps, schedule
from mjx_policies.types import Array, Number, PyTree

PredictionType = Literal["epsilon", "x0", "v"]
"""The prediction type: noise; action; or sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) action, Salimans and Ho 2022
(arXiv:2202.00512), the one that is informative at every level: from the noise in pure noise no action follows, and the
action of an almost clean one is no news."""


class DenoisingStep(NamedTuple):
    """Constants of a step, or of all [S].

    Attributes:
      time: what the network is told, from 0 (noise) to 1 (action).
      clean_x, clean_prediction: the clean action is `clean_x` x + `clean_prediction` prediction.
      mean_x, mean_clean: the mean is `mean_x` x + `mean_clean` clean.
      std: of the step, without a floor.
      flow_time, flow_scale: x / `flow_scale` lies on the line (1 - t) noise + t action at t = `flow_time`.
    """

    time: Array
    clean_x: Array
    clean_prediction: Array
    mean_x: Array
    mean_clean: Array
    std: Array
    flow_time: Array
    flow_scale: Array


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """Network, schedule and sampler. Parameters do not depend on what is marked as the sampler's.

    Attributes:
      net: one of `networks.denoiser` or a `TemporalUNet`.
      shape: of the action: [A] or [H, A].
      prediction_type: what the network predicts.
      schedule, levels: of noise.
      dropout: probability that an example shows the network no embedding, which guidance needs.
      num_steps: S, the sampler's; `levels` of them with eta 1 are DDPM.
      eta: the sampler's, share of DDPM's noise.
      spacing: the sampler's, see `schedules.sampler_steps`.
      clip: the sampler's bound of the clean action, None for data that are not scaled to [-1, 1].
      guidance: the sampler's, w of unconditional + w (conditional - unconditional), Ho and Salimans 2022
        (arXiv:2207.12598): above 1 it does what the embedding asks for more than the data do.
      min_std: the sampler's, floor of a step's noise: what fine-tuning explores with. 0 to evaluate.
      min_density_std: floor of the standard deviation in densities, Ren et al. 2024 (arXiv:2409.00588): without one,
        the last step has none.
      max_noise: the sampler's, standard deviations at which noise is cut off; densities ignore the cut.
      tuned_steps: the sampler's last steps, those that fine-tuning changes; None for all.
    """

    net: nn.Module
    shape: tuple[int, ...]
    prediction_type: PredictionType = "epsilon"
    schedule: ScheduleName = "cosine"
    levels: int = 100
    dropout: float = 0.0
    num_steps: int = 16
    eta: float = 0.0
    spacing: Spacing = "trailing"
    clip: float | None = 1.0
    guidance: float = 1.0
    min_std: float = 0.0
    min_density_std: float = 0.1
    max_noise: float | None = None
    tuned_steps: int | None = None

    def __post_init__(self) -> None:
        if self.prediction_type not in get_args(PredictionType):
            known = ", ".join(get_args(PredictionType))
            raise ValueError(f"prediction_type is {self.prediction_type!r}, it must be one of {known}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout:g}, it must be at least 0 and below 1")
        if self.guidance != 1 and self.dropout == 0:
            raise ValueError(f"guidance {self.guidance:g} needs a head trained with dropout above 0, such as 0.1")
        if self.min_std < 0 or not self.min_density_std > 0:
            raise ValueError(
                f"floors must satisfy 0 <= min_std and 0 < min_density_std, not {self.min_std}, {self.min_density_std}"
            )
        for name in ("clip", "max_noise"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value:g}, it must be above 0, or None")
        _ = self.steps  # says what is wrong with the sampler's numbers
        if self.tuned_steps is not None and not 1 <= self.tuned_steps <= self.num_steps:
            raise ValueError(f"tuned_steps is {self.tuned_steps}, it must be from 1 to num_steps, {self.num_steps}")

    @property
    def draws(self) -> bool:
        """Whether steps have noise."""
        return self.eta > 0 or self.min_std > 0

    @property
    def tuned(self) -> int:
        """The number of steps that are; all where `tuned_steps` is None."""
        return self.num_steps if self.tuned_steps is None else self.tuned_steps

    @functools.cached_property
    def alpha_bar(self) -> np.ndarray:  # [K]
        """The signal's share of the variance at each level."""
        return schedule(self.schedule, self.levels)

    @functools.cached_property
    def steps(self) -> DenoisingStep:  # [S]
        """Constants of the sampler, noisiest first."""
        level, a, after, std = sampler_steps(self.alpha_bar, self.num_steps, self.eta, self.spacing)
        signal, noise = np.sqrt(a), np.sqrt(1 - a)
        clean_x, clean_prediction = {
            "epsilon": (1 / signal, -noise / signal),
            "x0": (np.zeros_like(a), np.ones_like(a)),
            "v": (signal, -noise),
        }[self.prediction_type]
        mean_x = np.sqrt(np.maximum(1 - after - std**2, 0)) / noise
        tables = (
            self.time(level),
            clean_x,
            clean_prediction,
            mean_x,
            np.sqrt(after) - mean_x * signal,
            std,
            signal / (signal + noise),
            signal + noise,
        )
        return DenoisingStep(*(cast(Array, np.asarray(table, np.float32)) for table in tables))

    @property
    def tuned_rows(self) -> DenoisingStep:  # [K']
        """Constants of the steps that are tuned."""
        return DenoisingStep(*(table[self.num_steps - self.tuned :] for table in self.steps))

    def time(self, level: Array | np.ndarray) -> Array | np.ndarray:  # [...] -> [...]
        """The network's time input at a noise level."""
        return 1 - (level + 1) / self.levels

    def init(self, key: Array, embedding: Array) -> PyTree:
        """`{"net": ...}`, and with dropout `"no_embedding"` [E], what stands for a missing one."""
        params = {"net": self.net.init(key, jnp.zeros(self.shape), jnp.zeros(()), embedding)}
        return params | ({"no_embedding": jnp.zeros_like(embedding)} if self.dropout else {})

    def predict(self, params: PyTree, x: Array, time: Number, embedding: Array) -> Array:
        """The network's prediction, guided."""
        found = apply(self.net, params["net"], x, time, embedding)
        if self.guidance == 1:
            return found
        without = apply(self.net, params["net"], x, time, params["no_embedding"])
        return without + self.guidance * (found - without)

    def mean(
        self, params: PyTree, embedding: Array, x: Array, step: DenoisingStep, prefix: Prefix | None = None
    ) -> Array:
        """The mean of a step; with a prefix, the clean action is pulled towards it on the way."""

        def cut(clean: Array) -> Array:
            return clean if self.clip is None else jnp.clip(clean, -self.clip, self.clip)

        def clean(x: Array) -> Array:
            return cut(step.clean_x * x + step.clean_prediction * self.predict(params, x, step.time, embedding))

        if prefix is None:
            return step.mean_x * x + step.mean_clean * clean(x)
        on_line = x / step.flow_scale
        found, change, _ = pull(lambda y: (clean(step.flow_scale * y), None), on_line, step.flow_time, prefix)
        return step.mean_x * x + step.mean_clean * cut(found + (1 - step.flow_time) * change)

    def draw(self, mean: Array, step: DenoisingStep, noise: Array) -> Array:
        """The next state, given standard normal numbers."""
        if self.max_noise is not None:
            noise = jnp.clip(noise, -self.max_noise, self.max_noise)
        return mean + jnp.maximum(step.std, self.min_std) * noise

    def log_prob(
        self, params: PyTree, embedding: Array, x: Array, after: Array, step: DenoisingStep
    ) -> Array:  # [(H), A]
        """Log density of each number of `after`, given x. Exact for samples whose floor is the densities' floor."""
        std = jnp.maximum(step.std, self.min_density_std)
        return distrax.Normal(self.mean(params, embedding, x, step), std).log_prob(after)


def add_noise(action: Array, noise: Array, alpha_bar: Number) -> Array:  # [...], [...], [] -> [...]
    """The noisy action of a level."""
    return jnp.sqrt(alpha_bar) * action + jnp.sqrt(1 - alpha_bar) * noise


def regression_target(prediction_type: PredictionType, action: Array, noise: Array, alpha_bar: Number) -> Array:
    """The regression target of the network."""
    if prediction_type == "epsilon":
        return noise
    return action if prediction_type == "x0" else jnp.sqrt(alpha_bar) * noise - jnp.sqrt(1 - alpha_bar) * action


def freeze(params: PyTree) -> PyTree:
    """Parameters for fine-tuning: a copy runs the steps before the tuned ones and never changes."""
    return params | {"frozen": jax.tree.map(jnp.copy, params)}
