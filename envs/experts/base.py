"""The protocol of scripted experts. Axes: A actions.

An expert solves one task the way a person would, and no two people alike: each episode has its strategy, its pace, its
aiming errors and its pauses. What it does follows from what it sees now, not from a schedule, so it goes on from any
state, whoever led there. Write for one robot; batches come from `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from flax import struct

from mjx_policies.envs.base import EnvState
from mjx_policies.envs.experts.human import Hand, Manner
from mjx_policies.types import Array


@struct.dataclass
class ExpertState:
    """The state that an expert carries through an episode.

    Attributes:
      manner: how it goes about this episode.
      hand: what its hand is in the middle of.
      intended: [A] the action it meant in the last step, before tremor: a cleaner target to imitate than the action
        that was executed (Laskey et al. 2017, arXiv:1703.09327).
    """

    manner: Manner
    hand: Hand
    intended: Array


class Expert(NamedTuple):
    """A scripted person who solves a task.

    Attributes:
      init: `(key, env_state) -> expert_state`, at any moment of an episode: draws strategy, pace and habits.
      act: `(expert_state, env_state, key) -> (action [A], expert_state)`, the action in [-1, 1].
      label: `env_state -> action [A]`: what it would do here with a steady hand that is already on its way. All of it,
        the strategy too, depends on the state alone, so it answers for states that another policy visits.
      strategies: their names; `expert_state.manner.strategy` is an index.
    """

    init: Callable[[Array, EnvState], ExpertState]
    act: Callable[[ExpertState, EnvState, Array], tuple[Array, ExpertState]]
    label: Callable[[EnvState], Array]
    strategies: tuple[str, ...]
