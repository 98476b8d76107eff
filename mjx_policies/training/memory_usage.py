"""Whether there is room for what is to be computed, asked before anything of that size is made."""

from __future__ import annotations

import math
import os
from typing import Any

import jax

from mjx_policies.errors import UserError

PyTree = Any


def size(shapes: PyTree) -> int:
    """Bytes of arrays of these shapes, as `jax.eval_shape` gives them.

    Example:
      >>> size({"a": jax.ShapeDtypeStruct((3, 5), "float32")})
      60
    """
    return sum(leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def available() -> int:
    """Bytes of memory that the default device has in all; those of the computer where it does not say."""
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    return limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_room(shapes: PyTree, what: str, advice: str, copies: int = 1) -> str:
    """Checks that arrays needed at once fit into memory. They are a part of what is needed: others come and go.

    Args:
      shapes: of the arrays.
      what: needs them, the first words of the sentence.
      advice: what to do about it, the last ones.
      copies: of these arrays, for runs side by side.

    Returns:
      How much they need, in words.

    Raises:
      UserError: they do not fit.
    """
    needed, there = copies * size(shapes), available()
    if needed > there:
        raise UserError(f"{what} needs {needed / 1e9:,.1f} GB and more, there are {there / 1e9:,.1f} GB: {advice}.")
    return f"at least {needed / 1e9:,.2f} GB of {there / 1e9:,.1f} GB"
