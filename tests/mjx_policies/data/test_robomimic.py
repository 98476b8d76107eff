import json

import h5py
import numpy as np
import pytest

from mjx_policies.data import robomimic
from mjx_policies.data.dataset import readable


@pytest.fixture(scope="module")
def episodes(make_episode):
    return [make_episode(3 + n % 4, n, pictures=True) for n in range(12)]


def test_what_was_written_is_read_bit_for_bit(episodes, assert_same, tmp_path):
    robomimic.write(tmp_path / "a.hdf5", episodes)
    assert [path.name for path in tmp_path.iterdir()] == ["a.hdf5"]
    dataset = robomimic.read(tmp_path / "a.hdf5")
    assert (len(dataset), dataset.fps, dataset.tasks) == (12, 20, ("task 0", "task 1"))
    assert dataset.lengths == [len(episode) for episode in episodes]  # demo_10 comes after demo_9
    assert dataset.features["pixels"].shape == (6, 8, 3)
    for found, expected in zip(dataset, episodes, strict=True):
        assert_same(found, expected)
    with pytest.raises(IndexError):
        dataset[12]


def test_the_file_has_the_official_layout(episodes, tmp_path):
    """Read as `SequenceDataset` and `get_env_metadata_from_dataset` of robomimic do."""
    robomimic.write(tmp_path / "a.hdf5", episodes)
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert json.loads(file["data"].attrs["env_args"]) == {"env_name": "task 0", "env_type": 2, "env_kwargs": {}}
        assert file["data"].attrs["total"] == sum(map(len, episodes))
        assert sorted(file["data"], key=lambda name: int(name[5:])) == [f"demo_{n}" for n in range(12)]
        for number, episode in enumerate(episodes):
            demo = file[f"data/demo_{number}"]
            assert demo.attrs["num_samples"] == len(episode) == len(demo["states"])
            np.testing.assert_array_equal(demo["actions"], episode.action)
            np.testing.assert_array_equal(demo["rewards"], episode.reward)
            assert demo["dones"][()].tolist() == [0] * (len(episode) - 1) + [int(episode.terminated)]
            for name, values in episode.observation.items():
                np.testing.assert_array_equal(demo[f"obs/{name}"], values)
                np.testing.assert_array_equal(demo[f"next_obs/{name}"][:-1], values[1:])
                np.testing.assert_array_equal(demo[f"next_obs/{name}"][-1], episode.final_observation[name])


def official(path, **environment):
    """A file as robosuite's postprocessing leaves it: float64, no attributes of ours, filters."""
    rng = np.random.default_rng(3)
    contents = []
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        options = {"env_name": "Lift", "type": 1, "env_kwargs": {"has_renderer": False, "control_freq": 20}}
        data.attrs["env_args"] = json.dumps({**options, **environment}, indent=4)
        data.attrs["total"] = 0
        for number in (10, 2, 1):
            steps = number + 3
            position, image = rng.normal(size=(steps, 3)), rng.integers(0, 256, (steps, 8, 8, 3), dtype=np.uint8)
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = steps
            demo.attrs["model_file"] = "<mujoco/>"
            demo.create_dataset("actions", data=rng.uniform(-1, 1, (steps, 7)))
            demo.create_dataset("rewards", data=np.zeros(steps))
            demo.create_dataset("dones", data=np.arange(steps) == steps - 1)
            demo.create_dataset("states", data=rng.normal(size=(steps, 32)))
            demo.create_dataset("obs/robot0_eef_pos", data=position, compression="gzip")
            demo.create_dataset("obs/agentview_image", data=image)
            demo.create_dataset("next_obs/robot0_eef_pos", data=position + 1)
            demo.create_dataset("next_obs/agentview_image", data=image)
            contents.append((number, position, image, demo["actions"][()]))
        file.create_dataset("mask/train", data=np.array(["demo_1", "demo_10"], dtype="S"))
        file.create_dataset("mask/valid", data=["demo_2"], dtype=h5py.string_dtype())
    return sorted(contents, key=lambda each: each[0])


def test_reads_the_official_layout(tmp_path):
    contents = official(tmp_path / "low_dim.hdf5")
    dataset = robomimic.read(tmp_path / "low_dim.hdf5")
    assert dataset.lengths == [4, 5, 13] and dataset.tasks == ("Lift",) and dataset.fps == 20
    for episode, (_, position, image, action) in zip(dataset, contents, strict=True):
        np.testing.assert_array_equal(episode.observation["robot0_eef_pos"], position, strict=True)
        np.testing.assert_array_equal(episode.observation["agentview_image"], image, strict=True)
        np.testing.assert_array_equal(episode.action, action.astype(np.float32), strict=True)
        np.testing.assert_array_equal(episode.final_observation["robot0_eef_pos"], position[-1] + 1)
        assert (episode.terminated, episode.success, episode.task) == (True, None, "Lift")
    assert robomimic.read(tmp_path / "low_dim.hdf5", mask="train").lengths == [4, 13]
    assert robomimic.read(tmp_path / "low_dim.hdf5", mask="valid").lengths == [5]
    with pytest.raises(ValueError, match="lacks 'test'"):
        robomimic.read(tmp_path / "low_dim.hdf5", mask="test")


