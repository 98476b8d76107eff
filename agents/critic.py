"""Critics, which estimate returns. Axes: D numbers of the observation."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.actor import identity_scales, scaled
from mjx_policies.networks.apply import apply
from mjx_policies.types import Array, Observation, PyTree

CLIP = 10.0  # standard deviations, to which inputs are clipped


class Critic(NamedTuple):
    """A value function as pure functions, for one example.

    Attributes:
      init: `(key, obs) -> params`, which are `{"scales", "net"}`.
      value: `(params, obs) -> []`.
    """

    init: Callable[[Array, Observation], PyTree]
    value: Callable[[PyTree, Observation], Array]


def critic(net: nn.Module, keys: tuple[str, ...] = ("state", "privileged")) -> Critic:
    """Builds a critic over some entries of an observation.

    Args:
      net: [D] -> [1].
      keys: entries of an observation that it reads, side by side; one that the task does not have is left out.
    """

    def read(params: PyTree, obs: Observation) -> Array:
        seen = scaled(jax.lax.stop_gradient(params["scales"]), {name: obs[name] for name in keys if name in obs}, CLIP)
        return jnp.concatenate([jnp.ravel(x) for x in seen.values()])

    def init(key: Array, obs: Observation) -> PyTree:
        scales = {"scales": identity_scales(obs, keys)}
        return scales | {"net": net.init(key, read(scales, obs))}

    def value(params: PyTree, obs: Observation) -> Array:
        return apply(net, params["net"], read(params, obs))[0]

    return Critic(init, value)
