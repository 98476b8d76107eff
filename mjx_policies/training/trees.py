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

from mjx_policies.training.errors import UserError

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
    """What a leaf is, see the module; `UserError` for anything that is no leaf."""
    if isinstance(leaf, bool | int | float):
        return f"python {type(leaf).__name__}"
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape") or leaf.dtype == object:
        raise UserError(f"a leaf of the state is a {type(leaf).__name__}; only arrays, keys and numbers can be saved.")
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def describe(tree: PyTree) -> dict[str, str]:
    """The kind of every leaf under its name."""
    return dict(zip(leaf_names(tree), map(leaf_kind, jax.tree.leaves(tree)), strict=True))


def mismatches(expected: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    """How two `describe` results differ, a line per leaf."""
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
    return dict(zip(leaf_names(tree), map(_leaf_to_host, jax.tree.leaves(tree)), strict=True))


def from_host(template: PyTree, arrays: Mapping[str, np.ndarray]) -> PyTree:
    """A tree like `template` with the values of `to_host`: same types, dtypes and shardings; weak types are gone.

    Leaves of the template may be `jax.ShapeDtypeStruct`. Shapes and dtypes must agree, see `mismatches`.
    """
    leaves, structure = jax.tree.flatten(template)
    values = [_leaf_from_host(leaf, arrays[name]) for name, leaf in zip(leaf_names(template), leaves, strict=True)]
    return structure.unflatten(values)


def own_buffers(tree: PyTree) -> PyTree:
    """A copy with one strongly typed JAX buffer per leaf, so that the tree can be donated and compiles once."""
    return jax.jit(lambda tree: jax.tree.map(lambda leaf: strong(jnp.copy(leaf)), tree))(tree)


def strong(leaf: jax.Array) -> jax.Array:
    """The array without a weak type; the value and the dtype stay."""
    return jax.lax.convert_element_type(leaf, leaf.dtype) if getattr(leaf, "weak_type", False) else leaf


def not_finite(tree: PyTree) -> list[str]:
    """Names of the floating-point leaves that hold NaN or infinity."""
    flags = jax.device_get(_finite_flags(tree))
    return [name for name, finite in zip(leaf_names(tree), flags, strict=True) if not finite]


@jax.jit
def _finite_flags(tree: PyTree) -> list[jax.Array]:
    def finite(leaf: Any) -> jax.Array:
        floating = jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)
        return jnp.all(jnp.isfinite(leaf)) if floating else jnp.asarray(True)

    return [finite(leaf) for leaf in jax.tree.leaves(tree)]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _leaf_to_host(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array):
        leaf = jax.random.key_data(leaf) if _is_key(leaf) else leaf
        if not leaf.is_fully_addressable:
            from jax.experimental import multihost_utils

            leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def _leaf_from_host(like: Any, value: np.ndarray) -> Any:
    if isinstance(like, bool | int | float):
        return type(like)(value.item())
    if isinstance(like, np.ndarray):
        return np.array(value)
    if isinstance(like, np.generic):
        return value[()]
    sharding = like.sharding if getattr(like, "committed", False) else None
    if _is_key(like):
        impl = jax.random.key_impl(jnp.empty((), like.dtype))
        keys = jax.random.wrap_key_data(jnp.array(value), impl=impl)
        return keys if sharding is None else jax.device_put(keys, sharding)
    if sharding is None:
        return jnp.array(value)  # a copy: an alias of NumPy memory could not be donated
    return jax.make_array_from_callback(value.shape, sharding, lambda index: np.array(value[index]))
