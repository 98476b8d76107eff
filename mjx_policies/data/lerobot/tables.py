"""An episode as LeRobot's tables: its steps, its row in the table of episodes, its task. Axes: T steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mjx_policies.data.columns import to_arrow, to_pictures
from mjx_policies.data.episodes import Episode
from mjx_policies.data.lerobot.episodes import FINAL, OWN
from mjx_policies.data.lerobot.layout import ACTION, DONE, FILES_PER_CHUNK, REWARD, SUCCESS, feature_name
from mjx_policies.data.lerobot.statistics import Summary
from mjx_policies.data.packages import load

CAMERAS = ("image", "video")


def step_arrays(episode: Episode) -> dict[str, np.ndarray]:  # {feature: [T, ...]}
    """The arrays that `meta/info.json` describes. `next.done` is true in the last step, whatever the reason."""
    last = np.arange(len(episode)) == len(episode) - 1
    return {
        # In one order whatever the episode's, since tables are merged.
        **{feature_name(name): values for name, values in sorted(episode.observation.items())},
        ACTION: episode.action,
        REWARD: episode.reward[:, None],
        DONE: last[:, None],
        SUCCESS: (last & (episode.success is True))[:, None],
    }


def counters(steps: int, fps: float, episode: int, start: int, task: int) -> dict[str, np.ndarray]:
    """The features that count: of an episode whose first step is number `start` of the dataset."""
    frame = np.arange(steps)[:, None]
    return {
        "timestamp": (frame / fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full_like(frame, episode),
        "index": frame + start,
        "task_index": np.full_like(frame, task),
    }


def steps_table(arrays: Mapping[str, np.ndarray], features: Mapping[str, Any]) -> Any:
    """One row for each step, without what lies in videos."""
    pa = load("pyarrow", "writing a dataset")
    kinds = {name: features[name]["dtype"] if name in features else "" for name in arrays}
    kept = {name: values for name, values in arrays.items() if kinds[name] != "video"}
    table = pa.table(
        {name: to_pictures(values) if kinds[name] == "image" else to_arrow(values) for name, values in kept.items()}
    )
    described = {name: _hugging_face(values, kinds[name] == "image") for name, values in kept.items()}
    fields = []
    for field in table.schema:
        kind = described[field.name]["_type"]
        if kind.startswith("Array"):
            extension = f"datasets.features.features.{kind}ExtensionType"
            shape = json.dumps([described[field.name]["shape"], described[field.name]["dtype"]])
            field = field.with_metadata({"ARROW:extension:name": extension, "ARROW:extension:metadata": shape})
        fields.append(field)
    return table.cast(pa.schema(fields, {"huggingface": json.dumps({"info": {"features": described}})}))


def _hugging_face(values: np.ndarray, camera: bool) -> dict[str, Any]:  # [T, ...]
    """The type of a column for Hugging Face `datasets`, which takes lists of lists for ragged unless told their shape.

    It believes this only of columns whose Arrow type agrees, which for more than one axis is an extension of its own.
    """
    shape, number = values.shape[1:], {"dtype": values.dtype.name, "_type": "Value"}
    if camera:
        return {"_type": "Image"}
    if shape == (1,):
        return number
    if len(shape) == 1:
        return {"feature": number, "length": shape[0], "_type": "Sequence"}
    return {"shape": list(shape), "dtype": values.dtype.name, "_type": f"Array{len(shape)}D"}


def episode_row(
    episode: Episode, number: int, start: int, features: Mapping[str, Any], summaries: Mapping[str, Summary]
) -> Any:
    """One row, for an episode that is alone in the files of its number."""
    pa = load("pyarrow", "writing a dataset")
    chunk, file = [number // FILES_PER_CHUNK], [number % FILES_PER_CHUNK]
    columns: dict[str, Any] = {
        "episode_index": [number],
        "tasks": [[episode.task]],
        "length": [len(episode)],
        "data/chunk_index": chunk,
        "data/file_index": file,
        "dataset_from_index": [start],
        "dataset_to_index": [start + len(episode)],
    }
    for name, feature in features.items():
        if feature["dtype"] == "video":
            columns[f"videos/{name}/chunk_index"] = chunk
            columns[f"videos/{name}/file_index"] = file
            columns[f"videos/{name}/from_timestamp"] = [0.0]
            columns[f"videos/{name}/to_timestamp"] = [len(episode) / episode.fps]
    for name, summary in summaries.items():
        columns |= {f"stats/{name}/{key}": [value.tolist()] for key, value in summary.items()}
    columns["meta/episodes/chunk_index"] = chunk
    columns["meta/episodes/file_index"] = file
    for name, kind in zip(OWN, (pa.bool_(), pa.bool_(), pa.int64(), pa.string()), strict=True):
        columns[name] = pa.array([getattr(episode, name)], kind)
    for name, values in sorted(episode.observation.items()):
        feature = feature_name(name)
        make = to_pictures if features[feature]["dtype"] in CAMERAS else to_arrow
        final = episode.final_observation
        column = make(values[:1] if final is None else final[name][None])
        columns[FINAL + feature] = pa.nulls(1, column.type) if final is None else column
    return pa.table(columns)


def summaries_of(table: Any) -> list[dict[str, Summary]]:
    """The statistics in a table of episodes, by episode."""
    names = [name for name in table.column_names if name.startswith("stats/")]
    found: list[dict[str, dict[str, np.ndarray]]] = [{} for _ in range(len(table))]
    for name in names:
        _, feature, key = name.split("/")
        for summary, value in zip(found, table[name].to_pylist(), strict=True):
            summary.setdefault(feature, {})[key] = np.array(value)
    return [dict(summary) for summary in found]


def tasks_table(tasks: Sequence[str]) -> Any:
    """Words and numbers; the words are the index of a data frame of pandas, by which LeRobot finds tasks."""
    pa = load("pyarrow", "writing a dataset")
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    described = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": pandas, "numpy_type": numpy, "metadata": None}
            for name, (pandas, numpy) in kinds.items()
        ],
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": list(tasks)})
    return table.replace_schema_metadata({"pandas": json.dumps(described)})
