"""Byte pair encoding of integers: the pair of neighbours seen most often becomes a symbol of its own, and so on.

Gage 1994; of text, Sennrich et al. 2016 (arXiv:1508.07909). Symbols 0 .. S-1 stand for themselves, S + m for the m-th
pair that was merged, so a smaller symbol was merged earlier. What pairs are merged is learnt once, in NumPy; encoding
is compiled, so that a loss can start from actions.
Axes: N sequences, L symbols of each, S symbols, M merges, V = S + M.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.types import Array

MAX_VOCABULARY = 4096  # the table of pairs has the square of it in entries
END = -1  # between sequences


def learn_merges(sequences: np.ndarray, num_symbols: int, vocabulary: int) -> np.ndarray:  # [N, L] -> [M, 2]
    """The pairs to merge, in order. Of pairs seen equally often, the one of smaller symbols comes first.

    There are fewer than `vocabulary - num_symbols` if no pair is left that occurs twice.

    Args:
      sequences: integers from 0 to S - 1.
      num_symbols: S.
      vocabulary: V.

    Raises:
      ValueError: the vocabulary does not hold the symbols or is too large, or a sequence holds something else.
    """
    if not num_symbols <= vocabulary <= MAX_VOCABULARY:
        raise ValueError(f"vocabulary is {vocabulary}, it must be from {num_symbols} to {MAX_VOCABULARY}")
    if sequences.ndim != 2 or not sequences.size or sequences.min() < 0 or sequences.max() >= num_symbols:
        raise ValueError(f"sequences must be a matrix [N, L] of integers from 0 to {num_symbols - 1}, and not empty")
    flat = np.pad(sequences.astype(np.int64), ((0, 0), (0, 1)), constant_values=END).ravel()
    merges: list[tuple[int, int]] = []
    for new in range(num_symbols, vocabulary):
        first, second = flat[:-1], flat[1:]
        inside = (first != END) & (second != END)
        counts = np.bincount(first[inside] * new + second[inside])
        if not counts.size or counts.max() < 2:
            break
        pair = divmod(int(counts.argmax()), new)
        flat = _merge(flat, pair, new)
        merges.append(pair)
    return np.array(merges, np.int64).reshape(-1, 2)


def _merge(flat: np.ndarray, pair: tuple[int, int], new: int) -> np.ndarray:
    """Puts `new` in the place of a pair, from left to right."""
    hit = (flat[:-1] == pair[0]) & (flat[1:] == pair[1])
    if pair[0] == pair[1]:  # of a run of equal symbols, every other place
        place = np.arange(len(hit))
        begins = hit & ~np.concatenate([[False], hit[:-1]])
        hit &= (place - np.maximum.accumulate(np.where(begins, place, 0))) % 2 == 0
    merged = flat.copy()
    merged[:-1][hit] = new
    return merged[np.concatenate([[True], ~hit])]


def pair_table(merges: np.ndarray, num_symbols: int) -> np.ndarray:  # [M, 2] -> [V + 1, V + 1] int32
    """The symbol of each pair, V where it has none. Row and column V belong to no symbol."""
    none = num_symbols + len(merges)
    table = np.full((none + 1, none + 1), none, np.int32)
    table[merges[:, 0], merges[:, 1]] = np.arange(num_symbols, none)
    return table


def expansions(merges: np.ndarray, num_symbols: int) -> list[list[int]]:  # V lists
    """The symbols below S that each symbol stands for."""
    found = [[symbol] for symbol in range(num_symbols)]
    for first, second in merges:
        found.append(found[first] + found[second])
    return found


def encode(symbols: Array, table: Array) -> tuple[Array, Array]:  # [L], [V + 1, V + 1] -> [L], []
    """Merges pairs, those learnt first before all others and from left to right.

    Returns:
      The symbols that are left, V behind their end, and their number.
    """
    length, none = len(symbols), len(table) - 1
    # A linked list. The entry behind the last belongs to no symbol: it is what follows the last and precedes the first.
    token = jnp.append(symbols, none)
    place = jnp.arange(length + 1)
    right, left = jnp.minimum(place + 1, length), jnp.where(place > 0, place - 1, length)
    pair = table[token, token[right]]  # of each place with its successor

    def merge(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        token, right, left, pair = state
        at = jnp.argmin(pair)  # the first of several
        gone, after, before = right[at], right[right[at]], left[at]
        new = pair[at]
        token = token.at[gone].set(none).at[at].set(new)
        right, left = right.at[at].set(after), left.at[after].set(at)
        pair = pair.at[gone].set(none).at[at].set(table[new, token[after]]).at[before].set(table[token[before], new])
        return token, right, left, pair

    token, *_ = jax.lax.while_loop(lambda state: (state[3] < none).any(), merge, (token, right, left, pair))
    alive = token[:length] < none
    count = alive.sum()
    index = jnp.where(alive, jnp.cumsum(alive) - 1, length)
    return jnp.full(length, none, jnp.int32).at[index].set(token[:length].astype(jnp.int32), mode="drop"), count
