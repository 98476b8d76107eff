"""Windows a second from a store on the disk, as a learner gets them.

    python experiments/benchmarks/data_feed.py --json data_feed.json

Episodes of random numbers, as large as a robot's; 2 observations and 16 actions a window, in a random order, checked
masks and all, on the device. `ahead` is what the learner waits for if it does nothing else; the same without threads
says what they bring. The store's pages stay in memory once they were read, unless it is larger: see --gigabytes.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from measuring import report_file, write_report
from rich.progress import track
from rich.table import Table

from mjx_policies.data.episodes import Episode
from mjx_policies.data.feed import Feed
from mjx_policies.data.shuffle import Shuffled
from mjx_policies.data.store import build
from mjx_policies.data.windows import WindowConfig, Windows
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.progress import open_console, short_count
from mjx_policies.training.script import clean_errors


@dataclasses.dataclass(frozen=True)
class DataFeed:
    """Windows a second from disk."""

    gigabytes: float = 0.5  # size of the store (GB)
    state: int = 40  # size of an observation
    actions: int = 8  # size of an action
    steps: int = 200  # length of an episode (steps)
    observations: int = 2  # observations in a window
    horizon: int = 16  # actions in a window
    batch: int = 256  # windows in a batch
    seconds: float = 5.0  # length of each measurement (s)
    threads: tuple[int, ...] = (1, 2)  # numbers of reading threads to measure
    folder: str = ""  # folder of the store, which is deleted again; empty: the system's temporary folder
    json: str = ""  # JSON file for the results
    overwrite: bool = False  # replace the file that --json names

    def __post_init__(self) -> None:
        if self.gigabytes <= 0 or self.seconds <= 0 or not self.threads:
            raise ValueError("gigabytes and seconds must be above zero, and threads must hold at least one number")


def main(bench: DataFeed) -> None:
    console, report = open_console(), report_file(bench)
    row = 4 * (bench.state + bench.actions)
    count = max(1, round(bench.gigabytes * 1e9 / row / bench.steps))
    with tempfile.TemporaryDirectory(dir=bench.folder or None) as temporary:
        store = build(Path(temporary, "store"), track(episodes(bench, count), "building", count, console=console))
        windows = Windows(store, WindowConfig(bench.observations, bench.horizon))
        sampler = Shuffled(len(windows))
        sampler(0, bench.batch)  # the order is drawn once an epoch, and is no part of what is measured
        found = {}
        for threads in bench.threads:
            with console.status(f"measuring {threads} threads"):
                found[threads] = measure(bench, windows, sampler, threads)
    table = Table(title=f"{len(windows):,} windows, {count * bench.steps * row / 1e9:.2f} GB", title_justify="left")
    for title in ("threads", "windows/s", "batches/s", "MB/s to the device"):
        table.add_column(title, justify="right")
    size = 4 * (bench.observations * bench.state + bench.horizon * bench.actions)
    for threads, rate in found.items():
        table.add_row(f"{threads}", short_count(rate), f"{rate / bench.batch:,.0f}", f"{rate * size / 1e6:,.0f}")
    console.print(table)
    write_report(report, bench, {"windows_per_second": {f"{threads}": rate for threads, rate in found.items()}})


def episodes(bench: DataFeed, count: int):
    rng = np.random.default_rng(0)
    zero = np.zeros(bench.steps, np.float32)
    for _ in range(count):
        state = rng.standard_normal((bench.steps, bench.state), np.float32)
        action = rng.standard_normal((bench.steps, bench.actions), np.float32)
        yield Episode({"state": state}, action, zero, False, None, "random", 20)


def measure(bench: DataFeed, windows: Windows, sampler: Shuffled, threads: int) -> float:
    """Windows a second."""
    with Feed(lambda number: windows.take(sampler(number, bench.batch)), threads=threads) as feed:
        for _ in range(10):
            jax.block_until_ready(next(feed))
        begin, batches = time.perf_counter(), 0
        while time.perf_counter() - begin < bench.seconds:
            jax.block_until_ready(next(feed))
            batches += 1
        return batches * bench.batch / (time.perf_counter() - begin)


if __name__ == "__main__":
    with clean_errors(ValueError):
        main(parse_arguments(DataFeed, __doc__))
