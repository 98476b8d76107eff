"""PPO on a task of this library: its configuration, and its recipe for a run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
from rich.console import Console

from mjx_policies.actor import Units, actor
from mjx_policies.agents.base import Learner, Runner
from mjx_policies.agents.critic import CLIP, critic
from mjx_policies.agents.curriculum import randomization_curriculum
from mjx_policies.agents.on_policy import on_policy
from mjx_policies.agents.ppo import PPOState, ppo
from mjx_policies.agents.ppo_config import PPOConfig, PPOHyper, Symmetry
from mjx_policies.agents.sweep import sweep
from mjx_policies.compiler import compiler_options
from mjx_policies.envs.base import Env
from mjx_policies.envs.mirror import mirror_action, mirror_observation, mirror_rows
from mjx_policies.envs.registry import load
from mjx_policies.envs.vectorize import VectorEnv, vectorize
from mjx_policies.experiments.runs.grid import beginning, members
from mjx_policies.experiments.runs.recipe import Display, Loadable, Parts, Recipe, RunConfig
from mjx_policies.heads.base import ActionHead
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.networks.flat import Flat
from mjx_policies.networks.mlp import MLP
from mjx_policies.networks.symmetric import SymmetricMLP
from mjx_policies.policy import acting
from mjx_policies.randomization.domain import DomainRandomization, randomize
from mjx_policies.training.config import at_least, may_change
from mjx_policies.training.job import Job
from mjx_policies.training.preemption import Preemption
from mjx_policies.training.run_folder import RunFolder
from mjx_policies.types import Array, PyTree


def default_num_envs() -> int:
    """Parallel environments that keep the device busy: a laptop's cores, or a GPU or TPU."""
    return 512 if jax.default_backend() == "cpu" else 8192


def default_steps(task: str) -> int:
    """Environment steps after which a task has been learned, on a batch as large as `default_num_envs` makes it."""
    if jax.default_backend() != "cpu":
        return 40_000_000
    return STEPS.get(task, 4_000_000 if task.startswith("Franka") else 2_100_000)


STEPS = {"FrankaReach": 600_000, "FrankaPickCube": 2_000_000}
"""Environment steps of tasks that need fewer than others of their robot."""


# A short run takes large steps while it searches for a gait, and small ones on a quieter policy once it has one.
LOCOMOTION = PPOHyper(desired_kl=0.06, final_desired_kl=0.015, entropy=0.0, final_entropy=-0.01, anneal_updates=400.0)

# Later commands and measurements and harder pushes than an evaluation has: at the edge of what it has met, a policy
# falls.
TRAINING = DomainRandomization(delay=(0.0, 0.03), latency=(0.0, 0.015), push_velocity=0.5)


@dataclasses.dataclass(frozen=True)
class PPORun(RunConfig):
    """Trains a robot with PPO, evaluates it and records a video."""

    KIND: ClassVar[str] = "ppo"

    steps: int = may_change(0)  # total environment steps; 0: the task's default on this device
    num_envs: int = dataclasses.field(default_factory=lambda: default_num_envs())  # number of parallel environments
    rollout_length: int = 10  # control steps per environment and rollout
    policy_layers: tuple[int, ...] = (128, 128)  # hidden layer sizes of the policy network
    critic_layers: tuple[int, ...] = (128, 128)  # hidden layer sizes of the critic network
    init_std: float = 0.6  # initial standard deviation of exploration, in units of the action
    min_std: float = 0.05  # lower bound of the standard deviation, in units of the action
    symmetry: Literal["network", "loss", "none"] = "network"  # left-right symmetry, by the networks or a loss
    sizes: PPOConfig = dataclasses.field(default_factory=lambda: PPOConfig(num_epochs=3, num_minibatches=4))
    hyper: PPOHyper = dataclasses.field(default_factory=lambda: LOCOMOTION)
    randomization: DomainRandomization = dataclasses.field(default_factory=lambda: TRAINING)
    curriculum_threshold: float = 0.8  # score above which randomization ranges grow; 0: full ranges from the start

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, steps=0, num_envs=1, rollout_length=1)
        object.__setattr__(self, "steps", self.steps or default_steps(self.task))
        threshold = self.curriculum_threshold
        if not 0 <= threshold < 1:
            raise ValueError(
                f"curriculum_threshold is {threshold:g}, it must be at least 0 and below 1, which no robot reaches"
            )
        for name in ("policy_layers", "critic_layers"):
            if min(getattr(self, name), default=1) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, every width must be at least 1")
        weight = self.hyper.symmetry
        if isinstance(weight, int | float) and (weight > 0) != (self.symmetry == "loss"):
            raise ValueError(
                f"symmetry is {self.symmetry!r} and hyper.symmetry {weight:g}, the weight of the mirror loss: "
                "choose symmetry 'loss' and a weight above zero, or neither"
            )
        if self.num_envs % self.sizes.num_minibatches:
            raise ValueError(
                f"num_envs {self.num_envs} does not divide into {self.sizes.num_minibatches} minibatches: "
                f"choose a multiple of {self.sizes.num_minibatches}, or another --sizes.num-minibatches"
            )

    @property
    def iteration(self) -> int:
        """Environment steps in one iteration."""
        return self.num_envs * self.rollout_length


