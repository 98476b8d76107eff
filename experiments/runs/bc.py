"""Behaviour cloning on a task of this library: its configuration, its actor and its policy.

Axes: S seeds, N examples of a batch, O stacked observations, H horizon, A action.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.actor import Reference, Scales, Units, actor
from mjx_policies.agents.base import Learner
from mjx_policies.agents.bc import BCHyper, bc
from mjx_policies.chunking import Plan, real_time, receding_horizon, temporal_ensemble
from mjx_policies.data.windows import Window, WindowConfig
from mjx_policies.envs.base import Env, EnvSpec
from mjx_policies.experiments.runs.recipe import Loadable, RunConfig
from mjx_policies.heads import registry
from mjx_policies.heads.base import ActionHead
from mjx_policies.heads.inpainting import Prefix
from mjx_policies.heads.registry import Fitted, HeadName, make_head, read_fitted
from mjx_policies.networks.flat import Flat
from mjx_policies.normalize import Scale
from mjx_policies.policy import Policy
from mjx_policies.randomization.domain import DomainRandomization
from mjx_policies.spec import table_size, table_slices
from mjx_policies.training.config import at_least, may_change, none_twice
from mjx_policies.types import Array, Observation, PyTree

OBSERVATION = "state"
OWN = ("joint_position", "joint_velocity", "finger_opening", "tcp_position", "tcp_rotation", "last_action", "velocity")
"""Terms that say what the robot does rather than what is to be done: what dropout hides."""
# A few hundred demonstrations are soon overfitted. Each step subtracts learning_rate * weight_decay of the weights.
BC_HYPER = BCHyper(learning_rate=1e-3, weight_decay=3.0)


@dataclasses.dataclass(frozen=True)
class BCRun(RunConfig):
    """Trains a policy by behaviour cloning, evaluates it and records a video."""

    KIND: ClassVar[str] = "bc"

    task: str = "FrankaPickCube"
    seed: int = 0  # of the run, of a sweep the first, and of which episodes are held out
    head: HeadName = "flow"  # action head, on which some defaults depend
    hidden_size: int = registry.SIZE  # width of the head's hidden layers
    horizon: int = 16  # actions in a chunk
    n_action_steps: int = 8  # actions of a chunk that are executed before the next is planned
    n_obs_steps: int = 2  # observations that a policy sees
    # temporal ensembling: a chunk in every step, averaged with weights exp(-ensemble * i), i = 0 for the oldest; 0.01
    # in the paper, below 0 the newest weighs most
    ensemble: float | None = None
    inference_delay: int = 0  # control steps that planning a chunk takes; the last one is executed meanwhile
    real_time: bool = False  # real-time chunking: a chunk continues the rest of the last one
    # sample also where a head knows its most likely chunk; bins then need --horizon 1 --n-action-steps 1
    sample_actions: bool = False
    exclude_terms: tuple[str, ...] | None = None  # observation terms left out; None: last_action, which invites copying
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the network's arithmetic
    steps: int = 4_000  # gradient steps
    batch_size: int = 256  # windows in a gradient step
    validation: float = 0.1  # share of the episodes held out
    hyper: BCHyper = dataclasses.field(default_factory=lambda: BC_HYPER)  # total_steps follows --steps
    demos: str = ""  # dataset of demonstrations; empty: the task's expert demonstrates into the run folder
    episodes: int = 200  # demonstrations to learn from, the first of --demos; 0: all
    extra_datasets: tuple[str, ...] = ()  # further datasets, used whole
    # run folder of a policy to start from; empty: random weights. Its scales stay: it never takes actions beyond those
    # of its first demonstrations
    init_from: str = ""
    evaluations: int = may_change(5)  # interim evaluations; the best checkpoint is the result
    interim_episodes: int = may_change(64)  # episodes of each interim evaluation

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, hidden_size=1, horizon=1, n_action_steps=1, n_obs_steps=1, steps=1, batch_size=1)
        at_least(self, episodes=0, evaluations=1, interim_episodes=1)
        none_twice(self, "exclude_terms", "extra_datasets")
        if self.n_action_steps > self.horizon:
            raise ValueError(
                f"n_action_steps is {self.n_action_steps}, more than the {self.horizon} actions of a chunk"
            )
        if not 0 <= self.inference_delay < self.n_action_steps:
            raise ValueError(
                f"inference_delay is {self.inference_delay}, it must be at least 0 and below n_action_steps, "
                f"{self.n_action_steps}: a chunk would be due before the last is there"
            )
        if self.n_action_steps + self.inference_delay > self.horizon:
            raise ValueError(
                f"n_action_steps {self.n_action_steps} and inference_delay {self.inference_delay} need "
                f"{self.n_action_steps + self.inference_delay} actions, a chunk has {self.horizon}"
            )
        if self.ensemble is not None and (self.inference_delay or self.real_time):
            raise ValueError("ensemble averages a chunk of every step: leave out inference_delay and real_time")
        if self.ensemble is not None and not math.isfinite(self.ensemble):
            raise ValueError(f"ensemble is {self.ensemble}, it must be a finite number")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation is {self.validation:g}, it must be at least 0 and below 1")
        object.__setattr__(self, "hyper", dataclasses.replace(self.hyper, total_steps=float(self.steps)))
        if self.evaluations > self.steps:
            raise ValueError(f"evaluations is {self.evaluations}, more than the {self.steps} steps between them")
        if not self.demos and not self.episodes:
            raise ValueError("episodes is 0, all of a dataset, and there is none: name one with --demos")
        if self.init_from and self.seeds > 1:
            raise ValueError(f"seeds is {self.seeds}, but one policy alone goes on learning from --init-from")
        if self.init_from and self.grid:
            raise ValueError(f"grid is {self.grid}, but one policy alone goes on learning from --init-from")

    @property
    def randomization(self) -> DomainRandomization:
        """No randomization: demonstrations are of the nominal robot."""
        return DomainRandomization().scaled(0.0)

    @property
    def window(self) -> WindowConfig:
        """The windows of a dataset that a policy learns from."""
        return WindowConfig(observations=self.n_obs_steps, horizon=self.horizon)


def with_head_defaults(config: BCRun, head: HeadName) -> BCRun:
    """The configuration for another head, with the settings in which that head differs."""
    own = registry.HEAD_DEFAULTS[head]
    most = (own.max_horizon, own.max_sampled_horizon if config.sample_actions else None)
    horizon = min([config.horizon, *filter(None, most)])
    hyper = dataclasses.replace(
        config.hyper,
        weight_decay=config.hyper.weight_decay * own.weight_decay,
        observation_dropout=max(config.hyper.observation_dropout, own.observation_dropout),
    )
    n_action_steps = min(config.n_action_steps, horizon)
    return dataclasses.replace(config, head=head, horizon=horizon, n_action_steps=n_action_steps, hyper=hyper)


def reference(spec: EnvSpec) -> Reference | None:
    """Joint targets are learnt relative to where the joints are: what is left to do is small where a pose is large.

    UMI does so with poses (Chi et al. 2024, arXiv:2402.10329, section IV). None where actions mean anything else.
    """
    rows = table_slices(spec.observation).get("joint_position")
    if not spec.action.stiffness or rows is None:
        return None
    (unit,) = (term.scale for term in spec.observation if term.name == "joint_position")
    default, scale, home = (
        np.asarray(column, np.float32)
        for column in (spec.action.default, spec.action.scale, spec.home or spec.action.default)
    )
    joints = rows.stop - rows.start  # the first actions; a gripper's is as it is

    def base(observation: Observation) -> Array:
        angle = observation[OBSERVATION][-1, rows] / unit + home[:joints]
        return jnp.concatenate([(angle - default[:joints]) / scale[:joints], jnp.zeros(len(default) - joints)])

    return base


def make_actor(
    config: BCRun, spec: EnvSpec, scales: Scales, fitted: Fitted = None, num_steps: int | None = None
) -> ActionHead:
    """The actor, without parameters.

    Args:
      config: of the run.
      spec: of the task.
      scales: of `prepare`, or `blank_scales` where parameters come from elsewhere.
      fitted: of `fit_head`.
      num_steps: see `make_head`.

    Raises:
      ValueError: a term of the observation that the task lacks, or a head that cannot do what is asked of it.
    """
    where = table_slices(spec.observation)
    excluded = config.exclude_terms
    if excluded is None:
        excluded = tuple(name for name in ("last_action",) if name in where)
    for name in excluded:
        if name not in where:
            raise ValueError(f"the task observes no {name!r} to leave out; it observes {', '.join(where)}")
    kept = tuple(np.flatnonzero(~_rows(spec, excluded)).tolist())
    head = make_head(config.head, config.horizon, spec.action.size, config.hidden_size, fitted, num_steps)
    if config.real_time and head.inpaint is None:
        raise ValueError(
            f"{config.head} cannot continue a chunk, as real_time asks: choose of {', '.join(registry.STEPPED)}"
        )
    units = Units(scales, limit=1.0, reference=reference(spec))
    return actor(Flat(((OBSERVATION, kept),)), head, (OBSERVATION,), units, dtype=config.dtype)


def make_learner(config: BCRun, spec: EnvSpec, network: ActionHead) -> Learner:
    """The learner of an actor."""
    acts = functools.partial(make_policy, config, spec, network)
    return bc(network, acts, {OBSERVATION: _rows(spec, OWN)}, reference(spec))


def _rows(spec: EnvSpec, names: tuple[str, ...]) -> np.ndarray:  # -> [D] bool
    """Which numbers of the observation belong to these terms."""
    where, chosen = table_slices(spec.observation), np.zeros(table_size(spec.observation), bool)
    for name in names:
        if name in where:
            chosen[where[name]] = True
    return chosen


def blank_scales(config: BCRun, spec: EnvSpec) -> Scales:
    """Scales of a task's shapes, to be filled from a checkpoint."""
    size, actions = table_size(spec.observation), spec.action.size
    shape = (actions,) if reference(spec) is None else (config.horizon, actions)
    return Scales({OBSERVATION: Scale(jnp.zeros(size), jnp.ones(size))}, Scale(jnp.zeros(shape), jnp.ones(shape)))


