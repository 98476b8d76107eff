"""Sweeps: runs that differ in their seeds and in the numbers of their hyperparameters are one program.

Sizes fix the shapes of arrays and so are the same in all runs; numbers are leaves. Axes: S runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.agents.base import Runner
from mjx_policies.types import Array, PyTree

Tree = TypeVar("Tree")


def sweep(runner: Runner) -> Runner:
    """A runner of S runs side by side: `init(keys [S], hypers [S, ...]) -> state [S, ...]`, info [S].

    Environments and learners of different runs never meet, so each run is the one that it would be alone, up to the
    rounding of sums. What a policy does once for a whole batch, when its clock says so, stays a branch of the program.

    Example:
      >>> runner = Runner(lambda key, hyper: hyper * 2, lambda state: (state + 1, {"x": state}), 1)
      >>> several = sweep(runner)
      >>> state, info = several.step(several.init(seed_keys([0, 1]), stack([1.0, 5.0])))
      >>> state.tolist(), info["x"].tolist()
      ([3.0, 11.0], [2.0, 10.0])
    """
    return Runner(jax.vmap(runner.init), jax.vmap(runner.step), runner.steps_per_iteration)


def side_by_side(function: Callable[..., Any], runs: int, in_axes: Any = 0) -> Callable[..., Any]:
    """A function for S runs at once; that of one run, which has no such axis, stays as it is."""
    return jax.vmap(function, in_axes) if runs > 1 else function


def seed_keys(seeds: Sequence[int]) -> Array:  # -> [S]
    """The random keys of S runs."""
    return jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))


def stack(hypers: Sequence[Tree]) -> Tree:
    """The hyperparameters of S runs as one tree of [S, ...]."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x, jnp.float32) for x in leaves]), *hypers)


def member(tree: PyTree, number: int) -> PyTree:
    """The state, or a part of it, of one of S runs."""
    return jax.tree.map(lambda x: x[number], tree)
