"""PPO on a task of this library, put together from one configuration: what experiments and tools share."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from mjx_policies.agents.base import Learner, Runner, constant
from mjx_policies.agents.on_policy import on_policy
from mjx_policies.agents.ppo import PPOConfig, PPOHyper, PPOState, Symmetry, ppo
from mjx_policies.agents.trials import EVALUATION_SEED
from mjx_policies.agents.widening import widening
from mjx_policies.compiler import compiler_options
from mjx_policies.envs.base import DynamicsSampler, Env
from mjx_policies.envs.film import film, scene_camera
from mjx_policies.envs.franka.actions import ActionName
from mjx_policies.envs.mirror import mirror_action, mirror_observation, mirror_rows
from mjx_policies.envs.physics import Backend
from mjx_policies.envs.registry import load, scene
from mjx_policies.envs.vectorize import VectorEnv, vectorize
from mjx_policies.evaluation.episodes import Episodes, run_episodes
from mjx_policies.evaluation.outcomes import judge, summarize
from mjx_policies.evaluation.statistics import Estimate
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.networks.mlp import MLP
from mjx_policies.networks.symmetric import SymmetricMLP
from mjx_policies.randomization.imperfections import Imperfections, imperfect
from mjx_policies.types import table_slices


def default_num_envs() -> int:
    """Robots that keep the device busy: a laptop's cores, or a GPU or TPU."""
    return 512 if jax.default_backend() == "cpu" else 8192


def default_steps() -> int:
    """Environment steps of a run that walks well, on a batch as large as `default_num_envs` makes it."""
    return 2_100_000 if jax.default_backend() == "cpu" else 40_000_000


# A short run takes large steps while it looks for a gait, and small ones on a quieter policy once it has one.
LOCOMOTION = PPOHyper(desired_kl=0.06, final_desired_kl=0.015, entropy=0.0, final_entropy=-0.01, anneal_updates=400.0)

# Later commands and harder pushes than an evaluation has: at the edge of what it has met, a policy falls.
TRAINING = Imperfections(delay=(0.0, 0.03), push_velocity=0.5)


@dataclasses.dataclass(frozen=True)
class Config:
    """A PPO run."""

    task: str = "Go2JoystickFlat"
    backend: Backend = "auto"
    actions: ActionName | None = None  # what they mean, in the tasks of an arm; None: what the task chose
    seed: int = 0
    num_envs: int = dataclasses.field(default_factory=lambda: default_num_envs())  # robots at once
    rollout_length: int = 10  # control steps of each robot in an iteration
    policy_layers: tuple[int, ...] = (128, 128)  # hidden widths
    critic_layers: tuple[int, ...] = (128, 128)
    init_std: float = 0.6  # of the exploration, in units of the action
    min_std: float = 0.05  # floor of the same
    symmetry: Literal["network", "loss", "none"] = "network"  # left-right, of robots that have it
    sizes: PPOConfig = dataclasses.field(default_factory=lambda: PPOConfig(num_epochs=3, num_minibatches=4))
    hyper: PPOHyper = dataclasses.field(default_factory=lambda: LOCOMOTION)
    imperfections: Imperfections = dataclasses.field(default_factory=lambda: TRAINING)
    mastery: float = 0.8  # the task's score at which robots become less perfect; 0: imperfect from the start

    def __post_init__(self) -> None:
        for name in ("num_envs", "rollout_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}, it must be at least 0 and below 2**32, where seeds begin to repeat")
        if not 0 <= self.mastery < 1:
            raise ValueError(f"mastery is {self.mastery:g}, it must be at least 0 and below 1, which no robot reaches")
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


class Parts(NamedTuple):
    """A run, put together."""

    envs: VectorEnv
    learner: Learner
    runner: Runner


