"""Opening the policy of a run, finished or still training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from mjx_policies.agents.base import Learner
from mjx_policies.agents.ppo import PPOState
from mjx_policies.agents.ppo_run import Config, make_learner
from mjx_policies.envs.base import Env
from mjx_policies.envs.physics import Backend
from mjx_policies.envs.registry import load
from mjx_policies.envs.vectorize import vectorize
from mjx_policies.training.checkpoint import read_checkpoint
from mjx_policies.training.checkpoints import newest_checkpoint, newest_intact
from mjx_policies.training.errors import UserError
from mjx_policies.training.run_folder import read_config
from mjx_policies.types import Array, Observation


class Policy(NamedTuple):
    """A trained policy and where it comes from.

    Attributes:
      config: of the run.
      task: without wrappers, for one robot.
      learner: what was trained.
      state: its state in the newest intact checkpoint.
      steps: environment steps up to then.
    """

    config: Config
    task: Env
    learner: Learner
    state: PPOState
    steps: int

    def __call__(self, obs: Observation) -> Array:
        """One observation -> the action to deploy [A]."""
        return self.learner.mode(self.state, obs)


def load_policy(
    run: Path, kind: type[Config] = Config, backend: Backend = "auto", say: Callable[[str], None] = print
) -> Policy:
    """Opens the newest intact checkpoint of a run; the run itself is left alone and may go on.

    Args:
      run: its folder.
      kind: the class of the configuration it was started with.
      backend: what the task is to run on from now on.
      say: told of each damaged checkpoint that is passed over.

    Raises:
      UserError: no run folder, no checkpoint, none that is intact, or one that the configuration does not fit.
      ValueError: the task does not exist, or not on this backend.
    """
    if not (run / "config.json").is_file():
        raise UserError(f"{run} is not a run folder (it has no config.json): pass the folder that training printed.")
    config = read_config(run, kind)
    newest_checkpoint(run / "checkpoints")  # or the sentence that there is none, before anything is built
    task = load(config.task, backend, 1, config.actions)
    learner = make_learner(config, vectorize(task, num_envs=1))

    def blank() -> PPOState:
        _, timestep = task.reset(jax.random.key(0), {})
        return learner.init(jax.random.key(0), timestep.obs, config.hyper)

    template = jax.eval_shape(blank)
    state, meta = newest_intact(run / "checkpoints", lambda path: read_checkpoint(path, template, at="learner"), say)
    return Policy(config, task, learner, state, meta["step"])
