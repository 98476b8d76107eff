import io
import json
import re

import h5py
import numpy as np
import pytest
from PIL import Image

from mjx_policies.data import minari
from mjx_policies.data.dataset import readable
from mjx_policies.errors import UserError


def official(folder, nested, **metadata):
    """Files as Minari's HDF5 storage lays them out."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    about = {"data_format": "hdf5", "dataset_id": "door/human-v2", "total_episodes": 3, "observation_space": "{}"}
    (folder / "metadata.json").write_text(json.dumps({**about, **metadata}))
    contents = []
    with h5py.File(folder / "main_data.hdf5", "w", track_order=True) as file:
        for number in range(11):
            steps = 4 + number
            seen, action, reward = rng.normal(size=(steps + 1, 3)), rng.normal(size=(steps, 2)), rng.normal(size=steps)
            episode = file.create_group(f"episode_{number}")
            episode.attrs.update({"id": number, "total_steps": steps, "seed": 100 + number})
            if nested:
                episode["observations/achieved_goal"] = seen[:, :1]
                episode["observations/arm/joint"] = seen
            else:
                episode.create_dataset("observations", data=seen, chunks=True, maxshape=(None, 3))
            episode["actions"], episode["rewards"] = action.astype(np.float32), reward
            episode["terminations"] = np.arange(steps) == (steps - 1 if number == 0 else -1)
            episode["truncations"] = np.arange(steps) == (-1 if number == 0 else steps - 1)
            if nested:
                episode["infos/success"] = np.arange(steps + 1) == (2 if number == 1 else -1)
            contents.append((seen, action, reward))
    return contents


@pytest.mark.parametrize("nested", [False, True])
def test_reads_the_official_layout(nested, tmp_path):
    contents = official(tmp_path / "human-v2" / "data", nested)
    dataset = minari.read(tmp_path / "human-v2", fps=25)
    assert len(dataset) == 11 and dataset.tasks == ("door/human-v2",) and dataset.lengths[10] == 14
    for number, (episode, (seen, action, reward)) in enumerate(zip(dataset, contents, strict=True)):
        name = "arm_joint" if nested else "state"
        np.testing.assert_array_equal(episode.observation[name], seen[:-1], strict=True)  # one more than actions
        np.testing.assert_array_equal(episode.final_observation[name], seen[-1], strict=True)
        np.testing.assert_array_equal(episode.action, action.astype(np.float32), strict=True)
        np.testing.assert_array_equal(episode.reward, reward.astype(np.float32), strict=True)
        assert (episode.terminated, episode.seed, episode.fps) == (number == 0, 100 + number, 25)
        assert episode.success == ((number == 1) if nested else None)


def picture(t):
    row, column = np.mgrid[:32, :40]
    return np.stack([row * 4 + t, column * 4, 0 * row + 60], -1).astype(np.uint8)  # smooth: JPEG hardly changes it


def jpeg(frame):
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=95)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def test_pictures_are_read_whether_packed_or_not(tmp_path):
    """Minari keeps them as JPEG files unless told otherwise: a row of bytes each, or rows of their own lengths."""
    official(tmp_path / "data", True)
    frames = np.stack([picture(t) for t in range(15)])
    files = [jpeg(frame) for frame in frames]
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "a") as file:
        for number in range(11):
            seen = file[f"episode_{number}/observations"]
            count = number + 5
            rows = seen.create_dataset("ragged", (count,), h5py.vlen_dtype(np.uint8))
            for t in range(count):
                rows[t] = files[t]
            longest = max(map(len, files))
            seen["even"] = np.stack([np.pad(each, (0, longest - len(each))) for each in files[:count]])
            seen["grey"] = np.stack([np.tile(jpeg(frames[0, ..., 0]), (count, 1))])[0]
            seen["raw"] = frames[:count]
            seen["mission"] = ["open the door"] * count
    dataset = minari.read(tmp_path, fps=10)
    assert dataset.features["ragged"].shape == dataset.features["raw"].shape == (32, 40, 3)
    assert dataset.features["grey"].shape == (32, 40) and dataset.left_out == ("mission",)
    episode = dataset[3]
    for name in ("ragged", "even"):
        assert episode.observation[name].dtype == np.uint8
        assert np.abs(episode.observation[name].astype(int) - frames[:7]).max() <= 8
        assert np.abs(episode.final_observation[name].astype(int) - frames[7]).max() <= 8
    assert np.abs(episode.observation["grey"][6].astype(int) - frames[0, ..., 0]).max() <= 8
    np.testing.assert_array_equal(episode.observation["raw"], frames[:7], strict=True)


@pytest.mark.parametrize(("seed", "found"), [("None", None), ("17", 17), (np.uint64(2**64 - 1), None), (5, 5)])
def test_a_seed_may_be_text_or_none(seed, found, tmp_path):
    official(tmp_path / "data", False)
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "a") as file:
        file["episode_0"].attrs["seed"] = seed
    assert minari.read(tmp_path, fps=10)[0].seed == found


def test_one_odd_episode_leaves_the_others(tmp_path):
    official(tmp_path / "data", False)
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/actions"]
        file["episode_1/rewards"][1] = np.nan
        del file["episode_2/observations"]
        file["episode_2/observations"] = np.zeros((7, 4))
        del file["episode_5"]
    dataset, said = minari.read(tmp_path, fps=10), []
    assert len(dataset) == 10 and dataset.features["state"].shape == (3,)
    assert dataset.notes == ("Episodes 5 are missing.",)
    assert [len(episode) for episode in readable(dataset, said.append)] == [7, 8, 10, 11, 12, 13, 14]
    for sentence, words in zip(
        said, ("lacks 'actions'", r"reward holds nan at \[1\]", r"state is float64 \[4\] in episode 2"), strict=True
    ):
        assert re.search(words, sentence), sentence
    with pytest.raises(UserError, match=r"none of 2 episodes can be read; the first: .*lacks 'actions'"):
        list(readable(dataset, said.append, 2))


def test_what_is_missing_is_said(tmp_path):
    official(tmp_path / "data", False, data_format="arrow")
    with pytest.raises(ValueError, match="as 'arrow', this package reads hdf5"):
        minari.read(tmp_path, fps=10)
    with pytest.raises(ValueError, match="pass it as fps"):
        minari.read(tmp_path)


def test_lengths_that_disagree_are_refused(tmp_path):
    official(tmp_path / "data", False)
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "a") as file:
        file["episode_3/observations"].resize((7, 3))
    dataset = minari.read(tmp_path, fps=10)
    with pytest.raises(ValueError, match=r"\[7, 3\] for 7 actions: Minari keeps one observation more"):
        dataset[3]


def test_discrete_actions_are_refused(tmp_path):
    official(tmp_path / "data", False)
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/actions"]
        file["episode_0/actions"] = np.zeros((4, 2), int)
    with pytest.raises(ValueError, match="only continuous"):
        minari.read(tmp_path, fps=10)[0]
