"""Tools that the benchmarks share: taking turns, waiting for results, and writing down what was found."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console

from mjx_policies.files import output_file, write_json
from mjx_policies.training.run_folder import provenance


class Call(NamedTuple):
    """A function to time.

    Attributes:
      run: what is timed, its result included.
      prepare: what comes before it each time and is not.
    """

    run: Callable[[], Any]
    prepare: Callable[[], Any] = lambda: None


@dataclasses.dataclass(frozen=True)
class CallTimes:
    """Seconds of one call: the first one, which compiles, and those after it."""

    first: float
    seconds: list[float]

    @property
    def median(self) -> float:
        """The median time of the calls after the first, s."""
        return statistics.median(self.seconds)


def alternate(calls: Mapping[str, Call], repeats: int, console: Console) -> dict[str, CallTimes]:
    """Times each call `repeats` times, all of them in turn: a slow spell of the machine meets them all alike."""
    first, seconds = {}, {name: [] for name in calls}
    with console.status("") as status:
        for name, call in calls.items():
            status.update(f"compiling: {name}")
            first[name] = _seconds(call)
        for repeat in range(repeats):
            status.update(f"measuring: {repeat + 1} of {repeats}")
            for name, call in calls.items():
                seconds[name].append(_seconds(call))
    return {name: CallTimes(first[name], seconds[name]) for name in calls}


def report_file(bench: Any) -> Path | None:
    """The file that `--json` names, checked before anything is measured; None without it.

    Raises:
      UserError: there is something already, or the place cannot be written.
    """
    return output_file(bench.json, "--json", bench.overwrite) if bench.json else None


def write_report(path: Path | None, config: Any, found: Mapping[str, Any]) -> None:
    """Writes what was found, with the configuration, versions and device, if there is a path."""
    if path is not None:
        write_json(path, {"config": _plain(vars(config)), "made_with": provenance(), **_plain(found)})


def _plain(data: Any) -> Any:
    """JSON has no tuples and no NaN."""
    if isinstance(data, Mapping):
        return {name: _plain(value) for name, value in data.items()}
    if isinstance(data, tuple | list):
        return [_plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _seconds(call: Call) -> float:
    jax.block_until_ready(call.prepare())
    begin = time.perf_counter()
    jax.block_until_ready(call.run())
    return time.perf_counter() - begin
