"""Memory of an actor from one step of an episode to the next, as one more entry of the observation.

So everything behind it (encoder, head, densities) is a pure function of one observation, whatever the memory is: the
state of a recurrent cell, or the action of a policy that runs beneath. Axes: D observation, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_policies.types import Array, Observation, PyTree


class Memory(NamedTuple):
    """A bundle of pure functions, for one robot.

    Attributes:
      name: of the entry of the observation.
      init: `(key, obs) -> params`.
      begin: `(params, key, obs) -> memory`, when an episode begins with this observation.
      step: `(params, memory, key, obs, clock) -> (entry, memory)`.
      learned: whether gradients reach `params`. Then it reads scaled observations, as an encoder does, and draws
        nothing: a learner runs the steps of a rollout again, with no key and no clock. Otherwise it reads observations
        as they are, and the entries recorded while acting are all that a learner needs.
      period: see `policy.Policy`.
    """

    name: str
    init: Callable[[Array, Observation], PyTree]
    begin: Callable[[PyTree, Any, Observation], PyTree]
    step: Callable[[PyTree, PyTree, Any, Observation, Any], tuple[Array, PyTree]]
    learned: bool = False
    period: int = 1


def gru(features: int, keys: tuple[str, ...] = ("state",), name: str = "memory") -> Memory:
    """A gated recurrent unit, Cho et al. 2014 (arXiv:1406.1078); the entry is its state [F].

    Args:
      features: F.
      keys: entries of the observation that it reads, flattened.
      name: see `Memory`.
    """
    cell = nn.GRUCell(features)

    def read(obs: Observation) -> Array:
        return jnp.concatenate([jnp.ravel(obs[key]) for key in keys])

    def init(key: Array, obs: Observation) -> PyTree:
        return cell.init(key, jnp.zeros(features), read(obs))

    def begin(params: PyTree, key: Any, obs: Observation) -> Array:
        del params, key, obs
        return jnp.zeros(features)

    def step(params: PyTree, memory: Array, key: Any, obs: Observation, clock: Any) -> tuple[Array, Array]:
        del key, clock
        memory, _ = cell.apply(params, memory, read(obs))
        return memory, memory

    return Memory(name, init, begin, step, learned=True)


def replay(memory: Memory, params: PyTree, start: PyTree, obs: Observation, begins: Array) -> Array:
    """The entries that a learned memory adds in T steps of one robot; gradients flow back through all of them.

    Args:
      memory: a learned one.
      params: its parameters.
      start: its memory before the first step.
      obs: [T, ...].
      begins: [T] whether an episode begins with this step.

    Returns:
      [T, ...].
    """

    def step(kept: PyTree, inputs: tuple[Observation, Array]) -> tuple[PyTree, Array]:
        obs, begins = inputs
        kept = jax.tree.map(lambda new, old: jnp.where(begins, new, old), memory.begin(params, None, obs), kept)
        entry, kept = memory.step(params, kept, None, obs, None)
        return kept, entry

    return jax.lax.scan(step, start, (obs, begins))[1]
