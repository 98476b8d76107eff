"""The configuration of runs, and what an algorithm adds to the skeleton of them all, `run`."""

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

    task: str = "Go2JoystickFlat"  # task name, as listed in the README
    backend: Backend = "auto"  # physics engine: MuJoCo's C engine (cpu), MJX or MJX-Warp
    actions: ActionName | None = None  # action space of an arm; None: the task's default
    seed: int = 0  # random seed of the run, or of the first run of a sweep
    seeds: int = 1  # number of seeds at each point of the grid
    grid: tuple[str, ...] = ()  # values to sweep over, such as hyper.learning_rate=1e-3,3e-3; several entries multiply
    run_dir: str = may_change("")  # run folder; empty: runs/<task>-<time>
    resume: bool = may_change(False)  # continue the run in --run-dir; options that are not given keep their values
    evaluations: int = may_change(1)  # number of interim evaluations during training; 0: none
    eval_episodes: int = may_change(256)  # number of episodes of the final evaluation, in each condition
    checkpoint_seconds: float = may_change(20.0)  # seconds between checkpoints; more if saving takes over 5 %

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}, it must be at least 0 and below 2**32, where seeds begin to repeat")
        at_least(self, seeds=1, evaluations=0, eval_episodes=1, checkpoint_seconds=0)
        if self.seed + self.seeds > 2**32:
            raise ValueError(f"seed is {self.seed}, with {self.seeds} seeds it must end below 2**32")
        grid_points(self.grid, self)


class Display(NamedTuple):
    """The metrics of a run that are displayed.

    Attributes:
      progress: metrics beside the progress bar.
      curves: those in curves.png.
      steps: what a step is.
    """

    progress: tuple[str, ...]
    curves: tuple[str, ...]
    steps: str = "steps"


class Parts(NamedTuple):
    """The parts of a run.

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
    """The parts of a stored run that depend on its algorithm.

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
    """An algorithm's part of the skeleton.

    Attributes:
      check: `(run, task) -> shapes`, before there is a folder: raises what is wrong with the configuration. The shapes
        are of the arrays that a run alone holds at once, as far as they are known.
      assemble: `(run, task, folder, console, preemption) -> ` a context that yields `Parts`.
      display: what to show.
      name: `run -> ` the folder of a run that was given none, before the time of day.
      interim_episodes: `run -> ` episodes of each evaluation on the way, and `interim_condition` their condition.
      keep_best: metric of these whose best checkpoint is the result; empty: the last is.
    """

    check: Callable[[Any, Env], PyTree]
    assemble: Callable[..., contextlib.AbstractContextManager[Parts]]
    display: Display
    name: Callable[[Any], str] = lambda run: run.task
    interim_episodes: Callable[[Any], int] = lambda run: min(BATCH, run.eval_episodes)
    interim_condition: str = "randomized"
    keep_best: str = ""
