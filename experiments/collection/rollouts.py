"""Rollouts of demonstrators, recorded.

    record = make_recorder(env, expert_demonstrator(expert))
    rollouts = record(seeds)      # [B]; a rollout depends on its seed alone
    episodes = to_episodes(rollouts, "FrankaPickCube")

Axes: B rollouts, T steps, A actions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mjx_policies.compiler import compiler_options
from mjx_policies.data.episodes import Episode
from mjx_policies.envs.base import DynamicsSampler, Env, Nominal
from mjx_policies.envs.vectorize import all_finite, sound, where_rows
from mjx_policies.experiments.collection.demonstrators import Demonstrator
from mjx_policies.types import Array, Observation

TAIL_SECONDS = 0.5  # a rollout goes on for, once the task has been solved: a policy must learn to stay
_NOMINAL = Nominal()


@struct.dataclass
class Rollouts:
    """A batch of rollouts. Rows from `length` on mean nothing.

    Attributes:
      observation: {name: [T + 1, B, ...]}, row t is what action t was chosen on.
      action: [T, B, A] that was executed.
      label: [T, B, A] what the expert meant.
      reward: [T, B].
      qpos: [T + 1, B, nq], for videos.
      mocap_pos: [B, nmocap, 3] where goals and obstacles are, for videos.
      length: [B] int32, steps until the rollout was over.
      terminated: [B] bool, the task was lost.
      success: [B] bool, the task was solved.
      diverged: [B] bool, the simulation ended in numbers that are not finite.
      strategy: [B] int32, one of `strategies`.
      begin: [B] int32, steps before are not worth keeping.
      seed: [B] int.
      fps: control steps per second.
      strategies: of the demonstrator.
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
    seed: Array
    fps: float = struct.field(pytree_node=False)
    strategies: tuple[str, ...] = struct.field(pytree_node=False)


def make_recorder(
    env: Env, demonstrator: Demonstrator, dynamics: DynamicsSampler = _NOMINAL, seconds: float | None = None
) -> jax.stages.Wrapped:
    """Builds `seeds [B] -> Rollouts`: one jitted program that runs B rollouts until all are over.

    A rollout is over `TAIL_SECONDS` after the task was solved, when the task is lost, or at the time limit. What it
    holds depends on its seed alone, not on the batch around it.

    Args:
      env: a task with stages, the last of which is success.
      demonstrator: see `expert_demonstrator`, `dagger_demonstrator`, `takeover_demonstrator`.
      dynamics: draws the robot of each rollout.
      seconds: time limit; the task's own by default.

    Raises:
      ValueError: the task does not say what success is.
    """
    if not env.spec.stages:
        raise ValueError("demonstrations need a task with stages, the last of which says when it is solved")
    steps = round((env.spec.episode_seconds if seconds is None else seconds) / env.spec.control_dt)
    tail = round(TAIL_SECONDS / env.spec.control_dt)

    def begin(key):
        key_dynamics, key_reset, key_demonstrator, key_steps = jax.random.split(key, 4)
        state, timestep = env.reset(key_reset, dynamics(key_dynamics).dynamics)
        return state, timestep.obs, demonstrator.init(key_demonstrator, state, timestep.obs), key_steps

    def advance(state, obs, carry, key, index):
        action, label, carry = demonstrator.act(carry, state, obs, key, index)
        after, timestep = env.step(state, action)
        return after, carry, action, label, timestep, sound(env, state, after, timestep) & all_finite(action)

    def is_running(left, ended):  # [B], {name: [B]} -> [B]
        return ~(ended["terminated"] | ended["diverged"] | (left <= 0))

    def record(seeds: Array) -> Rollouts:
        state, obs, carry, keys = jax.vmap(begin)(jax.vmap(jax.random.key)(seeds))
        ended: dict[str, Any] = {name: jnp.zeros(len(seeds), bool) for name in ("terminated", "success", "diverged")}
        ended["length"] = jnp.zeros(len(seeds), jnp.int32)
        start = (state, obs, carry, jnp.full(len(seeds), tail, jnp.int32), ended)

        def step(before, index):
            state, obs, carry, left, ended = before
            running = is_running(left, ended)
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
            state, carry, action, label, timestep, finite = jax.vmap(advance, (0, 0, 0, 0, None))(
                state, obs, carry, step_keys, index
            )
            obs = where_rows(finite, timestep.obs, obs)
            left = left - (ended["success"] & running)  # of the steps after the one that solved it
            ended = {
                "length": ended["length"] + running,
                "terminated": ended["terminated"] | (running & finite & timestep.terminated),
                "success": ended["success"] | (running & finite & (timestep.metrics["success"] > 0.5)),
                "diverged": ended["diverged"] | (running & ~finite),
            }
            row = {"observation": obs, "action": action, "label": label, "reward": timestep.reward}
            return (state, obs, carry, left, ended), row | {"qpos": env.data(state).qpos}

        _, shapes = jax.eval_shape(step, start, jnp.zeros((), jnp.int32))
        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def step_or_skip(before, index):
            *_, left, ended = before
            over = jnp.all(~is_running(left, ended))
            return jax.lax.cond(over, lambda before, _: (before, empty), step, before, index)

        (_, _, carry, _, ended), rows = jax.lax.scan(step_or_skip, start, jnp.arange(steps))
        data = jax.vmap(env.data)(state)
        for name, first in (("observation", obs), ("qpos", data.qpos)):
            rows[name] = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rows[name])
        ended["success"] &= ~ended["diverged"]
        return Rollouts(
            **rows,
            **ended,
            mocap_pos=data.mocap_pos,
            strategy=jax.vmap(demonstrator.strategy)(carry),
            begin=jax.vmap(demonstrator.begin)(carry),
            seed=seeds,
            fps=1 / env.spec.control_dt,
            strategies=tuple(demonstrator.strategies),
        )

    return jax.jit(record, compiler_options=compiler_options())


def to_episodes(rollouts: Rollouts, task: str, labels: bool = False, failures: bool = False) -> list[Episode]:
    """The rollouts as episodes, each from where it is worth keeping to where it was over.

    Args:
      rollouts: of `make_recorder`.
      task: its name.
      labels: whether the action of an episode is what the expert meant, rather than what was executed.
      failures: whether to keep rollouts that failed; those that diverged never are.
    """
    rollouts = jax.device_get(rollouts)
    actions = rollouts.label if labels else rollouts.action
    episodes = []
    for b, seed in enumerate(rollouts.seed):
        if rollouts.diverged[b] or not (failures or rollouts.success[b]):
            continue
        steps = int(rollouts.length[b])
        kept = slice(int(rollouts.begin[b]), steps)
        if kept.start >= steps:
            continue
        episodes.append(
            Episode(
                observation={name: np.ascontiguousarray(x[kept, b]) for name, x in rollouts.observation.items()},
                action=np.ascontiguousarray(actions[kept, b]),
                reward=np.ascontiguousarray(rollouts.reward[kept, b]),
                terminated=bool(rollouts.terminated[b]),
                success=bool(rollouts.success[b]),
                task=task,
                fps=rollouts.fps,
                final_observation={name: np.asarray(x[steps, b]) for name, x in rollouts.observation.items()},
                seed=int(seed),
                strategy=rollouts.strategies[int(rollouts.strategy[b])],
            )
        )
    return episodes
