"""Description of a dataset as Markdown: `python -m mjx_policies.data.describe demos`.

Formats without a rate need it: `--fps 20`.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from pathlib import Path

import numpy as np
import tyro

from mjx_policies.data.dataset import Dataset, readable, remarks
from mjx_policies.data.formats import read
from mjx_policies.data.statistics import DatasetStatistics, statistics_of
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.progress import duration, open_console
from mjx_policies.training.script import clean_errors
from mjx_policies.training.waiting import working

MAX_ROWS = 64  # numbers of one array that are listed


@dataclasses.dataclass(frozen=True)
class Describe:
    """Prints what a dataset holds."""

    path: tyro.conf.Positional[Path]  # dataset: folder of LeRobot or Minari, or file of robomimic
    fps: float | None = None  # steps per second, where the files do not say
    statistics: bool = False  # read every episode for outcomes and the range of each number


def describe(dataset: Dataset) -> str:
    """Describes a dataset from its metadata, without reading the episodes."""
    lengths = np.asarray(dataset.lengths)
    steps = int(lengths.sum())
    size = f"{len(dataset):,} episodes of {dataset.format}, {steps:,} steps"
    lines = [
        f"# {dataset.path}",
        "",
        f"{size} at {dataset.fps:g} Hz, {duration(steps / dataset.fps)} in all.",
    ]
    if len(lengths):
        lines.append(
            f"Episodes have {lengths.min():,} to {lengths.max():,} steps, {np.median(lengths):g} in the middle."
        )
    lines += ["", f"Tasks: {', '.join(dataset.tasks)}", "", "| array | type | shape of a step |", "|---|---|---|"]
    for name, feature in dataset.features.items():
        lines.append(f"| {name} | {feature.dtype} | {' x '.join(map(str, feature.shape))} |")
    lines += [line for sentence in remarks(dataset) for line in ("", sentence)]
    return "\n".join(lines)


def describe_statistics(found: dict[str, DatasetStatistics]) -> str:
    """The range of every number."""
    lines = ["| number | min | q01 | mean | q99 | max | std |", "|---|---|---|---|---|---|---|"]
    for name, statistics in found.items():
        columns = [getattr(statistics, key) for key in ("minimum", "q01", "mean", "q99", "maximum", "std")]
        for index, row in enumerate(zip(*columns, strict=True)):
            if index == MAX_ROWS:
                lines.append(f"| {name}: {len(statistics.mean) - MAX_ROWS} more | | | | | | |")
                break
            lines.append(f"| {name}[{index}] | {' | '.join(f'{value:.4g}' for value in row)} |")
    return "\n".join(lines)


def main(asked: Describe) -> None:
    """Reads and prints."""
    dataset = read(asked.path, fps=asked.fps)
    console = open_console()
    console.print(describe(dataset), highlight=False)
    if not asked.statistics:
        return
    outcomes: collections.Counter[str] = collections.Counter()
    rewards = []
    with working(console, "reading") as update:

        def episodes():
            say = lambda sentence: console.print(sentence, highlight=False)  # noqa: E731
            for number, episode in enumerate(readable(dataset, say), 1):
                update(f"reading: {number} of {len(dataset)} episodes")
                outcomes["success" if episode.success else "unknown" if episode.success is None else "failure"] += 1
                rewards.append(math.fsum(episode.reward))
                yield episode

        found = statistics_of(episodes())
    words = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
    console.print(f"\nOutcomes: {words}. Mean return: {np.mean(rewards):.4g}\n", highlight=False)
    console.print(describe_statistics(dict(found)), highlight=False)


if __name__ == "__main__":
    with clean_errors():
        main(parse_arguments(Describe, __doc__))
