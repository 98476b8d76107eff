"""Layout of a LeRobotDataset v3.0, https://huggingface.co/docs/lerobot/lerobot-dataset-v3.

meta/info.json                           rate, features, templates of paths
meta/stats.json                          statistics of every feature
meta/tasks.parquet                       task, task_index
meta/episodes/chunk-000/file-000.parquet one row for each episode: length, files, statistics
data/chunk-000/file-000.parquet          one row for each step
videos/<feature>/chunk-000/file-000.mp4  frames of a camera, unless pictures are among the data

LeRobot's policies tell the robot's own state from that of its environment, so what is not the robot's own in our
observation `state` is a feature of its own there; its entry in meta/info.json says where its numbers stood.
"""

from __future__ import annotations

import dataclasses
import math
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mjx_policies.data.columns import is_picture
from mjx_policies.data.dataset import Feature, note_integers
from mjx_policies.data.episodes import NAME
from mjx_policies.errors import UserError
from mjx_policies.files import read_json
from mjx_policies.text import show

VERSION = "v3.0"
FILES_PER_CHUNK = 1000
DATA_MB, VIDEO_MB = 100, 200  # the sizes that files are kept under

INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
PLACES = "places"  # key of the second in meta/info.json: where its numbers stand in the observation `state`
ACTION, REWARD, DONE, SUCCESS = PLAIN = ("action", "next.reward", "next.done", "next.success")
COUNTERS = {
    name: {"dtype": dtype, "shape": [1], "names": None}
    for name, dtype in (
        ("timestamp", "float32"),
        ("frame_index", "int64"),
        ("episode_index", "int64"),
        ("index", "int64"),
        ("task_index", "int64"),
    )
}
"""Features that every dataset has."""

MAX_JSON = 2**26  # bytes
_SPEC = re.compile(r"0?[0-9]?d?")  # of a number in a path: no width that would fill the memory


def feature_name(observation: str) -> str:
    """The name that LeRobot gives an observation: `state` is `observation.state`.

    Example:
      >>> feature_name("state"), feature_name("observation.images.wrist")
      ('observation.state', 'observation.images.wrist')
    """
    return observation if observation.startswith("observation.") else f"observation.{observation}"


def observation_name(feature: str) -> str:
    """The inverse of `feature_name`."""
    name = feature.removeprefix("observation.")
    return feature if "." in name else name


@dataclasses.dataclass(frozen=True)
class Info:
    """The content of `meta/info.json`, checked.

    Attributes:
      fps: steps per second.
      features: by LeRobot's name, those that an episode can hold.
      pictures, videos: names of those that are PNG files or lie in mp4 files.
      left_out: names of the others.
      data_path, video_path: templates.
      episodes: their number, when the file was written.
      robot: its type; empty if nobody says.
      environment: which numbers of our observation `state` are kept as `ENVIRONMENT`; none where that is a feature of
        somebody else's.
      notes: see `dataset.Dataset`.
    """

    fps: float
    features: Mapping[str, Feature]
    pictures: frozenset[str]
    videos: frozenset[str]
    left_out: tuple[str, ...]
    data_path: str
    video_path: str
    episodes: int
    robot: str
    environment: tuple[int, ...]
    notes: tuple[str, ...]


