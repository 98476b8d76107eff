"""Reads datasets of Minari kept in HDF5: https://minari.farama.org/content/dataset_standards. Axes: T steps.

<name>/data/metadata.json      data_format, dataset_id, ...
<name>/data/main_data.hdf5     episode_0: attributes id, seed, total_steps
  observations [T + 1, ...] or a group of such, actions [T, A], rewards, terminations, truncations [T], infos

There is one more observation than actions: the last is what the last action led to. A plain observation becomes
`state`, a dict one entry for each name, nested names joined by `_`. Pictures are JPEG files unless the writer was told
otherwise. Minari knows no rate, so it must be given, and says of success only what `infos/success` holds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from mjx_policies.data import hdf5
from mjx_policies.data.columns import decode_pictures, picture_shape
from mjx_policies.data.dataset import Alike, Feature, check_fps, check_index, check_memory
from mjx_policies.data.episodes import Episode
from mjx_policies.data.paths import inside
from mjx_policies.errors import UserError
from mjx_policies.files import read_json
from mjx_policies.text import show

FORMAT = "minari"
MAX_JSON = 2**26  # bytes
_EPISODE = re.compile(r"episode_([0-9]{1,9})")


def recognise(path: Path) -> bool:
    """Whether a path seems to hold a dataset of this format."""
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
        self.robot = ""
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
            if not numbers:
                raise UserError("it has no episodes.")
            alike = Alike()
            for number in numbers:
                with alike.episode(f"episode {number}") as described:
                    group = hdf5.subgroup(root, f"episode_{number}")
                    described.length = hdf5.shape_of(group, "rewards")[0][0]
                    described.features = {"action": _feature(*hdf5.shape_of(group, "actions"), "float32")}
                    observations, described.left_out = _observations(group)
                    described.features |= {name: _observed(parent, key) for name, parent, key in observations}
        self._numbers = numbers
        self.lengths, self.features, self.left_out = alike.lengths, alike.features, alike.left_out
        self._alike = alike
        missing = sorted(set(range(numbers[-1])) - set(numbers))
        words = f"Episodes {', '.join(map(str, missing[:5]))}{' ...' if len(missing) > 5 else ''} are missing."
        self.notes = (words,) if missing else ()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Episode:
        place = check_index(index, len(self))
        index = self._numbers[place]
        self._alike.check(place, self._file)
        check_memory(self.features.values(), self.lengths[place] + 1, f"episode {index} of {self._file}")
        with hdf5.opened(self._file) as root:
            group = hdf5.subgroup(root, f"episode_{index}")
            action, reward = hdf5.numbers(group, "actions"), hdf5.numbers(group, "rewards").reshape(-1)
            if action.dtype.kind != "f":
                raise UserError(
                    f"episode {index} has actions of the type {action.dtype}: only continuous ones are read."
                )
            rows = {name: self._rows(name, parent, key) for name, parent, key in _observations(group)[0]}
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

    def _rows(self, name: str, group: Any, key: str) -> np.ndarray:
        if not hdf5.is_pictures(group, key):
            return hdf5.numbers(group, key)
        files = hdf5.picture_files(group, key)
        return decode_pictures(files, len(files), self.features[name].shape, f"{group.name}/{key}")


def _folder(path: Path) -> Path:
    return path / "data" if (path / "data").is_dir() else path


def _observations(episode: Any) -> tuple[list[tuple[str, Any, str]], list[str]]:
    """See `hdf5.arrays_below`."""
    if hdf5.is_group(episode, "observations"):
        return hdf5.arrays_below(hdf5.subgroup(episode, "observations"), pictures=True)
    return [("state", episode, "observations")], []


def _observed(group: Any, key: str) -> Feature:
    if hdf5.is_pictures(group, key):
        (first,) = hdf5.picture_files(group, key, 1)
        return Feature("uint8", picture_shape(first, f"picture 0 of {group.name}/{key}"))
    return _feature(*hdf5.shape_of(group, key))


def _feature(shape: tuple[int, ...], dtype: np.dtype, name: str = "") -> Feature:
    return Feature(name or dtype.name, shape[1:] or (1,))


def _success(episode: Any) -> bool | None:
    if not (hdf5.has(episode, "infos") and hdf5.is_group(episode, "infos")):
        return None
    infos = hdf5.subgroup(episode, "infos")
    return bool(hdf5.numbers(infos, "success").any()) if hdf5.has(infos, "success") else None
