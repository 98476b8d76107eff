"""Pytrees as named host arrays and back, bit for bit.

A leaf is a JAX or NumPy array, a typed PRNG key, or a Python bool, int or float. What it is, is written `float32[3,4]`,
`key<fry>[2]` or `python int`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from mjx_policies.errors import UserError

PyTree = Any


def leaf_names(tree: PyTree) -> list[str]:
    """The path of every leaf in flattening order, such as `learner.params.Dense_0.kernel`; `UserError` if two agree."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") or "root" for path in paths]
    if len(set(names)) != len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise UserError(
            f"the state has two leaves called {double}; rename one of the dictionary keys on the way there."
        )
    return names


def leaf_kind(leaf: Any) -> str:
    """The kind of a leaf, see the module; `UserError` for anything that is no leaf."""
    if isinstance(leaf, bool | int | float):
        return f"python {type(leaf).__name__}"
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape") or leaf.dtype == object:
        raise UserError(f"a leaf of the state is a {type(leaf).__name__}; only arrays, keys and numbers can be saved.")
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def is_key(leaf: Any) -> bool:
    """Whether an array holds typed PRNG keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def describe(tree: PyTree) -> dict[str, str]:
    """The kind of every leaf under its name."""
    return dict(zip(leaf_names(tree), map(leaf_kind, jax.tree.leaves(tree)), strict=True))


def mismatches(expected: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    """The differences between two `describe` results, a line per leaf."""
    names = [*expected, *(name for name in got if name not in expected)]
    return [
        f"{name}: expected {expected.get(name, 'nothing')}, got {got.get(name, 'nothing')}"
        for name in names
        if expected.get(name) != got.get(name)
    ]


def to_host(tree: PyTree) -> dict[str, np.ndarray]:
    """Every leaf as a NumPy array under its name; keys as their key data.

    Arrays that are spread over several hosts are gathered, so every host must call this.
    """
    leaves = jax.device_get([_addressable(leaf) for leaf in jax.tree.leaves(tree)])  # all transfers at once
    return dict(zip(leaf_names(tree), map(np.asarray, leaves), strict=True))


def from_host(template: PyTree, arrays: Mapping[str, np.ndarray]) -> PyTree:
    """A tree like `template` with the values of `to_host`: same types, dtypes and shardings; weak types are gone.

    Leaves of the template may be `jax.ShapeDtypeStruct`. Shapes and dtypes must agree, see `mismatches`.
    """
    leaves, structure = jax.tree.flatten(template)
    values = [_leaf_from_host(leaf, arrays[name]) for name, leaf in zip(leaf_names(template), leaves, strict=True)]
    return jax.tree.unflatten(structure, values)


def own_buffers(tree: PyTree) -> PyTree:
    """A copy with one strongly typed JAX buffer per leaf, so that the tree can be donated and compiles once."""
    return jax.jit(lambda tree: jax.tree.map(lambda leaf: strong(jnp.copy(leaf)), tree))(tree)


def strong(leaf: Any) -> jax.Array:
    """The array, or the Python number, as an array without a weak type; the value and the dtype stay."""
    weak = isinstance(leaf, bool | int | float) or getattr(leaf, "weak_type", False)
    return jax.lax.convert_element_type(leaf, jnp.result_type(leaf)) if weak else leaf


def not_finite(tree: PyTree) -> list[str]:
    """Names of the floating-point leaves that hold NaN or infinity; on several hosts all must call this."""
    # On the host, because a compiled reduction for each of some hundred leaves takes seconds to compile.
    inexact = {name: array for name, array in to_host(tree).items() if jnp.issubdtype(array.dtype, jnp.inexact)}
    return [name for name, array in inexact.items() if not np.isfinite(array).all()]


def not_finite_runs(tree: PyTree) -> dict[int, str]:
    """Run -> name of a leaf [S, ...] that holds NaN or infinity for it, of the S runs that a tree is of."""
    found: dict[int, str] = {}
    for name, array in to_host(tree).items():
        if jnp.issubdtype(array.dtype, jnp.inexact):
            finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
            found |= {int(number): name for number in np.flatnonzero(~finite) if number not in found}
    return found


def _addressable(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        leaf = jax.random.key_data(leaf) if is_key(leaf) else leaf
        if not leaf.is_fully_addressable:
            return multihost_utils.process_allgather(leaf, tiled=True)
    return leaf


def _leaf_from_host(like: Any, value: np.ndarray) -> Any:
    if isinstance(like, bool | int | float):
        return type(like)(value.item())
    if isinstance(like, np.ndarray):
        return np.array(value)
    if isinstance(like, np.generic):
        return value[()]
    if is_key(like):
        impl = jax.random.key_impl(jnp.empty((), like.dtype))
        data = jax.random.key_data(like) if isinstance(like, jax.Array) else None
        return jax.random.wrap_key_data(_place(value, data), impl=impl)
    return _place(value, like)


def _place(value: np.ndarray, like: Any) -> jax.Array:
    """The value on the devices of `like`, uncommitted if that is."""
    if not getattr(like, "committed", False):
        return jnp.array(value)  # a copy: an alias of NumPy memory could not be donated
    return jax.make_array_from_callback(value.shape, like.sharding, lambda index: np.array(value[index]))
