"""The protocols of learning: a learner is three pure functions, a runner feeds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mjx_policies.types import Array, Observation, PyTree

LearnerState = Any
RunnerState = Any
Info = dict[str, Array]


class Learner(NamedTuple):
    """State goes in, state comes out, information comes beside it.

    Attributes:
      init: `(key, obs, hyper) -> state`; `obs` is one example, numbers live in `state.hyper`.
      act: `(state, key, obs) -> (action, extras)`, for one example; extras is what `update` wants back.
      update: `(state, key, batch) -> (state, info)`.
      mode: `(state, obs) -> action`, for one example, the action to evaluate and deploy.
    """

    init: Callable[[Array, Observation, Any], LearnerState]
    act: Callable[[LearnerState, Array, Observation], tuple[Array, PyTree]]
    update: Callable[[LearnerState, Array, Any], tuple[LearnerState, Info]]
    mode: Callable[[LearnerState, Observation], Array]


class Runner(NamedTuple):
    """A learner in its environments.

    Attributes:
      init: `(key, hyper) -> state`.
      step: `state -> (state, info)`, one rollout and one update. `scan` it for a compiled run, loop over it to log,
        `vmap` both for seeds and hyperparameters.
      steps_per_iteration: environment steps that one `step` takes.
    """

    init: Callable[[Array, Any], RunnerState]
    step: Callable[[RunnerState], tuple[RunnerState, Info]]
    steps_per_iteration: int


class Curriculum(NamedTuple):
    """What changes in the environments as the policy improves.

    Attributes:
      init: `environments -> (lesson, environments)`, the state of the curriculum and its first lesson.
      update: `(lesson, environments, info) -> (lesson, environments)`, after each iteration.
    """

    init: Callable[[Any], tuple[PyTree, Any]]
    update: Callable[[PyTree, Any, Info], tuple[PyTree, Any]]


def constant() -> Curriculum:
    """Environments that stay as they are."""
    return Curriculum(init=lambda envs: ((), envs), update=lambda lesson, envs, info: (lesson, envs))
