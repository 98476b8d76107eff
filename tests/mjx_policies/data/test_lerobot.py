import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mjx_policies.data import formats, lerobot
from mjx_policies.data.episodes import Episode
from mjx_policies.data.lerobot.statistics import combine, summarise


@pytest.fixture(scope="module")
def episodes(make_episode):
    return [make_episode(3 + n % 4, n, pictures=True, final=n % 3 != 0) for n in range(7)]


@pytest.fixture(scope="module")
def written(episodes, tmp_path_factory):
    path = tmp_path_factory.mktemp("lerobot") / "data"
    lerobot.write(path, episodes, robot="fr3")
    return path


def test_what_was_written_is_read_bit_for_bit(written, episodes, assert_same):
    dataset = lerobot.read(written)
    assert (len(dataset), dataset.fps, dataset.tasks) == (7, 20, ("task 0", "task 1"))
    assert dataset.lengths == [len(episode) for episode in episodes]
    assert dataset.features["pixels"].shape == (6, 8, 3)
    for found, expected in zip(dataset, episodes, strict=True):
        assert_same(found, expected)
    assert_same(dataset[-1], episodes[-1])
    with pytest.raises(IndexError):
        dataset[7]


def test_the_files_are_those_of_the_official_layout(written, episodes):
    """Read with nothing but json, pyarrow and Pillow, as `LeRobotDataset` reads them."""
    info = json.loads((written / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["robot_type"] == "fr3"
    assert (info["fps"], info["total_episodes"], info["total_tasks"]) == (20, 7, 2)
    assert info["total_frames"] == sum(map(len, episodes)) and info["splits"] == {"train": "0:7"}
    assert info["features"]["observation.state"] == {"dtype": "float32", "shape": [4], "names": None}
    assert info["features"]["observation.images.wrist"]["dtype"] == "image"
    tasks = pq.read_table(written / "meta/tasks.parquet")
    assert dict(zip(tasks["task"].to_pylist(), tasks["task_index"].to_pylist(), strict=True)) == {
        "task 0": 0,
        "task 1": 1,
    }
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    rows = pq.read_table(written / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    start = 0
    for number, (row, episode) in enumerate(zip(rows, episodes, strict=True)):
        path = info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        steps = pq.read_table(written / path).to_pylist()[row["dataset_from_index"] : row["dataset_to_index"]]
        assert [step["index"] for step in steps] == list(range(start, start + len(episode)))
        assert [step["frame_index"] for step in steps] == list(range(len(episode)))
        assert {step["episode_index"] for step in steps} == {number} == {row["episode_index"]}
        assert row["tasks"] == [episode.task] and row["length"] == len(episode)
        np.testing.assert_array_equal([step["action"] for step in steps], episode.action)
        np.testing.assert_array_equal([step["observation.phase"] for step in steps], episode.observation["phase"][:, 0])
        np.testing.assert_array_equal([step["observation.grid"] for step in steps], episode.observation["grid"])
        np.testing.assert_array_equal([step["next.reward"] for step in steps], episode.reward)
        np.testing.assert_allclose([step["timestamp"] for step in steps], np.arange(len(episode)) / 20, rtol=1e-6)
        assert [step["next.done"] for step in steps] == [False] * (len(episode) - 1) + [True]
        assert steps[-1]["next.success"] == (episode.success is True)
        picture = Image.open(io.BytesIO(steps[1]["observation.pixels"]["bytes"]))
        np.testing.assert_array_equal(np.asarray(picture), episode.observation["pixels"][1])
        np.testing.assert_allclose(row["stats/action/mean"], episode.action.mean(0), rtol=1e-6, atol=1e-7)
        assert np.shape(row["stats/observation.pixels/max"]) == (3, 1, 1)
        start += len(episode)
    stats = json.loads((written / "meta/stats.json").read_text())
    actions = np.concatenate([episode.action for episode in episodes]).astype(np.float64)
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats["action"]["std"], actions.std(0), rtol=1e-6)
    np.testing.assert_array_equal(stats["action"]["max"], actions.max(0))
    assert stats["action"]["count"] == [len(actions)]


def test_reads_the_official_layout(official_lerobot, tmp_path):
    official_lerobot.write(tmp_path)
    dataset = lerobot.read(tmp_path)
    assert dataset.left_out == ("subtask",) and dataset.tasks == ("lift", "place") and dataset.fps == 10
    for number, (episode, expected) in enumerate(zip(dataset, official_lerobot.contents(), strict=True)):
        for name, key in (("state", "state"), ("grid", "grid"), ("width", "width")):
            np.testing.assert_array_equal(episode.observation[name], expected[key], strict=True)
        np.testing.assert_array_equal(episode.action, expected["action"], strict=True)
        np.testing.assert_array_equal(episode.reward, expected["reward"], strict=True)
        np.testing.assert_array_equal(episode.observation["observation.images.wrist"], expected["wrist"], strict=True)
        video = episode.observation["observation.images.top"]  # lossy, so only nearly so
        assert video.shape == expected["top"].shape and video.dtype == np.uint8
        assert np.abs(video.astype(int) - expected["top"]).max() <= 3  # neighbouring frames differ by 8
        assert (episode.terminated, episode.success) == (True, number == 1)
        assert (episode.task, episode.final_observation) == (("lift", "place", "lift")[number], None)


def test_videos_are_nearly_what_was_recorded(make_episode, tmp_path):
    steps = 12
    ramp = np.stack([np.full((16, 24, 3), 20 * t, np.uint8) for t in range(steps)])
    episode = make_episode(
        steps, fps=12.5, observation={"state": np.zeros((steps, 1)), "pixels": ramp}, final_observation=None
    )
    lerobot.write(tmp_path / "data", [episode, episode], videos=True)
    lerobot.write(tmp_path / "data", [episode], append=True)
    info = json.loads((tmp_path / "data/meta/info.json").read_text())
    assert info["features"]["observation.pixels"]["dtype"] == "video" and info["video_path"].endswith(".mp4")
    for found in lerobot.read(tmp_path / "data"):
        assert np.abs(found.observation["pixels"].astype(int) - ramp).max() <= 3
        np.testing.assert_array_equal(found.observation["state"], episode.observation["state"])
    odd = make_episode(2, observation={"pixels": np.zeros((2, 5, 4, 3), np.uint8)}, final_observation=None)
    with pytest.raises(ValueError, match="even sizes"):
        lerobot.write(tmp_path / "odd", [odd], videos=True)


def test_files_are_merged_as_they_grow(make_episode, assert_same, tmp_path, monkeypatch):
    monkeypatch.setattr("mjx_policies.data.lerobot.writer.MERGE_EVERY", 3)
    episodes = [make_episode(2, n) for n in range(8)]
    with lerobot.Writer(tmp_path) as writer:
        for number, episode in enumerate(episodes):
            assert writer.add(episode) == number
    names = [path.name for path in sorted((tmp_path / "data").rglob("*.parquet"))]
    assert names == ["file-000.parquet", "file-003.parquet", "file-006.parquet"]
    assert pq.read_metadata(tmp_path / "data/chunk-000/file-000.parquet").num_row_groups == 3
    for found, expected in zip(lerobot.read(tmp_path), episodes, strict=True):
        assert_same(found, expected)


def test_actions_have_names_that_agree(make_episode, tmp_path):
    names = ("x", "y", "z")
    lerobot.write(tmp_path / "a", [make_episode(4)], action_names=names)
    assert lerobot.read(tmp_path / "a").features["action"].names == names
    lerobot.write(tmp_path / "a", [make_episode(4, 1)], append=True)  # of one who does not say
    assert lerobot.read(tmp_path / "a").features["action"].names == names
    with pytest.raises(ValueError, match="actions of the episode are u, v, w, those of the dataset x, y, z"):
        lerobot.write(tmp_path / "a", [make_episode(4, 2)], append=True, action_names=("u", "v", "w"))
    lerobot.write(tmp_path / "b", [make_episode(4)])
    assert lerobot.read(tmp_path / "b").features["action"].names == ()


def test_the_environment_is_a_feature_of_its_own(make_episode, assert_same, tmp_path):
    """LeRobot's ACT and Diffusion Policy ask for pictures or an `observation.environment_state`."""
    episodes = [make_episode(4, n, final=n != 1) for n in range(3)]
    about = {"robot": "fr3", "environment": (3, 1)}
    lerobot.write(tmp_path, episodes[:2], **about)
    lerobot.write(tmp_path, episodes[2:], append=True)
    features = json.loads((tmp_path / "meta/info.json").read_text())["features"]
    assert (features["observation.state"]["shape"], features["observation.environment_state"]["shape"]) == ([2], [2])
    rows = pq.read_table(tmp_path / "data/chunk-000/file-000.parquet")
    np.testing.assert_array_equal(rows["observation.state"][0].as_py(), episodes[0].observation["state"][0, [0, 2]])
    other = rows["observation.environment_state"][0].as_py()
    np.testing.assert_array_equal(other, episodes[0].observation["state"][0, [3, 1]])
    dataset = lerobot.read(tmp_path)
    assert (dataset.robot, dataset.features["state"].shape, dataset.features["state"].environment) == (
        "fr3",
        (4,),
        (3, 1),
    )
    for found, expected in zip(dataset, episodes, strict=True):
        assert_same(found, expected)
    del features["observation.environment_state"]["places"]  # as LeRobot's own datasets are
    info = json.loads((tmp_path / "meta/info.json").read_text())
    (tmp_path / "meta/info.json").write_text(json.dumps({**info, "features": features}))
    foreign = lerobot.read(tmp_path)[0].observation
    assert foreign["state"].shape == foreign["environment_state"].shape == (4, 2)
    with pytest.raises(ValueError, match="some must be the robot's"):
        lerobot.write(tmp_path / "all", episodes, environment=range(4))


def test_columns_say_what_they_are(written):
    """To Hugging Face `datasets`, which needs it for more than one axis: see its `Features.from_dict`."""
    schema = pq.read_schema(written / "data/chunk-000/file-000.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names
    kind = schema.field("observation.grid").metadata
    assert kind[b"ARROW:extension:name"] == b"datasets.features.features.Array2DExtensionType"
    assert json.loads(kind[b"ARROW:extension:metadata"]) == [[2, 3], "int64"]
    assert features["observation.grid"] == {"shape": [2, 3], "dtype": "int64", "_type": "Array2D"}
    assert features["observation.pixels"] == {"_type": "Image"}
    assert features["next.done"] == {"dtype": "bool", "_type": "Value"}
    assert features["action"]["length"] == 3 and features["action"]["feature"]["dtype"] == "float32"


def test_a_task_for_each_step(official_lerobot, tmp_path):
    official_lerobot.write(tmp_path)
    path = tmp_path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    numbers = pa.array([1, 1, 0, 0, *[1] * 6], pa.int64())
    pq.write_table(table.set_column(table.column_names.index("task_index"), "task_index", numbers), path)
    episodes = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(episodes)
    unordered = pa.array([["lift", "place"], ["place"], ["lift"]])
    pq.write_table(rows.set_column(rows.column_names.index("tasks"), "tasks", unordered), episodes)
    dataset = lerobot.read(tmp_path)
    assert [dataset[n].task for n in range(3)] == ["place; lift", "place", "lift"]
    assert dataset.notes == ("1 episodes have steps of several tasks: each has all of its tasks.",)


def test_odd_features_are_left_out(official_lerobot, tmp_path):
    official_lerobot.write(tmp_path)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    odd = {
        "observation.note": {"dtype": "string", "shape": [1], "names": None},
        "observation.mode": {"shape": [1]},
        "observation.ragged": {"dtype": "float32", "shape": None},
        "observation.depth": {"dtype": "video", "shape": [32, 48, 1], "names": ["height", "width", "channels"]},
    }
    (tmp_path / "meta/info.json").write_text(json.dumps({**info, "features": {**info["features"], **odd}}))
    dataset = lerobot.read(tmp_path)
    assert dataset.left_out == ("subtask", *odd) and dataset.robot == "so100"
    np.testing.assert_array_equal(dataset[1].observation["state"], official_lerobot.contents()[1]["state"])
    with pytest.raises(ValueError, match="says that it has 10 steps a second, not 50"):
        formats.read(tmp_path, fps=50)


def test_a_dataset_can_be_continued(make_episode, assert_same, tmp_path):
    episodes = [make_episode(4, n) for n in range(5)]
    lerobot.write(tmp_path, episodes[:2])
    lerobot.write(tmp_path, episodes[2:], append=True)
    for found, expected in zip(lerobot.read(tmp_path), episodes, strict=True):
        assert_same(found, expected)
    stats = json.loads((tmp_path / "meta/stats.json").read_text())
    assert stats["action"]["count"] == [20]
    with pytest.raises(ValueError, match="holds something already"):
        lerobot.write(tmp_path, episodes)
    with pytest.raises(ValueError, match="no dataset to append to"):
        lerobot.write(tmp_path / "other", episodes, append=True)
    (tmp_path / "file").touch()
    for append in (False, True):
        with pytest.raises(ValueError, match="file is a file, and a dataset is a folder"):
            lerobot.write(tmp_path / "file", episodes, append=append)
    with lerobot.Writer(tmp_path, append=True) as writer:
        with pytest.raises(ValueError, match="another process writes"):
            lerobot.Writer(tmp_path, append=True)
        with pytest.raises(ValueError, match="50 steps a second"):
            writer.add(make_episode(4, fps=50))
        with pytest.raises(ValueError, match=r"action is float32 \[2\] in the episode and float32 \[3\]"):
            writer.add(make_episode(4, action=np.zeros((4, 2))))
        with pytest.raises(ValueError, match=r"observation\.contact is missing in the episode"):
            writer.add(make_episode(4, observation={"phase": np.zeros((4, 1))}, final_observation=None))
    assert len(lerobot.read(tmp_path)) == 5


def test_an_error_keeps_what_was_added(make_episode, tmp_path):
    with pytest.raises(RuntimeError, match="robot"), lerobot.Writer(tmp_path) as writer:
        writer.add(make_episode())
        raise RuntimeError("the robot fell over")
    assert len(lerobot.read(tmp_path)) == 1
    lerobot.write(tmp_path, [make_episode()], append=True)
    assert len(lerobot.read(tmp_path)) == 2


TYPES = st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint8, np.int64, np.bool_])


@settings(max_examples=25, deadline=None)
@given(data=st.data(), steps=st.integers(1, 4), dtype=TYPES, shape=st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_any_numbers_survive(data, steps, dtype, shape, tmp_path_factory):
    limit = min(np.finfo(dtype).max, np.finfo(np.float32).max) if np.dtype(dtype).kind == "f" else 0
    limits = {"min_value": -limit, "max_value": limit} if limit else {}
    values = data.draw(arrays.arrays(dtype, (steps, *shape), elements=arrays.from_dtype(np.dtype(dtype), **limits)))
    path = tmp_path_factory.mktemp("any") / "data"
    lerobot.write(
        path, [Episode({"x": values}, np.zeros((steps, 1)), np.zeros(steps), False, None, "", 1, {"x": values[0]})]
    )
    found = lerobot.read(path)[0]
    np.testing.assert_array_equal(found.observation["x"], values, strict=True)
    np.testing.assert_array_equal(found.final_observation["x"], values[0], strict=True)


def test_statistics_of_parts_combine_to_those_of_the_whole():
    rng = np.random.default_rng(0)
    parts = [rng.normal(loc=n, size=(n + 2, 3)) for n in range(5)]
    together, whole = combine([summarise(part, False) for part in parts]), summarise(np.concatenate(parts), False)
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(together[name], whole[name], rtol=1e-12)
    picture = rng.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    np.testing.assert_allclose(summarise(picture, True)["mean"][:, 0, 0], picture.mean((0, 1, 2)) / 255)
