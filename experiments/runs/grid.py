"""The grid of a sweep: seeds, and values of hyperparameters.

`--seeds 4 --grid hyper.learning_rate=1e-3,3e-3 hyper.discount=0.97,0.99` makes sixteen runs: all seeds of the first
point of the grid, then all of the next. Axes: S runs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from mjx_policies.agents.sweep import seed_keys, stack
from mjx_policies.types import Array

PREFIX = "hyper."
EXAMPLE = "hyper.learning_rate=1e-3,3e-3"

Values = dict[str, float]
"""Name, such as `hyper.learning_rate` -> value."""


class Member(NamedTuple):
    """One run of a sweep.

    Attributes:
      number: by which its policy is loaded.
      config: of the same run alone.
      values: what the grid says of it.
    """

    number: int
    config: Any
    values: Values

    @property
    def point(self) -> str:
        """The run's point of the grid in words; empty where there is no grid."""
        return in_words(self.values)

    @property
    def name(self) -> str:
        """The run in words."""
        about = f"{self.point}, seed {self.config.seed}" if self.values else f"seed {self.config.seed}"
        return f"run {self.number} ({about})"


def in_words(values: Values) -> str:
    """A point of the grid in words.

    Example:
      >>> in_words({"hyper.learning_rate": 1e-3, "hyper.discount": 0.97})
      'learning_rate 0.001, discount 0.97'
    """
    return ", ".join(f"{name.removeprefix(PREFIX)} {value:g}" for name, value in values.items())


def grid_points(grid: Sequence[str], config: Any) -> list[Values]:
    """Every combination of what the entries of a grid offer; one without values where there are no entries.

    Raises:
      ValueError: an entry that is none, a name that is no number of `config.hyper`, or a value that it refuses.
    """
    offers: dict[str, list[float]] = {}
    for entry in grid:
        name, values = _parse(entry, config)
        if name in offers:
            raise ValueError(f"grid is told {name} twice: write all of its values in one entry, such as {EXAMPLE}")
        for value in values:
            try:
                with_values(config.hyper, {name: value})
            except ValueError as error:
                raise ValueError(f"grid is {entry!r}, and {error}") from None
        offers[name] = values
    return [dict(zip(offers, values, strict=True)) for values in itertools.product(*offers.values())]


def members(config: Any) -> list[Member]:
    """The runs of a configuration, in the order of their numbers; one for a run that is no sweep.

    Raises:
      ValueError: a value that does not suit the rest of the configuration.
    """
    found: list[Member] = []
    for values in grid_points(config.grid, config):
        try:
            one = dataclasses.replace(config, seeds=1, grid=(), hyper=with_values(config.hyper, values))
        except ValueError as error:
            raise ValueError(f"grid is wrong at {in_words(values)}: {error}") from None
        changed = [name for name, value in values.items() if dict(_leaves(one.hyper))[name] != value]
        if changed:
            raise ValueError(f"grid is wrong: {changed[0]} follows from the rest of the configuration")
        for seed in range(config.seed, config.seed + config.seeds):
            found.append(Member(len(found), dataclasses.replace(one, seed=seed), values))
    return found


def beginning(config: Any) -> tuple[Array, Any]:
    """Key and hyperparameters of a run, or [S] keys and [S, ...] hyperparameters of a sweep."""
    runs = members(config)
    if len(runs) == 1:
        return jax.random.key(runs[0].config.seed), runs[0].config.hyper
    return seed_keys([run.config.seed for run in runs]), stack([run.config.hyper for run in runs])


def with_values(hyper: Any, values: Mapping[str, float]) -> Any:
    """Hyperparameters with other numbers.

    Raises:
      ValueError: what the hyperparameters object to.
    """
    inner: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        field, _, rest = name.removeprefix(PREFIX).partition(".")
        inner.setdefault(field, {})[rest] = value
    changes = {
        field: each[""] if "" in each else with_values(getattr(hyper, field), each) for field, each in inner.items()
    }
    return dataclasses.replace(hyper, **changes)


def _leaves(hyper: Any, prefix: str = PREFIX) -> Iterator[tuple[str, float]]:
    for field in dataclasses.fields(hyper):
        value = getattr(hyper, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + field.name, value


def _parse(entry: str, config: Any) -> tuple[str, list[float]]:
    given, equals, listed = entry.partition("=")
    name = given.strip().replace("-", "_")
    if not equals:
        raise ValueError(f"grid is {entry!r}: write a name and its values, such as {EXAMPLE}")
    there = [name for name, _ in _leaves(config.hyper)] if hasattr(config, "hyper") else []
    if name in ("seed", "seeds"):
        raise ValueError(f"grid is {entry!r}: how many seeds there are is said by --seeds")
    if name not in there:
        field = name.split(".")[0]
        known = field != PREFIX.rstrip(".") and hasattr(config, field)
        why = "which is the same in all runs of a program, as are all sizes" if known else "and there is no such number"
        raise ValueError(f"grid is {entry!r}, {why}; there are {', '.join(there) or 'none'}")
    values = []
    for text in listed.split(","):
        try:
            values.append(float(text))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            raise ValueError(f"grid is {entry!r}: {text.strip()!r} is no number; write them as in {EXAMPLE}")
    if len(set(values)) < len(values):
        raise ValueError(f"grid is {entry!r}, which names a value twice")
    return name, values
