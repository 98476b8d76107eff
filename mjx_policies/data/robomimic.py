"""Datasets of robomimic, one HDF5 file: https://robomimic.github.io/docs/datasets/overview.html. Axes: T steps.

data                 attributes total, env_args (JSON)
data/demo_0          attribute num_samples
  actions [T, A], rewards [T], dones [T], states [T, 0], obs/<name> [T, ...], next_obs/<name> [T, ...]
mask/<filter>        names of some of the demos

What it has no place for are further attributes of each demo: `success`, `terminated`, `task`, `fps`, `seed`,
`strategy`; and of `data`: `mjx_policies`, the names of the robot and its actions (JSON). In files of others `dones`
ends with 1 if the task ended, the rate is the control_freq of robosuite, and nobody says what succeeded. A rate in
neither place must be given. Groups in `obs` are taken apart, their names joined by `_`; texts are left out.

A file of HDF5 does not survive its writer's death. So each episode is first a file of its own in a folder beside,
`NAME.parts`, which `read` takes as well; `close` makes one of them all.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mjx_policies.data import hdf5
from mjx_policies.data.dataset import Alike, Described, Feature, check_index, check_memory, note_integers
from mjx_policies.data.episodes import Episode
from mjx_policies.data.packages import load
from mjx_policies.data.paths import HDF5, inside, telling
from mjx_policies.errors import UserError
from mjx_policies.files import flush_to_disk, make_folder, replacing
from mjx_policies.text import show

FORMAT = "robomimic"
ABOUT = "mjx_policies"  # attribute of `data`: robot, action_names, environment
GYM = 2  # robomimic's EnvType for what is not robosuite
_DEMO = re.compile(r"demo_([0-9]{1,9})")
_OWN = {"success": bool, "terminated": bool, "task": str, "fps": float, "seed": int, "strategy": str}


def recognise(path: Path) -> bool:
    """Whether a path seems to hold a dataset of this format."""
    return path.suffix in HDF5 and (path.is_file() or _parts(path).is_dir())


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
    """Writes episodes; see `RobomimicWriter` for options and errors."""
    with RobomimicWriter(path, **options) as writer:
        for episode in episodes:
            writer.add(episode)


class RobomimicDataset:
    """See `dataset.Dataset`."""

    format = FORMAT

    def __init__(self, path: Path, fps: float | None = None, mask: str = ""):
        self.path = path
        self.notes: tuple[str, ...] = ()
        if path.exists() or not _parts(path).is_dir():
            files = [path]
        else:
            names = [file.name for file in _parts(path).glob("demo_*.hdf5")]
            files = [inside(_parts(path), name, hdf5.MAX_FILE) for name in names]
        self._demos: list[tuple[Path, str]] = []
        self._alike = Alike()
        self.robot = ""
        actions: tuple[str, ...] = ()
        environment: tuple[int, ...] = ()
        integers: set[str] = set()
        by_number = sorted(((file, name) for file in files for name in _demos(file, mask)), key=lambda x: _number(x[1]))
        for file, demos in itertools.groupby(by_number, key=lambda each: each[0]):
            with hdf5.opened(file) as root:
                data = hdf5.subgroup(root, "data")
                self.robot, actions, environment = _about(data)
                _environment(data)  # damage to what all demos share
                for _, name in demos:
                    self._demos.append((file, name))
                    with self._alike.episode(name) as found:
                        _describe(data, name, found)
                        kind = hdf5.shape_of(hdf5.subgroup(data, name), "actions")[1]
                        integers |= {kind.name} if kind.kind != "f" else set()
        if not self._demos:
            raise UserError(f"{path} holds no demos.")
        self.lengths, self.tasks, self.left_out = self._alike.lengths, self._alike.tasks, self._alike.left_out
        self.features = self._alike.features
        self.features["action"] = dataclasses.replace(self.features["action"], names=actions)
        if "state" in self.features:
            self.features["state"] = dataclasses.replace(self.features["state"], environment=environment)
        self.notes = tuple(map(note_integers, sorted(integers)))
        self.fps = self._alike.settle_fps(fps, path)

    def __len__(self) -> int:
        return len(self._demos)

    def __getitem__(self, index: int) -> Episode:
        file, name = self._demos[check_index(index, len(self))]
        self._alike.check(check_index(index, len(self)), file)
        check_memory(self.features.values(), self.lengths[index], f"{name} of {file}")
        with hdf5.opened(file) as root:
            data = hdf5.subgroup(root, "data")
            demo, environment = hdf5.subgroup(data, name), _environment(data)
            samples = hdf5.attribute(demo, "num_samples", int)
            action = hdf5.numbers(demo, "actions")
            if samples is not None and samples != len(action):
                raise UserError(f"{name} has {len(action)} actions, its num_samples is {samples}.")
            observation, following = (_observations(demo, name) for name in ("obs", "next_obs"))
            whole = following.keys() == observation.keys() and all(map(len, following.values()))
            final = {key: rows[-1] for key, rows in following.items()} if whole else None
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


def _demos(file: Path, mask: str) -> list[str]:
    """Names of the demos in a file, or of those in a filter."""
    with hdf5.opened(file) as root:
        chosen = set(hdf5.texts(hdf5.subgroup(root, "mask"), mask)) if mask else None
        found = [name for name in hdf5.names(hdf5.subgroup(root, "data")) if _DEMO.fullmatch(name)]
    return found if chosen is None else [name for name in found if name in chosen]


def _describe(data: Any, name: str, found: Described) -> None:
    """Fills in what is known of a demo before it is read."""
    demo, environment = hdf5.subgroup(data, name), _environment(data)
    shape, _ = hdf5.shape_of(demo, "actions")
    if not shape:
        raise UserError(f"{demo.name} holds 'actions' as one number, it must have a row for each step.")
    observations, found.left_out = hdf5.arrays_below(hdf5.subgroup(demo, "obs"))
    found.length = shape[0]
    found.features = {"action": Feature("float32", shape[1:] or (1,))}
    for key, parent, member in observations:
        rows, dtype = hdf5.shape_of(parent, member)
        found.features[key] = Feature(dtype.name, rows[1:] or (1,))
    found.task = hdf5.attribute(demo, "task", str, environment.get("env_name", ""))
    found.fps = hdf5.attribute(demo, "fps", float, _control_frequency(environment))


def _observations(demo: Any, name: str) -> dict[str, np.ndarray]:
    """The observations of a demo by name; none where the demo has no such group."""
    if not hdf5.has(demo, name):
        return {}
    found, _ = hdf5.arrays_below(hdf5.subgroup(demo, name))
    return {key: _rows(hdf5.numbers(parent, member)) for key, parent, member in found}


class RobomimicWriter:
    """Adds episodes to a new file; use it as a context, or call `close`.

    Args:
      path: ends in `.hdf5`; it must not exist yet.
      append: continue one whose writer was killed before it closed it.
      robot, action_names, environment: see `lerobot.writer.Writer`; they are kept for whoever converts the file.

    Raises:
      UserError: the file is there already, or parts of it are and `append` is not asked for.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        append: bool = False,
        robot: str = "",
        action_names: Sequence[str] = (),
        environment: Sequence[int] = (),
    ):
        load("h5py", "writing a dataset of robomimic")
        self.path = Path(path)
        self._about: dict[str, Any] = {
            "robot": robot,
            "action_names": list(action_names),
            "environment": list(environment),
        }
        self._parts = _parts(self.path)
        self._first: Episode | None = None
        if self.path.suffix not in HDF5:
            raise UserError(f"a file of robomimic ends in .hdf5, {self.path} does not.")
        with telling(self._parts, "write"):
            if self.path.exists() or self.path.is_symlink():
                raise UserError(f"{self.path} exists already. Choose another path or delete it.")
            if self._parts.exists() != append:
                words = "is what a killed writer left: append, or delete it" if not append else "does not exist"
                raise UserError(f"{self._parts} {words}.")
        make_folder(self._parts, "the dataset")
        for leftover in self._parts.glob(".*.tmp"):
            leftover.unlink()
        self._count = len(list(self._parts.glob("demo_*.hdf5")))
        if self._count:
            before = RobomimicDataset(self.path)
            self._first, features = before[0], before.features
            state = features.get("state")
            kept = (before.robot, list(features["action"].names), list(state.environment) if state is not None else [])
            self._about = {name: value or old for (name, value), old in zip(self._about.items(), kept, strict=True)}

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
            # In memory first: where the disk is full, HDF5 may end the process instead of raising an error.
            with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
                data = _make_data(file, episode, len(episode), self._about)
                _make_demo(data.create_group(f"demo_{self._count}"), episode)
                file.flush()
                temporary.write_bytes(file.id.get_file_image())
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
            parts = [self._parts / f"demo_{number}.hdf5" for number in range(self._count)]
            with replacing(self.path) as temporary:
                with open(temporary, "wb") as whole:  # that there is room, see `add`
                    os.posix_fallocate(whole.fileno(), 0, sum(part.stat().st_size for part in parts))
                with h5py.File(temporary, "w") as file:
                    data = _make_data(file, self._first, 0, self._about)
                    for number, path in enumerate(parts):
                        with h5py.File(path, "r") as part:
                            data.attrs["total"] += part["data"].attrs["total"]
                            part.copy(f"data/demo_{number}", data)
                flush_to_disk(temporary)
            flush_to_disk(self.path.parent)
        shutil.rmtree(self._parts)

    def discard(self) -> None:
        """Deletes all that this writer made, for work that failed; not for a dataset that it went on with."""
        shutil.rmtree(self._parts, ignore_errors=True)

    def __enter__(self) -> RobomimicWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()


