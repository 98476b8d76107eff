"""A curriculum: robots become less perfect while the policy does well."""

from __future__ import annotations

import jax.numpy as jnp

from mjx_policies.agents.base import Curriculum
from mjx_policies.envs.base import Env
from mjx_policies.randomization.imperfections import Imperfections, imperfect

STRIDE = 0.016  # growth of the imperfections in one iteration


def widening(task: Env, imperfections: Imperfections, mastery: float) -> Curriculum:
    """Builds the curriculum: a policy learns to walk before it learns to walk with a load on ice.

    The lesson is the factor on all ranges, from 0 to 1.

    Args:
      task: without wrappers.
      imperfections: of the last lesson.
      mastery: the lesson grows by `STRIDE` after each iteration in which the task's score lay above this.
    """

    def lesson(factor, envs):
        env, dynamics = imperfect(task, imperfections.scaled(factor))
        return factor, envs.replace(env=env, dynamics=dynamics)

    def update(factor, envs, info):
        grown = jnp.minimum(factor + STRIDE, 1.0)
        return lesson(jnp.where(info[f"env/{task.spec.score}"] > mastery, grown, factor), envs)

    return Curriculum(init=lambda envs: lesson(jnp.zeros(()), envs), update=update)
