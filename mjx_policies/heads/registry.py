"""Heads by name, with networks that a laptop trains in minutes. Axes: N chunks, H horizon, A action.

head = make_head("flow", horizon=16, action_dim=8, size=512)
head = make_head("vq", 16, 8, 512, fit("vq", chunks))  # heads that decode chunks from codes or tokens learn those first
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.errors import UserError
from mjx_policies.files import read_json, write_json
from mjx_policies.heads.act import act_head
from mjx_policies.heads.base import ActionHead
from mjx_policies.heads.bins import bins_head
from mjx_policies.heads.denoising import Denoiser
from mjx_policies.heads.deterministic import deterministic_head
from mjx_policies.heads.diffusion import diffusion_head
from mjx_policies.heads.energy import energy_head
from mjx_policies.heads.fast.head import fast_head
from mjx_policies.heads.fast.tokens import FastTokenizer, fit_tokenizer, most_tokens, read_tokenizer
from mjx_policies.heads.flow import flow_head
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.heads.mixture import mixture_head
from mjx_policies.heads.one_step import shortcut_head
from mjx_policies.heads.residual_vq import Codebook, blank_codebook, fit_codebook
from mjx_policies.heads.vq import vq_head
from mjx_policies.losses import absolute_error
from mjx_policies.networks.denoiser import MLPDenoiser
from mjx_policies.networks.mlp import MLP, ResidualMLP
from mjx_policies.types import Array

HeadName = Literal[
    "mse",
    "l1",
    "gaussian",
    "mixture",
    "bins",
    "energy",
    "vq",
    "act",
    "fast",
    "diffusion",
    "flow",
    "one_step",
]
HEADS: tuple[str, ...] = get_args(HeadName)
SIZE = 512  # width of a perceptron's hidden layers


class HeadDefaults(NamedTuple):
    """The settings of a head that differ from those of most.

    Attributes:
      max_horizon: control steps of a chunk, at most; None: any number.
      max_sampled_horizon: the same of a policy that samples rather than takes the most likely chunk, of which one
        good answer is enough.
      slow: whether its gradient steps take long on a processor, as those of a transformer do.
      weight_decay: times that of the other heads.
      observation_dropout: least share of the examples that hide what the robot senses of itself, see `BCHyper`.
    """

    max_horizon: int | None = None
    max_sampled_horizon: int | None = None
    slow: bool = False
    weight_decay: float = 1.0
    observation_dropout: float = 0.0


HEAD_DEFAULTS: dict[str, HeadDefaults] = dict.fromkeys(HEADS, HeadDefaults()) | {
    # This and bins do worse where weights are kept as small as suits the others, see RESULTS.md.
    "mixture": HeadDefaults(weight_decay=1 / 3),
    # Bins draw each number by itself, so the steps of a chunk would not agree on a way.
    "bins": HeadDefaults(max_sampled_horizon=1, weight_decay=1 / 3),
    # It learns from uniform chunks, and those of many numbers are never near a real one.
    "energy": HeadDefaults(max_horizon=2),
    # Without, it reaches and lifts but misses the goal, see RESULTS.md.
    "act": HeadDefaults(slow=True, observation_dropout=0.5),
    # Tokens are learnt one after the other, and of many of them one is soon wrong.
    "fast": HeadDefaults(max_horizon=8, slow=True),
}


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A tokenizer and the length of its sequences.

    Attributes:
      tokenizer: fitted.
      max_tokens: that a chunk may take.
    """

    tokenizer: FastTokenizer
    max_tokens: int

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (H, A) of a chunk."""
        return self.tokenizer.shape


Fitted = Codebook | Vocabulary | None
"""What is fitted to the demonstrations before a head learns: codes or tokens; None for most."""
FITTED = {"vq": Codebook, "fast": Vocabulary}
SCALE = 40.0  # of coefficients before rounding, see RESULTS.md
SPREAD = 2.0  # of its labels, in rounding steps
DEPTH = 1  # of its transformer
MERGES = 128  # of symbols; most tokens of the paper's 1024 occur too rarely in a few hundred demonstrations
LIMIT = 1.0  # of scaled actions: they are divided by the largest rather than by a quantile
MORE_TOKENS = 1.25  # times as many as any demonstrated chunk takes
TOKENIZER, COUNTS = "tokenizer.json", "tokens.json"
MAX_COUNTS = 1000  # bytes

Shape = tuple[int, int]


def fit(name: str, actions: Array | np.ndarray, seed: int = 0, num_steps: int = 2000) -> Fitted:  # [N, H, A]
    """The argument `fitted` of `make_head` for a head that decodes chunks from codes or tokens; None for any other.

    Args:
      name: of the head.
      actions: as the head will see them: scaled to [-1, 1], padding replaced by the last real step.
      seed: of the codes.
      num_steps: of learning them.

    Raises:
      ValueError: too few chunks, or chunks that do not suit.
    """
    if name == "vq":
        return fit_codebook(jax.random.key(seed), jnp.asarray(actions), num_steps=num_steps)
    if name != "fast":
        return None
    actions = np.asarray(actions)
    symbols = FastTokenizer(actions.shape[1:], (), SCALE, LIMIT).num_symbols
    tokenizer = fit_tokenizer(actions, symbols + MERGES, SCALE, LIMIT)
    most = math.ceil(MORE_TOKENS * most_tokens(tokenizer, actions))
    return Vocabulary(tokenizer, min(most, tokenizer.numbers))


def save_fitted(fitted: Fitted, folder: Path) -> None:
    """Writes what a checkpoint of the head does not hold: a vocabulary."""
    if isinstance(fitted, Vocabulary):
        fitted.tokenizer.save(folder / TOKENIZER)
        write_json(folder / COUNTS, {"max_tokens": fitted.max_tokens})


def read_fitted(name: str, shape: Shape, folder: Path) -> Fitted:
    """The argument `fitted` of `make_head` for a head whose parameters are in a checkpoint, which also holds its codes.

    Raises:
      UserError: the files of `save_fitted` are missing or hold something else.
    """
    if name == "vq":
        return blank_codebook(shape)
    if name != "fast":
        return None
    tokenizer, counts = read_tokenizer(folder / TOKENIZER), read_json(folder / COUNTS, MAX_COUNTS)
    most = counts.get("max_tokens") if isinstance(counts, dict) else None
    if type(most) is not int or not 1 <= most <= tokenizer.numbers:
        raise UserError(f"{folder / COUNTS} must say max_tokens, from 1 to {tokenizer.numbers}. Train again.")
    return Vocabulary(tokenizer, most)


def make_head(
    name: str,
    horizon: int,
    action_dim: int,
    size: int = SIZE,
    fitted: Fitted = None,
    num_steps: int | None = None,
) -> ActionHead:
    """Builds a head for chunks [H, A].

    Args:
      name: one of `HEADS`.
      horizon: H.
      action_dim: A.
      size: width of its perceptrons; that of an energy is half as wide, transformers a quarter.
      fitted: of `fit`.
      num_steps: of the sampler, for a head of `STEPPED`; its own number by default. Parameters do not depend on it.

    Raises:
      ValueError: there is no such head, it has not been fitted, or it does not sample in steps.
    """
    if name not in BUILD:
        raise ValueError(f"there is no head {name!r}; choose of {', '.join(HEADS)}")
    for given, value in (("horizon", horizon), ("action_dim", action_dim), ("size", size)):
        if value < 1:
            raise ValueError(f"{given} is {value}, it must be at least 1")
    wanted = FITTED.get(name, type(None))
    if not isinstance(fitted, wanted):
        raise ValueError(f"the head {name!r} needs what fit({name!r}, actions) returns, not {type(fitted).__name__}")
    shape = (horizon, action_dim)
    if fitted is not None and tuple(fitted.shape) != shape:
        raise ValueError(f"the head {name!r} was fitted to chunks {tuple(fitted.shape)}, these are {shape}")
    if num_steps is None:
        return BUILD[name](shape, size, fitted)
    if name not in STEPPED:
        raise ValueError(f"{name} does not sample in steps; {', '.join(STEPPED)} do")
    return STEPPED[name](shape, size, num_steps=num_steps)


def _trunk(size: int, shape: Shape | None = None) -> ResidualMLP:
    """The network of a head: with an action of this shape as its output, or features for the head's own outputs."""
    return ResidualMLP(size, features=math.prod(shape) if shape else 0)


