"""Behaviour cloning on a task of this library, put together from one configuration: what experiments and tools share.

Axes: S seeds, N examples of a batch, O observations remembered, H horizon, A action.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal, cast

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.agents.bc import BCHyper, BCState, Cloner, Reference, Scales, bc, relative
from mjx_policies.chunking import Plan, real_time, receding_horizon, temporal_ensemble
from mjx_policies.data.holdout import Split, hold_out, statistics_of_episodes, windows_of
from mjx_policies.data.statistics import Accumulator, Scale, min_max, standard
from mjx_policies.data.store import Store
from mjx_policies.data.windows import Window, WindowConfig, Windows
from mjx_policies.envs.base import EnvSpec
from mjx_policies.envs.franka.actions import ActionName
from mjx_policies.envs.physics import Backend
from mjx_policies.evaluation.policy import Policy
from mjx_policies.heads import registry
from mjx_policies.heads.registry import Fitted, HeadName, make_head
from mjx_policies.networks.flat import Flat
from mjx_policies.randomization.imperfections import Imperfections
from mjx_policies.types import Array, Observation, table_size, table_slices

OBSERVATION = "state"
OWN = ("joint_position", "joint_velocity", "finger_opening", "tcp_position", "tcp_rotation", "last_action", "velocity")
"""Terms that say what the robot does rather than what is to be done: what dropout hides."""
MAX_FITTED = 20_000  # chunks that codes or tokens are fitted to


@dataclasses.dataclass(frozen=True)
class Config:
    """A run of behaviour cloning."""

    task: str = "FrankaPickCube"
    backend: Backend = "auto"
    actions: ActionName | None = None  # what they mean, in the tasks of an arm; None: what the task chose
    seed: int = 0  # of the first of the policies, and of which episodes are held out
    seeds: int = 1  # policies that learn side by side, from one seed after the other
    head: HeadName = "flow"  # what makes a chunk of actions; bins, energy and fast want a short horizon: 1, 2, 8
    size: int = registry.SIZE  # width of its hidden layers
    horizon: int = 16  # control steps of a chunk
    execute: int = 8  # of a chunk, before the next one is made
    remember: int = 2  # observations that a policy sees
    # a chunk every step instead of execute, averaged with weights exp(-ensemble * i), i = 0 for the oldest; 0.01 in
    # the paper, the newest weighs most below 0
    ensemble: float | None = None
    latency: int = 0  # control steps that it takes to make a chunk; the robot goes on with the last one meanwhile
    real_time: bool = False  # chunks continue what is left of the last one, see `chunking.real_time`
    draw: bool = False  # act by samples also where a head knows its most likely chunk
    unseen: tuple[str, ...] | None = None  # terms of the observation left out; None: last_action, which invites copying
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the arithmetic
    steps: int = 4_000  # gradient steps
    batch_size: int = 256
    validation: float = 0.1  # portion of the episodes held out
    hyper: BCHyper = dataclasses.field(default_factory=BCHyper)  # its total_steps is `steps`, whatever it says

    def __post_init__(self) -> None:
        for name in ("seeds", "size", "horizon", "execute", "remember", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.execute > self.horizon:
            raise ValueError(f"execute is {self.execute}, more than the {self.horizon} actions of a chunk")
        if not 0 <= self.latency < self.execute:
            raise ValueError(
                f"latency is {self.latency}, it must be at least 0 and below execute, {self.execute}: "
                "a chunk would be due before the last is there"
            )
        if self.execute + self.latency > self.horizon:
            raise ValueError(
                f"execute {self.execute} and latency {self.latency} need {self.execute + self.latency} actions, "
                f"a chunk has {self.horizon}"
            )
        if self.ensemble is not None and (self.latency or self.real_time):
            raise ValueError("ensemble averages a chunk of every step: leave out latency and real_time")
        if self.ensemble is not None and not math.isfinite(self.ensemble):
            raise ValueError(f"ensemble is {self.ensemble}, it must be a finite number")
        if not 0 <= self.seed <= self.seed + self.seeds <= 2**32:
            raise ValueError(f"seed is {self.seed}, it must be at least 0 and below 2**32, where seeds begin to repeat")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation is {self.validation:g}, it must be at least 0 and below 1")
        object.__setattr__(self, "hyper", dataclasses.replace(self.hyper, total_steps=float(self.steps)))

    @property
    def imperfections(self) -> Imperfections:
        """None: who demonstrates has a robot as its model says."""
        return Imperfections().scaled(0.0)

    @property
    def window(self) -> WindowConfig:
        """What a policy sees and says."""
        return WindowConfig(observations=self.remember, horizon=self.horizon)


@dataclasses.dataclass(frozen=True)
class Demonstrations:
    """What there is to learn from.

    Attributes:
      windows: of all episodes.
      split: of the episodes.
      training, validation: [W] numbers of windows.
      scales: of the training episodes.
    """

    windows: Windows
    split: Split
    training: np.ndarray
    validation: np.ndarray
    scales: Scales

    @property
    def example(self) -> Observation:
        """Observations [O, ...] as a policy sees them."""
        first = self.windows.take(np.arange(1))
        return {name: jnp.asarray(rows[0]) for name, rows in first.observation.items()}


def prepare(store: Store, config: Config, spec: EnvSpec) -> Demonstrations:
    """Windows, held-out episodes and scales.

    Raises:
      UserError: no episode is long enough for a window.
    """
    windows = Windows(store, config.window)
    split = hold_out(len(store.lengths), config.validation, config.seed)
    found = statistics_of_episodes(store, split.training)
    training, validation = (windows_of(windows, episodes) for episodes in split)
    base = reference(spec)
    action = min_max(found["action"]) if base is None else relative_scale(windows, training, base)
    scales = Scales({name: standard(found[name]) for name in store.arrays if name != "action"}, action)
    return Demonstrations(windows, split, training, validation, scales)


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


def relative_scale(windows: Windows, chosen: np.ndarray, base: Reference) -> Scale:
    """Of actions [H, A] relative to a reference, each step of a chunk to [-1, 1].

    The first steps differ little from where the robot is and the last ones much: with one scale for all, the steps that
    are executed would be the least precise.
    """
    found = Accumulator()
    differences = jax.jit(lambda window: relative(window, base))
    for start in range(0, len(chosen), MAX_FITTED):
        rows = np.asarray(differences(windows.take(chosen[start : start + MAX_FITTED])))
        found.add(rows.reshape(len(rows), -1))
    shape = (windows.config.horizon, -1)
    return cast(Scale, jax.tree.map(lambda x: x.reshape(shape), min_max(found.result())))


def fit_head(config: Config, demonstrations: Demonstrations, spec: EnvSpec) -> Fitted:
    """What the head wants to know of the demonstrations before it learns; None for most."""
    if config.head not in registry.FITTED:
        return None
    every = -(-len(demonstrations.training) // MAX_FITTED)
    window = jax.tree.map(jnp.asarray, demonstrations.windows.take(demonstrations.training[::every]))
    chunks = demonstrations.scales.action.apply(relative(window, reference(spec)))
    return registry.fit(config.head, chunks, config.seed)


def make_cloner(config: Config, spec: EnvSpec, fitted: Fitted = None, num_steps: int | None = None) -> Cloner:
    """The learner alone.

    Args:
      config: of the run.
      spec: of the task.
      fitted: of `fit_head`.
      num_steps: see `make_head`.

    Raises:
      ValueError: a term of the observation that the task lacks, or a head that cannot do what is asked of it.
    """
    where = table_slices(spec.observation)
    unseen = tuple(name for name in ("last_action",) if name in where) if config.unseen is None else config.unseen
    for name in unseen:
        if name not in where:
            raise ValueError(f"the task observes no {name!r} to leave out; it observes {', '.join(where)}")
    size = table_size(spec.observation)
    left_out = _rows(size, [where[name] for name in unseen])
    own = _rows(size, [where[name] for name in OWN if name in where])
    kept = tuple(np.flatnonzero(~left_out).tolist())
    head = make_head(config.head, config.horizon, spec.action.size, config.size, fitted, num_steps)
    if config.real_time and head.inpaint is None:
        raise ValueError(
            f"{config.head} cannot continue a chunk, as real_time asks: choose of {', '.join(registry.STEPPED)}"
        )
    base = reference(spec)
    return bc(Flat(((OBSERVATION, kept),)), head, config.dtype, {OBSERVATION: own}, limit=1.0, reference=base)


def _rows(size: int, slices: list[slice]) -> np.ndarray:  # -> [D] bool
    chosen = np.zeros(size, bool)
    for rows in slices:
        chosen[rows] = True
    return chosen


def blank_scales(config: Config, spec: EnvSpec) -> Scales:
    """Scales of a task's shapes, to be filled from a checkpoint."""
    size, actions = table_size(spec.observation), spec.action.size
    shape = (actions,) if reference(spec) is None else (config.horizon, actions)
    return Scales({OBSERVATION: Scale(jnp.zeros(size), jnp.ones(size))}, Scale(jnp.zeros(shape), jnp.ones(shape)))


