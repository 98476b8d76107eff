"""All episodes end to end in a few arrays, in memory or in files that are mapped: what windows are cut from.

Formats on disk are for exchange and are slow to reach into. A store is made once from any of them; its files may be
larger than memory, since only the rows that are asked for are read. Learning is in float32, so float64 becomes that.
Axes: E episodes, N steps of all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mjx_policies.data.episodes import NAME, Episode
from mjx_policies.data.paths import inside
from mjx_policies.errors import UserError
from mjx_policies.files import flush_to_disk, flush_tree_to_disk, read_json, write_json
from mjx_policies.text import show

FORMAT = 1
INFO = "store.json"
MAX_FILE = 2**50  # bytes
MAX_INFO = 2**28  # bytes
_TYPE = re.compile(r"[<|][fiub][1248]")


@dataclasses.dataclass(frozen=True)
class Store:
    """Episodes end to end, as one array for each feature.

    Attributes:
      arrays: {name: [N, ...]}; observations by name, and `action`.
      lengths: [E] steps of each episode, in order.
      task: [E] index into `tasks`.
      tasks: their names.
      fps: steps per second.
    """

    arrays: Mapping[str, np.ndarray]
    lengths: np.ndarray
    task: np.ndarray
    tasks: tuple[str, ...]
    fps: float

    @property
    def starts(self) -> np.ndarray:  # [E]
        """The first step of each episode."""
        return np.cumsum(self.lengths) - self.lengths


def in_memory(episodes: Iterable[Episode], names: Sequence[str] = ()) -> Store:
    """Builds a store in memory.

    Args:
      episodes: with the same observations.
      names: of observations to keep; all of them by default.

    Raises:
      UserError: there are none, they differ, or lack a name.
    """
    parts: dict[str, list[np.ndarray]] = {}
    lengths, task, tasks, fps = _gather(episodes, names, lambda name, rows: parts.setdefault(name, []).append(rows))
    return Store({name: np.concatenate(rows) for name, rows in parts.items()}, lengths, task, tasks, fps)


def fingerprint(store: Store) -> dict[str, Any]:
    """Tells stores apart: `episodes`, `steps`, and the `sha256` of all that a store holds, which is read once."""
    digest = hashlib.sha256()
    kinds = {name: [str(array.dtype), *array.shape[1:]] for name, array in sorted(store.arrays.items())}
    digest.update(json.dumps([kinds, list(store.tasks), float(store.fps)]).encode())
    for array in (store.lengths, store.task, *(store.arrays[name] for name in kinds)):
        digest.update(np.ascontiguousarray(array).data)
    return {"episodes": len(store.lengths), "steps": int(store.lengths.sum()), "sha256": digest.hexdigest()}


def build(
    folder: str | Path,
    episodes: Iterable[Episode],
    names: Sequence[str] = (),
    report: Callable[[int], None] = lambda done: None,
) -> Store:
    """Writes episodes to a new folder, one at a time, and opens it; it appears once it is complete.

    Args:
      folder: must not exist.
      episodes, names: see `in_memory`.
      report: called with the number of episodes that are done.

    Raises:
      UserError: as `in_memory`, or the folder exists.
    """
    folder = Path(folder)
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists already. Choose another path, open it, or delete it.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    files: dict[str, Any] = {}
    kinds: dict[str, np.ndarray] = {}
    try:
        with contextlib.ExitStack() as stack:

            def append(name: str, rows: np.ndarray) -> None:
                if name not in files:
                    files[name] = stack.enter_context(open(temporary / f"{name}.bin", "wb"))
                    kinds[name] = rows[:1]
                np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).tofile(files[name])

            lengths, task, tasks, fps = _gather(_counted(episodes, report), names, append)
        info = {
            "format": FORMAT,
            "fps": fps,
            "tasks": list(tasks),
            "lengths": lengths.tolist(),
            "task": task.tolist(),
            "arrays": {
                name: {"type": kind.dtype.newbyteorder("<").str, "shape": list(kind.shape[1:])}
                for name, kind in kinds.items()
            },
        }
        write_json(temporary / INFO, info)
        flush_tree_to_disk(temporary)
        temporary.rename(folder)
        flush_to_disk(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return open_store(folder)


def open_store(folder: str | Path) -> Store:
    """Opens what `build` wrote; no rows are read yet.

    Raises:
      UserError: it is missing, of another version, or damaged.
    """
    folder = Path(folder)
    info = read_json(folder / INFO, MAX_INFO)
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        found = info.get("format") if isinstance(info, dict) else None
        raise UserError(
            f"{folder} is a store of the format {show(found)}, this package reads {FORMAT}: build it again."
        )
    try:
        lengths, task = (np.array(info[name], np.int64) for name in ("lengths", "task"))
        tasks, fps, arrays = tuple(map(str, info["tasks"])), float(info["fps"]), dict(info["arrays"])
        described = {name: (str(each["type"]), tuple(map(int, each["shape"]))) for name, each in arrays.items()}
        fits = lengths.ndim == 1 and lengths.shape == task.shape and lengths.min() >= 1
        fits = fits and 0 <= task.min() <= task.max() < len(tasks) and "action" in described
        fits = fits and all(_TYPE.fullmatch(kind) and min(shape, default=1) >= 1 for kind, shape in described.values())
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        fits = False
    if not fits:
        raise UserError(f"{folder / INFO} describes no store: build it again.")
    rows, mapped = int(lengths.sum()), {}
    for name, (kind, shape) in described.items():
        if name != "action" and not NAME.fullmatch(name):
            raise UserError(f"{folder / INFO} names the array {show(name)}: build it again.")
        path = inside(folder, f"{name}.bin", MAX_FILE)
        expected = rows * int(np.prod(shape, dtype=object)) * np.dtype(kind).itemsize
        if path.stat().st_size != expected:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes, {expected:,} were written: build it again.")
        mapped[name] = np.memmap(path, np.dtype(kind), "r", shape=(rows, *shape))
    return Store(mapped, lengths, task, tasks, fps)


def _counted(episodes: Iterable[Episode], report: Callable[[int], None]) -> Iterable[Episode]:
    for done, episode in enumerate(episodes, 1):
        yield episode
        report(done)


def _gather(
    episodes: Iterable[Episode], names: Sequence[str], append: Callable[[str, np.ndarray], None]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], float]:
    """Yields the arrays of each episode; returns lengths, tasks of episodes, names of tasks, and the rate."""
    lengths: list[int] = []
    task: list[int] = []
    tasks: dict[str, int] = {}
    kinds: dict[str, Any] = {}
    fps = 0.0
    for episode in episodes:
        missing = [name for name in names if name not in episode.observation]
        if missing:
            raise UserError(f"the episodes have no observation {missing[0]!r}, only {', '.join(episode.observation)}.")
        wanted = names or list(episode.observation)
        arrays = {**{name: episode.observation[name] for name in wanted}, "action": episode.action}
        found: dict[str, Any] = {name: (rows.dtype.name, rows.shape[1:]) for name, rows in arrays.items()}
        found["fps"] = episode.fps
        kinds = kinds or found
        for name in kinds.keys() | found.keys():
            if kinds.get(name) != found.get(name):
                raise UserError(
                    f"{name} is {found.get(name)} in episode {len(lengths)} and {kinds.get(name)} in those before it: "
                    "only like episodes can be put together."
                )
        for name, rows in arrays.items():
            append(name, rows.astype(np.float32) if rows.dtype == np.float64 else rows)
        lengths.append(len(episode))
        task.append(tasks.setdefault(episode.task, len(tasks)))
        fps = episode.fps
    if not lengths:
        raise UserError("there are no episodes. Check the dataset.")
    return np.array(lengths, np.int64), np.array(task, np.int64), tuple(tasks), fps
