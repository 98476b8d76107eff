"""Input and output of the host loop: the job, the schedule and the outcome."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import jax

from mjx_policies.training.config import may_change
from mjx_policies.training.metrics import Number

PyTree = Any
State = TypeVar("State")
Metrics = Mapping[str, Number]


def _everything(state: PyTree) -> PyTree:
    return state


@dataclasses.dataclass(frozen=True)
class Job(Generic[State]):
    """The work of a training run: its state, its step and what is measured.

    Attributes:
      init: builds the whole state: learner, environments, keys, counters. Called once per process, on a resume too,
        for the shapes and shardings.
      step: one iteration, `state -> (state, metrics)`; metrics are scalars. The loop jits it and donates the state.
      steps_per_iteration: environment steps (or gradient steps) in one iteration.
      evaluate: named numbers for a state, which it must leave unaltered; they are logged as `eval/name`.
      watch: the part of the state that must be finite; training stops rather than save anything else.
      may_be_nan: metrics that are NaN when there is nothing to report, such as the return of no episode.
      jit: False for a step that runs on the host and jits its parts itself; nothing is donated then.
      compiler_options: of XLA, for the step.
      runs: names of the S runs of a sweep. Its metrics, also those of `evaluate`, are [S] (or a scalar that is the same
        for all), and every leaf of the state leads with [S]. Empty for one run, which has no such axis.
    """

    init: Callable[[], State]
    step: Callable[[State], tuple[State, Mapping[str, jax.Array]]]
    steps_per_iteration: int
    evaluate: Callable[[State], Metrics] | None = None
    watch: Callable[[State], PyTree] = _everything
    may_be_nan: Sequence[str] = ()
    jit: bool = True
    compiler_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    runs: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.steps_per_iteration < 1:
            raise ValueError(f"steps_per_iteration is {self.steps_per_iteration}, it must be at least 1")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The steps at which the loop logs, evaluates and saves. It may change on a resume: no state depends on it."""

    total_steps: int = may_change(1_000_000)  # environment steps, rounded up to whole iterations
    log_every: int = may_change(1)  # iterations per row; more than one lets the device run ahead
    eval_every: int = may_change(0)  # iterations per evaluation; 0: never
    # s, between checkpoints, and more where saving would take over 5 % of the time; 0: after every iteration; the end
    # always saves
    checkpoint_seconds: float = may_change(60.0)
    keep: int = may_change(2)  # newest checkpoints that stay
    keep_best: str = may_change("")  # metric of an evaluation, such as eval/reward, whose best checkpoint stays too
    tensorboard: bool = may_change(True)  # event files beside metrics.csv

    def __post_init__(self) -> None:
        if self.total_steps < 1 or self.log_every < 1 or self.keep < 1:
            raise ValueError("total_steps, log_every and keep must be at least 1")
        if self.eval_every < 0 or self.checkpoint_seconds < 0:
            raise ValueError("eval_every and checkpoint_seconds must not be negative")


@dataclasses.dataclass(frozen=True)
class Outcome(Generic[State]):
    """The outcome of a training run.

    Attributes:
      status: `done` with all steps, `preempted` by a signal, or `stopped` by the `report` callback.
      state: the last one, which is also in the newest checkpoint.
      step: environment steps so far.
      metrics: the last row, with its evaluation if one was due; empty if a resumed run had nothing left to do.
      seconds: wall clock for each activity of `Clock`, earlier processes of the run included.
      diverged: of a sweep, number of the run -> step at which it held a value that is not finite.
    """

    status: Literal["done", "preempted", "stopped"]
    state: State
    step: int
    metrics: dict[str, Number]
    seconds: dict[str, float]
    diverged: dict[int, int] = dataclasses.field(default_factory=dict)
