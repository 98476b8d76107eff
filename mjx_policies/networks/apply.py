"""Calling a network with its parameters."""

from __future__ import annotations

from typing import Any

import flax.linen as nn

from mjx_policies.types import PyTree


def apply(net: nn.Module, params: PyTree, *inputs: Any, **options: Any) -> Any:
    """`net.apply`, whose declared type allows for a pair that it only returns where something is mutable."""
    return net.apply(params, *inputs, **options)
