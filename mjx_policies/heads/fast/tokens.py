"""FAST: a chunk of actions as a few integers, Pertsch et al. 2025 (arXiv:2501.09747), section V.

Each action passes an orthonormal cosine transform over time; scaled coefficients are rounded; the matrix is read with
the lowest frequencies first, all actions of a frequency side by side; byte pairs make it short, since most coefficients
of smooth motion are 0. Against one token a number, the authors count 35 / 20 tokens a second, a ratio of 1.75, at 5 Hz
(BridgeV2), 105 / 29 = 3.6 at 15 Hz (DROID), 140 / 28 = 5.0 at 20 Hz (bussing) and 700 / 53 = 13.2 at 50 Hz (two arms
folding shirts), table I: the number of tokens follows the motion, not the rate at which it is sampled.

Two faults of the authors' code are not repeated. Coefficients outside the range seen in training were clipped: here the
alphabet holds all that a chunk within `limit` can have. Tokens that make no chunk were decoded as zeros, which are a
command to a robot: here a flag tells, and the chunk is NaN, which nothing executes.
Axes: H horizon, A action, K frequency, L = H A numbers of a chunk, V vocabulary, M tokens given.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.compiler import compiler_options
from mjx_policies.errors import UserError
from mjx_policies.files import read_json, write_json
from mjx_policies.heads.fast.byte_pairs import MAX_VOCABULARY, encode, expansions, learn_merges, pair_table
from mjx_policies.types import Array

FORMAT = "fast-tokens-1"
MAX_NUMBERS = 4096  # of a chunk
MAX_FILE_BYTES = 1 << 20


def cosine_transform(horizon: int) -> np.ndarray:  # -> [K, H]
    """The orthonormal discrete cosine transform (type II) as a matrix; its transpose is its inverse."""
    frequency, time = np.arange(horizon)[:, None], np.arange(horizon)[None]
    matrix = math.sqrt(2 / horizon) * np.cos(math.pi * frequency * (2 * time + 1) / (2 * horizon))
    matrix[0] /= math.sqrt(2)
    return matrix


@dataclasses.dataclass(frozen=True)
class FastTokenizer:
    """A fitted FAST tokenizer.

    Rounding leaves an error of at most `1 / (2 scale)` in the root mean square over the steps of each action.

    Attributes:
      shape: (H, A) of a chunk.
      merges: pairs of symbols, see `byte_pairs`.
      scale: of coefficients before rounding; the paper's is 10.
      limit: actions beyond are clipped. The paper's are normalised so that the middle 98 % of the data lie in [-1, 1]
        (`data.statistics.quantiles`); 1 is enough where all of them do (`min_max`).
    """

    shape: tuple[int, int]
    merges: tuple[tuple[int, int], ...] = dataclasses.field(repr=False)
    scale: float = 10.0
    limit: float = 1.5

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 1 or math.prod(self.shape) > MAX_NUMBERS:
            raise ValueError(f"shape is {self.shape}, it must be (horizon, actions) with {MAX_NUMBERS} numbers at most")
        for name in ("scale", "limit"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be above 0")
        if self.vocabulary > MAX_VOCABULARY:
            raise ValueError(
                f"{self.num_symbols} symbols and {len(self.merges)} merges are more than the {MAX_VOCABULARY} that a "
                "vocabulary may have: take a smaller scale or limit, a shorter chunk, or fewer merges"
            )
        lengths = [1] * self.num_symbols
        for pair in self.merges:
            if len(pair) != 2 or not all(0 <= symbol < len(lengths) for symbol in pair):
                raise ValueError(f"merge {len(lengths) - self.num_symbols} is of {pair}, not of two earlier symbols")
            lengths.append(lengths[pair[0]] + lengths[pair[1]])
            if lengths[-1] > self.numbers:
                raise ValueError(f"merge {len(lengths) - 1 - self.num_symbols} is longer than a chunk")
        if len(set(self.merges)) != len(self.merges):
            raise ValueError("a pair is merged twice")

    @property
    def numbers(self) -> int:
        """The size L of a chunk."""
        return math.prod(self.shape)

    @property
    def bound(self) -> int:
        """No rounded coefficient is larger: the norm of a row of the transform times that of an action's steps."""
        return math.floor(self.scale * self.limit * math.sqrt(self.shape[0]) + 0.5)

    @property
    def num_symbols(self) -> int:
        """The number of symbols that stand for single coefficients."""
        return 2 * self.bound + 1

    @property
    def vocabulary(self) -> int:
        """The size V of the vocabulary. The integer V itself stands behind the end of a sequence."""
        return self.num_symbols + len(self.merges)

    @functools.cached_property
    def lengths(self) -> np.ndarray:  # [V + 1] int32
        """The number of coefficients that each token stands for."""
        return np.array([*map(len, self._expansions), 0], np.int32)

    def encode(self, action: Array) -> tuple[Array, Array]:  # [H, A] -> [L] int32, []
        """The tokens of a chunk, V behind their end, and their number."""
        rows = jnp.asarray(cosine_transform(self.shape[0]), jnp.float32)
        coefficients = rows @ jnp.clip(action, -self.limit, self.limit).astype(jnp.float32)
        rounded = jnp.clip(jnp.round(self.scale * coefficients), -self.bound, self.bound)
        symbols = rounded.astype(jnp.int32).ravel() + self.bound
        return encode(symbols, jnp.asarray(self._table))

    def decode(self, tokens: Array) -> tuple[Array, Array]:  # [M] int -> [H, A], [] bool
        """The chunk, and whether the tokens make one: if not, it is NaN.

        They do if they stand for L coefficients in all, and nothing but V is behind their end.
        """
        known = (tokens >= 0) & (tokens <= self.vocabulary)
        tokens = jnp.where(known, tokens, self.vocabulary)
        lengths = jnp.asarray(self.lengths)[tokens]
        ends = jnp.cumsum(lengths)
        ended = lengths == 0
        valid = known.all() & (ends[-1] == self.numbers) & ~(ended[:-1] & ~ended[1:]).any()
        place = jnp.arange(self.numbers)
        # The token that each coefficient is of: as many end before it.
        index = jnp.minimum((ends[None] <= place[:, None]).sum(axis=1), len(tokens) - 1)
        within = jnp.clip(place - (ends - lengths)[index], 0, self._padded.shape[1] - 1)
        symbols = jnp.asarray(self._padded)[tokens[index], within]
        coefficients = (symbols - self.bound).astype(jnp.float32).reshape(self.shape) / self.scale
        columns = jnp.asarray(cosine_transform(self.shape[0]).T, jnp.float32)
        return jnp.where(valid, columns @ coefficients, jnp.nan), valid

    def save(self, path: Path) -> None:
        """Writes a JSON file for `read_tokenizer`."""
        write_json(path, {"format": FORMAT, **dataclasses.asdict(self)})

    @functools.cached_property
    def _expansions(self) -> list[list[int]]:
        return expansions(self._pairs, self.num_symbols)

    @functools.cached_property
    def _padded(self) -> np.ndarray:  # [V + 1, longest] int32
        padded = np.zeros((self.vocabulary + 1, int(self.lengths.max())), np.int32)
        for row, symbols in zip(padded, self._expansions, strict=False):
            row[: len(symbols)] = symbols
        return padded

    @functools.cached_property
    def _table(self) -> np.ndarray:
        return pair_table(self._pairs, self.num_symbols)

    @property
    def _pairs(self) -> np.ndarray:  # [M, 2]
        return np.array(self.merges, np.int64).reshape(-1, 2)


