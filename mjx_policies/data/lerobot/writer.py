"""Writes a LeRobotDataset v3.0 that is whole at every moment.

An episode first gets files of its own, the table of episodes last, each under its name only once it is complete. So a
writer that is killed loses no episode that `add` returned for. Every so often the small files are merged into the first
of them: the merged data take its place, then the merged table, and only then are the others deleted. A kill in between
leaves episodes in two places, which agree.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mjx_policies.data.columns import read_table
from mjx_policies.data.episodes import Episode
from mjx_policies.data.lerobot.episodes import read_rows
from mjx_policies.data.lerobot.layout import (
    ACTION,
    COUNTERS,
    DATA,
    DATA_MB,
    ENVIRONMENT,
    EPISODES,
    FILES_PER_CHUNK,
    INFO,
    MAX_JSON,
    STATS,
    TASKS,
    VIDEO,
    feature_name,
    features_json,
    fill,
    info_json,
    observation_name,
    read_info,
    split,
)
from mjx_policies.data.lerobot.statistics import Summary, combine, summarise, to_json
from mjx_policies.data.lerobot.tables import (
    CAMERAS,
    counters,
    episode_row,
    step_arrays,
    steps_table,
    summaries_of,
    tasks_table,
)
from mjx_policies.data.lerobot.videos import encode
from mjx_policies.data.packages import load
from mjx_policies.data.paths import telling
from mjx_policies.errors import UserError
from mjx_policies.files import flush_to_disk, make_folder, read_json, replacing, write_json
from mjx_policies.training.checkpoint import remove

LOCK = ".lock"
MERGE_EVERY = 256  # episodes


class LeRobotWriter:
    """Adds episodes to a dataset; use it as a context, or call `close`.

    Args:
      path: folder; it must be new or empty, unless `append`.
      append: continue a dataset that this class began, also one whose writer was killed.
      videos: keep RGB pictures as video, which is small and loses detail, instead of PNG files, which do not. A dataset
        that is continued stays as it is.
      robot: name of the robot, for a new dataset.
      action_names: of the numbers of an action, which tell whether they are targets, say, or changes of targets.
      environment: which numbers of the observation `state` are not of the robot but of what is around it, such as
        objects and goals: what policies of LeRobot ask for where there are no pictures. Reading puts them back.

    Raises:
      UserError: the folder holds something, or something else than such a dataset, or another process writes to it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        append: bool = False,
        videos: bool = False,
        robot: str = "",
        action_names: Sequence[str] = (),
        environment: Sequence[int] = (),
    ):
        load("pyarrow", "writing a dataset")
        self.path = Path(path)
        self._videos, self._robot, self._action_names = videos, robot, tuple(action_names)
        self._environment = tuple(environment)
        self._features: dict[str, Any] = {}  # as in meta/info.json
        self._fps = 0.0
        self._tasks: list[str] = []
        self._episodes = self._frames = 0
        self._loose: list[int] = []  # numbers of files that hold one episode
        self._summaries: list[Mapping[str, Summary]] = []
        with telling(self.path, "write"):
            if self.path.exists() and not self.path.is_dir():
                raise UserError(f"{self.path} is a file, and a dataset is a folder. Choose another path.")
            if append and not ((self.path / INFO).exists() or (self.path / LOCK).exists()):
                raise UserError(f"{self.path} holds no dataset to append to. Check the path.")
            if not append and self.path.exists() and any(self.path.iterdir()):
                raise UserError(
                    f"{self.path} holds something already. Choose another path, delete it, or go on with it."
                )
            self._made_folder = not self.path.exists()
            make_folder(self.path, "the dataset")
            self._lock = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if append:
                self._continue()
        except BlockingIOError:
            self.release()
            raise UserError(f"another process writes to {self.path}. Wait for it, or choose another path.") from None
        except BaseException:
            self.release()
            raise

    def __len__(self) -> int:
        return self._episodes

    def add(self, episode: Episode) -> int:
        """Writes an episode and returns its number. It is on the disk when this returns.

        Raises:
          UserError: it does not fit those before it: other observations, types, shapes or another rate.
        """
        places = self._environment if ENVIRONMENT not in map(feature_name, episode.observation) else ()
        episode = self._divided(episode)
        arrays = step_arrays(episode)
        features = features_json(arrays, self._videos, episode.fps, self._action_names, places)
        self._check(features, episode.fps)
        self._features, self._fps = self._features or features, episode.fps
        number = self._episodes
        for name, feature in features.items():
            if feature["dtype"] == "video":
                with replacing(self._make(VIDEO, number, video_key=name)) as temporary:
                    encode(temporary, arrays[name], episode.fps)
                    flush_to_disk(temporary)
        arrays |= counters(len(episode), episode.fps, number, self._frames, self._task(episode.task))
        self._write(self._make(DATA, number), [steps_table(arrays, features)])
        summaries = {name: summarise(values, self._is_camera(name)) for name, values in arrays.items()}
        row = episode_row(episode, number, self._frames, features, summaries)
        self._write(self._make(EPISODES, number), [row])
        self._episodes += 1
        self._frames += len(episode)
        self._summaries.append(summaries)
        self._loose.append(number)
        if number == 0:
            self._write_info()  # counts are put right by a merge: the table of episodes is what is read
        if len(self._loose) >= MERGE_EVERY or self._loose_bytes() > DATA_MB * 2**20:
            self._merge()
        return number

    def remove_last(self) -> None:
        """Takes back the last episode, unless small files have been merged since it was added.

        Raises:
          UserError: there is none that can be taken back.
        """
        number = self._episodes - 1
        if number not in self._loose:
            raise UserError(f"{self.path} has no episode that can still be taken back.")
        table = self.path / fill(EPISODES, number)
        self._frames -= read_table(table)["length"][0].as_py()
        self._episodes = number
        self._loose.pop()
        self._summaries.pop()
        table.unlink()  # first, for what it does not name is not there
        flush_to_disk(table.parent)
        (self.path / fill(DATA, number)).unlink()
        for name, feature in self._features.items():
            if feature["dtype"] == "video":
                (self.path / fill(VIDEO, number, video_key=name)).unlink()
        self._write_info()

    def close(self) -> None:
        """Merges files and writes what describes all episodes. May be called twice."""
        if self._lock < 0:
            return
        if self._episodes:
            self._merge()
            together = {name: combine([each[name] for each in self._summaries]) for name in self._summaries[0]}
            write_json(self.path / STATS, to_json(together))
        self.release()

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            self.release()  # the error may be a full disk

    def release(self) -> None:
        """Lets others write, without what `close` does; what was added is whole. May be called twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def discard(self) -> None:
        """Deletes all that this writer made, for work that failed; not for a dataset that it went on with."""
        self.release()
        for path in self.path.iterdir():
            remove(path)
        if self._made_folder:
            self.path.rmdir()

    def _check(self, features: Mapping[str, Any], fps: float) -> None:
        """Checks that an episode is like those before it; that a first one can be kept as asked."""
        if not self._features:
            for name, feature in features.items():
                if feature["dtype"] == "video" and (feature["shape"][0] % 2 or feature["shape"][1] % 2):
                    size = f"{feature['shape'][0]} by {feature['shape'][1]}"
                    raise UserError(f"{name} is {size}, a video needs even sizes: keep pictures instead of videos.")
            return
        if fps != self._fps:
            raise UserError(f"the episode has {fps:g} steps a second, the dataset {self._fps:g}: they must agree.")
        for name in sorted(features.keys() | self._features.keys()):
            new, old = (_describe(each.get(name)) for each in (features, self._features))
            if new != old:
                raise UserError(f"{name} is {new} in the episode and {old} in the dataset: they must agree.")
        new, old = (", ".join(each[ACTION].get("names") or ()) for each in (features, self._features))
        if new and old and new != old:
            raise UserError(f"the actions of the episode are {new}, those of the dataset {old}: they must agree.")

    def _divided(self, episode: Episode) -> Episode:
        """The episode with the numbers of the environment as an observation of their own."""
        state = episode.observation.get("state")
        name = observation_name(ENVIRONMENT)
        if not self._environment or state is None or name in episode.observation:
            return episode
        if state.ndim != 2 or not {*self._environment} < {*range(state.shape[1])}:
            raise UserError(
                f"the numbers {list(self._environment)} of a state of the shape {list(state.shape[1:])} cannot be "
                "those of the environment: some must be the robot's."
            )

        def divide(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            own, other = split(values["state"], self._environment)
            return {**values, "state": own, name: other}

        final = episode.final_observation
        return dataclasses.replace(
            episode,
            observation=divide(episode.observation),
            final_observation=None if final is None else divide(final),
        )

    def _is_camera(self, name: str) -> bool:
        return name in self._features and self._features[name]["dtype"] in CAMERAS

    def _task(self, task: str) -> int:
        """The number of a task; a new one is written down before rows refer to it."""
        if task not in self._tasks:
            self._tasks.append(task)
            self._write(self.path / TASKS, [tasks_table(self._tasks)])
        return self._tasks.index(task)

    def _write_info(self) -> None:
        info = info_json(self._fps, self._features, self._robot, self._episodes, self._frames, len(self._tasks))
        write_json(self.path / INFO, info)

    def _loose_bytes(self) -> int:
        return sum((self.path / fill(DATA, number)).stat().st_size for number in self._loose)

    def _merge(self) -> None:
        """Puts the episodes of the small files into the first of them."""
        pa = load("pyarrow", "writing a dataset")
        first, others = (self._loose or [0])[0], self._loose[1:]
        if others:
            # Of the first file only its own episode: a merge that was killed may have put the others there already.
            tables = (
                read_table(self.path / fill(DATA, each), filters=[("episode_index", "=", each)]) for each in self._loose
            )
            self._write(self._make(DATA, first), tables)
            rows = pa.concat_tables([read_table(self.path / fill(EPISODES, each)) for each in self._loose])
            for kind in ("data", "meta/episodes"):
                for name, value in (("chunk", first // FILES_PER_CHUNK), ("file", first % FILES_PER_CHUNK)):
                    column = f"{kind}/{name}_index"
                    place = pa.array([value] * len(rows), pa.int64())
                    rows = rows.set_column(rows.column_names.index(column), column, place)
            self._write(self._make(EPISODES, first), [rows])
            for template in (EPISODES, DATA):
                for number in others:
                    (self.path / fill(template, number)).unlink()
        self._loose = []
        self._write_info()

    def _continue(self) -> None:
        """Takes up a dataset, and deletes what a killed writer left of an episode or of a merge."""
        if not (self.path / INFO).exists():  # killed in its first episode
            self._delete_unused(set())
            return
        info = read_info(self.path)
        rows = read_rows(self.path, info)
        described = read_json(self.path / INFO, MAX_JSON)
        if any(row.own is None for row in rows) or (info.data_path, info.video_path) != (DATA, VIDEO):
            raise UserError(f"{self.path} was not written by this package: convert it, then append to the result.")
        self._features = {name: value for name, value in described["features"].items() if name not in COUNTERS}
        self._fps, self._robot = info.fps, described.get("robot_type") or ""
        self._videos, self._environment = bool(info.videos), info.environment
        self._tasks = list(dict.fromkeys(task for row in rows for task in row.tasks))
        self._episodes, self._frames = len(rows), sum(row.length for row in rows)
        used = {row.table for row in rows}
        used |= {self.path / fill(DATA, chunk_index=row.data[0], file_index=row.data[1]) for row in rows}
        for row in rows:
            used |= {
                self.path / fill(VIDEO, video_key=key, chunk_index=chunk, file_index=file)
                for key, (chunk, file, _) in row.videos.items()
            }
        self._delete_unused(used)
        for table in sorted({row.table for row in rows}):
            self._summaries += summaries_of(read_table(table))
        for row in reversed(rows):
            if row.data != (row.index // FILES_PER_CHUNK, row.index % FILES_PER_CHUNK):
                break
            self._loose.insert(0, row.index)
        if rows:
            self._write_info()

    def _delete_unused(self, used: set[Path]) -> None:
        """Deletes files that no row of the table of episodes names: left by a writer that was killed."""
        for folder in ("data", "meta/episodes", "videos"):
            for path in (self.path / folder).rglob("*"):
                if path not in used and (path.is_symlink() or not path.is_dir()):
                    path.unlink()

    def _make(self, template: str, number: int, **values: Any) -> Path:
        path = self.path / fill(template, number, **values)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write(self, path: Path, tables: Iterable[Any]) -> None:
        """One row group for each table, so that an episode is read without its neighbours."""
        parquet = load("pyarrow.parquet", "writing a dataset")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            writer = None
            try:
                for table in tables:
                    writer = writer or parquet.ParquetWriter(temporary, table.schema, compression="snappy")
                    writer.write_table(table)
            finally:
                if writer is not None:
                    writer.close()
            flush_to_disk(temporary)
        flush_to_disk(path.parent)


def _describe(feature: Mapping[str, Any] | None) -> str:
    return "missing" if feature is None else f"{feature['dtype']} {feature['shape']}"
