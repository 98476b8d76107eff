"""A curriculum of domain randomization: its ranges grow while the policy does well."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from mjx_policies.agents.base import Curriculum
from mjx_policies.agents.rollout import EndedEpisodes
from mjx_policies.envs.base import Env
from mjx_policies.envs.vectorize import VectorState
from mjx_policies.randomization.domain import DomainRandomization, randomize
from mjx_policies.types import Array, Number

INCREMENT = 0.016  # of the level in one rollout


def randomization_curriculum(
    task: Env, randomization: DomainRandomization, threshold: Number, increment: Number = INCREMENT
) -> Curriculum:
    """Builds the curriculum: a policy learns to walk before it learns to walk with a load on ice.

    The level is the factor on all ranges, from 0 to 1. It follows the score of all environments over the last
    rollout. What ended episodes scored would trail behind: with rollouts of 0.2 s and episodes of 20 s it tells of the
    policies of the last hundred rollouts, most of them worse, and would reach full ranges a hundred rollouts later.

    Args:
      task: without wrappers.
      randomization: of level 1.
      threshold: the level grows after each rollout in which the task's score lay above this.
      increment: by which it grows.
    """

    def apply(level: Array, envs: VectorState) -> tuple[Array, VectorState]:
        env, dynamics = randomize(task, randomization.scaled(level))
        return level, dataclasses.replace(envs, env=env, dynamics=dynamics)

    def update(level: Array, envs: VectorState, outcomes: EndedEpisodes) -> tuple[Array, VectorState]:
        passed = jnp.nanmean(outcomes.step_score) > threshold
        return apply(jnp.where(passed, jnp.minimum(level + increment, 1.0), level), envs)

    return Curriculum(init=lambda envs: apply(jnp.zeros(()), envs), update=update)
