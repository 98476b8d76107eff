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
    """Hyperparameters; leaves of a pytree, so a batch of them is a batch of runs."""

    learning_rate: Number = 1e-3  # initial learning rate; constant if desired_kl is 0
    # target KL divergence of a minibatch: above twice this value the learning rate is divided by 1.5, below half of it
    # multiplied (as in rsl_rl)
    desired_kl: Number = 0.01
    final_desired_kl: Number = 0.01  # desired_kl after annealing: large steps find a gait, small ones refine it
    anneal_updates: Number = 0.0  # updates until desired_kl (geometrically) and entropy are final
    min_learning_rate: Number = 1e-5  # lower bound of the learning rate
    max_learning_rate: Number = 1e-2  # upper bound of the learning rate
    clip: Number = 0.2  # clipping range of the probability ratio; in Python also [K], one per decision
    decision_weight: Number = 1.0  # weight of the advantage, likewise: DPPO's discount over denoising steps
    discount: Number = 0.97  # discount factor gamma
    trace_decay: Number = 0.95  # lambda of generalised advantage estimation (GAE)
    entropy: Number = 0.005  # coefficient of the entropy bonus
    # entropy after annealing; below 0 it narrows the exploration, since the mean action is what is deployed
    final_entropy: Number = 0.005
    value: Number = 1.0  # coefficient of the value loss, a squared error
    symmetry: Number = 0.0  # coefficient of the mirror loss
    max_grad_norm: Number = 1.0  # maximum gradient norm, of actor and critic each

    def __post_init__(self) -> None:
        positive = ("min_learning_rate", "max_learning_rate", "clip", "max_grad_norm")
        check_hyper(self, positive, portions=("discount", "trace_decay"), signed=("entropy", "final_entropy"))
        low, high = self.min_learning_rate, self.max_learning_rate
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            raise ValueError(f"hyper.min_learning_rate {low:g} lies above hyper.max_learning_rate {high:g}")


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Sizes, and choices that hold for a whole run."""

    num_epochs: int = 4  # epochs per rollout
    num_minibatches: int = 4  # minibatches per epoch; must divide the number of environments
    # normalise observations by running moments; not for an actor trained by imitation, which has the scales of its data
    normalize: bool = True
    density: Literal["sum", "mean"] = "sum"  # log density of a decision, over its numbers; DPPO: mean for long chunks
    density_bounds: tuple[float, float] | None = None  # bounds of each number's log density; DPPO: -5 2

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
