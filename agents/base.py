"""The protocols of learning: a learner is four pure functions, a runner feeds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mjx_policies.agents.rollout import EndedEpisodes
from mjx_policies.envs.vectorize import VectorState
from mjx_policies.policy import Policy
from mjx_policies.types import Array, Observation, PyTree

LearnerState = Any
RunnerState = Any
Info = dict[str, Array]


class Learner(NamedTuple):
    """State goes in, state comes out, information comes beside it.

    Attributes:
      init: `(key, obs, hyper) -> state`; `obs` is one example, numbers live in `state.hyper`.
      act: `state -> Policy`, the behaviour policy: what collects data. Its action is a pair `(action, extras)`, where
        extras is what `update` wants back.
      update: `(state, key, batch) -> (state, info)`.
      policy: `state -> Policy`, the one to evaluate and deploy.
    """

    init: Callable[[Array, Observation, Any], LearnerState]
    act: Callable[[LearnerState], Policy]
    update: Callable[[LearnerState, Array, Any], tuple[LearnerState, Info]]
    policy: Callable[[LearnerState], Policy]


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
    """A change of the environments as the policy improves.

    Attributes:
      init: `envs -> (level, envs)`, the state of the curriculum and the environments of its first level; what it
        replaces of them is `env` and `dynamics`.
      update: `(level, envs, outcomes) -> (level, envs)`, after each rollout, with the episodes that ended in it.
    """

    init: Callable[[VectorState], tuple[PyTree, VectorState]]
    update: Callable[[PyTree, VectorState, EndedEpisodes], tuple[PyTree, VectorState]]


def constant() -> Curriculum:
    """Environments that stay as they are."""
    return Curriculum(init=lambda envs: ((), envs), update=lambda level, envs, outcomes: (level, envs))


def check_hyper(
    hyper: Any, positive: Sequence[str] = (), portions: Sequence[str] = (), signed: Sequence[str] = ()
) -> None:
    """Refuses hyperparameters that are not finite, or negative where they are not `signed`.

    Raises:
      ValueError: names the first that is out of its range.
    """
    assert {*positive, *portions, *signed} <= vars(hyper).keys()
    for name, value in vars(hyper).items():
        least = 1e-12 if name in positive else -1e12 if name in signed else 0.0
        most = 1.0 if name in portions else 1e12
        # Anything but a number is a leaf: traced, batched or a placeholder of a tree transformation.
        if isinstance(value, int | float) and not least <= value <= most:
            raise ValueError(f"hyper.{name} is {value:g}, it must lie between {least:g} and {most:g}")