def example(config: BCRun, spec: EnvSpec) -> Observation:
    """Observations [O, ...] as a policy sees them, of a task's shapes."""
    return {OBSERVATION: jnp.zeros((config.n_obs_steps, table_size(spec.observation)))}


def make_plan(config: BCRun, network: ActionHead, params: PyTree) -> Plan:
    """`(key, observations [O, ...]) -> actions [H, A]`: the most likely chunk where a head knows it, else a sample."""
    mode = network.mode
    if mode is None or config.sample_actions:
        return lambda key, seen: network.sample(params, key, seen)[0]
    return lambda key, seen: mode(params, seen)


def make_policy(config: BCRun, spec: EnvSpec, network: ActionHead, params: PyTree) -> Policy:
    """The policy of an actor, with its memory of observations and chunks."""
    shape, keys = (config.horizon, spec.action.size), (OBSERVATION,)
    plan = make_plan(config, network, params)
    if config.ensemble is not None:
        return temporal_ensemble(plan, shape, config.ensemble, config.n_obs_steps, keys)
    if not config.real_time:
        return receding_horizon(plan, shape, config.n_action_steps, config.n_obs_steps, config.inference_delay, keys)
    noise, inpaint = network.noise, network.inpaint
    assert inpaint is not None and noise is not None  # make_actor has seen to it

    def onward(key: Array, seen: Observation, prefix: Prefix) -> Array:
        return inpaint(params, seen, noise.draw(key), prefix)

    return real_time(onward, shape, config.n_action_steps, config.n_obs_steps, config.inference_delay, keys)


