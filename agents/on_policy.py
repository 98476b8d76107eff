"""On-policy runner: a rollout of every environment, then one update. Axes: T time, B environments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.agents.base import Curriculum, Info, Learner, LearnerState, Runner, constant
from mjx_policies.agents.rollout import Acting, collect, start
from mjx_policies.envs.vectorize import VectorEnv, VectorState
from mjx_policies.training.trees import strong
from mjx_policies.types import Array, PyTree


@struct.dataclass
class OnPolicyState:
    """The state of a run, with everything it needs to go on."""

    learner: LearnerState
    envs: VectorState
    memory: PyTree
    curriculum: PyTree
    key: Array


def on_policy(learner: Learner, envs: VectorEnv, rollout_length: int, curriculum: Curriculum | None = None) -> Runner:
    """Builds the runner; `rollout_length` is T, and `curriculum` changes the environments between rollouts."""
    if rollout_length < 1:
        raise ValueError(f"rollout_length is {rollout_length}, it must be at least 1")

    curriculum = curriculum or constant()

    def init(key: Array, hyper) -> OnPolicyState:
        key_learner, key_envs, key_memory, key_next = jax.random.split(key, 4)
        state, timestep = envs.init(key_envs)
        example = jax.tree.map(lambda x: x[0], timestep.obs)
        level, state = curriculum.init(state)
        learner_state = learner.init(key_learner, example, hyper)
        memory = start(learner.act(learner_state), state, key_memory).memory
        return jax.tree.map(strong, OnPolicyState(learner_state, state, memory, level, key_next))

    def step(state: OnPolicyState) -> tuple[OnPolicyState, Info]:
        key_rollout, key_update, key_next = jax.random.split(state.key, 3)
        acting, rollout, metrics, outcomes = collect(
            learner.act(state.learner), envs, Acting(state.envs, state.memory), key_rollout, rollout_length
        )
        learner_state, info = learner.update(state.learner, key_update, rollout)
        means = jnp.nanmean(metrics.values, axis=(0, 2))
        info = info | {f"env/{name}": mean for name, mean in zip(metrics.names, means, strict=True)}
        info |= {"env/reward": jnp.mean(rollout.reward), "env/terminations": jnp.mean(rollout.terminated)}
        level, vectors = curriculum.update(state.curriculum, acting.envs, outcomes)
        # Weak types, which a Python number leaves behind, would make the second call compile anew.
        return jax.tree.map(strong, OnPolicyState(learner_state, vectors, acting.memory, level, key_next)), info

    return Runner(init, step, rollout_length * envs.num_envs)