def read_info(root: Path) -> Info:
    """Reads `meta/info.json`.

    Raises:
      UserError: it is missing, of another version, or says what cannot be.
    """
    path = root / INFO
    data = read_json(path, MAX_JSON)
    if not isinstance(data, dict):
        raise UserError(f"{path} must be an object of JSON.")
    check_version(data.get("codebase_version"), root)
    fps, features = data.get("fps"), data.get("features")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not math.isfinite(fps) or fps <= 0:
        raise UserError(f"{path} gives fps as {show(fps)}, it must be a number above zero.")
    if not isinstance(features, dict) or ACTION not in features:
        raise UserError(f"{path} lists no feature {ACTION!r}: an episode without actions is of no use here.")
    kept: dict[str, Feature] = {}
    kinds: dict[str, set[str]] = {"image": set(), "video": set()}
    left_out = []
    for name, feature in features.items():
        if name in COUNTERS:
            continue
        try:
            kind, parsed = _feature(name, feature, path)
        except UserError:
            if name == ACTION or (isinstance(feature, dict) and feature.get("dtype") in kinds):
                raise
            kind, parsed = "", None  # an odd feature that nobody needs
        if parsed is None or not (name in PLAIN or _is_observation(name)):
            left_out.append(name)
            continue
        kept[name] = parsed
        if kind in kinds:
            kinds[kind].add(name)
    if ACTION not in kept or len(kept[ACTION].shape) != 1:
        raise UserError(f"{path} gives the action a dtype or shape that is no vector of numbers.")
    if not any(map(_is_observation, kept)):
        raise UserError(f"{path} lists no feature whose name begins with 'observation.'.")
    return Info(
        fps=fps,
        features=kept,
        pictures=frozenset(kinds["image"]),
        videos=frozenset(kinds["video"]),
        left_out=tuple(left_out),
        data_path=_template(data.get("data_path"), ("chunk_index", "file_index"), path),
        video_path=_template(data.get("video_path"), ("video_key", "chunk_index", "file_index"), path)
        if kinds["video"]
        else VIDEO,
        episodes=_whole(data.get("total_episodes"), "total_episodes", path),
        robot=data["robot_type"] if isinstance(data.get("robot_type"), str) else "",
        environment=_places(features, kept),
        notes=() if np.dtype(kept[ACTION].dtype).kind == "f" else (note_integers(kept[ACTION].dtype),),
    )


def _places(features: Mapping[str, Any], kept: Mapping[str, Feature]) -> tuple[int, ...]:
    """The places of the numbers of `ENVIRONMENT` in the observation that both vectors make together."""
    if STATE not in kept or ENVIRONMENT not in kept:
        return ()
    own, other = kept[STATE], kept[ENVIRONMENT]
    places = features[ENVIRONMENT].get(PLACES)
    fits = isinstance(places, list) and all(type(place) is int for place in places)
    fits = fits and own.dtype == other.dtype and len(own.shape) == 1 and other.shape == (len(places),)
    together = own.shape[0] + len(places) if fits else 0
    return tuple(places) if fits and len({*places} & {*range(together)}) == len(places) else ()


def join(own: np.ndarray, other: np.ndarray, places: Sequence[int]) -> np.ndarray:  # [..., M], [..., N] -> [..., M + N]
    """The observation `state` from its two features."""
    together = np.empty((*own.shape[:-1], own.shape[-1] + len(places)), own.dtype)
    together[..., list(places)] = other
    together[..., _others(together.shape[-1], places)] = own
    return together


