"""The protocol of checks: one question, and the result that answers it."""

from __future__ import annotations

import dataclasses
from typing import Protocol, TypeVar

Evidence = TypeVar("Evidence", contravariant=True)


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
      evidence: in numbers.
      finding: one sentence that says what is wrong; empty if nothing is.
      experiment: one sentence that says what to try next; empty if nothing is wrong.
      where: names of the columns of data, or of the curves, that show it.
      step: of the run, at which they do; None for all of it.
      minor: whether it comes after all others: it costs less, or they may be why.
      places: (episode, step) of the first rows of data that show it.
    """

    evidence: str
    finding: str = ""
    experiment: str = ""
    where: tuple[str, ...] = ()
    step: int | None = None
    minor: bool = False
    places: tuple[tuple[int, int], ...] = ()


class Check(Protocol[Evidence]):
    """One question about data, weights, curves or a gradient."""

    def __call__(self, evidence: Evidence, /) -> CheckResult | None:
        """The answer; None where there is too little to say anything."""
        ...


def listed(names: list[str], most: int = 4, count: int = 0) -> str:
    """Names in a sentence, the first few of many; `count` of them if the list is not whole."""
    more = f" and {max(count, len(names)) - most} more" if max(count, len(names)) > most else ""
    return ", ".join(names[:most]) + more


FIXED = ("scales", "frozen", "codebook")
"""Parts of an actor's parameters that no gradient is meant to reach."""


def learns(name: str) -> bool:
    """Whether a parameter, named as in `trees.leaf_names`, is meant to move."""
    return not set(name.split(".")) & set(FIXED)