def _width(size: int) -> int:
    """The width of a transformer with four heads."""
    return max(8, size // 4 // 4 * 4)


def _vq(shape: Shape, size: int, fitted: Fitted) -> ActionHead:
    assert isinstance(fitted, Codebook)
    return vq_head(_trunk(size), fitted)


def _fast(shape: Shape, size: int, fitted: Fitted) -> ActionHead:
    assert isinstance(fitted, Vocabulary)
    return fast_head(_trunk(size), fitted.tokenizer, fitted.max_tokens, width=_width(size), depth=DEPTH, spread=SPREAD)


STEPPED: dict[str, Callable[..., ActionHead]] = {
    "diffusion": lambda shape, size, **sampler: diffusion_head(
        Denoiser(MLPDenoiser(size), shape, prediction_type="x0", **sampler)
    ),
    "flow": lambda shape, size, **sampler: flow_head(MLPDenoiser(size), shape, prediction_type="action", **sampler),
    "one_step": lambda shape, size, **sampler: shortcut_head(
        MLPDenoiser(size), shape, prediction_type="action", **sampler
    ),
}
"""Heads whose sampler goes from noise to an action in as many steps as one likes."""

BUILD: dict[str, Callable[[Shape, int, Fitted], ActionHead]] = {
    "mse": lambda shape, size, _: deterministic_head(_trunk(size, shape), shape),
    "l1": lambda shape, size, _: deterministic_head(_trunk(size, shape), shape, absolute_error),
    "gaussian": lambda shape, size, _: gaussian_head(_trunk(size, shape), shape, init_std=0.5, min_std=0.02),
    "mixture": lambda shape, size, _: mixture_head(_trunk(size), shape),
    "bins": lambda shape, size, _: bins_head(_trunk(size), shape, num_bins=64, smoothing=0.01, spread=0.06),
    "energy": lambda shape, size, _: energy_head(
        MLP((size // 2, size // 2, 1)), shape, "metropolis", num_candidates=512, num_steps=6, num_negatives=32
    ),
    "vq": _vq,
    # See `act_head`: with the paper's weight the style would carry nothing.
    "act": lambda shape, size, _: act_head(
        shape, latent=16, width=_width(size), encoder_depth=1, decoder_depth=1, kl_weight=0.005
    ),
    "fast": _fast,
    "diffusion": lambda shape, size, _: STEPPED["diffusion"](shape, size),
    "flow": lambda shape, size, _: STEPPED["flow"](shape, size),
    "one_step": lambda shape, size, _: STEPPED["one_step"](shape, size),
}
