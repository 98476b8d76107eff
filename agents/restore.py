"""Opening the policy of a run, finished or still training, whatever it was trained with.

Axes: O observations remembered, H horizon, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mjx_policies.agents import bc_run, ppo_run
from mjx_policies.envs.base import Env
from mjx_policies.envs.physics import Backend
from mjx_policies.envs.registry import load
from mjx_policies.envs.vectorize import vectorize
from mjx_policies.evaluation.policy import Policy as ActingPolicy
from mjx_policies.evaluation.policy import stateless
from mjx_policies.heads.base import Noise
from mjx_policies.heads.registry import read_fitted
from mjx_policies.training.checkpoint import read_checkpoint
from mjx_policies.training.checkpoints import newest_checkpoint, newest_intact
from mjx_policies.training.errors import UserError
from mjx_policies.training.run_folder import read_config
from mjx_policies.types import Array, Observation, PyTree

Config = ppo_run.Config | bc_run.Config


class Network(NamedTuple):
    """A policy's network without its memory, as a file for a robot holds it.

    Attributes:
      decide: `(state, observation, *noise) -> action [A]`; of one that remembers or plans, observations [O, ...] ->
        actions [H, A]. It draws nothing: where a network samples, its random numbers are the further argument.
      remember: O; 0 for a network that is shown one observation as it is.
      horizon: H; 0 for a network that makes one action.
      noise: the further argument, if there is one.
    """

    decide: Callable[..., Array]
    remember: int = 0
    horizon: int = 0
    noise: Noise | None = None


class Policy(NamedTuple):
    """A trained policy and where it comes from.

    Attributes:
      config: of the run.
      task: without wrappers, for one robot.
      state: of the learner in the checkpoint.
      acts: `state -> policy`, with its memory, to be evaluated and played.
      network: to be exported.
      steps: environment steps, or gradient steps of a cloned policy, up to then.
    """

    config: Config
    task: Env
    state: Any
    acts: Callable[[PyTree], ActingPolicy]
    network: Network
    steps: int

    def __call__(self, obs: Observation, *noise: Array) -> Array:
        """See `Network.decide`."""
        return self.network.decide(self.state, obs, *noise)


def load_policy(
    run: Path,
    kind: Any = Config,
    backend: Backend = "auto",
    say: Callable[[str], None] = print,
    number: int = 0,
) -> Policy:
    """Opens an intact checkpoint of a run; the run itself is left alone and may go on.

    Of reinforcement learning it is the newest. Of cloning it is the one that was most successful in simulation, since
    on the way there is no better judge.

    Args:
      run: its folder.
      kind: the class of the configuration it was started with, or a union of such.
      backend: what the task is to run on from now on.
      say: told of each damaged checkpoint that is passed over.
      number: which of the policies that learned side by side.

    Raises:
      UserError: no run folder, no checkpoint, none that is intact, or one that the configuration does not fit.
      ValueError: the task does not exist, or not on this backend.
    """
    if not (run / "config.json").is_file():
        raise UserError(f"{run} is not a run folder (it has no config.json): pass the folder that training printed.")
    config = read_config(run, kind)
    newest_checkpoint(run / "checkpoints")  # or the sentence that there is none, before anything is built
    task = load(config.task, backend, 1, config.actions)
    if isinstance(config, bc_run.Config):
        return _cloned(run, config, task, say, number)
    learner = ppo_run.make_learner(config, vectorize(task, num_envs=1))

    def blank() -> Any:
        _, timestep = task.reset(jax.random.key(0), {})
        return learner.init(jax.random.key(0), timestep.obs, config.hyper)

    def acts(state: Any) -> ActingPolicy:
        return stateless(lambda obs: learner.mode(state, obs))

    state, steps = _read(run, jax.eval_shape(blank), say)
    return Policy(config, task, state, acts, Network(learner.mode), steps)


def _cloned(run: Path, config: bc_run.Config, task: Env, say: Callable[[str], None], number: int) -> Policy:
    if not 0 <= number < config.seeds:
        raise UserError(f"{run} holds {config.seeds} policies, numbered from 0: there is no number {number}.")
    spec = task.spec
    fitted = read_fitted(config.head, (config.horizon, spec.action.size), run)
    cloner = bc_run.make_cloner(config, spec, fitted)

    def blank() -> Any:
        scales = bc_run.blank_scales(config, spec)
        seen = {name: jnp.zeros((config.remember, *scale.offset.shape)) for name, scale in scales.observation.items()}
        return bc_run.init(config, cloner, seen, scales)

    state, steps = _read(run, jax.eval_shape(blank), say, best=True)

    def acts(state: Any) -> ActingPolicy:
        return bc_run.make_policy(config, cloner, state)

    draws = cloner.mode is None or (config.draw and cloner.act is not None)
    decide = cloner.act if draws else cloner.mode
    assert decide is not None, "every head has a mode or can be given its random numbers"
    network = Network(decide, config.remember, config.horizon, cloner.noise if draws else None)
    return Policy(config, task, bc_run.member(config, state, number), acts, network, steps)


def _read(run: Path, template: PyTree, say: Callable[[str], None], best: bool = False) -> tuple[Any, int]:
    state, meta = newest_intact(
        run / "checkpoints", lambda path: read_checkpoint(path, template, at="learner"), say, best
    )
    return state, meta["step"]