def action_error(config: BCRun, network: ActionHead, params: PyTree, key: Array, window: Window) -> Array:
    """Mean absolute difference from what the demonstrator did in the steps that are executed, in the data's units, [].

    Of the chunks that the head could make: others are not executed, see `chunking`.
    """
    plan = make_plan(config, network, params)
    keys = jax.random.split(key, len(window.action))
    planned = jax.vmap(plan)(keys, window.observation)[:, : config.n_action_steps]  # [N, K, A]
    made = jnp.isfinite(planned).all(axis=(1, 2))[:, None, None]
    real = window.action_mask[:, : config.n_action_steps, None] & made
    off = jnp.where(real, jnp.abs(planned - window.action[:, : config.n_action_steps]), 0.0)
    return off.sum() / jnp.maximum(real.sum() * planned.shape[-1], 1)


RUN = BCRun


def loadable(config: BCRun, task: Env, folder: Path) -> Loadable:
    """The parts of a stored run; its codes or tokens lie in its folder."""
    spec = task.spec
    fitted = read_fitted(config.head, (config.horizon, spec.action.size), folder)
    network = make_actor(config, spec, blank_scales(config, spec), fitted)
    learner = make_learner(config, spec, network)
    return Loadable(
        blank=lambda key, hyper: learner.init(key, example(config, spec), hyper),
        actor=network,
        params=lambda state: state.average,
        acts=functools.partial(make_policy, config, spec, network),
        best=True,
        n_obs_steps=config.n_obs_steps,
        horizon=config.horizon,
    )