def init(config: Config, cloner: Cloner, example: Observation, scales: Scales) -> BCState:
    """The learner before its first step, of all seeds if there are several: [S, ...] then."""

    def one(key: Array) -> BCState:
        return cloner.init(key, example, scales, config.hyper)

    keys = seed_keys(config)
    return jax.vmap(one)(keys) if config.seeds > 1 else one(keys[0])


def seed_keys(config: Config) -> Array:  # -> [S]
    """A key for each policy."""
    return jax.vmap(jax.random.key)(np.arange(config.seed, config.seed + config.seeds, dtype=np.uint32))


def member(config: Config, state: BCState, number: int) -> BCState:
    """One of the policies that learn side by side."""
    return cast(BCState, jax.tree.map(lambda x: x[number], state)) if config.seeds > 1 else state


def make_plan(config: Config, cloner: Cloner, state: BCState) -> Plan:
    """`(key, observations [O, ...]) -> actions [H, A]`: the most likely chunk where a head knows it, else a sample."""
    mode = cloner.mode
    if mode is None or config.draw:
        return lambda key, seen: cloner.plan(state, key, seen)
    return lambda key, seen: mode(state, seen)


def make_policy(config: Config, cloner: Cloner, state: BCState) -> Policy:
    """What acts, with its memory of observations and chunks."""
    names = tuple(state.scales.observation)
    shape = (config.horizon, state.scales.action.size.shape[-1])
    plan, example = make_plan(config, cloner, state), _one_observation(state)
    if config.ensemble is not None:
        policy = temporal_ensemble(plan, example, shape, config.ensemble, config.remember)
    elif config.real_time:
        assert cloner.inpaint is not None  # make_cloner has seen to it
        onward = functools.partial(cloner.inpaint, state)
        policy = real_time(onward, example, shape, config.execute, config.remember, config.latency)
    else:
        policy = receding_horizon(plan, example, shape, config.execute, config.remember, config.latency)

    def act(carry, key, obs, step):
        return policy.act(carry, key, {name: obs[name] for name in names}, step)

    return Policy(policy.init, act)


def _one_observation(state: BCState) -> Observation:
    return {name: jnp.zeros_like(scale.offset) for name, scale in state.scales.observation.items()}


def action_error(config: Config, cloner: Cloner, state: BCState, key: Array, window: Window) -> Array:  # [N, ...] -> []
    """Mean absolute difference from what the demonstrator did in the steps that are executed, in the data's units.

    Of the chunks that the head could make: others are not executed, see `chunking`.
    """
    plan = make_plan(config, cloner, state)
    keys = jax.random.split(key, len(window.action))
    planned = jax.vmap(plan)(keys, window.observation)[:, : config.execute]  # [N, K, A]
    made = jnp.isfinite(planned).all(axis=(1, 2))[:, None, None]
    real = window.action_mask[:, : config.execute, None] & made
    off = jnp.where(real, jnp.abs(planned - window.action[:, : config.execute]), 0.0)
    return off.sum() / jnp.maximum(real.sum() * planned.shape[-1], 1)
