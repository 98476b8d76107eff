"""Datasets of LeRobot, version 3.0, the format that this project writes unless told otherwise. Axes: T steps.

What LeRobot has no place for stands in further columns of the table of episodes, which it ignores: `success`,
`terminated`, `seed`, `strategy`, and what the last action led to. Files of others say with `next.done` and
`next.success` whether an episode ended and succeeded; there a time limit cannot be told from an end. An episode whose
steps have several tasks has them all, in the order of its steps.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mjx_policies.data.columns import from_arrow, from_pictures, read_rows_of, read_table
from mjx_policies.data.dataset import Feature, check_index, check_memory
from mjx_policies.data.episodes import Episode
from mjx_policies.data.lerobot.episodes import FINAL, MAX_FILE, EpisodeRow, read_rows
from mjx_policies.data.lerobot.layout import (
    ACTION,
    DONE,
    ENVIRONMENT,
    INFO,
    REWARD,
    SUCCESS,
    TASKS,
    fill,
    join,
    observation_name,
    read_info,
)
from mjx_policies.data.lerobot.videos import decode
from mjx_policies.data.lerobot.writer import LeRobotWriter
from mjx_policies.data.packages import load
from mjx_policies.data.paths import inside
from mjx_policies.errors import UserError

FORMAT = "lerobot"
TASK_COLUMNS = frozenset(("task", "__index_level_0__"))


def recognise(path: Path) -> bool:
    """Whether a path seems to hold a dataset of this format."""
    return (path / INFO).exists()


def read(path: str | Path, *, fps: float | None = None) -> LeRobotDataset:
    """Opens a dataset.

    Args:
      path: its folder.
      fps: steps per second, which these datasets say themselves.

    Raises:
      UserError: it is missing, of another version or rate, damaged, or reaches out of its folder.
    """
    dataset = LeRobotDataset(Path(path))
    if fps is not None and fps != dataset.fps:
        raise UserError(f"{path} says that it has {dataset.fps:g} steps a second, not {fps:g}: leave out fps.")
    return dataset


def write(path: str | Path, episodes: Iterable[Episode], **options: Any) -> None:
    """Writes episodes; see `LeRobotWriter` for options and errors."""
    with LeRobotWriter(path, **options) as writer:
        for episode in episodes:
            writer.add(episode)


class LeRobotDataset:
    """See `dataset.Dataset`."""

    format = FORMAT

    def __init__(self, path: Path):
        load("pyarrow", "a dataset of LeRobot")
        self.path = path
        self.info = read_info(path)
        self.rows = read_rows(path, self.info)
        self.fps = self.info.fps
        self.tasks = tuple(dict.fromkeys(task for row in self.rows for task in row.tasks))
        self.lengths = [row.length for row in self.rows]
        self._offsets = []  # of each episode in its file, where episodes lie in order
        ends: dict[tuple[int, int], int] = {}
        for row in self.rows:
            self._offsets.append(ends.get(row.data, 0))
            ends[row.data] = self._offsets[-1] + row.length
        self.left_out, self.robot, self.notes = self.info.left_out, self.info.robot, self.info.notes
        several = sum(len(row.tasks) > 1 for row in self.rows)
        if several:
            self.notes += (f"{several:,} episodes have steps of several tasks: each has all of its tasks.",)
        self.features = {
            observation_name(name): feature
            for name, feature in self.info.features.items()
            if name == ACTION or name.startswith("observation.")
        }
        if self.info.environment:
            own, other = self.features["state"], self.features.pop(observation_name(ENVIRONMENT))
            size = own.shape[0] + other.shape[0]
            self.features["state"] = Feature(own.dtype, (size,), environment=self.info.environment)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Episode:
        row = self.rows[check_index(index, len(self))]
        where = f"episode {row.index} of {self.path}"
        check_memory(self.info.features.values(), row.length, where)
        values = self._steps(row) | {name: self._video(name, row) for name in self.info.videos}
        try:
            return self._episode(row, values)
        except UserError as error:
            raise type(error)(f"{where}: {error}") from None

    def times(self, index: int) -> np.ndarray:  # [T]
        """The times of an episode's steps, s.

        Raises:
          IndexError: there is none with this number.
          UserError: its file is damaged, or has no time stamps.
        """
        row = self.rows[check_index(index, len(self))]
        path = self._data(row)
        table = read_rows_of(path, ["timestamp"], self._offsets[row.index], row.length)
        return from_arrow(table["timestamp"], "float64", (1,), f"timestamp in {path}")[:, 0]

    def _steps(self, row: EpisodeRow) -> dict[str, np.ndarray]:
        """The columns of an episode, by feature: [T, ...]."""
        path = self._data(row)
        names = [name for name in self.info.features if name not in self.info.videos]
        table = read_rows_of(path, [*names, "episode_index", "frame_index"], self._offsets[row.index], row.length)
        episode, frame = (
            from_arrow(table[name], "int64", (1,), f"{name} in {path}")[:, 0]
            for name in ("episode_index", "frame_index")
        )
        if len(table) < row.length or (episode != row.index).any():
            raise UserError(
                f"{path} has {(episode == row.index).sum()} steps of episode {row.index} where the table of episodes "
                f"says {row.length}. Copy the dataset again."
            )
        if not np.array_equal(frame, np.arange(row.length)):
            raise UserError(f"{path} has the steps of episode {row.index} out of order. Copy the dataset again.")
        return {name: self._column(name, table[name], path) for name in names}

    def _data(self, row: EpisodeRow) -> Path:
        relative = fill(self.info.data_path, chunk_index=row.data[0], file_index=row.data[1])
        return inside(self.path, relative, MAX_FILE)

    def _column(self, name: str, column: Any, path: Path) -> np.ndarray:  # [T, ...]
        feature, where = self.info.features[name], f"{name} in {path}"
        if name in self.info.pictures or name in self.info.videos:
            return from_pictures(column, feature.shape, where)
        return from_arrow(column, feature.dtype, feature.shape, where)

    def _video(self, name: str, row: EpisodeRow) -> np.ndarray:  # [T, H, W, 3]
        chunk, file, start = row.videos[name]
        relative = fill(self.info.video_path, video_key=name, chunk_index=chunk, file_index=file)
        path = inside(self.path, relative, MAX_FILE)
        return decode(path, start, row.length, self.fps, self.info.features[name].shape)

    def _episode(self, row: EpisodeRow, values: Mapping[str, np.ndarray]) -> Episode:
        done, succeeded, reward = (values.get(name) for name in (DONE, SUCCESS, REWARD))
        foreign = {
            "terminated": done is not None and bool(done[-1].any()),
            "success": None if succeeded is None else bool(succeeded.any()),
        }
        return Episode(
            observation=self._observation(values),
            action=values[ACTION],
            reward=np.zeros(row.length, np.float32) if reward is None else reward[:, 0],
            task=self._task(row),
            fps=self.fps,
            final_observation=self._final(row) if row.final else None,
            **(foreign if row.own is None else row.own),
        )

    def _final(self, row: EpisodeRow) -> dict[str, np.ndarray]:
        names = [name for name in self.info.features if name.startswith("observation.")]
        table = read_table(row.table, [FINAL + name for name in names], [("episode_index", "=", row.index)])
        return self._observation({name: self._column(name, table[FINAL + name], row.table)[0] for name in names})

    def _observation(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The features that are observations, by our names."""
        found = {observation_name(name): each for name, each in values.items() if name.startswith("observation.")}
        if self.info.environment:
            other = found.pop(observation_name(ENVIRONMENT))
            found["state"] = join(found["state"], other, self.info.environment)
        return found

    def _task(self, row: EpisodeRow) -> str:
        """The tasks of an episode in the order of its steps: the table of episodes names them in any order."""
        if len(row.tasks) < 2:
            return "".join(row.tasks)
        path = self._data(row)
        table = read_rows_of(path, ["task_index"], self._offsets[row.index], row.length)
        numbers = from_arrow(table["task_index"], "int64", (1,), f"task_index in {path}")[:, 0]
        return "; ".join(dict.fromkeys(self._task_of(int(number)) for number in numbers))

    def _task_of(self, number: int) -> str:
        if number not in self._task_names:
            raise UserError(f"{self.path / TASKS} lacks the task {number}. Copy the dataset again.")
        return self._task_names[number]

    @functools.cached_property
    def _task_names(self) -> dict[int, str]:
        """The table of tasks; their words are the index of a data frame, whose name has changed."""
        table = read_table(inside(self.path, TASKS, MAX_FILE), ["task_index"], optional=TASK_COLUMNS)
        words = [table[name].to_pylist() for name in table.column_names if name in TASK_COLUMNS]
        if not words:
            raise UserError(f"{self.path / TASKS} lacks the words of tasks. Copy the dataset again.")
        return dict(zip(table["task_index"].to_pylist(), map(str, words[0]), strict=True))
