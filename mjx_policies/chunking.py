"""Executing plans: from a network that predicts H actions to a policy of one action a control step.

| function | a plan is made | the action is |
|---|---|---|
| `receding_horizon` | every K steps, and may arrive some steps later | the newest plan's |
| `real_time` | the same, but continues the last one | the newest plan's |
| `temporal_ensemble` | in every step | the average of all plans for this step |

Two warnings. **Within a chunk the robot is blind**: nothing that happens after the observation changes the K actions to
come, so a long K suits demonstrations with pauses and noise, and a short K disturbances. **An average of plans is not a
plan**: where two ways lead around an obstacle, ensembling plans that disagree leads between them; ensemble heads that
commit to one way, and plot their samples first.

A plan with a number that is not finite, as of a head that failed to make one (`heads.fast`), is not executed: the robot
goes on doing the last action that it did, or that other plans ask for. Before the first plan there is none: then NaN.

A batch plans together, when the clock of `policy.Policy` says so. A robot whose episode begins in between opens it with
a plan of its own, made with its memory, and joins the others at their next one.

The deployment runtime does the same (`mjx_policies.deploy.chunks`), also with plans that are made in another thread.
Axes: H horizon, K executed, A action, O stacked observations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mjx_policies.heads.inpainting import Prefix, soft_mask
from mjx_policies.policy import Policy
from mjx_policies.types import Array, Observation

Plan = Callable[[Array, Observation], Array]
"""`(key, observations [O, ...]) -> actions [H, A]`, the first for the step of the newest observation, which is last."""

Continuation = Callable[[Array, Observation, Prefix], Array]
"""A plan, given what it should continue too: `ActionHead.inpaint` with its noise drawn."""


@struct.dataclass
class ChunkMemory:
    """Memory of `receding_horizon` and `real_time` between two steps.

    Attributes:
      history: [O, ...] the last observations, the newest last.
      plan: [H, A] that is executed.
      age: [] int32, its action that is next.
      next_plan: [H, A] that is being computed, `plan` itself if none is.
      next_age: [] int32, its action that is next.
    """

    history: Observation
    plan: Array
    age: Array
    next_plan: Array
    next_age: Array


@struct.dataclass
class EnsembleMemory:
    """Memory of `temporal_ensemble` between two steps.

    Attributes:
      history: [O, ...] the last observations, the newest last.
      plans: [H, H, A], newest first: row i was made i steps ago, and its entry i is for this step.
      count: [] int32, plans made in this episode.
      action: [A], the last one.
    """

    history: Observation
    plans: Array
    count: Array
    action: Array


def receding_horizon(
    plan: Plan,
    shape: tuple[int, int],
    n_action_steps: int,
    n_obs_steps: int = 1,
    inference_delay: int = 0,
    keys: tuple[str, ...] = (),
) -> Policy:
    """Executes K actions of each plan, then plans again. Read the warnings of this module.

    The first plan of an episode is there at once: a robot waits for it before it moves.

    Args:
      plan: what the network does.
      shape: (H, A) of a plan.
      n_action_steps: K.
      n_obs_steps: O; at the start of an episode its first observation stands for those before it.
      inference_delay: control steps that computing a plan takes, during which the robot goes on with the plan it has.
        The actions that were for these steps are not executed: `n_action_steps + inference_delay` of H are needed.
      keys: entries of an observation that the network takes; all by default.

    Raises:
      ValueError: a size that makes no sense.
    """
    return _in_turn(
        lambda key, history, prefix: plan(key, history), shape, n_action_steps, n_obs_steps, inference_delay, keys
    )


def real_time(
    plan: Continuation,
    shape: tuple[int, int],
    n_action_steps: int,
    n_obs_steps: int = 1,
    inference_delay: int = 1,
    keys: tuple[str, ...] = (),
) -> Policy:
    """`receding_horizon` without jumps between plans, Black et al. 2025 (arXiv:2506.07339), algorithm 1.

    A plan is asked to agree with the actions that the last one has for the `inference_delay` steps until it is there,
    and less and less with those after.

    Args:
      plan: what the network does. Actions of the prefix have the units of the plan's.
      shape, n_action_steps, n_obs_steps, inference_delay, keys: see `receding_horizon`.
    """
    return _in_turn(plan, shape, n_action_steps, n_obs_steps, inference_delay, keys)


def _in_turn(
    plan: Continuation,
    shape: tuple[int, int],
    n_action_steps: int,
    n_obs_steps: int,
    inference_delay: int,
    keys: tuple[str, ...],
) -> Policy:
    horizon, _ = shape
    _check(n_action_steps=n_action_steps, n_obs_steps=n_obs_steps)
    if inference_delay < 0 or n_action_steps + inference_delay > horizon:
        raise ValueError(
            f"n_action_steps {n_action_steps} and inference_delay {inference_delay} need plans of "
            f"{n_action_steps + max(0, inference_delay)} actions, these have {horizon}: execute fewer, or "
            "train a longer chunk"
        )
    if inference_delay >= n_action_steps:
        raise ValueError(
            f"inference_delay {inference_delay} is not below n_action_steps {n_action_steps}: a plan would be due "
            "before the last is there"
        )

    # How much of a plan of each age is held. One that has not begun holds nothing: there is no motion to go on with.
    held = [
        np.zeros(horizon, np.float32),
        *(soft_mask(horizon, inference_delay, horizon - a) for a in range(1, n_action_steps + 1)),
    ]

    def init(key: Array, obs: Observation) -> ChunkMemory:
        history = _repeated(obs, keys, n_obs_steps)
        first = plan(key, history, Prefix(jnp.zeros(shape), jnp.zeros(horizon)))
        zero = jnp.zeros((), jnp.int32)
        return ChunkMemory(history, first, zero, first, zero)

    def act(memory: ChunkMemory, key: Array, obs: Observation, clock: Any) -> tuple[Array, ChunkMemory]:
        history = _append(memory.history, obs)
        begins = memory.age == 0  # this robot has not acted on its plan
        # Asked for now; a plan that is not finite is replaced by the last action that is done before it would be there.
        asked = clock % n_action_steps == 0

        def ask() -> Array:
            left = memory.plan[jnp.minimum(memory.age + jnp.arange(horizon), horizon - 1)]
            known = jnp.isfinite(left).all()
            weight = jnp.asarray(np.stack(held))[memory.age]
            return plan(key, history, Prefix(jnp.where(known, left, 0.0), jnp.where(known, weight, 0.0)))

        next_plan = jax.lax.cond(asked, ask, lambda: memory.next_plan)
        instead = jnp.where(begins, memory.plan, memory.plan[memory.age + inference_delay - 1])
        next_plan = jnp.where(jnp.isfinite(next_plan).all(), next_plan, instead)
        next_age = jnp.where(asked, 0, memory.next_age)
        arrived = (clock % n_action_steps == inference_delay) | (asked & begins)
        current = jnp.where(arrived, next_plan, memory.plan)
        age = jnp.where(arrived, next_age, memory.age)
        return current[age], ChunkMemory(history, current, age + 1, next_plan, next_age + 1)

    return Policy(init, act, n_action_steps)


def temporal_ensemble(
    plan: Plan, shape: tuple[int, int], decay: float = 0.01, n_obs_steps: int = 1, keys: tuple[str, ...] = ()
) -> Policy:
    """Plans in every step and averages the actions of all plans, Zhao et al. 2023 (arXiv:2304.13705), algorithm 2.

    Weights are exp(-decay i) with i = 0 for the oldest plan, as there. Read the warnings of this module.

    Args:
      plan, shape, n_obs_steps, keys: see `receding_horizon`.
      decay: above zero the oldest plan weighs most.

    Raises:
      ValueError: a size that makes no sense, or a decay that is not finite.
    """
    horizon, actions = shape
    _check(n_obs_steps=n_obs_steps)
    if not math.isfinite(decay):
        raise ValueError(f"decay is {decay}, it must be finite")

    def init(key: Array, obs: Observation) -> EnsembleMemory:
        del key
        plans, none = jnp.zeros((horizon, *shape)), jnp.full(actions, jnp.nan)
        return EnsembleMemory(_repeated(obs, keys, n_obs_steps), plans, jnp.zeros((), jnp.int32), none)

    def act(memory: EnsembleMemory, key: Array, obs: Observation, clock: Any) -> tuple[Array, EnsembleMemory]:
        del clock
        history = _append(memory.history, obs)
        plans = jnp.concatenate([plan(key, history)[None], memory.plans[:-1]])
        age = jnp.arange(horizon)
        oldest = jnp.minimum(memory.count, horizon - 1)
        usable = jnp.isfinite(plans).all(axis=(1, 2)) & (age <= memory.count)
        weights = ensemble_weights(oldest - age, usable, decay)
        asked = jnp.where(usable[:, None], plans[age, age], 0.0)
        average = jnp.sum(weights[:, None] * asked, axis=0) / jnp.sum(weights)
        action = jnp.where(usable.any(), average, memory.action)
        return action, EnsembleMemory(history, plans, memory.count + 1, action)

    return Policy(init, act)


def ensemble_weights(rank: Array, usable: Array, decay: float) -> Array:  # [H], [H] -> [H]
    """exp(-decay rank), 0 where not usable, divided by the largest of them: for large decays others vanish, all stay
    finite."""
    decay = max(-1e30, min(decay, 1e30))  # what float32 holds even times a rank
    end = jnp.where(usable, rank, len(rank) if decay >= 0 else -1)
    first = jnp.min(end) if decay >= 0 else jnp.max(end)  # the usable one that weighs most
    return jnp.where(usable, jnp.exp(-abs(decay) * jnp.abs(rank - first)), 0.0)


def _repeated(obs: Observation, keys: tuple[str, ...], n_obs_steps: int) -> Observation:
    return {name: jnp.broadcast_to(obs[name], (n_obs_steps, *jnp.shape(obs[name]))) for name in keys or obs}


def _append(history: Observation, obs: Observation) -> Observation:
    return {name: jnp.concatenate([rows[1:], obs[name][None]]) for name, rows in history.items()}


def _check(**sizes: Any) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}, it must be at least 1")
