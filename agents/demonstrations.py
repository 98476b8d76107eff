"""Demonstrations: what an expert does, recorded, and what it would have done where another policy went.

Axes: B attempts, T steps, A actions.

    record = make_recorder(env, expert_actor(expert))
    attempts = record(jax.vmap(jax.random.key)(seeds))      # [B] seeds; an attempt depends on its seed alone
    episodes = to_episodes(attempts, seeds, task="FrankaPickCube", fps=20.0, strategies=expert.strategies)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mjx_policies.compiler import compiler_options
from mjx_policies.data.episodes import Episode
from mjx_policies.envs.base import DynamicsSampler, Env, EnvState, Nominal
from mjx_policies.envs.experts.base import Expert
from mjx_policies.envs.vectorize import all_finite, sound, where_rows
from mjx_policies.policy import Policy, stateless
from mjx_policies.types import Array, Number, Observation

TAIL_SECONDS = 0.5  # an attempt goes on for, once the task has been solved: a policy must learn to stay
_NOMINAL = Nominal()


class Actor(NamedTuple):
    """Who acts in an attempt, and whose actions are recorded beside.

    Attributes:
      init: `(key, env_state, obs) -> carry`.
      act: `(carry, env_state, obs, key, step) -> (action [A], label [A], carry)`; `step` [] is that of the attempt, the
        same for a whole batch, see `policy.Policy`.
      strategy: `carry -> []` int32, see `Expert.strategies`.
      begin: `carry -> []` int32, the first step that is worth keeping.
    """

    init: Callable[[Array, EnvState, Observation], Any]
    act: Callable[[Any, EnvState, Observation, Array, Array], tuple[Array, Array, Any]]
    strategy: Callable[[Any], Array]
    begin: Callable[[Any], Array] = lambda carry: jnp.zeros((), jnp.int32)


@struct.dataclass
class Attempts:
    """A batch of attempts. Rows from `length` on mean nothing.

    Attributes:
      observation: {name: [T + 1, B, ...]}, row t is what action t was chosen on.
      action: [T, B, A] that was executed.
      label: [T, B, A] what the expert meant.
      reward: [T, B].
      qpos: [T + 1, B, nq], for films.
      mocap_pos: [B, nmocap, 3] where goals and obstacles are, for films.
      length: [B] int32, steps until the attempt was over.
      terminated: [B] bool, the task was lost.
      success: [B] bool, the task was solved.
      diverged: [B] bool, the simulation ended in numbers that are not finite.
      strategy: [B] int32.
      begin: [B] int32, steps before are not worth keeping.
    """

    observation: Observation
    action: Array
    label: Array
    reward: Array
    qpos: Array
    mocap_pos: Array
    length: Array
    terminated: Array
    success: Array
    diverged: Array
    strategy: Array
    begin: Array


def expert_actor(expert: Expert) -> Actor:
    """The expert acts, tremor, pauses, mistakes and all; its label is what it meant."""

    def act(carry, state, obs, key, step):
        del obs, step
        action, carry = expert.act(carry, state, key)
        return action, carry.intended, carry

    return Actor(lambda key, state, obs: expert.init(key, state), act, lambda carry: carry.manner.strategy)


def dagger_actor(expert: Expert, policy: Policy | Callable[[Observation], Array], mixing: Number = 0.0) -> Actor:
    """A policy acts, and the expert says what it would have done instead (DAgger, Ross et al. 2011, arXiv:1011.0686).

    Args:
      expert: whose labels are recorded.
      policy: observation -> action [A], or one that remembers, plans or draws.
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

    return Actor(init, act, lambda carry: carry[1].manner.strategy)


