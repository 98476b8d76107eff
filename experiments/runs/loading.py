"""Loading the policy of a run, finished or still training, whatever it was trained with.

Axes: O stacked observations, H horizon, A action.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax

from mjx_policies.agents.sweep import member, side_by_side
from mjx_policies.envs.base import Env
from mjx_policies.envs.physics import Backend
from mjx_policies.envs.registry import load
from mjx_policies.errors import UserError
from mjx_policies.experiments import runs
from mjx_policies.experiments.runs.grid import Member, beginning, members
from mjx_policies.experiments.runs.recipe import Loadable
from mjx_policies.heads.base import ActionHead, Noise
from mjx_policies.policy import Policy
from mjx_policies.training.checkpoint import read_checkpoint
from mjx_policies.training.checkpoints import newest_checkpoint, newest_intact
from mjx_policies.training.run_folder import read_config
from mjx_policies.types import Array, Observation, PyTree


def kinds() -> dict[str, ModuleType]:
    """The modules of this package that can load runs, by the kind that a run folder declares.

    Such a module has `RUN`, the class of its configuration, and `loadable(config, task, folder) -> Loadable`.
    """
    modules = [importlib.import_module(f"{runs.__name__}.{info.name}") for info in pkgutil.iter_modules(runs.__path__)]
    return {module.RUN.KIND: module for module in modules if hasattr(module, "loadable")}


class TrainedPolicy(NamedTuple):
    """A trained policy and where it comes from.

    Attributes:
      config: of the run; of a run of a sweep, that of the same run alone.
      task: without wrappers, for one robot.
      actor: its network.
      params: of the actor.
      acts: `params -> policy`, with its memory, to be evaluated and played.
      steps: environment steps, or gradient steps of imitation, up to then.
      n_obs_steps: observations [O, ...] that the actor takes; 0 for an actor that takes one as it is.
      horizon: H, actions of a chunk; 0 for an actor that makes one action.
    """

    config: Any
    task: Env
    actor: ActionHead
    params: PyTree
    acts: Callable[[PyTree], Policy]
    steps: int
    n_obs_steps: int = 0
    horizon: int = 0

    @property
    def noise(self) -> Noise | None:
        """The random numbers that a call takes, if the policy samples."""
        draws = self.actor.mode is None or (
            getattr(self.config, "sample_actions", False) and self.actor.noise is not None
        )
        return self.actor.noise if draws else None

    def __call__(self, obs: Observation, *noise: Array) -> Array:
        """The network without its memory, as a file for a robot holds it.

        Observation -> action [A]; of one with a history or chunks, observations [O, ...] -> actions [H, A].
        """
        act = self.actor.mode if self.noise is None else self.actor.sample_from_noise
        assert act is not None, "every head has a mode or can be given its random numbers"
        return act(self.params, obs, *noise)


def read_members(run: Path, number: int, kind: str = "") -> tuple[Any, list[Member]]:
    """The configuration in a run folder, and its runs, of which there is one with this number.

    Raises:
      UserError: no run folder, not of this kind, or without such a run.
    """
    if not (run / "config.json").is_file():
        raise UserError(f"{run} is not a run folder (it has no config.json): pass the folder that training printed.")
    config = read_config(run, *(module.RUN for name, module in kinds().items() if kind in ("", name)))
    several = members(config)
    if not 0 <= number < len(several):
        held = "is no sweep" if len(several) == 1 else f"holds {len(several)} runs, numbered from 0"
        raise UserError(f"{run} {held}: there is no number {number}.")
    return config, several


def load_policy(
    run: Path,
    backend: Backend = "auto",
    say: Callable[[str], None] = print,
    number: int = 0,
    kind: str = "",
) -> TrainedPolicy:
    """Loads an intact checkpoint of a run; the run itself is left alone and may go on.

    Of reinforcement learning it is the newest. Of behaviour cloning it is the most successful one in simulation,
    on average over the runs of a sweep.

    Args:
      run: its folder.
      backend: what the task is to run on from now on.
      say: told of each damaged checkpoint that is passed over.
      number: of the run, in a sweep.
      kind: of run that is wanted, a key of `kinds()`; any by default.

    Raises:
      UserError: no run folder, no checkpoint, none that is intact, or one that the configuration does not fit.
      ValueError: the task does not exist, or not on this backend.
    """
    config, several = read_members(run, number, kind)
    newest_checkpoint(run / "checkpoints")  # or the sentence that there is none, before anything is built
    task = load(config.task, backend, 1, config.actions)
    loadable: Loadable = kinds()[config.KIND].loadable(config, task, run)
    template = jax.eval_shape(side_by_side(loadable.blank, len(several)), *beginning(config))
    state, meta = newest_intact(
        run / "checkpoints", lambda path: read_checkpoint(path, template, at="learner"), say, loadable.best
    )
    params = loadable.params(member(state, number) if len(several) > 1 else state)
    one = several[number].config
    return TrainedPolicy(
        one, task, loadable.actor, params, loadable.acts, meta["step"], loadable.n_obs_steps, loadable.horizon
    )


def member_file(name: str, run: Path, number: int) -> str:
    """The name of a file about the policy of a run; of a sweep, with the number of its run, one for each.

    Example:
      >>> member_file("policy.onnx", Path("no/sweep"), 0), member_file("policy.onnx", Path("no/sweep"), 3)
      ('policy.onnx', 'policy-3.onnx')
    """
    several = number or (run / "sweep.csv").exists()
    path = Path(name)
    return str(path.with_name(f"{path.stem}-{number}{path.suffix}")) if several else name
