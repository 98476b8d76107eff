"""What a run of PPO is told: its numbers, its sizes, and the symmetry of its robot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

from flax import struct

from mjx_policies.training.config import at_least
from mjx_policies.types import Array, Number, Observation


@struct.dataclass
class PPOHyper:
    """Numbers of a run: leaves, so a batch of them is a batch of runs.

    Attributes:
      learning_rate: of the first update; constant if `desired_kl` is zero.
      desired_kl: the learning rate is divided by 1.5 where a minibatch moved the policy by more than twice this, and
        multiplied where by less than half (as in rsl_rl).
      final_desired_kl, anneal_updates: `desired_kl` goes to this, geometrically, over so many updates: large steps find
        a gait quickly, small ones make it precise. Zero updates, the default, leave it where it is.
      min_learning_rate, max_learning_rate: its bounds.
      clip: of the probability ratio; one number, or [K], one for each decision.
      decision_weight: of the advantage, likewise: DPPO's discount over the steps of a denoising chain.
      discount, trace_decay: gamma and lambda.
      entropy, final_entropy: weight of the entropy bonus, which goes from the one to the other over as many updates.
        Below zero it narrows the exploration: the mean action alone, which is deployed, must walk as the noisy one did.
      value: weight of the critic's squared error.
      symmetry: weight of the mirror loss; needs a `Symmetry`.
      max_grad_norm: of the gradient of the actor and of the critic.
    """

    learning_rate: Number = 1e-3
    desired_kl: Number = 0.01
    final_desired_kl: Number = 0.01
    anneal_updates: Number = 0.0
    min_learning_rate: Number = 1e-5
    max_learning_rate: Number = 1e-2
    clip: Number = 0.2
    decision_weight: Number = 1.0
    discount: Number = 0.97
    trace_decay: Number = 0.95
    entropy: Number = 0.005
    final_entropy: Number = 0.005
    value: Number = 1.0
    symmetry: Number = 0.0
    max_grad_norm: Number = 1.0

    def __post_init__(self) -> None:
        for name, least, most in HYPER_RANGES:
            value = getattr(self, name)
            # Anything else is a leaf: traced, batched or a placeholder of a tree transformation.
            if isinstance(value, int | float) and not least <= value <= most:
                raise ValueError(f"hyper.{name} is {value:g}, it must lie between {least:g} and {most:g}")
        low, high = self.min_learning_rate, self.max_learning_rate
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            raise ValueError(f"hyper.min_learning_rate {low:g} lies above hyper.max_learning_rate {high:g}")


TINY, HUGE = 1e-12, 1e12  # "above zero" and "finite"
HYPER_RANGES = (
    ("learning_rate", 0.0, HUGE),
    ("desired_kl", 0.0, HUGE),
    ("final_desired_kl", 0.0, HUGE),
    ("anneal_updates", 0.0, HUGE),
    ("min_learning_rate", TINY, HUGE),
    ("max_learning_rate", TINY, HUGE),
    ("clip", TINY, HUGE),
    ("decision_weight", 0.0, HUGE),
    ("discount", 0.0, 1.0),
    ("trace_decay", 0.0, 1.0),
    ("entropy", -HUGE, HUGE),
    ("final_entropy", -HUGE, HUGE),
    ("value", 0.0, HUGE),
    ("symmetry", 0.0, HUGE),
    ("max_grad_norm", TINY, HUGE),
)


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Sizes of a run, and what does not change in it.

    Attributes:
      num_epochs: passes over a rollout.
      num_minibatches: gradient steps in a pass; divides the number of environments.
      normalize: whether the actor's scales of observations are replaced by the moments of what was seen. False for an
        actor that imitation has trained: it knows its observations by the scales of the data.
      density: of a decision, the sum over its numbers, or their mean, as in DPPO, with many numbers of a chunk.
      density_bounds: what the log density of each number is kept within; DPPO's are (-5, 2).
    """

    num_epochs: int = 4
    num_minibatches: int = 4
    normalize: bool = True
    density: Literal["sum", "mean"] = "sum"
    density_bounds: tuple[float, float] | None = None

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
