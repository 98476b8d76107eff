"""PPO on a task of this library, put together from one configuration: what experiments and tools share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from mjx_policies.agents.base import Learner, Runner
from mjx_policies.agents.on_policy import on_policy
from mjx_policies.agents.ppo import PPOConfig, PPOHyper, PPOState, Symmetry, ppo
from mjx_policies.envs.base import DynamicsSampler, Env, Nominal
from mjx_policies.envs.mirror import mirror_action, mirror_observation
from mjx_policies.envs.physics import Backend
from mjx_policies.envs.registry import load
from mjx_policies.envs.vectorize import VectorEnv, vectorize
from mjx_policies.evaluation import statistics
from mjx_policies.evaluation.episodes import Episodes, run_episodes
from mjx_policies.evaluation.statistics import Estimate
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.networks.mlp import MLP
from mjx_policies.randomization import presets
from mjx_policies.randomization.curriculum import widened
from mjx_policies.randomization.latency import ActionDelay
from mjx_policies.randomization.pushes import Pushes
from mjx_policies.randomization.sensors import SensorNoise
from mjx_policies.randomization.terms import Randomization


@dataclasses.dataclass(frozen=True)
class Imperfections:
    """What sets a robot apart from its model, drawn anew for each episode."""

    dynamics: float = 1.0  # times the ranges of the robot's preset of masses, friction, motors, ...
    noise: float = 1.0  # times the noise and bias of the observation table
    delay: tuple[float, float] = (0.0, 0.02)  # s, from an action to the motors
    delay_jitter: float = 0.002  # s, from one action to the next
    push_velocity: float = 0.3  # m/s, sudden change of the trunk's velocity
    push_seconds: tuple[float, float] = (4.0, 8.0)  # s, from one push to the next

    @classmethod
    def none(cls) -> Imperfections:
        """The robot as its model says. Same structure, zero ranges: it runs in the same compiled program."""
        return cls(dynamics=0.0, noise=0.0, delay=(0.0, 0.0), delay_jitter=0.0, push_velocity=0.0)


@dataclasses.dataclass(frozen=True)
class Config:
    """A PPO run."""

    task: str = "Go2JoystickFlat"
    backend: Backend = "auto"
    seed: int = 0
    num_envs: int = 1024  # robots at once
    rollout_length: int = 24  # control steps of each robot in an iteration
    policy_layers: tuple[int, ...] = (128, 128, 128)  # hidden widths
    critic_layers: tuple[int, ...] = (128, 128, 128)
    init_std: float = 1.0  # of the exploration, in units of the action
    min_std: float = 0.1  # floor of the same
    symmetric: bool = False  # mirror loss; its weight is hyper.symmetry
    sizes: PPOConfig = PPOConfig()
    hyper: PPOHyper = PPOHyper()
    imperfections: Imperfections = Imperfections()

    def __post_init__(self) -> None:
        for name in ("num_envs", "rollout_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.num_envs % self.sizes.num_minibatches:
            raise ValueError(
                f"num_envs {self.num_envs} does not divide into {self.sizes.num_minibatches} minibatches: "
                "choose a multiple"
            )


class Parts(NamedTuple):
    """A run, put together."""

    envs: VectorEnv
    learner: Learner
    runner: Runner


def imperfect(env: Env, imperfections: Imperfections) -> tuple[Env, DynamicsSampler]:
    """Wraps a task, and says what robots to draw. Legged robots only have a preset of dynamics, and a base to push."""
    legged = env.physics.model.njnt > 12
    env = ActionDelay(env, *imperfections.delay, jitter=imperfections.delay_jitter, max_delay=0.06)
    if legged:
        env = Pushes(env, *imperfections.push_seconds, velocity=imperfections.push_velocity)
    env = SensorNoise(env, imperfections.noise)
    if not legged:
        return env, Nominal()
    return env, Randomization(widened(presets.go2(), imperfections.dynamics), env.physics.model)


def build(config: Config) -> Parts:
    """Puts a run together.

    Raises:
      ValueError: what the configuration asks for does not exist or does not fit.
    """
    env, dynamics = imperfect(load(config.task, config.backend, config.num_envs), config.imperfections)
    envs = vectorize(env, config.num_envs, dynamics)
    learner = make_learner(config, envs)
    return Parts(envs, learner, on_policy(learner, envs, config.rollout_length))


def make_learner(config: Config, envs: VectorEnv) -> Learner:
    """The learner alone."""
    spec = envs.spec
    policy = MLP((*config.policy_layers, spec.action.size), nn.elu, output_scale=0.01)
    head = gaussian_head(policy, spec.action.size, config.init_std, config.min_std)
    symmetry = None
    if config.symmetric:
        symmetry = Symmetry(mirror_observation(spec, envs.model), mirror_action(spec, envs.model))
    return ppo(head, MLP((*config.critic_layers, 1), nn.elu), config.sizes, symmetry)


CONDITIONS = {"nominal": Imperfections.none(), "randomized": Imperfections()}
EVALUATION_SEED = 1_000_003  # of starts, commands and robots that no training run with a smaller seed has met
Evaluation = dict[str, dict[str, Estimate]]
"""Condition -> name of a figure -> its estimate."""


def make_evaluation(config: Config, learner: Learner, robots: int = 64) -> Callable[..., tuple[Evaluation, Episodes]]:
    """Builds `evaluate(learner_state, batches) -> (evaluation, episodes)`, compiled once for all conditions.

    The action is the policy's mode. Each condition runs `batches * robots` whole episodes; the episodes returned are
    the first batch of the last condition, with `recording` holding coordinates and observation of one robot.
    """
    task = load(config.task, config.backend, robots)
    conditions = {name: imperfect(task, imperfections) for name, imperfections in CONDITIONS.items()}

    @jax.jit
    def run(learner_state: PPOState, env: Env, dynamics: DynamicsSampler, key: jax.Array) -> Episodes:
        envs = vectorize(env, robots, dynamics)

        def record(state):
            return {"qpos": env.data(state.envs).qpos[0], "obs": state.obs["state"][0]}

        return run_episodes(envs, lambda obs: learner.mode(learner_state, obs), key, record)

    def evaluate(learner_state: PPOState, batches: int) -> tuple[Evaluation, Episodes]:
        evaluation = {}
        for name, (env, dynamics) in conditions.items():
            keys = jax.random.split(jax.random.key(EVALUATION_SEED), batches)
            found = [jax.device_get(run(learner_state, env, dynamics, key)) for key in keys]
            whole = jax.tree.map(lambda *parts: np.concatenate(parts), *(part.replace(recording=None) for part in found))
            evaluation[name] = summarize(whole)
        return evaluation, found[0]

    return evaluate


def summarize(episodes: Episodes) -> dict[str, Estimate]:
    """The figures of one condition, each with its 95 % interval over robots."""
    falls = statistics.proportion(int(episodes.terminated.sum()), len(episodes.terminated))
    metrics = {name: statistics.mean(value) for name, value in episodes.metrics.items() if name != "nan_resets"}
    return {"falls": falls, "reward": statistics.mean(episodes.reward), **metrics}
