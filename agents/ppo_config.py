"""The configuration of PPO: its numbers, its sizes, and the symmetry of its robot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

from flax import struct

from mjx_policies.agents.base import check_hyper
from mjx_policies.training.config import at_least
from mjx_policies.types import Array, Number, Observation


@struct.dataclass
class PPOHyper:
    """Numbers of a run: leaves, so a batch of them is a batch of runs."""

    learning_rate: Number = 1e-3  # of the first update; constant if desired_kl is zero
    # the learning rate is divided by 1.5 where a minibatch moved the policy by more than twice this KL divergence, and
    # multiplied where by less than half (as in rsl_rl)
    desired_kl: Number = 0.01
    final_desired_kl: Number = 0.01  # value after the annealing: large steps find a gait, small ones make it precise
    anneal_updates: Number = 0.0  # updates over which desired_kl, geometrically, and entropy reach their final values
    min_learning_rate: Number = 1e-5  # lower bound of the learning rate
    max_learning_rate: Number = 1e-2  # upper bound of the learning rate
    clip: Number = 0.2  # of the probability ratio; in Python also [K], one for each decision
    decision_weight: Number = 1.0  # of the advantage, likewise: DPPO's discount over the steps of a denoising chain
    discount: Number = 0.97  # gamma
    trace_decay: Number = 0.95  # lambda of GAE
    entropy: Number = 0.005  # weight of the entropy bonus
    # value after the annealing; below zero it narrows the exploration: the mean action alone is deployed
    final_entropy: Number = 0.005
    value: Number = 1.0  # weight of the critic's squared error
    symmetry: Number = 0.0  # weight of the mirror loss; needs a `Symmetry`
    max_grad_norm: Number = 1.0  # the gradients of the actor and of the critic are each clipped to this norm

    def __post_init__(self) -> None:
        positive = ("min_learning_rate", "max_learning_rate", "clip", "max_grad_norm")
        check_hyper(self, positive, portions=("discount", "trace_decay"), signed=("entropy", "final_entropy"))
        low, high = self.min_learning_rate, self.max_learning_rate
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            raise ValueError(f"hyper.min_learning_rate {low:g} lies above hyper.max_learning_rate {high:g}")


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Sizes of a run, and what does not change in it."""

    num_epochs: int = 4  # passes over a rollout
    num_minibatches: int = 4  # gradient steps in a pass; divides the number of environments
    # whether moments of what was seen replace the actor's scales of observations; False for an actor that imitation has
    # trained, which knows its observations by the scales of the data
    normalize: bool = True
    density: Literal["sum", "mean"] = "sum"  # of a decision: over its numbers; DPPO takes the mean for long chunks
    density_bounds: tuple[float, float] | None = None  # of the log density of each number; DPPO's are (-5, 2)

    def __post_init__(self) -> None:
        at_least(self, num_epochs=1, num_minibatches=1)


class Symmetry(NamedTuple):
    """A reflection of the robot that leaves its task unchanged.

    Attributes:
      observation: observations [..., D] -> the mirrored robot's.
      action: actions [..., A] -> the mirrored robot's.
      loss: whether to add the mirror loss of Yu et al. 2018 (arXiv:1801.08093); symmetric networks have none.
    """

    observation: Callable[[Observation], Observation]
    action: Callable[[Array], Array]
    loss: bool = True
