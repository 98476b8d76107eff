"""An evaluation as a file and as a table on the terminal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from mjx_policies.errors import UserError
from mjx_policies.evaluation.statistics import Estimate
from mjx_policies.files import read_json, write_json

Evaluation = Mapping[str, Mapping[str, Estimate]]
"""Condition -> name of a figure -> its estimate."""

MANY = 2  # conditions that fit beside each other in 80 columns
CHIEF = ("success", "tracking", "completion", "falls", "return")  # of which the first two that there are stand for all


def write_evaluation(path: Path, evaluation: Evaluation, about: Mapping[str, Any]) -> None:
    """Writes `evaluation.json`: the figures with their 95 % intervals, and `about` how they were made."""
    write_json(path, {**about, "interval": 0.95, "conditions": as_json(evaluation)})


def read_evaluation(path: Path) -> Evaluation:
    """Reads what `write_evaluation` wrote; what was not finite is NaN.

    Raises:
      UserError: the file cannot be read, or another program wrote it.
    """
    data: Any = read_json(path)
    try:
        return from_json(data["conditions"])
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"{path} holds no evaluation: another program wrote it.") from None


def from_json(data: Any) -> Evaluation:
    """An evaluation of what `as_json` made of it; AttributeError, KeyError or TypeError where it is something else."""
    return {
        condition: {name: _estimate(values) for name, values in estimates.items()}
        for condition, estimates in data.items()
    }


def read_success(path: Path) -> Estimate:
    """The success rate in the nominal condition, of what `write_evaluation` wrote.

    Raises:
      UserError: the file cannot be read, or says nothing of it.
    """
    try:
        return read_evaluation(path)["nominal"]["success"]
    except KeyError:
        raise UserError(f"{path} says nothing of success: another program wrote it.") from None


def as_json(evaluation: Evaluation) -> dict[str, dict[str, dict[str, float | None]]]:
    """An evaluation as JSON data; what is not finite is null."""
    return {
        condition: {name: _finite(dataclasses.asdict(estimate)) for name, estimate in estimates.items()}
        for condition, estimates in evaluation.items()
    }


def evaluation_table(evaluation: Evaluation, title: str, leave_out: str = "reward/") -> Table:
    """One row for each figure, one column for each condition; names that begin with `leave_out` stay out.

    More than `MANY` conditions have one row each, with two figures of `CHIEF` alone.
    """
    table = Table(title=title, title_justify="left")
    if len(evaluation) > MANY:
        first = next(iter(evaluation.values()))
        chosen = [name for name in CHIEF if name in first][:2]
        table.add_column("[95 %]")
        for name in chosen:
            table.add_column(name, justify="right")
        for condition, estimates in evaluation.items():
            table.add_row(condition, *(_cell(estimates, name) for name in chosen))
        return table
    table.add_column("")
    for condition in evaluation:
        table.add_column(f"{condition} [95 %]", justify="right")
    names = dict.fromkeys(name for estimates in evaluation.values() for name in estimates)
    for name in names:
        if not name.startswith(leave_out):
            table.add_row(name, *(_cell(estimates, name) for estimates in evaluation.values()))
    return table


def _cell(estimates: Mapping[str, Estimate], name: str) -> str:
    return str(estimates[name]) if name in estimates else "–"


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _estimate(values: Mapping[str, Any]) -> Estimate:
    found: dict[str, Any] = {name: math.nan if value is None else value for name, value in values.items()}
    return Estimate(**found)