def _make_data(file: Any, episode: Episode, total: int, about: Mapping[str, Any]) -> Any:
    data = file.create_group("data")
    data.attrs["total"] = total
    data.attrs["env_args"] = json.dumps({"env_name": episode.task, "env_type": GYM, "env_kwargs": {}})
    if any(about.values()):
        data.attrs[ABOUT] = json.dumps(about)
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


def _about(data: Any) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
    """Name of the robot, names of its actions, numbers of its environment, where this package wrote them."""
    try:
        found = json.loads(hdf5.attribute(data, ABOUT, str, "{}"))
        names, environment = tuple(found.get("action_names", ())), tuple(found.get("environment", ()))
        fits = all(isinstance(name, str) for name in names) and all(type(place) is int for place in environment)
        return (str(found.get("robot", "")), names, environment) if fits else ("", (), ())
    except (ValueError, RecursionError, AttributeError, TypeError):
        return "", (), ()  # nothing that an episode needs


def _control_frequency(environment: Mapping[str, Any]) -> float | None:
    options = environment.get("env_kwargs")
    found = options.get("control_freq") if isinstance(options, dict) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _rows(values: np.ndarray) -> np.ndarray:  # [T, ...]
    """The rows of an array, as vectors at least."""
    return values[:, None] if values.ndim == 1 else values


Writer = RobomimicWriter
"""The name that it has in the module of each format, see `formats`."""
