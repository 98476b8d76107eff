"""A writer of LeRobotDataset v3.0 that shares nothing with ours: pyarrow, json, PyAV, Pillow, after the official code.

Two data files; the first holds two episodes in one row group, and one video holds the frames of all episodes.
"""

import io
import json
from fractions import Fraction

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

LENGTHS = (4, 6, 5)
FPS = 10
SIZE = (32, 48)  # height, width


def contents():
    """The recorded data: a list of dicts of arrays, one for each episode."""
    rng = np.random.default_rng(7)
    return [
        {
            "state": rng.normal(size=(steps, 3)).astype(np.float32),
            "grid": rng.normal(size=(steps, 2, 2)),
            "width": rng.normal(size=(steps, 1)).astype(np.float32),
            "action": rng.normal(size=(steps, 2)).astype(np.float32),
            "reward": rng.normal(size=steps).astype(np.float32),
            "wrist": rng.integers(0, 256, (steps, *SIZE, 3), dtype=np.uint8),
            "top": np.stack([np.full((*SIZE, 3), 40 * number + 8 * t, np.uint8) for t in range(steps)]),
        }
        for number, steps in enumerate(LENGTHS)
    ]


def write(root, **info):
    """Writes the files; `info` replaces entries of meta/info.json."""
    episodes = contents()
    for folder in ("data", "meta/episodes", "videos/observation.images.top"):
        (root / folder / "chunk-000").mkdir(parents=True)
    starts = np.cumsum((0, *LENGTHS))
    tables = [_steps(number, episode, int(starts[number])) for number, episode in enumerate(episodes)]
    pq.write_table(pa.concat_tables(tables[:2]), root / "data/chunk-000/file-000.parquet")
    pq.write_table(tables[2], root / "data/chunk-000/file-001.parquet")
    rows = {
        "episode_index": [0, 1, 2],
        "tasks": [["lift"], ["place"], ["lift"]],
        "length": list(LENGTHS),
        "data/chunk_index": [0, 0, 0],
        "data/file_index": [0, 0, 1],
        "dataset_from_index": starts[:-1].tolist(),
        "dataset_to_index": starts[1:].tolist(),
        "videos/observation.images.top/chunk_index": [0, 0, 0],
        "videos/observation.images.top/file_index": [0, 0, 0],
        "videos/observation.images.top/from_timestamp": (starts[:-1] / FPS).tolist(),
        "videos/observation.images.top/to_timestamp": (starts[1:] / FPS).tolist(),
        "stats/action/mean": [episode["action"].mean(0).tolist() for episode in episodes],
        "meta/episodes/chunk_index": [0, 0, 0],
        "meta/episodes/file_index": [0, 0, 0],
    }
    pq.write_table(pa.table(rows), root / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(
        pa.table({"task_index": [0, 1], "__index_level_0__": ["lift", "place"]}), root / "meta/tasks.parquet"
    )
    _video(
        root / "videos/observation.images.top/chunk-000/file-000.mp4",
        np.concatenate([episode["top"] for episode in episodes]),
    )
    _info(root, info)


def _info(root, changes):
    def feature(dtype, *shape, names=None):
        return {"dtype": dtype, "shape": list(shape), "names": names}

    camera = ["height", "width", "channels"]
    info = {
        "codebase_version": "v3.0",
        "robot_type": "so100",
        "total_episodes": 3,
        "total_frames": sum(LENGTHS),
        "total_tasks": 2,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 500,
        "fps": FPS,
        "splits": {"train": "0:3"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            "observation.state": feature("float32", 3, names=["x", "y", "z"]),
            "observation.grid": feature("float64", 2, 2),
            "observation.width": feature("float32", 1),
            "observation.images.wrist": feature("image", *SIZE, 3, names=camera),
            "observation.images.top": feature("video", *SIZE, 3, names=camera),
            "action": feature("float32", 2),
            "next.reward": feature("float32", 1),
            "next.done": feature("bool", 1),
            "next.success": feature("bool", 1),
            "subtask": feature("string", 1),
            "timestamp": feature("float32", 1),
            **{name: feature("int64", 1) for name in ("frame_index", "episode_index", "index", "task_index")},
        },
    }
    (root / "meta/info.json").write_text(json.dumps({**info, **changes}, indent=4))


def _steps(number, episode, start):
    steps = len(episode["action"])
    last = [t == steps - 1 for t in range(steps)]
    columns = {
        # as `datasets` writes them: a vector as a list of fixed size, two axes as lists of lists, one number as itself
        "observation.state": pa.array(list(episode["state"]), pa.list_(pa.float32(), 3)),
        "observation.grid": pa.array(episode["grid"].tolist(), pa.list_(pa.list_(pa.float64()))),
        "observation.width": pa.array(episode["width"][:, 0]),
        "observation.images.wrist": pa.array(
            [{"bytes": _png(x), "path": f"{t}.png"} for t, x in enumerate(episode["wrist"])]
        ),
        "action": pa.array(list(episode["action"]), pa.list_(pa.float32())),  # an older writer's: of any size
        "next.reward": pa.array(episode["reward"]),
        "next.done": pa.array(last),
        "next.success": pa.array([end and number == 1 for end in last]),
        "subtask": pa.array(["reach"] * steps),
        "timestamp": pa.array(np.arange(steps, dtype=np.float32) / FPS),
        "frame_index": pa.array(range(steps), pa.int64()),
        "episode_index": pa.array([number] * steps, pa.int64()),
        "index": pa.array(range(start, start + steps), pa.int64()),
        "task_index": pa.array([number % 2] * steps, pa.int64()),
    }
    return pa.table(columns)


def _png(frame):
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    return buffer.getvalue()


def _video(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.height, stream.width = SIZE
        stream.pix_fmt, stream.options = "yuv420p", {"g": "20", "crf": "10"}  # few key frames: seeking has to go back
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
