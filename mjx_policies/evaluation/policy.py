"""What evaluation needs of a policy: two pure functions, for one robot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mjx_policies.types import Array, Observation

Carry = Any


class Policy(NamedTuple):
    """A policy that may remember things (a plan, past observations) and may draw.

    Attributes:
      init: `key -> carry`, what it remembers when an episode begins.
      act: `(carry, key, obs, step) -> (action [A], carry)`, with a new key each time. `step` [] counts from zero in
        each episode and is the same for all robots of a batch: `lax.cond(step % execute == 0, ...)` plans once per
        chunk, where a counter in the carry would have every robot plan at every step.
    """

    init: Callable[[Array], Carry]
    act: Callable[[Carry, Array, Observation, Array], tuple[Array, Carry]]


def stateless(action: Callable[[Observation], Array]) -> Policy:
    """A policy that looks at the newest observation alone."""
    return Policy(init=lambda key: (), act=lambda carry, key, obs, step: (action(obs), carry))
