"""Named test conditions: in what a robot under test differs from its model, one thing at a time or all at once.

All conditions of a task run in one compiled program, since they differ in the ranges alone.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from typing import Any

from mjx_policies.envs.base import DynamicsSampler, Env
from mjx_policies.randomization.domain import DomainRandomization, randomize
from mjx_policies.randomization.pushes import Pushes
from mjx_policies.randomization.terms import Randomization, scale_ranges


@dataclasses.dataclass(frozen=True)
class Condition:
    """A test condition: the randomization of a robot under test.

    Attributes:
      about: in words; empty where the name says it.
      randomization: the ranges.
      terms: which terms of the robot's preset are randomized, wildcards allowed; the others stay nominal.
    """

    about: str
    randomization: DomainRandomization
    terms: tuple[str, ...] = ("*",)


def conditions(task: Env, randomization: DomainRandomization | None = None) -> dict[str, Condition]:
    """The conditions that a task can be tested in.

    `nominal` and `randomized` first; then each kind of randomization alone, `dynamics` being all terms of the robot's
    preset; then each of these terms alone, such as `mass` or `friction`.

    Args:
      task: without wrappers.
      randomization: of `randomized`, of which the others are parts.
    """
    full = DomainRandomization() if randomization is None else randomization
    nothing = full.scaled(0.0)

    def only(**fields: Any) -> DomainRandomization:
        return dataclasses.replace(nothing, **fields)

    found = {
        "nominal": Condition("the robot as its model says", nothing),
        "randomized": Condition("everything at once", full),
        "noise": Condition("noise and bias of the sensors", only(noise=full.noise)),
        "delay": Condition("delay of the actions", only(delay=full.delay, delay_jitter=full.delay_jitter)),
        "latency": Condition("latency of the measurements", only(latency=full.latency)),
    }
    env, dynamics = randomize(task, full)
    if _wraps(env, Pushes):
        found["push"] = Condition("pushes", only(push_velocity=full.push_velocity))
    if isinstance(dynamics, Randomization):
        every = only(dynamics=full.dynamics)
        found["dynamics"] = Condition("masses, friction, motors, ...", every)
        found |= {name: Condition("", every, (name,)) for name in dynamics.terms}
    return found


def apply_condition(task: Env, condition: Condition) -> tuple[Env, DynamicsSampler]:
    """Wraps a task, and says what robots to draw.

    Raises:
      ValueError: a range makes no sense for this robot, or the condition names a term that its preset lacks.
    """
    env, dynamics = randomize(task, condition.randomization)
    if not isinstance(dynamics, Randomization):
        return env, dynamics
    for pattern in condition.terms:
        if not fnmatch.filter(dynamics.terms, pattern):
            raise ValueError(f"the preset of this robot has no term {pattern!r}; it has {', '.join(dynamics.terms)}")
    still = {
        name: term
        for name, term in dynamics.terms.items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in condition.terms)
    }
    return env, dataclasses.replace(dynamics, terms=dynamics.terms | scale_ranges(still, 0.0))


def _wraps(env: Any, kind: type) -> bool:
    return isinstance(env, kind) or (hasattr(env, "env") and _wraps(env.env, kind))
