"""Reads datasets of Minari kept in HDF5: https://minari.farama.org/content/dataset_standards. Axes: T steps.

<name>/data/metadata.json      data_format, dataset_id, ...
<name>/data/main_data.hdf5     episode_0: attributes id, seed, total_steps
  observations [T + 1, ...] or a group of such, actions [T, A], rewards, terminations, truncations [T], infos

There is one more observation than actions: the last is what the last action led to. A plain observation becomes
`state`, a dict one entry for each name, nested names joined by `_`. Minari knows no rate, so it must be given, and says
of success only what `infos/success` holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mjx_policies.data import hdf5
from mjx_policies.data.dataset import Feature, check_fps, check_index, check_memory
from mjx_policies.data.episodes import Episode
from mjx_policies.data.paths import inside
from mjx_policies.deploy.model import show
from mjx_policies.training.errors import UserError
from mjx_policies.training.files import read_json

FORMAT = "minari"
MAX_JSON = 2**26  # bytes
MAX_DEPTH = 8  # of nested observations
_EPISODE = re.compile(r"episode_([0-9]{1,9})")


def recognise(path: Path) -> bool:
    """Whether a path looks like a dataset of this format."""
    return (_folder(path) / "metadata.json").exists()


def read(path: str | Path, *, fps: float | None = None) -> MinariDataset:
    """Opens a dataset.

    Args:
      path: its folder, or the folder `data` in it.
      fps: steps per second.

    Raises:
      UserError: it is missing, damaged, of another kind, reaches into other files, or the rate was not given.
    """
    return MinariDataset(Path(path), fps)


class MinariDataset:
    """See `dataset.Dataset`."""

    format = FORMAT

    def __init__(self, path: Path, fps: float | None):
        self.path = path
        self.fps = check_fps(fps, path)
        self.left_out: tuple[str, ...] = ()
        folder = _folder(path)
        metadata = read_json(folder / "metadata.json", MAX_JSON)
        if not isinstance(metadata, dict):
            raise UserError(f"{folder / 'metadata.json'} must be an object of JSON.")
        kind = metadata.get("data_format", "hdf5")
        if kind != "hdf5":
            raise UserError(f"{path} keeps its data as {show(kind)}, this package reads hdf5: convert it with Minari.")
        identifier = metadata.get("dataset_id", path.name)
        if not isinstance(identifier, str):
            raise UserError(f"{folder / 'metadata.json'} gives dataset_id as {show(identifier)}, it must be text.")
        self.tasks = (identifier,)
        self._file = inside(folder, "main_data.hdf5", hdf5.MAX_FILE)
        with hdf5.opened(self._file) as root:
            numbers = sorted(int(found[1]) for name in hdf5.names(root) if (found := _EPISODE.fullmatch(name)))
            if not numbers or numbers != list(range(len(numbers))):
                raise UserError("it has no episodes, or not all from 0 to the last.")
            groups = [hdf5.subgroup(root, f"episode_{number}") for number in numbers]
            self.lengths = [hdf5.shape_of(group, "rewards")[0][0] for group in groups]
            first = groups[0]
            self.features = {"action": _feature(*hdf5.shape_of(first, "actions"), "float32")}
            for name, group, key in _observations(first):
                self.features[name] = _feature(*hdf5.shape_of(group, key))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Episode:
        index = check_index(index, len(self))
        check_memory(self.features.values(), self.lengths[index] + 1, f"episode {index} of {self._file}")
        with hdf5.opened(self._file) as root:
            group = hdf5.subgroup(root, f"episode_{index}")
            action, reward = hdf5.numbers(group, "actions"), hdf5.numbers(group, "rewards").reshape(-1)
            if action.dtype.kind != "f":
                raise UserError(
                    f"episode {index} has actions of the type {action.dtype}: only continuous ones are read."
                )
            rows = {name: hdf5.numbers(parent, key) for name, parent, key in _observations(group)}
            for name, values in rows.items():
                if values.ndim == 0 or len(values) != len(action) + 1:
                    raise UserError(
                        f"episode {index} has {name} of the shape {list(values.shape)} for {len(action)} actions: "
                        "Minari keeps one observation more than actions."
                    )
            rows = {name: values.reshape(len(values), *(values.shape[1:] or (1,))) for name, values in rows.items()}
            terminations = hdf5.numbers(group, "terminations").reshape(-1)
            if not len(reward) == len(terminations) == len(action):
                raise UserError(f"episode {index} has {len(action)} actions, {len(reward)} rewards: they must agree.")
            return Episode(
                observation={name: values[:-1] for name, values in rows.items()},
                action=action.reshape(len(action), -1),
                reward=reward,
                terminated=bool(terminations[-1:].any()),
                success=_success(group),
                task=self.tasks[0],
                fps=self.fps,
                final_observation={name: values[-1] for name, values in rows.items()},
                seed=hdf5.attribute(group, "seed", int),
            )


def _folder(path: Path) -> Path:
    return path / "data" if (path / "data").is_dir() else path


def _observations(episode: Any) -> Iterator[tuple[str, Any, str]]:
    """Name, group and key of each array of observations."""
    if hdf5.is_group(episode, "observations"):
        yield from _nested(hdf5.subgroup(episode, "observations"), "", 0)
    else:
        yield "state", episode, "observations"


def _nested(group: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any, str]]:
    if depth > MAX_DEPTH:
        raise UserError(f"{group.name} is nested more than {MAX_DEPTH} deep.")
    for key in hdf5.names(group):
        if hdf5.is_group(group, key):
            yield from _nested(hdf5.subgroup(group, key), f"{prefix}{key}_", depth + 1)
        else:
            yield prefix + key, group, key


def _feature(shape: tuple[int, ...], dtype: np.dtype, name: str = "") -> Feature:
    return Feature(name or dtype.name, shape[1:] or (1,))


def _success(episode: Any) -> bool | None:
    if not (hdf5.has(episode, "infos") and hdf5.is_group(episode, "infos")):
        return None
    infos = hdf5.subgroup(episode, "infos")
    return bool(hdf5.numbers(infos, "success").any()) if hdf5.has(infos, "success") else None
