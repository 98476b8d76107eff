"""Taking back the last episode, in both formats that can be written."""

import numpy as np
import pytest

from mjx_policies.data import lerobot, robomimic
from mjx_policies.data.formats import read
from mjx_policies.errors import UserError


@pytest.fixture(params=["lerobot", "robomimic"])
def place(request, tmp_path):
    return (lerobot, tmp_path / "a") if request.param == "lerobot" else (robomimic, tmp_path / "a.hdf5")


def test_what_was_taken_back_was_never_there(place, make_episode, assert_same):
    module, path = place
    kept = [make_episode(3 + seed, seed) for seed in (1, 3, 4)]
    with module.Writer(path) as writer:
        writer.add(make_episode(9))
        writer.remove_last()
        assert len(writer) == 0
        writer.add(kept[0])
        writer.add(make_episode(8, 2))
        writer.remove_last()
        writer.add(kept[1])
        assert read(path).lengths == [4, 6]  # also before it is closed
        writer.add(kept[2])
    found = read(path)
    assert len(found) == 3
    for a, b in zip(found, kept, strict=True):
        assert_same(a, b)


def test_an_empty_dataset_has_nothing_to_take_back(place, make_episode):
    module, path = place
    with module.Writer(path) as writer:
        with pytest.raises(UserError, match="taken back"):
            writer.remove_last()
        writer.add(make_episode())


def test_merged_episodes_stay(make_episode, tmp_path, monkeypatch):
    monkeypatch.setattr("mjx_policies.data.lerobot.writer.MERGE_EVERY", 3)
    with lerobot.Writer(tmp_path / "a") as writer:
        for seed in range(4):
            writer.add(make_episode(3 + seed, seed))
        writer.remove_last()
        with pytest.raises(UserError, match="no episode that can still be taken back"):
            writer.remove_last()
    found = read(tmp_path / "a")
    assert len(found) == 3 and sum(found.lengths) == sum(len(found[i]) for i in range(3))


def test_videos_go_too(make_episode, tmp_path):
    pictures = {"state": np.zeros((5, 1)), "pixels": np.zeros((5, 16, 24, 3), np.uint8)}
    with lerobot.Writer(tmp_path / "a", videos=True) as writer:
        for _ in range(2):
            writer.add(make_episode(observation=pictures, final_observation=None))
        assert len(list((tmp_path / "a").rglob("*.mp4"))) == 2
        writer.remove_last()
        assert len(list((tmp_path / "a").rglob("*.mp4"))) == 1
    assert len(read(tmp_path / "a")) == 1
