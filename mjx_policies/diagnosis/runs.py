"""The record of a run: its curves, its parameters, and what stopped it. Axes: R rows of the table."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mjx_policies.errors import UserError
from mjx_policies.files import read_json
from mjx_policies.training.checkpoint import CheckpointError, read_checkpoint, verify_checkpoint
from mjx_policies.training.checkpoints import checkpoint_steps
from mjx_policies.training.metrics import read_metrics, read_table

LEARNING = ("loss/", "gradient/", "policy/", "value/", "learning_rate")
"""Prefixes of the columns that learning writes, all of which must be finite."""


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """The record of a run, as far as its folder holds it.

    Attributes:
      curves: {column: [R]} of `metrics.csv`, NaN where a cell is empty.
      not_finite: {column: step} of the first cell that says nan or inf, of what learning writes.
      stopped_by: what was not finite when training stopped; empty if it did not.
      hyper: numbers of the configuration by name; empty if there are none.
      params: {step: {leaf: array}} of the last checkpoints, at most two, in order.
      task: what is learnt; empty if the configuration does not say.
      horizon: actions in a chunk of the policy; None if the configuration does not say.
    """

    curves: dict[str, np.ndarray]
    not_finite: dict[str, int] = dataclasses.field(default_factory=dict)
    stopped_by: tuple[str, ...] = ()
    hyper: dict[str, float] = dataclasses.field(default_factory=dict)
    params: dict[int, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    task: str = ""
    horizon: int | None = None

    def curve(self, *names: str) -> np.ndarray:  # -> [at most R]
        """The finite values of the first of these columns that the table has; empty if it has none."""
        for name in names:
            values = self.curves.get(name, np.zeros(0))
            values = values[np.isfinite(values)]
            if len(values):
                return values
        return np.zeros(0)

    def steps(self, name: str) -> np.ndarray:  # -> [at most R]
        """The steps of the values that `curve` gives for a column."""
        values = self.curves.get(name, np.zeros(0))
        return self.curves.get("step", np.arange(len(values)))[np.isfinite(values)]

    def step(self, name: str, index: int | np.integer) -> int | None:
        """The step of one of the values of a column; None where there are none."""
        steps = self.steps(name)
        return int(steps[index]) if len(steps) else None


def read_run(path: Path, number: int = 0) -> Run:
    """Reads a run folder, finished or still training, and leaves it alone; damaged checkpoints are passed over.

    Args:
      path: the folder.
      number: of the run, in the folder of a sweep; what `hyper` says is the same for all of these.

    Raises:
      UserError: it is no run folder, or its table is damaged.
    """
    table = path / "metrics.csv"
    if not table.is_file():
        raise UserError(f"{path} is not a run folder (it has no metrics.csv): pass the folder that training printed.")
    several = (path / "sweep.csv").is_file()
    if several:
        table = path / "sweep.csv"
    columns, rows = read_table(table)
    curves = read_metrics(table)
    if several and rows:
        chosen = curves["number"] == number
        rows = list(itertools.compress(rows, chosen))
        curves = {name: values[chosen] for name, values in curves.items()}
    not_finite = {}
    for index, name in enumerate(columns):
        bad = [int(row[0]) for row in rows if row[index].lstrip("+-").lower() in ("nan", "inf", "infinity")]
        if bad and name.startswith(LEARNING):
            not_finite[name] = bad[0]
    file = read_json(path / "config.json") if (path / "config.json").exists() else {}
    config = file.get("config") if isinstance(file, dict) else None
    config = config if isinstance(config, dict) else {}
    task, horizon = config.get("task"), config.get("horizon")
    return Run(
        curves=curves,
        not_finite=not_finite,
        stopped_by=_stopped_by(path / "crash"),
        hyper=_numbers(config),
        params=_params(path / "checkpoints", number if several else None),
        task=task if isinstance(task, str) else "",
        horizon=horizon if isinstance(horizon, int) else None,
    )


def _numbers(config: dict[str, Any]) -> dict[str, float]:
    """The numbers of a configuration's `hyper`, whatever kind of run it is."""
    hyper = config.get("hyper")
    hyper = hyper if isinstance(hyper, dict) else {}
    return {name: float(value) for name, value in hyper.items() if isinstance(value, int | float)}


def _stopped_by(folder: Path) -> tuple[str, ...]:
    for step in reversed(checkpoint_steps(folder)):
        try:
            said = verify_checkpoint(folder / f"{step:012d}")["meta"].get("not_finite")
        except CheckpointError:
            continue
        if isinstance(said, list):
            return tuple(str(line)[:200] for line in said)
    return ()


def _params(folder: Path, number: int | None) -> dict[int, dict[str, np.ndarray]]:
    found: dict[int, dict[str, np.ndarray]] = {}
    for step in reversed(checkpoint_steps(folder)):
        path = folder / f"{step:012d}"
        try:
            leaves = verify_checkpoint(path)["leaves"]
            roots = [name.split(".params.")[0] + ".params" for name in leaves if ".params." in name]
            roots += ["params"] * any(name.startswith("params.") for name in leaves)
            if not roots:
                return {}
            at = min(roots, key=lambda root: (root.count("."), root))
            kinds = {name[len(at) + 1 :]: kind for name, kind in leaves.items() if name.startswith(f"{at}.")}
            template = {name: _shape(kind) for name, kind in kinds.items()}
            params = read_checkpoint(path, template, at=at)[0]
            found[step] = {name: leaf if number is None else leaf[number] for name, leaf in params.items()}
        except (CheckpointError, ValueError, TypeError):
            continue
        if len(found) == 2:
            break
    return {step: jax.device_get(found[step]) for step in sorted(found)}


def _shape(kind: str) -> jax.ShapeDtypeStruct:
    """The shape and type that `trees.describe` writes as `float32[3,4]`."""
    dtype, _, shape = kind.rstrip("]").partition("[")
    return jax.ShapeDtypeStruct(tuple(int(size) for size in shape.split(",") if size), np.dtype(dtype))
