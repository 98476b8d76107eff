"""Metrics on disk: a table that survives interruptions, and TensorBoard."""

from __future__ import annotations

import csv
import io
import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mjx_policies.errors import UserError
from mjx_policies.files import read_plain_file, write_atomic

Number = int | float | np.number
WALL_CLOCK = ("seconds", "steps_per_second")
"""Columns that differ between two runs of the same configuration; all others are equal bit for bit."""


class MetricsCsv:
    """A CSV table with a row per logged iteration; its first column is `step`.

    A metric that appears later gets a new column at the end, empty in the rows above. Numbers are written with as many
    digits as they need to be read back exactly.

    Args:
      path: the file.
      resume_at: `None` starts a new table. A step keeps the rows up to and including it, and drops what an interrupted
        run wrote after its last checkpoint.

    Raises:
      UserError: the file is there although the run is new, or is no such table.
    """

    def __init__(self, path: Path, resume_at: int | None = None):
        self.path = Path(path)
        self.columns = ["step"]
        rows: list[list[str]] = []
        if self.path.exists():
            if resume_at is None:
                raise UserError(f"{self.path} is there already. Choose another --run-dir or pass --resume.")
            self.columns, rows = read_table(self.path)
        kept = [row for row in rows if int(row[0]) <= (resume_at or 0)]
        self._rewrite(kept)

    def write(self, *rows: Mapping[str, Number]) -> None:
        """Appends rows, `step` included; the operating system has them when this returns."""
        new = list(dict.fromkeys(name for row in rows for name in row if name not in self.columns))
        if new:
            _, before = read_table(self.path)
            self._file.close()
            self.columns += new
            self._rewrite([[*cells, *[""] * len(new)] for cells in before])
        for row in rows:
            cells = [format_number(row[name]) if name in row else "" for name in self.columns]
            self._file.write(_csv_line(cells))
        self._file.flush()

    def sync(self) -> None:
        """Puts the rows on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _rewrite(self, rows: list[list[str]]) -> None:
        write_atomic(self.path, "".join(map(_csv_line, [self.columns, *rows])))
        self._file = open(self.path, "a", encoding="utf-8", newline="")  # noqa: SIM115


class TensorBoard:
    """Writes the same rows for TensorBoard.

    Args:
      folder: of the event files.
      resume_at: the step up to which earlier event files count.
    """

    def __init__(self, folder: Path, resume_at: int | None = None):
        from tensorboardX.proto.event_pb2 import SessionLog  # slow to import, and not every run wants it
        from tensorboardX.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        # Not the SummaryWriter: its thread dies on a full disk, and whoever writes then waits for it for ever.
        self._file = RecordWriter(str(self.path))
        self._add(file_version="brain.Event:2")
        if resume_at is not None:
            self._add(step=resume_at + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, row: Mapping[str, Number]) -> None:
        """Adds the finite numbers of a row."""
        from tensorboardX.proto.summary_pb2 import Summary

        numbers = {name: float(value) for name, value in row.items() if name != "step" and math.isfinite(value)}
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._add(step=int(row["step"]), summary=Summary(value=values))

    def sync(self) -> None:
        """Puts the rows on the disk."""
        self._file.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._file.close()

    def _add(self, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file.write(Event(wall_time=time.time(), **content).SerializeToString())


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a `MetricsCsv`; a last line that was cut off is left out.

    Raises:
      UserError: not such a table.
    """
    try:
        text = read_plain_file(path, 4 << 30).decode()
        lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no table of metrics: {error}.") from None
    if not lines or lines[0][:1] != ["step"]:
        raise UserError(f"{path} is no table of metrics: its first column is not step.")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(lines[0]) or not line[0].isdecimal():
            raise UserError(f"{path} is damaged in line {number}.")
    return lines[0], lines[1:]


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """Every column of a `MetricsCsv` as float64 [rows], NaN where a cell is empty; see `read_table` for errors."""
    columns, rows = read_table(path)
    try:
        values = np.array([[float(cell or "nan") for cell in row] for row in rows]).reshape(len(rows), len(columns))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    return {name: values[:, index] for index, name in enumerate(columns)}


def format_number(value: Number) -> str:
    """The shortest text that reads back as the same number of the same type."""
    return str(value)


def _csv_line(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
