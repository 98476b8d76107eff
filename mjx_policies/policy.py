"""A policy: what acts, with its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from mjx_policies.actor import begin, recall
from mjx_policies.heads.base import ActionHead
from mjx_policies.memory import Memory
from mjx_policies.types import Array, Observation, PyTree


class Policy(NamedTuple):
    """A policy for one robot: pure functions with a memory that the caller keeps.

    Attributes:
      init: `(key, obs) -> memory`, when an episode begins with this observation; a first plan is made here.
      act: `(memory, key, obs, clock) -> (action [A], memory)`, with a new key each time. `clock` [] counts the control
        steps of the whole batch and is never batched itself, so `lax.cond(clock % period == 0, ...)` is a real branch:
        a batch plans together, once a period. What depends on a robot's own episode, such as the age of its plan, is in
        its memory.
      period: control steps after which the clock may start again from zero; rollouts take a multiple of it.
    """

    init: Callable[[Array, Observation], PyTree]
    act: Callable[[PyTree, Array, Observation, Any], tuple[Any, PyTree]]
    period: int = 1


def stateless(action: Callable[[Observation], Array]) -> Policy:
    """A policy that reads the newest observation alone."""
    return Policy(lambda key, obs: (), lambda memory, key, obs, clock: (action(obs), memory))


def acting(actor: ActionHead, params: PyTree, draw: bool = False) -> Policy:
    """The policy of an actor that makes one action at a time: its most likely one where it knows it, else a sample.

    Args:
      actor: what acts.
      params: its parameters.
      draw: samples even so.
    """
    mode = actor.mode

    def act(memory: PyTree, key: Array, obs: Observation, clock: Any) -> tuple[Array, PyTree]:
        key_memory, key_sample = jax.random.split(key)
        obs, memory = recall(actor, params, memory, key_memory, obs, clock)
        action = actor.sample(params, key_sample, obs)[0] if draw or mode is None else mode(params, obs)
        return action, memory

    period = 1 if actor.memory is None else actor.memory.period
    return Policy(lambda key, obs: begin(actor, params, key, obs), act, period)


def beneath(policy: Policy, name: str = "base_action") -> Memory:
    """A frozen policy as a memory: what it would do now is the entry `name`, for a residual over it to read.

    With `Units(reference=lambda obs: obs[name])` an action of zero is its action, Johannink et al. 2019
    (arXiv:1812.03201).
    """

    def step(params: PyTree, memory: PyTree, key: Any, obs: Observation, clock: Any) -> tuple[Array, PyTree]:
        del params
        return policy.act(memory, key, obs, clock)

    return Memory(name, lambda key, obs: (), lambda params, key, obs: policy.init(key, obs), step, period=policy.period)
