"""Executing plans: from a network that predicts H actions to a policy of one action a control step.

| function | a plan is made | the action is |
|---|---|---|
| `receding_horizon` | every K steps, and may arrive some steps later | the newest plan's |
| `real_time` | the same, but continues the last one | the newest plan's |
| `temporal_ensemble` | in every step | the average of all plans for this step |

Two warnings. **Within a chunk the robot is blind**: nothing that happens after the observation changes the K actions to
come, so a long K suits demonstrations with pauses and noise, and a short K disturbances. **An average of plans is not a
plan**: where two ways lead around an obstacle, ensembling plans that disagree leads between them; ensemble heads that
commit to one way, and look at their samples first.

A plan with a number that is not finite, as of a head that failed to make one (`heads.fast`), is not executed: the robot
goes on doing the last action that it did, or that other plans ask for. Before the first plan there is none: then NaN.

The deployment runtime does the same (`mjx_policies.deploy.chunks`), also with plans that are made in another thread.
Axes: H horizon, K executed, A action, O observations remembered.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.evaluation.policy import Policy
from mjx_policies.heads.inpainting import Prefix, soft_mask
from mjx_policies.types import Array, Observation

Plan = Callable[[Array, Observation], Array]
"""`(key, observations [O, ...]) -> actions [H, A]`, the first for the step of the newest observation, which is last."""

Continuation = Callable[[Array, Observation, Prefix], Array]
"""A plan, given what it should continue too: `ActionHead.inpaint` with its noise drawn."""


@struct.dataclass
class ChunkCarry:
    """What is remembered between two steps.

    Attributes:
      history: [O, ...] the last observations, the newest last.
      plan: [H, A] that is executed.
      next_plan: [H, A] that is being computed, `plan` itself if none is.
    """

    history: Observation
    plan: Array
    next_plan: Array


@struct.dataclass
class EnsembleCarry:
    """What is remembered between two steps.

    Attributes:
      history: [O, ...] the last observations, the newest last.
      plans: [H, H, A], newest first: row i was made i steps ago, and its entry i is for this step.
      action: [A], the last one.
    """

    history: Observation
    plans: Array
    action: Array


def receding_horizon(
    plan: Plan, example: Observation, shape: tuple[int, int], execute: int, remember: int = 1, latency: int = 0
) -> Policy:
    """Executes K actions of each plan, then plans again. Read the warnings of this module.

    The first plan of an episode is there at once: a robot waits for it before it moves.

    Args:
      plan: what the network does.
      example: one observation.
      shape: (H, A) of a plan.
      execute: K.
      remember: O; at the start of an episode its first observation stands for those before it.
      latency: control steps that computing a plan takes, during which the robot goes on with the plan it has. The
        actions that were for these steps are not executed: `execute + latency` of H actions are needed.

    Raises:
      ValueError: a size that makes no sense.
    """
    return _in_turn(lambda key, history, prefix: plan(key, history), example, shape, execute, remember, latency)


def real_time(
    plan: Continuation, example: Observation, shape: tuple[int, int], execute: int, remember: int = 1, latency: int = 1
) -> Policy:
    """`receding_horizon` without jumps between plans, Black et al. 2025 (arXiv:2506.07339), algorithm 1.

    A plan is asked to agree with the actions that the last one has for the `latency` steps until it is there, and less
    and less with those after.

    Args:
      plan: what the network does. Actions of the prefix have the units of the plan's.
      example, shape, execute, remember, latency: see `receding_horizon`.
    """
    return _in_turn(plan, example, shape, execute, remember, latency)


def _in_turn(
    plan: Continuation, example: Observation, shape: tuple[int, int], execute: int, remember: int, latency: int
) -> Policy:
    horizon, _ = shape
    _check(execute=execute, remember=remember)
    if latency < 0 or execute + latency > horizon:
        raise ValueError(
            f"execute {execute} and latency {latency} need plans of {execute + max(0, latency)} actions, these have "
            f"{horizon}: execute fewer, or train a longer chunk"
        )
    if latency >= execute:
        raise ValueError(
            f"latency {latency} is not below execute {execute}: a plan would be due before the last is there"
        )

    held = jnp.asarray(soft_mask(horizon, latency, horizon - execute))

    def init(key: Array) -> ChunkCarry:
        del key
        return ChunkCarry(_no_history(example, remember), jnp.zeros(shape), jnp.zeros(shape))

    def act(carry: ChunkCarry, key: Array, obs: Observation, step: Array) -> tuple[Array, ChunkCarry]:
        history = _append(carry.history, obs, step)
        phase = step % execute  # since the newest plan was asked for
        # Asked for now, when the last plan is as many steps old as were executed.
        left = jnp.concatenate([carry.plan[execute:], jnp.repeat(carry.plan[-1:], execute, axis=0)])
        known = (step > 0) & jnp.isfinite(left).all()
        prefix = Prefix(jnp.where(known, left, 0.0), jnp.where(known, held, 0.0))
        next_plan = jax.lax.cond(phase == 0, lambda: plan(key, history, prefix), lambda: carry.next_plan)
        # The last action that is done before this plan would take over.
        usable = jnp.isfinite(next_plan).all() | (step == 0)
        next_plan = jnp.where(usable, next_plan, carry.plan[execute + latency - 1])
        arrived = (phase == latency) | (step == 0)
        current = jnp.where(arrived, next_plan, carry.plan)
        # A plan is `phase` steps old once it has arrived, and a whole cycle more until its successor has.
        age = jnp.where((phase >= latency) | (step < execute), phase, phase + execute)
        return current[age], ChunkCarry(history, current, next_plan)

    return Policy(init, act)


def temporal_ensemble(
    plan: Plan, example: Observation, shape: tuple[int, int], decay: float = 0.01, remember: int = 1
) -> Policy:
    """Plans in every step and averages what all plans say of it, Zhao et al. 2023 (arXiv:2304.13705), algorithm 2.

    Weights are exp(-decay i) with i = 0 for the oldest plan, as there. Read the warnings of this module.

    Args:
      plan, example, shape, remember: see `receding_horizon`.
      decay: above zero the oldest plan weighs most.

    Raises:
      ValueError: a size that makes no sense, or a decay that is not finite.
    """
    horizon, actions = shape
    _check(remember=remember)
    if not math.isfinite(decay):
        raise ValueError(f"decay is {decay}, it must be finite")

    def init(key: Array) -> EnsembleCarry:
        del key
        return EnsembleCarry(_no_history(example, remember), jnp.zeros((horizon, *shape)), jnp.full(actions, jnp.nan))

    def act(carry: EnsembleCarry, key: Array, obs: Observation, step: Array) -> tuple[Array, EnsembleCarry]:
        history = _append(carry.history, obs, step)
        plans = jnp.concatenate([plan(key, history)[None], carry.plans[:-1]])
        age = jnp.arange(horizon)
        oldest = jnp.minimum(step, horizon - 1)
        usable = jnp.isfinite(plans).all(axis=(1, 2)) & (age <= step)
        weights = ensemble_weights(oldest - age, usable, decay)
        asked = jnp.where(usable[:, None], plans[age, age], 0.0)
        average = jnp.sum(weights[:, None] * asked, axis=0) / jnp.sum(weights)
        action = jnp.where(usable.any(), average, carry.action)
        return action, EnsembleCarry(history, plans, action)

    return Policy(init, act)


def ensemble_weights(rank: Array, usable: Array, decay: float) -> Array:  # [H], [H] -> [H]
    """exp(-decay rank), 0 where not usable, divided by the largest of them: for large decays others vanish, all stay
    finite."""
    decay = max(-1e30, min(decay, 1e30))  # what float32 holds even times a rank
    end = jnp.where(usable, rank, len(rank) if decay >= 0 else -1)
    first = jnp.min(end) if decay >= 0 else jnp.max(end)  # the usable one that weighs most
    return jnp.where(usable, jnp.exp(-abs(decay) * jnp.abs(rank - first)), 0.0)


def _no_history(example: Observation, remember: int) -> Observation:
    return jax.tree.map(lambda x: jnp.zeros((remember, *jnp.shape(x)), jnp.asarray(x).dtype), example)


def _append(history: Observation, obs: Observation, step: Array) -> Observation:
    def append(rows: Array, newest: Array) -> Array:
        return jnp.where(step == 0, jnp.broadcast_to(newest, rows.shape), jnp.concatenate([rows[1:], newest[None]]))

    return jax.tree.map(append, history, obs)


def _check(**sizes: Any) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}, it must be at least 1")
