"""On-policy runner: a rollout of every environment, then one update. Axes: T time, B environments, M metrics."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.agents.base import Curriculum, Info, Learner, LearnerState, Runner, constant
from mjx_policies.envs.vectorize import VectorEnv, VectorState
from mjx_policies.training.trees import strong
from mjx_policies.types import Array, Observation, PyTree


@struct.dataclass
class Rollout:
    """T steps of B environments.

    Attributes:
      obs: [T, B, ...] what was acted on.
      action: [T, B, A].
      extras: [T, B, ...] what `Learner.act` returned beside the action.
      reward, terminated, truncated: [T, B].
      final_obs: [T, B, ...] what the step really led to, see `TimeStep`.
    """

    obs: Observation
    action: Array
    extras: PyTree
    reward: Array
    terminated: Array
    truncated: Array
    final_obs: Observation


@struct.dataclass
class Metrics:
    """Metrics of a step or a rollout in one array, which compiles sooner than an array of each.

    Attributes:
      values: [..., M, B].
      names: M names.
    """

    values: Array
    names: tuple[str, ...] = struct.field(pytree_node=False)


@struct.dataclass
class OnPolicyState:
    """Everything a run needs to go on."""

    learner: LearnerState
    envs: VectorState
    curriculum: PyTree
    key: Array


def on_policy(learner: Learner, envs: VectorEnv, rollout_length: int, curriculum: Curriculum | None = None) -> Runner:
    """Builds the runner; `rollout_length` is T, and `curriculum` changes the environments between rollouts."""
    if rollout_length < 1:
        raise ValueError(f"rollout_length is {rollout_length}, it must be at least 1")

    curriculum = curriculum or constant()

    def init(key: Array, hyper) -> OnPolicyState:
        key_learner, key_envs, key_next = jax.random.split(key, 3)
        state, timestep = envs.init(key_envs)
        example = jax.tree.map(lambda x: x[0], timestep.obs)
        lesson, state = curriculum.init(state)
        return jax.tree.map(strong, OnPolicyState(learner.init(key_learner, example, hyper), state, lesson, key_next))

    def step(state: OnPolicyState) -> tuple[OnPolicyState, Info]:
        key_rollout, key_update, key_next = jax.random.split(state.key, 3)

        def advance(env_state: VectorState, key: Array):
            keys = jax.random.split(key, envs.num_envs)
            obs = env_state.obs
            action, extras = jax.vmap(learner.act, in_axes=(None, 0, 0))(state.learner, keys, obs)
            env_state, timestep = envs.step(env_state, action)
            assert timestep.final_obs is not None  # these environments reset themselves
            transition = Rollout(
                obs=obs,
                action=action,
                extras=extras,
                reward=timestep.reward,
                terminated=timestep.terminated,
                truncated=timestep.truncated,
                final_obs=timestep.final_obs,
            )
            metrics = Metrics(jnp.stack(list(timestep.metrics.values())), tuple(timestep.metrics))
            return env_state, (transition, metrics)

        env_state, (rollout, metrics) = jax.lax.scan(
            advance, envs.refresh(state.envs), jax.random.split(key_rollout, rollout_length)
        )
        learner_state, info = learner.update(state.learner, key_update, rollout)
        means = jnp.nanmean(metrics.values, axis=(0, 2))
        info = info | {f"env/{name}": mean for name, mean in zip(metrics.names, means, strict=True)}
        info |= {"env/reward": jnp.mean(rollout.reward), "env/terminations": jnp.mean(rollout.terminated)}
        lesson, env_state = curriculum.update(state.curriculum, env_state, info)
        # Weak types, which a Python number leaves behind, would make the second call compile anew.
        return jax.tree.map(strong, OnPolicyState(learner_state, env_state, lesson, key_next)), info

    return Runner(init, step, rollout_length * envs.num_envs)