def takeover_actor(expert: Expert, policy: Policy | Callable[[Observation], Array], steps: int) -> Actor:
    """A policy acts until the expert takes over, at any of the first steps alike; what the expert then does is kept.

    For policies that plan ahead. A label says what a single action should have been, and the policy goes on from there,
    so labels in a row are no plan: they would say again and again how to begin. What an expert goes on to do is one, as
    in HG-DAgger (Kelly et al. 2019, arXiv:1810.02890), where a human decides when.

    Args:
      expert: does what its labels say, which are for any state.
      policy: see `dagger_actor`.
      steps: of which one is drawn.

    Raises:
      ValueError: there is none.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, it must be at least 1")
    labelled = dagger_actor(expert, policy)

    def init(key, state, obs):
        key_takeover, key_actor = jax.random.split(key)
        return jax.random.randint(key_takeover, (), 0, steps), labelled.init(key_actor, state, obs)

    def act(carry, state, obs, key, step):
        takeover, inner = carry
        chosen, label, inner = labelled.act(inner, state, obs, key, step)
        return jnp.where(step >= takeover, label, chosen), label, (takeover, inner)

    return Actor(init, act, lambda carry: labelled.strategy(carry[1]), lambda carry: carry[0])


def make_recorder(
    env: Env, actor: Actor, dynamics: DynamicsSampler = _NOMINAL, seconds: float | None = None
) -> Callable[[Array], Attempts]:
    """Builds `keys [B] -> Attempts`: one jitted program that runs B attempts until all are over.

    An attempt is over `TAIL_SECONDS` after the task was solved, when the task is lost, or at the time limit. What it
    holds depends on its key alone, not on the batch around it.

    Args:
      env: a task with stages, the last of which is success.
      actor: see `expert_actor`, `dagger_actor`, `takeover_actor`.
      dynamics: draws the robot of each attempt.
      seconds: time limit; the task's own by default.

    Raises:
      ValueError: the task does not say what success is.
    """
    if not env.spec.stages:
        raise ValueError("demonstrations need a task with stages, the last of which says when it is solved")
    steps = round((env.spec.episode_seconds if seconds is None else seconds) / env.spec.control_dt)
    tail = round(TAIL_SECONDS / env.spec.control_dt)

    def begin(key):
        key_dynamics, key_reset, key_actor, key_steps = jax.random.split(key, 4)
        state, timestep = env.reset(key_reset, dynamics(key_dynamics).dynamics)
        return state, timestep.obs, actor.init(key_actor, state, timestep.obs), key_steps

    def advance(state, obs, carry, key, index):
        action, label, carry = actor.act(carry, state, obs, key, index)
        after, timestep = env.step(state, action)
        return after, carry, action, label, timestep, sound(env, state, after, timestep) & all_finite(action)

    def record(keys: Array) -> Attempts:
        num = len(keys)
        state, obs, carry, keys = jax.vmap(begin)(keys)
        false, zeros = jnp.zeros(num, bool), jnp.zeros(num, jnp.int32)
        start = (state, obs, carry, zeros, false, false, false, jnp.full(num, tail, jnp.int32))

        def step(before, index):
            state, obs, carry, length, terminated, success, diverged, left = before
            running = ~(terminated | diverged | (left <= 0))
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
            state, carry, action, label, timestep, finite = jax.vmap(advance, (0, 0, 0, 0, None))(
                state, obs, carry, step_keys, index
            )
            obs = where_rows(finite, timestep.obs, obs)
            qpos = env.data(state).qpos
            length = length + running
            terminated = terminated | (running & finite & timestep.terminated)
            solved = running & finite & (timestep.metrics["success"] > 0.5)
            left = left - (success & running)  # of the steps after the one that solved it
            success = success | solved
            diverged = diverged | (running & ~finite)
            row = (obs, action, label, timestep.reward, qpos)
            return (state, obs, carry, length, terminated, success, diverged, left), row

        empty = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(step, start, jnp.zeros((), jnp.int32))[1]
        )

        def step_or_skip(before, index):
            *_, terminated, _, diverged, left = before
            over = jnp.all(terminated | diverged | (left <= 0))
            return jax.lax.cond(over, lambda before, _: (before, empty), step, before, index)

        after, rows = jax.lax.scan(step_or_skip, start, jnp.arange(steps))
        _, _, carry, length, terminated, success, diverged, _ = after
        observations, action, label, reward, qpos = rows
        data = jax.vmap(env.data)(state)
        first = obs, data.qpos
        observations, qpos = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, (observations, qpos))
        return Attempts(
            observation=observations,
            action=action,
            label=label,
            reward=reward,
            qpos=qpos,
            mocap_pos=data.mocap_pos,
            length=length,
            terminated=terminated,
            success=success & ~diverged,
            diverged=diverged,
            strategy=jax.vmap(actor.strategy)(carry),
            begin=jax.vmap(actor.begin)(carry),
        )

    return jax.jit(record, compiler_options=compiler_options())


def to_episodes(
    attempts: Attempts,
    seeds: Sequence[int],
    task: str,
    fps: float,
    strategies: Sequence[str],
    labels: bool = False,
    failures: bool = False,
) -> list[Episode]:
    """The attempts as episodes, each from where it is worth keeping to where it was over.

    Args:
      attempts: of `make_recorder`.
      seeds: [B] of the keys.
      task: its name.
      fps: control steps per second.
      strategies: of the expert.
      labels: whether the action of an episode is what the expert meant, rather than what was executed.
      failures: whether to keep attempts that failed; those that diverged never are.
    """
    attempts = jax.device_get(attempts)
    actions = attempts.label if labels else attempts.action
    episodes = []
    for b, seed in enumerate(seeds):
        if attempts.diverged[b] or not (failures or attempts.success[b]):
            continue
        steps = int(attempts.length[b])
        kept = slice(int(attempts.begin[b]), steps)
        if kept.start >= steps:
            continue
        episodes.append(
            Episode(
                observation={name: np.ascontiguousarray(x[kept, b]) for name, x in attempts.observation.items()},
                action=np.ascontiguousarray(actions[kept, b]),
                reward=np.ascontiguousarray(attempts.reward[kept, b]),
                terminated=bool(attempts.terminated[b]),
                success=bool(attempts.success[b]),
                task=task,
                fps=fps,
                final_observation={name: np.asarray(x[steps, b]) for name, x in attempts.observation.items()},
                seed=int(seed),
                strategy=strategies[int(attempts.strategy[b])],
            )
        )
    return episodes