def split(state: np.ndarray, places: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `join`."""
    return state[..., _others(state.shape[-1], places)], state[..., list(places)]


def _others(size: int, places: Sequence[int]) -> list[int]:
    return [place for place in range(size) if place not in set(places)]


def check_version(version: Any, root: Path) -> None:
    """Raises `UserError` unless the version is one that this package reads."""
    found = re.fullmatch(r"v(\d{1,4})\.(\d{1,4})", version) if isinstance(version, str) else None
    if found is None:
        raise UserError(f"{root} gives its version as {show(version)}, a LeRobotDataset says {VERSION!r}.")
    if int(found[1]) < 3:
        raise UserError(f"{root} is a LeRobotDataset {version}: convert it to {VERSION} with LeRobot's own converter.")
    if (int(found[1]), int(found[2])) > (3, 0):
        raise UserError(f"{root} is a LeRobotDataset {version}, this package reads {VERSION}: use a newer one.")


def info_json(fps: float, features: Mapping[str, Any], robot: str, episodes: int, frames: int, tasks: int) -> Any:
    """The content of `meta/info.json`."""
    return {
        "codebase_version": VERSION,
        "robot_type": robot or None,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": DATA_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "fps": int(fps) if float(fps).is_integer() else fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA,
        "video_path": VIDEO if any(feature["dtype"] == "video" for feature in features.values()) else None,
        "features": {**features, **COUNTERS},
    }


def features_json(
    arrays: Mapping[str, np.ndarray],
    videos: bool,
    fps: float,
    action_names: Sequence[str] = (),
    environment: Sequence[int] = (),
) -> dict[str, Any]:
    """The entry of `meta/info.json` for features, from their arrays [T, ...]."""
    features: dict[str, Any] = {}
    for name, values in arrays.items():
        shape, dtype = values.shape[1:], values.dtype.name
        if not is_picture(dtype, shape):
            names = list(action_names) if name == ACTION and [len(action_names)] == list(shape) else None
            features[name] = {"dtype": dtype, "shape": list(shape), "names": names}
            if name == ENVIRONMENT and environment:
                features[name][PLACES] = list(environment)
            continue
        kind = "video" if videos and shape[-1] == 3 else "image"
        features[name] = {"dtype": kind, "shape": list(shape), "names": ["height", "width", "channels"]}
        if kind == "video":
            height, width, channels = shape
            features[name]["info"] = {
                "video.height": height,
                "video.width": width,
                "video.channels": channels,
                "video.fps": fps,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "has_audio": False,
            }
    return features


def fill(template: str, number: int | None = None, **values: Any) -> str:
    """A path of a template, for a file that is counted over all chunks or named by its two indices."""
    if number is not None:
        values |= {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}
    return template.format(**values)


def _is_observation(name: str) -> bool:
    return name.startswith("observation.") and NAME.fullmatch(observation_name(name)) is not None


def _feature(name: str, feature: Any, path: Path) -> tuple[str, Feature | None]:
    """The kind of a feature, and what it is to an episode, or None where it holds no numbers."""
    if not isinstance(feature, dict) or not isinstance(feature.get("dtype"), str):
        raise UserError(f"{path} gives the feature {show(name)} no dtype.")
    kind, shape = feature["dtype"], feature.get("shape")
    if not isinstance(shape, list) or len(shape) > 5 or not all(type(size) is int and size >= 0 for size in shape):
        raise UserError(f"{path} gives the feature {show(name)} the shape {show(shape)}, which is none.")
    if kind in ("image", "video"):
        names = feature.get("names")
        if isinstance(names, list) and names[:1] in (["channels"], ["channel"]) and len(shape) == 3:
            shape = [*shape[1:], shape[0]]  # pictures are decoded with their channels last, whatever a writer meant
        if len(shape) == 3 and shape[2] == 1 and kind == "video":
            return kind, None  # a map of depths, which no picture holds
        if len(shape) != 3 or math.prod(shape) not in range(1, 2**28) or (shape[2] != 3 and kind == "video"):
            raise UserError(f"{path} gives the camera {show(name)} the shape {show(shape)}, not [height, width, 3].")
        return kind, Feature("uint8", tuple(shape))
    try:
        dtype = np.dtype(kind)
    except TypeError:
        return kind, None
    if dtype.kind not in "fiub" or math.prod(shape) == 0 or not shape:
        return kind, None
    if math.prod(shape) > 2**24:
        raise UserError(f"{path} gives the feature {show(name)} {math.prod(shape):,} numbers a step, too many.")
    names = feature.get("names")
    if not isinstance(names, list) or [len(names)] != shape or not all(isinstance(each, str) for each in names):
        names = ()
    return kind, Feature(dtype.name, tuple(shape), tuple(names))


def _template(value: Any, names: tuple[str, ...], path: Path) -> str:
    """A template that names files by the given numbers and does nothing else."""
    if not isinstance(value, str) or len(value) > 500:
        raise UserError(f"{path} lacks a template of paths that has {', '.join(names)}.")
    try:
        fields = [part[1:] for part in string.Formatter().parse(value) if part[1] is not None]
    except ValueError:
        fields = [("", "", None)]
    for name, spec, conversion in fields:
        if name not in names or conversion or not _SPEC.fullmatch(spec or ""):
            raise UserError(f"{path} has the template {show(value)}, which may only fill in {', '.join(names)}.")
    return value


def _whole(value: Any, name: str, path: Path) -> int:
    if type(value) is not int or value < 0:
        raise UserError(f"{path} gives {name} as {show(value)}, it must be a whole number.")
    return value