def build(config: Config) -> Parts:
    """Puts a run together.

    Raises:
      ValueError: what the configuration asks for does not exist or does not fit.
    """
    task = load(config.task, config.backend, config.num_envs, config.actions)
    learns_by_lessons = config.mastery > 0 and task.spec.score != ""
    env, dynamics = imperfect(task, config.imperfections)
    if learns_by_lessons:  # from the first robots on
        env, dynamics = imperfect(task, config.imperfections.scaled(0.0))
    envs = vectorize(env, config.num_envs, dynamics, pool_size=max(16, config.num_envs // 16))
    learner = make_learner(config, envs)
    curriculum = widening(task, config.imperfections, config.mastery) if learns_by_lessons else constant()
    return Parts(envs, learner, on_policy(learner, envs, config.rollout_length, curriculum))


def make_learner(config: Config, envs: VectorEnv) -> Learner:
    """The learner alone."""
    spec = envs.spec
    symmetry = None
    policy: nn.Module = MLP((*config.policy_layers, spec.action.size), output_scale=0.01)
    critic: nn.Module = MLP((*config.critic_layers, 1))
    if config.symmetry != "none" and spec.symmetric:
        observation, action = mirror_observation(spec, envs.model), mirror_action(spec, envs.model)
        symmetry = Symmetry(observation, action, loss=config.symmetry == "loss")
        if config.symmetry == "network":
            state = mirror_rows(spec.observation, spec, envs.model)
            judged = mirror_rows((*spec.observation, *spec.privileged), spec, envs.model)
            policy = SymmetricMLP((*config.policy_layers, spec.action.size), state, action, output_scale=0.01)
            critic = SymmetricMLP((*config.critic_layers, 1), judged, lambda value: value)
    head = gaussian_head(policy, spec.action.size, config.init_std, config.min_std)
    return ppo(head, critic, config.sizes, symmetry)


CONDITIONS = {"nominal": Imperfections().scaled(0.0), "randomized": Imperfections()}
Evaluation = dict[str, dict[str, Estimate]]
"""Condition -> name of a figure -> its estimate."""


def make_evaluation(
    config: Config, learner: Learner, batch: int = 64, seed: int = EVALUATION_SEED
) -> Callable[..., tuple[Evaluation, Episodes]]:
    """Builds `evaluate(learner_state, robots, names=("nominal", "randomized"), report=None) -> (evaluation, episodes)`.

    The action is the policy's mode. Each condition named takes `robots` through one whole episode, `batch` at a time,
    all in one compiled program, and `report(name, robots so far)` is called before the first batch and after each. The
    episodes returned are the first batch of the last condition, with `recording` holding coordinates [T, B, nq] and
    observations [T, B, D].
    """
    task = load(config.task, config.backend, batch, config.actions)
    conditions = {name: imperfect(task, imperfections) for name, imperfections in CONDITIONS.items()}

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def run(learner_state: PPOState, env: Env, dynamics: DynamicsSampler, key: jax.Array) -> Episodes:
        envs = vectorize(env, batch, dynamics)

        def record(state, action):
            data = env.data(state.envs)
            placed = {"mocap_pos": data.mocap_pos} if task.physics.model.nmocap else {}
            return {"qpos": data.qpos, "obs": state.obs["state"], **placed}

        return run_episodes(envs, lambda obs: learner.mode(learner_state, obs), key, record, task.spec.criteria)

    def evaluate(
        learner_state: PPOState,
        robots: int,
        names: Sequence[str] = tuple(CONDITIONS),
        report: Callable[[str, int], None] = lambda name, done: None,
    ):
        evaluation = {}
        for name in names:
            env, dynamics = conditions[name]
            parts: list[Episodes] = []
            recording = None
            report(name, 0)
            for key in jax.random.split(jax.random.key(seed), -(-robots // batch)):
                episodes = jax.device_get(run(learner_state, env, dynamics, key))
                recording = recording or episodes.recording
                parts.append(dataclasses.replace(episodes, recording=None))
                report(name, min(robots, batch * len(parts)))
            whole = jax.tree.map(lambda *part: np.concatenate(part)[:robots], *parts)
            evaluation[name] = summarize(whole, task.spec)
        return evaluation, dataclasses.replace(parts[0], recording=recording)

    return evaluate


def film_episode(config: Config, episodes: Episodes, path: Path, seconds: float = 6.0, fps: int = 25) -> None:
    """Films the first seconds of an episode that `make_evaluation` recorded; a command is in the corner.

    Of a task that can be solved, it is the first that was. Of any other, the one whose robot goes farthest: one that is
    told to stand would be as good, and show less.
    """
    spec = load(config.task, config.backend, 1, config.actions).spec
    stride = max(1, round(1 / (fps * spec.control_dt)))
    # What is recorded at the last step belongs to the next episode already.
    ends = np.clip(np.asarray(episodes.length) - 1, 1, round(seconds / spec.control_dt))  # [B]
    qpos = np.asarray(episodes.recording["qpos"])  # [T, B, nq]
    if spec.stages or (spec.criteria and not spec.commands):
        robot = int(np.argmax(judge(episodes, spec).achieved))
    else:
        way = qpos[ends - 1, np.arange(len(ends)), :2] - qpos[0, :, :2]
        robot = int(np.argmax(np.linalg.norm(way, axis=-1)))
    rows = slice(0, ends[robot], stride)
    qpos = qpos[rows, robot]
    where = table_slices(spec.observation).get("command")
    captions = None
    if where is not None:
        commands = np.asarray(episodes.recording["obs"])[rows, robot, where]
        captions = [[f"command {x:+.2f} m/s  {y:+.2f} m/s  {yaw:+.2f} rad/s"] for x, y, yaw in commands]
    model = scene(config.task)
    mocap_pos = np.asarray(episodes.recording["mocap_pos"])[rows, robot] if model.nmocap else None
    real_time = 1 / (stride * spec.control_dt)
    film(model, qpos, path, real_time, captions, camera=scene_camera(model), mocap_pos=mocap_pos)
