"""What a run is told, and what an algorithm adds to the skeleton of all runs, `run`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from mjx_policies.envs.base import Env
from mjx_policies.envs.franka.actions import ActionName
from mjx_policies.envs.physics import Backend
from mjx_policies.experiments.runs.evaluation import BATCH
from mjx_policies.experiments.runs.grid import grid_points
from mjx_policies.heads.base import ActionHead
from mjx_policies.policy import Policy
from mjx_policies.training.config import at_least, may_change
from mjx_policies.training.loop import Job
from mjx_policies.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The configuration that all kinds of runs share."""

    VERSION: ClassVar[int] = 2  # of a stored configuration; counts up where a field is renamed

    task: str = "Go2JoystickFlat"
    backend: Backend = "auto"
    actions: ActionName | None = None  # what they mean, in the tasks of an arm; None: what the task chose
    seed: int = 0
    seeds: int = 1  # runs of a sweep at each point of the grid, from one seed after the other
    # numbers of hyper that the runs of a sweep differ in, such as hyper.learning_rate=1e-3,3e-3; several multiply
    grid: tuple[str, ...] = ()
    run_dir: str = may_change("")  # folder of the run; empty: runs/<task>-<time>
    resume: bool = may_change(False)  # continue the run in run_dir; what is not given is as it was there
    evaluations: int = may_change(1)  # short ones on the way, before that of the finished policy; 0: none
    eval_episodes: int = may_change(256)  # of the final evaluation, in each condition
    checkpoint_seconds: float = may_change(20.0)  # s, between checkpoints; more where saving takes over 5 % of the time

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}, it must be at least 0 and below 2**32, where seeds begin to repeat")
        at_least(self, seeds=1, evaluations=0, eval_episodes=1, checkpoint_seconds=0)
        if self.seed + self.seeds > 2**32:
            raise ValueError(f"seed is {self.seed}, with {self.seeds} seeds it must end below 2**32")
        grid_points(self.grid, self)


class Display(NamedTuple):
    """What is shown of a run.

    Attributes:
      progress: metrics beside the progress bar.
      curves: those in curves.png.
      steps: what a step is.
    """

    progress: tuple[str, ...]
    curves: tuple[str, ...]
    steps: str = "steps"


class Parts(NamedTuple):
    """A run, put together.

    Attributes:
      job: what is trained; its state has a `learner`. The skeleton adds the evaluation.
      total_steps: of `job`.
      acts: `params -> Policy`.
      params: `learner state -> params`, what acts; the state is that of one run.
    """

    job: Job
    total_steps: int
    acts: Callable[[PyTree], Policy]
    params: Callable[[Any], PyTree]


class Loadable(NamedTuple):
    """What loading a run needs to know of its algorithm.

    Attributes:
      blank: `(key, hyper) -> learner state`, of the shapes that a checkpoint holds.
      actor: its network.
      params: `learner state -> ` the actor's parameters that act.
      acts: `params -> policy`.
      best: whether the result is the checkpoint that did best, not the newest.
      n_obs_steps, horizon: see `loading.TrainedPolicy`.
    """

    blank: Callable[[Array, Any], Any]
    actor: ActionHead
    params: Callable[[Any], PyTree]
    acts: Callable[[PyTree], Policy]
    best: bool = False
    n_obs_steps: int = 0
    horizon: int = 0


class Recipe(NamedTuple):
    """What an algorithm adds to the skeleton.

    Attributes:
      check: `(run, task) -> shapes`, before there is a folder: raises what is wrong with the configuration. The shapes
        are of the arrays that a run alone holds at once, as far as they are known.
      assemble: `(run, task, folder, console, preemption) -> ` a context that yields `Parts`.
      display: what to show.
      name: `run -> ` the folder of a run that was given none, before the time of day.
      interim_episodes: `run -> ` episodes of each evaluation on the way, and `on_the_way` their condition.
      keep_best: metric of these whose best checkpoint is the result; empty: the last is.
    """

    check: Callable[[Any, Env], PyTree]
    assemble: Callable[..., contextlib.AbstractContextManager[Parts]]
    display: Display
    name: Callable[[Any], str] = lambda run: run.task
    interim_episodes: Callable[[Any], int] = lambda run: min(BATCH, run.eval_episodes)
    on_the_way: str = "randomized"
    keep_best: str = ""
