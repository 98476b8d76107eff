"""Noise schedules of diffusion, and the steps that a sampler takes along them, as float64 tables.

Level k = 0 ... K - 1 of noise, the cleanest first, mixes x_k = sqrt(alpha_bar_k) action + sqrt(1 - alpha_bar_k) noise,
Ho et al. 2020 (arXiv:2006.11239), equation 4. Samplers go from the noisiest level down. Axes: K levels, S steps.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

ScheduleName = Literal["cosine", "linear", "scaled_linear"]
Spacing = Literal["trailing", "leading"]
MAX_BETA = 0.999


class DenoisingSteps(NamedTuple):
    """The levels and constants of a sampler's steps.

    Attributes:
      level: [S] int, k of the step's input, falling.
      alpha_bar: [S] of that level.
      next_alpha_bar: [S] of the level that the step leads to; 1, no noise, after the last.
      std: [S] of the noise that it adds; 0 in the last.
    """

    level: np.ndarray
    alpha_bar: np.ndarray
    next_alpha_bar: np.ndarray
    std: np.ndarray


def cosine(levels: int) -> np.ndarray:  # -> [K]
    """alpha_bar follows a squared cosine, Nichol and Dhariwal 2021 (arXiv:2102.09672), equation 17.

    No step takes more than `MAX_BETA` of the variance, which keeps a trace of the action in the noisiest level.
    """
    time = np.arange(levels + 1) / levels
    signal = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
    return _from_betas(np.minimum(1 - signal[1:] / signal[:-1], MAX_BETA))


def linear(levels: int, first: float = 1e-4, last: float = 0.02) -> np.ndarray:  # -> [K]
    """Variances rise evenly, Ho et al. 2020, section 4: for K = 1000. With few levels, much of the action is left."""
    return _from_betas(np.linspace(first, last, levels))


def scaled_linear(levels: int, first: float = 8.5e-4, last: float = 0.012) -> np.ndarray:  # -> [K]
    """Roots of the variances rise evenly, Rombach et al. 2022 (arXiv:2112.10752): for K = 1000, as `linear`."""
    return _from_betas(np.linspace(first**0.5, last**0.5, levels) ** 2)


def schedule(name: str, levels: int) -> np.ndarray:  # -> [K]
    """The noise schedule alpha_bar by its name.

    Raises:
      ValueError: there is no such schedule, or there are no levels.
    """
    if name not in get_args(ScheduleName):
        raise ValueError(f"there is no schedule {name!r}; choose of {', '.join(get_args(ScheduleName))}")
    if levels < 1:
        raise ValueError(f"levels is {levels}, it must be at least 1")
    return {"cosine": cosine, "linear": linear, "scaled_linear": scaled_linear}[name](levels)


def sampler_steps(
    alpha_bar: np.ndarray, num_steps: int, eta: float = 0.0, spacing: Spacing = "trailing"
) -> DenoisingSteps:  # [K]
    """The steps of DDIM, Song et al. 2021 (arXiv:2010.02502), equation 16.

    With eta 1 they are DDPM's, whose posterior has the same mean and standard deviation; with eta 0 the path is
    deterministic.

    Args:
      alpha_bar: of the levels.
      num_steps: S, at most K.
      eta: share of DDPM's noise.
      spacing: `trailing` levels begin with the noisiest, which is where samples begin, Lin et al. 2024
        (arXiv:2305.08891); `leading` ones end with level 0, as most code has it.

    Raises:
      ValueError: a number out of its range.
    """
    levels = len(alpha_bar)
    if not 1 <= num_steps <= levels:
        raise ValueError(f"num_steps is {num_steps}, it must be from 1 to the {levels} levels of noise")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta:g}, it must lie between 0, no noise, and 1, that of DDPM")
    if spacing not in get_args(Spacing):
        raise ValueError(f"spacing is {spacing!r}, it must be 'trailing' or 'leading'")
    if spacing == "trailing":
        level = np.round(levels - levels / num_steps * np.arange(num_steps)).astype(int) - 1
    else:
        level = (np.arange(num_steps) * (levels // num_steps))[::-1]
    here, following = alpha_bar[level], np.append(alpha_bar[level[1:]], 1.0)
    std = eta * np.sqrt((1 - following) / (1 - here) * (1 - here / following))
    return DenoisingSteps(level, here, following, std)


def _from_betas(betas: np.ndarray) -> np.ndarray:
    return np.cumprod(1 - betas)
