"""Vectorized environments, and everything about where episodes begin and end: once, for all tasks.

Axes: B environments, P initial states in the reset pool, A actions, E extrinsics.

Resetting inside a step would cost every robot a forward pass, so initial states wait in a reset pool that is redrawn
once per rollout (`refresh`). Each has its own state, command and dynamics, and is assigned once before any is assigned
again. When more than P episodes end in a rollout, they are assigned again, random keys and all: the metric
`reused_resets` is the portion of steps that began such an episode, and a larger pool the remedy.

A robot's draw lasts for its episode: its model fields are in the state of the task, and what was drawn, where the
sampler tells it, is the entry `"extrinsics"` [E] of every observation, the final one included.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from mjx_policies.envs.base import DynamicsSampler, Env, EnvSpec, EnvState, Nominal, select, take
from mjx_policies.spec import Table
from mjx_policies.types import Array, Observation, TimeStep

_NOMINAL = Nominal()
EXTRINSICS = "extrinsics"


@struct.dataclass
class EpisodeStatistics:
    """Statistics of each episode as of the last step: of a whole one if it ended there, else of the part so far.

    Attributes:
      ended: [B] bool.
      cut_off: [B] bool, it ended early and not by the task's rules: the simulation diverged, the robot left the
        terrain, or it is one of the first episodes, which are staggered. Nobody knows how it would have gone on.
      length: [B] int32, its steps.
      score: [B] mean of the metric `EnvSpec.score` over the steps that measured it; NaN if none did.
      measured: [B] int32, these steps.
    """

    ended: Array
    cut_off: Array
    length: Array
    score: Array
    measured: Array


@struct.dataclass
class VectorState:
    """The state of B environments between two steps.

    Attributes:
      env: the task with its wrappers; its leaves (difficulty, ranges, weights) are shared by all B and may be replaced.
      dynamics: draws the robot of each episode; its ranges may be replaced likewise.
      envs: [B, ...] state of each environment.
      steps: [B] int32, steps since each episode began.
      obs: [B, ...] the observation last returned.
      pool: [P, ...] the reset pool: initial states, each with its first observation.
      next_reset: [] int32, initial states assigned since the pool was drawn; the next is this one, modulo P.
      reset_row: [B] int32, the one that was assigned where the last step ended an episode: what else an episode begins
        with, such as the memory of a policy, can be made for the pool and taken from the same row.
      episodes: how each episode went up to the last step.
      key: random key of the next pool.
    """

    env: Env
    dynamics: DynamicsSampler
    envs: EnvState
    steps: Array
    obs: Observation
    pool: tuple[EnvState, Observation]
    next_reset: Array
    reset_row: Array
    episodes: EpisodeStatistics
    key: Array


class VectorEnv:
    """`num_envs` copies of a task behind one `init` and one `step`.

    Args:
      env: a task, wrapped or not.
      num_envs: B.
      dynamics: draws the robot anew for every episode, such as `randomization.Randomization`.
      episode_seconds: time limit; the task's own by default.
      pool_size: P; a quarter of the environments by default, at least 16.
      repeats: as many environments in a row begin their first episode in the same state of the same robot, so that
        policies which draw their actions show how they vary.

    Raises:
      ValueError: a size that is not positive, or environments that are no multiple of `repeats`.
    """

    def __init__(
        self,
        env: Env,
        num_envs: int,
        dynamics: DynamicsSampler = _NOMINAL,
        episode_seconds: float | None = None,
        pool_size: int | None = None,
        repeats: int = 1,
    ):
        seconds = env.spec.episode_seconds if episode_seconds is None else episode_seconds
        pool_size = max(16, num_envs // 4) if pool_size is None else pool_size
        sizes = {"num_envs": num_envs, "episode_seconds": seconds, "pool_size": pool_size, "repeats": repeats}
        for name, value in sizes.items():
            if value <= 0:
                raise ValueError(f"{name} is {value}, it must be positive")
        if num_envs % repeats:
            raise ValueError(f"num_envs is {num_envs}, it must be a multiple of repeats, {repeats}")
        self.env = env
        self.num_envs = num_envs
        self.dynamics = dynamics
        self.episode_steps = max(1, round(seconds / env.spec.control_dt))
        self.pool_size = pool_size
        self.repeats = repeats

    @property
    def spec(self) -> EnvSpec:
        """Tables and times of the task."""
        return self.env.spec

    @property
    def model(self) -> mujoco.MjModel:
        """The model of the nominal robot."""
        return self.env.physics.model

    def init(self, key: Array, stagger: bool = True) -> tuple[VectorState, TimeStep]:
        """Starts B episodes.

        Args:
          key: of everything that is random in them.
          stagger: the first episodes end spread out over time, or else batches would be all beginnings or all ends.
        """
        key_envs, key_steps, key_next = jax.random.split(key, 3)
        envs, timestep = self._reset(self.env, self.dynamics, key_envs, self.num_envs // self.repeats)
        if self.repeats > 1:
            rows = jnp.arange(self.num_envs) // self.repeats
            envs, timestep = take(self.env, envs, rows), jax.tree.map(lambda x: x[rows], timestep)
        first = jnp.arange(self.pool_size) % self.num_envs
        none = jnp.zeros(self.num_envs)
        false, zero = jnp.zeros(self.num_envs, bool), jnp.zeros(self.num_envs, jnp.int32)
        timestep = dataclasses.replace(
            timestep,
            final_obs=timestep.obs,
            metrics=timestep.metrics | {"nan_resets": none, "reused_resets": none},
        )
        state = VectorState(
            env=self.env,
            dynamics=self.dynamics,
            envs=envs,
            steps=jax.random.randint(key_steps, (self.num_envs,), 0, self.episode_steps if stagger else 1),
            obs=timestep.obs,
            # Those of the first episodes until the first `refresh`: a second set would double the time to compile.
            pool=(take(self.env, envs, first), jax.tree.map(lambda x: x[first], timestep.obs)),
            next_reset=jnp.zeros((), jnp.int32),
            reset_row=zero,
            episodes=EpisodeStatistics(false, false, zero, jnp.full(self.num_envs, jnp.nan, jnp.float32), zero),
            key=key_next,
        )
        return state, timestep

    def refresh(self, state: VectorState) -> VectorState:
        """Redraws the reset pool; call it before every rollout, the first included."""
        key_pool, key_next = jax.random.split(state.key)
        pool = self._pool(state.env, state.dynamics, key_pool)
        return dataclasses.replace(state, pool=pool, next_reset=jnp.zeros((), jnp.int32), key=key_next)

    def step(self, state: VectorState, action: Array) -> tuple[VectorState, TimeStep]:  # [B, A]
        """Advances every environment, and starts the next episode where one ended."""
        env = state.env
        envs, timestep = jax.vmap(env.step)(state.envs, action)
        steps = state.steps + 1
        well = jax.vmap(functools.partial(sound, env))(state.envs, envs, timestep)
        terminated = timestep.terminated & well
        # A quarantined robot counts as cut off where it was last well: the learner sees nothing of what went wrong.
        truncated = ((steps >= self.episode_steps) | timestep.truncated) & ~terminated | ~well
        final_obs = where_rows(well, _with_extrinsics(timestep.obs, state.obs.get(EXTRINSICS)), state.obs)
        metrics = jax.tree.map(lambda value: jnp.where(well, value, jnp.nan), timestep.metrics)

        done = terminated | truncated
        score = metrics[env.spec.score] if env.spec.score else jnp.full(self.num_envs, jnp.nan, jnp.float32)
        number = state.next_reset + jnp.cumsum(done) - 1  # [B]
        row = number % self.pool_size
        metrics["nan_resets"] = jnp.where(well, 0.0, 1.0)
        metrics["reused_resets"] = jnp.where(done & (number >= self.pool_size), 1.0, 0.0)
        fresh_envs = take(env, state.pool[0], row)
        fresh_obs = jax.tree.map(lambda x: x[row], state.pool[1])
        obs = where_rows(done, fresh_obs, final_obs)
        state = dataclasses.replace(
            state,
            envs=jax.vmap(select, in_axes=(None, 0, 0, 0))(env, done, fresh_envs, envs),
            steps=jnp.where(done, 0, steps),
            obs=obs,
            next_reset=state.next_reset + jnp.sum(done),
            reset_row=row,
            episodes=_follow(state.episodes, score, done, truncated, well, self.episode_steps),
        )
        return state, TimeStep(
            obs=obs,
            reward=jnp.where(well, timestep.reward, 0.0),
            terminated=terminated,
            truncated=truncated,
            metrics=metrics,
            final_obs=final_obs,
        )

    def _reset(self, env, dynamics, key, num):
        def reset(key):
            key_dynamics, key_reset = jax.random.split(key)
            draw = dynamics(key_dynamics)
            state, timestep = env.reset(key_reset, draw.dynamics)
            obs = _with_extrinsics(timestep.obs, draw.extrinsics if draw.extrinsics.size else None)
            return state, dataclasses.replace(timestep, obs=obs)

        return jax.vmap(reset)(jax.random.split(key, num))

    def _pool(self, env, dynamics, key):
        envs, timestep = self._reset(env, dynamics, key, self.pool_size)
        return envs, timestep.obs


def vectorize(
    env: Env,
    num_envs: int,
    dynamics: DynamicsSampler = _NOMINAL,
    episode_seconds: float | None = None,
    pool_size: int | None = None,
    repeats: int = 1,
) -> VectorEnv:
    """See `VectorEnv`."""
    return VectorEnv(env, num_envs, dynamics, episode_seconds, pool_size, repeats)


def _with_extrinsics(obs: Observation, extrinsics: Array | None) -> Observation:
    return obs if extrinsics is None else obs | {EXTRINSICS: extrinsics}


def _follow(
    before: EpisodeStatistics, score: Array, ended: Array, truncated: Array, well: Array, limit: int
) -> EpisodeStatistics:  # [B] each
    """The statistics of each episode one step later."""
    length, measured = (jnp.where(before.ended, 0, count) for count in (before.length, before.measured))
    length += 1
    mean = jnp.where(measured > 0, before.score, 0.0)
    measured += ~jnp.isnan(score)
    mean += jnp.where(jnp.isnan(score), 0.0, score - mean) / jnp.maximum(measured, 1)
    cut_off = truncated & ((length < limit) | ~well)
    return EpisodeStatistics(ended, cut_off, length, jnp.where(measured > 0, mean, jnp.nan), measured)


def all_finite(tree) -> Array:  # -> []
    """Whether no leaf holds a NaN or an infinity."""
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]).all()


FARTHEST, STRONGEST = 1e3, 1e4  # m or rad, and N: no task reaches so far, and no robot here pushes so hard


def largest(table: Table, max_speed: float) -> np.ndarray:  # -> [D]
    """The largest magnitude of each entry of an observation that physics can lead to, from the units of its table."""
    by_unit = {"m": FARTHEST, "rad": FARTHEST, "N": STRONGEST} | dict.fromkeys(
        ("m/s", "rad/s", "m/s, rad/s", "m/s, m/s, rad/s"), max_speed
    )
    bounds = [np.full(term.size, abs(term.scale) * by_unit.get(term.unit, np.inf), np.float32) for term in table]
    return np.concatenate(bounds) if bounds else np.zeros(0, np.float32)


def sound(env: Env, before: EnvState, after: EnvState, timestep: TimeStep) -> Array:  # -> []
    """Whether the step of one robot from `before` to `after` is physics, and no simulation on its way to infinity.

    A simulation that diverges passes through numbers that are finite and as harmful: one robot at 1e5 rad/s would ruin
    a normaliser for good. So all must be finite, no coordinate may be, or have been on average over the step, faster
    than `EnvSpec.max_speed`, and no entry of the observation with a unit may be larger than physics allows.
    """
    old, new = env.data(before), env.data(after)
    bounds = {"state": largest(env.spec.observation, env.spec.max_speed)}
    if env.spec.privileged:
        bounds["privileged"] = largest(env.spec.privileged, env.spec.max_speed)
    return (
        all_finite((new.qpos, new.qvel, timestep.obs, timestep.reward))
        & jnp.all(jnp.abs(new.qvel) <= env.spec.max_speed)
        & jnp.all(jnp.abs(new.qpos - old.qpos) <= env.spec.max_speed * env.spec.control_dt)
        & jnp.stack([jnp.all(jnp.abs(timestep.obs[name]) <= bound) for name, bound in bounds.items()]).all()
    )


def where_rows(mask: Array, a, b):  # [B], [B, ...], [B, ...] -> [B, ...]
    """Leaf by leaf, the rows of `a` where `mask` is true, else those of `b`."""
    return jax.tree.map(lambda x, y: jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - 1)), x, y), a, b)