class Built(NamedTuple):
    """Environments, the learner, its actor and the runner of a configuration."""

    envs: VectorEnv
    learner: Learner
    actor: ActionHead
    runner: Runner


def build(config: PPORun) -> Built:
    """Builds the environments, the learner and the runner of a configuration.

    Raises:
      ValueError: what the configuration asks for does not exist or does not fit.
    """
    task = load(config.task, config.backend, config.num_envs, config.actions)
    grows = config.curriculum_threshold > 0 and task.spec.score != ""
    env, dynamics = randomize(task, config.randomization)
    if grows:  # from the first robots on
        env, dynamics = randomize(task, config.randomization.scaled(0.0))
    envs = vectorize(env, config.num_envs, dynamics, pool_size=max(16, config.num_envs // 16))
    learner, network = make_learner(config, envs)
    curriculum = None
    if grows:
        curriculum = randomization_curriculum(task, config.randomization, config.curriculum_threshold)
    return Built(envs, learner, network, on_policy(learner, envs, config.rollout_length, curriculum))


def rollout_shapes(config: PPORun, built: Built, state: PyTree) -> PyTree:
    """Shapes of the data that an update learns from."""
    keeping = built.learner._replace(update=lambda state, key, rollout: (rollout, {}))
    return jax.eval_shape(on_policy(keeping, built.envs, config.rollout_length).step, state)[0].learner


def make_learner(config: PPORun, envs: VectorEnv) -> tuple[Learner, ActionHead]:
    """The learner alone, and its actor."""
    spec = envs.spec
    symmetry = None
    policy: nn.Module = MLP((*config.policy_layers, spec.action.size), output_scale=0.01)
    value: nn.Module = MLP((*config.critic_layers, 1))
    if config.symmetry != "none" and spec.symmetric:
        observation, action = mirror_observation(spec, envs.model), mirror_action(spec, envs.model)
        symmetry = Symmetry(observation, action, loss=config.symmetry == "loss")
        if config.symmetry == "network":
            state = mirror_rows(spec.observation, spec, envs.model)
            critic_rows = mirror_rows((*spec.observation, *spec.privileged), spec, envs.model)
            policy = SymmetricMLP((*config.policy_layers, spec.action.size), state, action, output_scale=0.01)
            value = SymmetricMLP((*config.critic_layers, 1), critic_rows, lambda value: value)
    head = gaussian_head(policy, spec.action.size, config.init_std, config.min_std)
    network = actor(Flat(), head, units=Units(clip=CLIP))
    return ppo(network, critic(value), config.sizes, symmetry), network


RUN = PPORun


def loadable(config: PPORun, task: Env, folder: Path) -> Loadable:
    """The parts of a stored run."""
    del folder
    learner, network = make_learner(config, vectorize(task, num_envs=1))

    def blank(key: Array, hyper: PPOHyper) -> PPOState:
        _, timestep = task.reset(jax.random.key(0), {})
        return learner.init(key, timestep.obs, hyper)

    return Loadable(blank, network, lambda state: state.params["actor"], functools.partial(acting, network))


DISPLAY = Display(
    progress=("env/reward", "env/track_linear", "env/track_yaw", "env/success"),
    curves=(
        "env/track_linear",
        "env/track_yaw",
        "env/success",
        "env/reward",
        "env/terminations",
        "policy/std",
        "policy/kl",
        "learning_rate",
        "value/explained",
    ),
)
NOT_ALWAYS = ("env/standing_speed", "env/side")  # nobody stands, nobody has passed: these metrics may be NaN


def check(run: PPORun, task: Env) -> PyTree:
    """Builds the run, and returns the shapes of its state; of a sweep with those of the rollouts."""
    del task
    built = build(run)
    state = jax.eval_shape(built.runner.init, jax.random.key(run.seed), run.hyper)
    return (state, rollout_shapes(run, built, state)) if len(members(run)) > 1 else state


@contextlib.contextmanager
def assemble(run: PPORun, task: Env, folder: RunFolder, console: Console, preemption: Preemption) -> Iterator[Parts]:
    """The runner of a run or of all runs of a sweep."""
    del task, folder, preemption
    steps = -(-run.steps // run.iteration) * run.iteration
    if run.steps not in (steps, default_steps(run.task)):
        console.print(
            f"--steps {run.steps:,} becomes {steps:,}: an iteration takes {run.iteration:,}, "
            f"{run.rollout_length} of each of {run.num_envs:,} environments"
        )
    built = build(run)
    runner = sweep(built.runner) if len(members(run)) > 1 else built.runner
    init = jax.jit(runner.init, compiler_options=compiler_options(runs_once=True))
    job = Job(
        init=lambda: init(*beginning(run)),
        step=runner.step,
        steps_per_iteration=runner.steps_per_iteration,
        watch=lambda state: state.learner,
        may_be_nan=NOT_ALWAYS,
        compiler_options=compiler_options(),
    )
    yield Parts(job, steps, functools.partial(acting, built.actor), lambda learner: learner.params["actor"])


RECIPE = Recipe(check, assemble, DISPLAY)
