"""Ranges that grow with what a policy can bear."""

from __future__ import annotations

import dataclasses

from mjx_policies.randomization.terms import Term
from mjx_policies.types import Array


def widened(terms: dict[str, Term], factor: Array | float) -> dict[str, Term]:
    """The terms with their ranges drawn towards the nominal robot (below 1) or away from it (above).

    A factor of 0 leaves the nominal robot, with all terms in place: it runs in the same compiled program.

    Raises:
      ValueError: a term sets a field instead of scaling or adding to it, so that nothing says what is nominal.
    """
    neutral = {"scale": 1.0, "add": 0.0}

    def widen(name: str, term: Term) -> Term:
        if term.operation not in neutral:
            raise ValueError(f"randomization term {name!r} sets its field: its range cannot shrink to the nominal one")
        start = neutral[term.operation]
        low, high = (start + (bound - start) * factor for bound in (term.low, term.high))
        return dataclasses.replace(term, low=low, high=high)

    return {name: widen(name, term) for name, term in terms.items()}
