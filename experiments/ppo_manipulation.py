"""Trains a policy of a Franka with PPO: python experiments/ppo_manipulation.py --task FrankaPickCube

The run folder ends with config.json, checkpoints, metrics.csv, curves.png, evaluation.json and episode.mp4.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import dataclasses
from typing import Literal

from mjx_policies.agents.ppo_config import PPOConfig, PPOHyper
from mjx_policies.envs.franka.actions import ActionName
from mjx_policies.experiments.runs.ppo import RECIPE, PPORun
from mjx_policies.experiments.runs.run import complete
from mjx_policies.randomization.domain import DomainRandomization
from mjx_policies.training.command_line import parse
from mjx_policies.training.script import clean_errors

# Every sample costs ten substeps of physics, most of them in contact, so much is made of it: many gradient steps.
MANIPULATION = PPOHyper(
    learning_rate=3e-4,
    desired_kl=0.05,
    final_desired_kl=0.015,
    anneal_updates=200.0,
    discount=0.97,
    entropy=0.0,
    final_entropy=0.0,
)


@dataclasses.dataclass(frozen=True)
class ManipulationRun(PPORun):
    """Trains a Franka with PPO, evaluates it and records a video."""

    task: str = "FrankaPickCube"  # task name, as listed in the README
    actions: ActionName | None = "top_down_delta"  # action space of the arm; None: the task's default
    rollout_length: int = 16  # control steps per environment and rollout
    policy_layers: tuple[int, ...] = (256, 256)  # hidden layer sizes of the policy network
    critic_layers: tuple[int, ...] = (256, 256)  # hidden layer sizes of the critic network
    init_std: float = 0.4  # initial standard deviation of exploration, in units of the action
    symmetry: Literal["network", "loss", "none"] = "none"  # left-right symmetry, which a Franka's tasks lack
    sizes: PPOConfig = dataclasses.field(default_factory=lambda: PPOConfig(num_epochs=4, num_minibatches=8))
    hyper: PPOHyper = dataclasses.field(default_factory=lambda: MANIPULATION)
    randomization: DomainRandomization = dataclasses.field(default_factory=DomainRandomization)
    curriculum_threshold: float = 0.0  # score above which randomization ranges grow; 0: full ranges from the start


if __name__ == "__main__":
    with clean_errors():
        complete(parse(ManipulationRun, __doc__), RECIPE)
