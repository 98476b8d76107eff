"""Demonstrators: who acts in a rollout, and whose actions are recorded beside. Axes: A actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mjx_policies.envs.base import EnvState
from mjx_policies.envs.experts.base import Expert
from mjx_policies.policy import Policy, stateless
from mjx_policies.types import Array, Number, Observation


class Demonstrator(NamedTuple):
    """An acting policy or expert, and the actions that are recorded beside its own.

    Attributes:
      init: `(key, env_state, obs) -> carry`.
      act: `(carry, env_state, obs, key, step) -> (action [A], label [A], carry)`; `step` [] is that of the rollout, the
        same for a whole batch, see `policy.Policy`.
      strategy: `carry -> []` int32, see `Expert.strategies`.
      begin: `carry -> []` int32, the first step that is worth keeping.
      strategies: their names.
    """

    init: Callable[[Array, EnvState, Observation], Any]
    act: Callable[[Any, EnvState, Observation, Array, Array], tuple[Array, Array, Any]]
    strategy: Callable[[Any], Array]
    begin: Callable[[Any], Array] = lambda carry: jnp.zeros((), jnp.int32)
    strategies: Sequence[str] = ()


def expert_demonstrator(expert: Expert, tremor: float = 1.0) -> Demonstrator:
    """The expert acts, tremor, pauses, mistakes and all; its label is what it meant.

    Args:
      expert: who acts.
      tremor: times its own; 0 for an expert that does just what it means, with its pauses.
    """

    def act(carry, state, obs, key, step):
        del obs, step
        action, carry = expert.act(carry, state, key)
        if tremor != 1:
            action = jnp.clip(carry.intended + tremor * (action - carry.intended), -1.0, 1.0)
        return action, carry.intended, carry

    def init(key, state, obs):
        del obs
        return expert.init(key, state)

    return Demonstrator(init, act, lambda carry: carry.manner.strategy, strategies=expert.strategies)


def dagger_demonstrator(
    expert: Expert, policy: Policy | Callable[[Observation], Array], mixing: Number = 0.0
) -> Demonstrator:
    """A policy acts, and the expert says what it would have done instead (DAgger, Ross et al. 2011, arXiv:1011.0686).

    Args:
      expert: whose labels are recorded.
      policy: observation -> action [A], or one with a memory, chunks or samples.
      mixing: beta of the paper, the portion of the episodes in which the expert acts.

    Raises:
      ValueError: `mixing` is no portion.
    """
    if isinstance(mixing, int | float) and not 0 <= mixing <= 1:
        raise ValueError(f"mixing is {mixing}, it must lie between 0 and 1")
    policy = policy if isinstance(policy, Policy) else stateless(policy)

    def init(key, state, obs):
        key_mixing, key_expert, key_policy = jax.random.split(key, 3)
        return jax.random.bernoulli(key_mixing, mixing), expert.init(key_expert, state), policy.init(key_policy, obs)

    def act(carry, state, obs, key, step):
        expert_acts, expert_state, memory = carry
        key_expert, key_policy = jax.random.split(key)
        action, expert_state = expert.act(expert_state, state, key_expert)
        chosen, memory = policy.act(memory, key_policy, obs, step)
        return jnp.where(expert_acts, action, chosen), expert.label(state), (expert_acts, expert_state, memory)

    return Demonstrator(init, act, lambda carry: carry[1].manner.strategy, strategies=expert.strategies)


def takeover_demonstrator(expert: Expert, policy: Policy | Callable[[Observation], Array], steps: int) -> Demonstrator:
    """A policy acts until the expert takes over, at any of the first steps alike; what the expert then does is kept.

    For policies that plan ahead. A label says what a single action should have been, and the policy goes on from there,
    so labels in a row are no plan: they would say again and again how to begin. What an expert goes on to do is one, as
    in HG-DAgger (Kelly et al. 2019, arXiv:1810.02890), where a human decides when.

    Args:
      expert: does what its labels say, which are for any state.
      policy: see `dagger_demonstrator`.
      steps: of which one is drawn.

    Raises:
      ValueError: there is none.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, it must be at least 1")
    labelled = dagger_demonstrator(expert, policy)

    def init(key, state, obs):
        key_takeover, key_inner = jax.random.split(key)
        return jax.random.randint(key_takeover, (), 0, steps), labelled.init(key_inner, state, obs)

    def act(carry, state, obs, key, step):
        takeover, inner = carry
        chosen, label, inner = labelled.act(inner, state, obs, key, step)
        return jnp.where(step >= takeover, label, chosen), label, (takeover, inner)

    strategy, begin = (lambda carry: labelled.strategy(carry[1])), (lambda carry: carry[0])
    return Demonstrator(init, act, strategy, begin, expert.strategies)
