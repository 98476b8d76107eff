"""The table of episodes of a LeRobotDataset: how long each is, and where its steps and videos lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mjx_policies.data.columns import read_table
from mjx_policies.data.lerobot.layout import INFO, Info
from mjx_policies.data.paths import inside
from mjx_policies.errors import UserError
from mjx_policies.text import show

MAX_FILE = 2**36  # bytes
MAX_STEPS = 2**40
FINAL = "final_observation/"  # begins the columns that hold what an episode's last action led to
OWN = ("success", "terminated", "seed", "strategy")  # columns that LeRobot's own tables lack


@dataclasses.dataclass(frozen=True)
class EpisodeRow:
    """The row of an episode in the table.

    Attributes:
      index: of the episode.
      length: its steps.
      start: number of its first step in the whole dataset; -1 if the table does not say.
      tasks: in words.
      data: chunk and file of its steps.
      videos: chunk and file of its frames, and where in the video they begin (s), by feature.
      table: file that holds this row.
      own: the columns `OWN`, where this package wrote them.
      final: whether what the last action led to is kept.
    """

    index: int
    length: int
    start: int
    tasks: tuple[str, ...]
    data: tuple[int, int]
    videos: Mapping[str, tuple[int, int, float]]
    table: Path
    own: Mapping[str, Any] | None
    final: bool


def read_rows(root: Path, info: Info) -> list[EpisodeRow]:
    """All rows in order.

    Raises:
      UserError: the table is damaged, lacks an episode, or has two of one number that differ. Two that agree are what
        a writer leaves that was killed while it moved episodes into larger files.
    """
    folder = root / "meta" / "episodes"
    found: dict[int, EpisodeRow] = {}
    for name in sorted(path.relative_to(root).as_posix() for path in folder.glob("*/*.parquet")):
        for row in _rows_of(inside(root, name, MAX_FILE), info):
            first = found.setdefault(row.index, row)
            if (first.length, first.tasks) != (row.length, row.tasks):
                raise UserError(f"{folder} has episode {row.index} twice, and differently. Copy the dataset again.")
    if len(found) < info.episodes:
        raise UserError(f"{folder} has {len(found)} episodes, {INFO} counts {info.episodes}: copy the dataset again.")
    if len(found) != max(found, default=-1) + 1:
        raise UserError(f"{folder} leaves out some of the episodes 0 to {max(found)}. Copy the dataset again.")
    return [found[index] for index in range(len(found))]


def _rows_of(path: Path, info: Info) -> list[EpisodeRow]:
    videos = [f"videos/{key}/{part}" for key in info.videos for part in ("chunk_index", "file_index", "from_timestamp")]
    wanted = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index", *videos]
    optional = frozenset(("dataset_from_index", *OWN, *(FINAL + name for name in info.features)))
    table = read_table(path, wanted, optional=optional)
    finals = [name for name in table.column_names if name.startswith(FINAL)]
    kept = table[finals[0]].is_valid().to_pylist() if finals else [False] * len(table)
    entries = table.drop_columns(finals).to_pylist()
    return [_row(entry, has_final, path, info) for entry, has_final in zip(entries, kept, strict=True)]


def _row(entry: dict[str, Any], final: bool, path: Path, info: Info) -> EpisodeRow:
    def whole(name: str, low: int = 0) -> int:
        value = entry[name]
        if type(value) is not int or not low <= value < MAX_STEPS:
            raise UserError(f"{path} gives {name} as {show(value)}, it must be a whole number from {low}.")
        return value

    def seconds(name: str) -> float:
        value = entry[name]
        if not isinstance(value, int | float) or not 0 <= value < MAX_STEPS:
            raise UserError(f"{path} gives {name} as {show(value)}, it must be a time in seconds.")
        return value

    tasks = entry["tasks"]
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise UserError(f"{path} gives tasks as {show(tasks)}, it must be a list of texts.")
    videos = {
        key: (
            whole(f"videos/{key}/chunk_index"),
            whole(f"videos/{key}/file_index"),
            seconds(f"videos/{key}/from_timestamp"),
        )
        for key in info.videos
    }
    return EpisodeRow(
        index=whole("episode_index"),
        length=whole("length", 1),
        start=whole("dataset_from_index") if "dataset_from_index" in entry else -1,
        tasks=tuple(tasks),
        data=(whole("data/chunk_index"), whole("data/file_index")),
        videos=videos,
        table=path,
        own={name: entry[name] for name in OWN} if all(name in entry for name in OWN) else None,
        final=final,
    )
