import json

import h5py
import numpy as np
import pytest

from mjx_policies.data import minari


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
        file["episode_0/actions"] = np.zeros((4, 1), int)
    with pytest.raises(ValueError, match="only continuous"):
        minari.read(tmp_path, fps=10)[0]
