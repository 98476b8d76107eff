"""Initial weights."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mjx_policies.types import Array

small = jax.nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
"""The initializer of last layers: a first output near zero, whatever the input."""


def orthogonal(scale: float = 1.0) -> Callable[..., Array]:
    """`jax.nn.initializers.orthogonal`, one matrix after the other where seeds are batched.

    On a CPU jaxlib 0.10.2 divides a batch of QR factorizations into tasks for the threads one of which waits for them
    (`ParallelBatchMap` in jaxlib/cpu/lapack_kernels.cc). With as many batches at work as there are threads, all of them
    wait: ten networks made by one `vmap` on two cores now and then never were.
    """
    plain = jax.nn.initializers.orthogonal(scale)

    def init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype | type = jnp.float32) -> Array:
        return jax.custom_batching.sequential_vmap(lambda key: plain(key, shape, dtype))(key)

    return init
