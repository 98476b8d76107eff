"""Datasets of robomimic, one HDF5 file: https://robomimic.github.io/docs/datasets/overview.html. Axes: T steps.

data                 attributes total, env_args (JSON)
data/demo_0          attribute num_samples
  actions [T, A], rewards [T], dones [T], states [T, 0], obs/<name> [T, ...], next_obs/<name> [T, ...]
mask/<filter>        names of some of the demos

What it has no place for are further attributes of each demo: `success`, `terminated`, `task`, `fps`, `seed`,
`strategy`. In files of others `dones` ends with 1 if the task ended, the rate is the control_freq of robosuite, and
nobody says what succeeded. A rate in neither place must be given.

A file of HDF5 does not survive its writer's death. So each episode is first a file of its own in a folder beside,
`NAME.parts`, which `read` takes as well; `close` makes one of them all.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mjx_policies.data import hdf5
from mjx_policies.data.dataset import Feature, check_fps, check_index, check_memory
from mjx_policies.data.episodes import Episode
from mjx_policies.data.packages import load
from mjx_policies.data.paths import inside
from mjx_policies.deploy.model import show
from mjx_policies.training.errors import UserError
from mjx_policies.training.files import flush_to_disk, replacing

FORMAT = "robomimic"
GYM = 2  # robomimic's EnvType for what is not robosuite
_DEMO = re.compile(r"demo_([0-9]{1,9})")
_OWN = {"success": bool, "terminated": bool, "task": str, "fps": float, "seed": int, "strategy": str}


def recognise(path: Path) -> bool:
    """Whether a path looks like a dataset of this format."""
    return path.suffix in (".hdf5", ".h5") and (path.is_file() or _parts(path).is_dir())


def read(path: str | Path, *, fps: float | None = None, mask: str = "") -> RobomimicDataset:
    """Opens a dataset.

    Args:
      path: the file, also where a writer was killed before it was there.
      fps: steps per second, for files that do not say.
      mask: only the demos of this filter, such as `train`.

    Raises:
      UserError: it is missing, damaged, reaches into other files, or its rate is unknown.
    """
    return RobomimicDataset(Path(path), fps, mask)


def write(path: str | Path, episodes: Iterable[Episode], **options: Any) -> None:
    """Writes episodes; see `Writer` for options and errors."""
    with Writer(path, **options) as writer:
        for episode in episodes:
            writer.add(episode)


class RobomimicDataset:
    """See `dataset.Dataset`."""

    format = FORMAT

    def __init__(self, path: Path, fps: float | None = None, mask: str = ""):
        self.path = path
        self.left_out: tuple[str, ...] = ()
        if path.exists() or not _parts(path).is_dir():
            files = [path]
        else:
            names = [file.name for file in _parts(path).glob("demo_*.hdf5")]
            files = [inside(_parts(path), name, hdf5.MAX_FILE) for name in names]
        self._demos: list[tuple[Path, str]] = []
        self.lengths: list[int] = []
        tasks = []
        self.features: dict[str, Feature] = {}
        for file, demo, length, task, found, features in sorted(
            self._scan(files, mask), key=lambda each: _number(each[1])
        ):
            self._demos.append((file, demo))
            self.lengths.append(length)
            tasks.append(task)
            fps = found if fps is None else fps
            self.features = self.features or features
        if not self._demos:
            raise UserError(f"{path} holds no demos.")
        self.tasks = tuple(dict.fromkeys(tasks))
        self.fps = check_fps(fps, path)

    def _scan(self, files: Sequence[Path], mask: str) -> Iterable[tuple[Path, str, int, str, float | None, Any]]:
        """File, name, length, task, rate and features of each demo."""
        for file in files:
            with hdf5.opened(file) as root:
                data = hdf5.subgroup(root, "data")
                environment = _environment(data)
                chosen = set(hdf5.texts(hdf5.subgroup(root, "mask"), mask)) if mask else None
                for name in hdf5.names(data):
                    if _DEMO.fullmatch(name) is None or (chosen is not None and name not in chosen):
                        continue
                    demo = hdf5.subgroup(data, name)
                    features = {"action": _feature(demo, "actions")}
                    observations = hdf5.subgroup(demo, "obs")
                    features |= {key: _feature(observations, key) for key in hdf5.names(observations)}
                    length = hdf5.shape_of(demo, "actions")[0][0]
                    task = hdf5.attribute(demo, "task", str, environment.get("env_name", ""))
                    fps = hdf5.attribute(demo, "fps", float, _control_frequency(environment))
                    yield file, name, length, task, fps, features

    def __len__(self) -> int:
        return len(self._demos)

    def __getitem__(self, index: int) -> Episode:
        file, name = self._demos[check_index(index, len(self))]
        check_memory(self.features.values(), self.lengths[index], f"{name} of {file}")
        with hdf5.opened(file) as root:
            data = hdf5.subgroup(root, "data")
            demo, environment = hdf5.subgroup(data, name), _environment(data)
            samples = hdf5.attribute(demo, "num_samples", int)
            action = hdf5.numbers(demo, "actions")
            if samples is not None and samples != len(action):
                raise UserError(f"{name} has {len(action)} actions, its num_samples is {samples}.")
            observations = hdf5.subgroup(demo, "obs")
            observation = {key: _rows(hdf5.numbers(observations, key)) for key in hdf5.names(observations)}
            final = None
            if hdf5.has(demo, "next_obs"):
                following = hdf5.subgroup(demo, "next_obs")
                final = {key: _rows(hdf5.numbers(following, key))[-1] for key in hdf5.names(following)}
            own = {key: hdf5.attribute(demo, key, kind) for key, kind in _OWN.items()}
            if own["terminated"] is None:
                own["terminated"] = bool(hdf5.has(demo, "dones") and hdf5.numbers(demo, "dones").reshape(-1)[-1:].any())
            own["task"] = environment.get("env_name", "") if own["task"] is None else own["task"]
            own["strategy"] = own["strategy"] or ""
            reward = hdf5.numbers(demo, "rewards") if hdf5.has(demo, "rewards") else np.zeros(len(action))
            return Episode(
                observation=observation,
                action=_rows(action),
                reward=reward.reshape(-1),
                final_observation=final,
                **{**own, "fps": self.fps},
            )


class Writer:
    """Adds episodes to a new file; use it as a context, or call `close`.

    Args:
      path: ends in `.hdf5`; it must not exist yet.
      append: continue one whose writer was killed before it closed it.

    Raises:
      UserError: the file is there already, or parts of it are and `append` is not asked for.
    """

    def __init__(self, path: str | Path, *, append: bool = False):
        load("h5py", "writing a dataset of robomimic")
        self.path = Path(path)
        self._parts = _parts(self.path)
        self._first: Episode | None = None
        if self.path.suffix not in (".hdf5", ".h5"):
            raise UserError(f"a file of robomimic ends in .hdf5, {self.path} does not.")
        if self.path.exists() or self.path.is_symlink():
            raise UserError(f"{self.path} exists already. Choose another path or delete it.")
        if self._parts.exists() != append:
            words = "is what a killed writer left: append, or delete it" if not append else "does not exist"
            raise UserError(f"{self._parts} {words}.")
        self._parts.mkdir(parents=True, exist_ok=append)
        for leftover in self._parts.glob(".*.tmp"):
            leftover.unlink()
        self._count = len(list(self._parts.glob("demo_*.hdf5")))
        if self._count:
            self._first = RobomimicDataset(self.path)[0]

    def __len__(self) -> int:
        return self._count

    def add(self, episode: Episode) -> int:
        """Writes an episode and returns its number. It is on the disk when this returns.

        Raises:
          UserError: it has other observations than those before it, or another rate.
        """
        _check_alike(self._first, episode)
        h5py = load("h5py", "writing a dataset of robomimic")
        path = self._parts / f"demo_{self._count}.hdf5"
        with replacing(path) as temporary:
            with h5py.File(temporary, "w") as file:
                data = _make_data(file, episode, len(episode))
                _make_demo(data.create_group(f"demo_{self._count}"), episode)
            flush_to_disk(temporary)
        flush_to_disk(self._parts)
        self._first = self._first or episode
        self._count += 1
        return self._count - 1

    def remove_last(self) -> None:
        """Takes back the last episode.

        Raises:
          UserError: there is none.
        """
        if not self._count:
            raise UserError(f"{self.path} has no episode that can be taken back.")
        (self._parts / f"demo_{self._count - 1}.hdf5").unlink()
        flush_to_disk(self._parts)
        self._count -= 1
        self._first = self._first if self._count else None

    def close(self) -> None:
        """Makes one file of all; without episodes there is none. May be called twice."""
        if not self._parts.exists():
            return
        if self._first is not None:
            h5py = load("h5py", "writing a dataset of robomimic")
            with replacing(self.path) as temporary:
                with h5py.File(temporary, "w") as file:
                    data = _make_data(file, self._first, 0)
                    for number in range(self._count):
                        with h5py.File(self._parts / f"demo_{number}.hdf5", "r") as part:
                            data.attrs["total"] += part["data"].attrs["total"]
                            part.copy(f"data/demo_{number}", data)
                flush_to_disk(temporary)
            flush_to_disk(self.path.parent)
        shutil.rmtree(self._parts)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()


def _make_data(file: Any, episode: Episode, total: int) -> Any:
    data = file.create_group("data")
    data.attrs["total"] = total
    data.attrs["env_args"] = json.dumps({"env_name": episode.task, "env_type": GYM, "env_kwargs": {}})
    return data


def _make_demo(demo: Any, episode: Episode) -> None:
    steps = len(episode)
    demo.attrs["num_samples"] = steps
    for name, kind in _OWN.items():
        value = getattr(episode, name)
        if value is not None:
            demo.attrs[name] = kind(value)
    demo["actions"] = episode.action
    demo["rewards"] = episode.reward
    demo["dones"] = (np.arange(steps) == steps - 1).astype(np.int64) * int(episode.terminated)
    demo["states"] = np.zeros((steps, 0))  # of MuJoCo, which only robosuite's files have
    for name, values in episode.observation.items():
        packing = {"compression": "gzip", "chunks": (1, *values.shape[1:])} if values.ndim > 3 else {}
        demo.create_dataset(f"obs/{name}", data=values, **packing)
        if episode.final_observation is not None:
            following = np.concatenate([values[1:], episode.final_observation[name][None]])
            demo.create_dataset(f"next_obs/{name}", data=following, **packing)


def _check_alike(first: Episode | None, episode: Episode) -> None:
    if first is None:
        return
    new, old = (
        {"action": each.action.shape[1:], "fps": each.fps}
        | {name: (values.dtype.name, *values.shape[1:]) for name, values in each.observation.items()}
        for each in (episode, first)
    )
    for name in sorted(new.keys() | old.keys()):
        if new.get(name) != old.get(name):
            raise UserError(f"{name} is {new.get(name)} in the episode and {old.get(name)} in those before it.")


def _parts(path: Path) -> Path:
    return path.with_name(f"{path.name}.parts")


def _number(demo: str) -> int:
    found = _DEMO.fullmatch(demo)
    return int(found[1]) if found else -1


def _environment(data: Any) -> Mapping[str, Any]:
    text = hdf5.attribute(data, "env_args", str, "{}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("env_name", ""), str):
        raise UserError(f"env_args is {show(text)}, it must be an object of JSON with a name.")
    return found


def _control_frequency(environment: Mapping[str, Any]) -> float | None:
    options = environment.get("env_kwargs")
    found = options.get("control_freq") if isinstance(options, dict) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _feature(group: Any, name: str) -> Feature:
    shape, dtype = hdf5.shape_of(group, name)
    if not shape:
        raise UserError(f"{group.name} holds {show(name)} as one number, it must have a row for each step.")
    return Feature("float32" if name == "actions" else dtype.name, shape[1:] or (1,))


def _rows(values: np.ndarray) -> np.ndarray:  # [T, ...]
    """With at least one number a step."""
    return values[:, None] if values.ndim == 1 else values