def test_a_rate_that_nobody_tells_must_be_given(tmp_path):
    official(tmp_path / "a.hdf5", env_kwargs={})
    with pytest.raises(ValueError, match="pass it as fps"):
        robomimic.read(tmp_path / "a.hdf5")
    assert robomimic.read(tmp_path / "a.hdf5", fps=30)[0].fps == 30


def test_texts_and_groups_among_observations(tmp_path):
    contents = official(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        for demo in file["data"].values():
            steps = len(demo["actions"])
            for name in ("obs", "next_obs"):
                demo[f"{name}/language"] = ["lift the cube"] * steps
                demo[f"{name}/camera/depth"] = np.full((steps, 2), 0.5)
                demo[f"{name}/scale"] = 1.5
                demo[f"{name}/object poses"] = np.zeros((steps, 2))
    dataset = robomimic.read(tmp_path / "a.hdf5")
    assert set(dataset.left_out) == {"language", "scale", "object poses"}
    assert set(dataset.features) == {"action", "robot0_eef_pos", "agentview_image", "camera_depth"}
    for episode, (_, position, _, _) in zip(dataset, contents, strict=True):
        np.testing.assert_array_equal(episode.observation["camera_depth"], np.full((len(position), 2), 0.5))
        np.testing.assert_array_equal(episode.final_observation["robot0_eef_pos"], position[-1] + 1)


def test_demos_of_several_rates_are_not_taken_for_one_another(episodes, tmp_path):
    robomimic.write(tmp_path / "a.hdf5", episodes[:4])
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["data/demo_0"].attrs["fps"] = 10.0
    dataset, said = robomimic.read(tmp_path / "a.hdf5"), []
    assert dataset.fps == 20 and [each.fps for each in readable(dataset, said.append)] == [20] * 3
    assert len(said) == 1 and "demo_0 has 10 steps a second, others 20" in said[0]
    slow = robomimic.read(tmp_path / "a.hdf5", fps=10)
    assert [len(each) for each in readable(slow, said.append)] == [len(episodes[0])]
    with pytest.raises(ValueError, match="says that it has 20 steps a second, not 30: leave out fps"):
        robomimic.read(tmp_path / "a.hdf5", fps=30)


def test_whole_numbers_as_actions_are_told_of(tmp_path):
    official(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        for demo in file["data"].values():
            steps = len(demo["actions"])
            del demo["actions"]
            demo["actions"] = np.arange(2 * steps).reshape(steps, 2)
        file["data/demo_1/actions"][2, 1] = 2**24 + 1
    dataset = robomimic.read(tmp_path / "a.hdf5")
    assert dataset.notes == ("Actions are int64 in the files, and float32 in an episode.",)
    np.testing.assert_array_equal(dataset[1].action, np.arange(10, dtype=np.float32).reshape(5, 2), strict=True)
    with pytest.raises(ValueError, match=r"action holds 16777217 at \[2, 1\], which float32 cannot hold exactly"):
        dataset[0]


def test_the_robot_is_named(episodes, assert_same, tmp_path):
    about = {"robot": "fr3", "action_names": ("x", "y", "z"), "environment": (1, 3)}
    path = tmp_path / "a.hdf5"
    with pytest.raises(RuntimeError), robomimic.Writer(path, **about) as writer:
        writer.add(episodes[0])
        raise RuntimeError
    robomimic.write(path, episodes[1:3], append=True)  # by one who does not say
    dataset = robomimic.read(path)
    assert dataset.robot == "fr3" and dataset.features["action"].names == ("x", "y", "z")
    assert dataset.features["state"].environment == (1, 3)
    for found, expected in zip(dataset, episodes, strict=False):
        assert_same(found, expected)


def test_what_a_stopped_writer_left_can_be_read_and_continued(make_episode, assert_same, tmp_path):
    path, episodes = tmp_path / "a.hdf5", [make_episode(3, n) for n in range(4)]
    with pytest.raises(RuntimeError), robomimic.Writer(path) as writer:
        writer.add(episodes[0])
        writer.add(episodes[1])
        raise RuntimeError
    assert not path.exists() and len(robomimic.read(path)) == 2
    with pytest.raises(ValueError, match="killed writer left: append"):
        robomimic.Writer(path)
    robomimic.write(path, episodes[2:], append=True)
    for found, expected in zip(robomimic.read(path), episodes, strict=True):
        assert_same(found, expected)
    with pytest.raises(ValueError, match="exists already"):
        robomimic.Writer(path)
    with pytest.raises(ValueError, match=r"ends in \.hdf5"):
        robomimic.Writer(tmp_path / "b")


def test_episodes_that_differ_are_refused(make_episode, tmp_path):
    with robomimic.Writer(tmp_path / "a.hdf5") as writer:
        writer.add(make_episode())
        with pytest.raises(ValueError, match=r"action is \(2,\) in the episode and \(3,\)"):
            writer.add(make_episode(action=np.zeros((5, 2))))
    assert len(robomimic.read(tmp_path / "a.hdf5")) == 1


def test_no_episodes_make_no_file(tmp_path):
    robomimic.write(tmp_path / "a.hdf5", [])
    assert not list(tmp_path.iterdir())