def fit_tokenizer(
    actions: np.ndarray, vocabulary: int = 1024, scale: float = 10.0, limit: float = 1.5
) -> FastTokenizer:  # [N, H, A]
    """Fits a tokenizer: learns which byte pairs to merge.

    A thousand chunks or so are enough. They are to be what the head will see: padding replaced by the last real step.

    Args:
      actions: normalised.
      vocabulary: V, at most; the paper's is 1024.
      scale, limit: see `FastTokenizer`.

    Raises:
      ValueError: the actions are no chunks or not finite, or the vocabulary does not hold the coefficients.
    """
    actions = np.asarray(actions, np.float32)
    if actions.ndim != 3 or not len(actions) or not np.isfinite(actions).all():
        raise ValueError(f"actions must be finite numbers [N, H, A] of at least one chunk, they are {actions.shape}")
    plain = FastTokenizer(actions.shape[1:], (), scale, limit)
    symbols = np.asarray(jax.jit(jax.vmap(plain.encode), compiler_options=compiler_options())(actions)[0])
    merges = learn_merges(symbols, plain.num_symbols, vocabulary)
    return dataclasses.replace(plain, merges=tuple((int(a), int(b)) for a, b in merges))


def most_tokens(tokenizer: FastTokenizer, actions: np.ndarray) -> int:  # [N, H, A]
    """The longest sequence of any of these chunks: a head that may generate no more cannot decode them all."""
    counts = jax.jit(jax.vmap(lambda action: tokenizer.encode(action)[1]), compiler_options=compiler_options())(actions)
    return int(counts.max())


def read_tokenizer(path: Path) -> FastTokenizer:
    """Reads what `FastTokenizer.save` wrote, or anybody else.

    Raises:
      UserError: it is no such file.
    """
    data = read_json(path, MAX_FILE_BYTES)
    fields = {field.name for field in dataclasses.fields(FastTokenizer)}
    if not isinstance(data, dict) or data.keys() != {"format", *fields} or data["format"] != FORMAT:
        raise UserError(f"{path} is not a tokenizer of the format {FORMAT}. Fit it again.")
    if not (_integers(data["shape"]) and isinstance(data["merges"], list) and all(map(_integers, data["merges"]))):
        raise UserError(f"{path}: shape and merges must be lists of integers. Fit the tokenizer again.")
    if not all(isinstance(data[name], int | float) and type(data[name]) is not bool for name in ("scale", "limit")):
        raise UserError(f"{path}: scale and limit must be numbers. Fit the tokenizer again.")
    try:
        merges = tuple(map(tuple, data["merges"]))
        return FastTokenizer(tuple(data["shape"]), merges, float(data["scale"]), float(data["limit"]))
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: {error}. Fit the tokenizer again.") from None


def _integers(value: Any) -> bool:
    return isinstance(value, list) and all(type(entry) is int for entry in value)
