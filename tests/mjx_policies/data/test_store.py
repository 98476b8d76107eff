import dataclasses

import numpy as np
import pytest

from mjx_policies.data import lerobot
from mjx_policies.data.store import build, fingerprint, in_memory, open_store


def test_on_disk_as_in_memory(make_episode, tmp_path):
    episodes = [make_episode(2 + n, n, pictures=True) for n in range(4)]
    lerobot.write(tmp_path / "data", episodes)
    done = []
    stores = (
        in_memory(episodes),
        build(tmp_path / "store", lerobot.read(tmp_path / "data"), report=done.append),
        open_store(tmp_path / "store"),
    )
    assert done == [1, 2, 3, 4]
    for store in stores:
        assert (store.tasks, store.fps) == (("task 0", "task 1"), 20)
        assert store.lengths.tolist() == [2, 3, 4, 5] and store.starts.tolist() == [0, 2, 5, 9]
        assert store.task.tolist() == [0, 1, 0, 1]
        assert store.arrays.keys() == {*episodes[0].observation, "action"}
        for name, array in store.arrays.items():
            rows = [e.action if name == "action" else e.observation[name] for e in episodes]
            expected = np.concatenate(rows)
            expected = expected.astype(np.float32) if expected.dtype == np.float64 else expected
            np.testing.assert_array_equal(array, expected, strict=True)
    assert isinstance(stores[1].arrays["state"], np.memmap)


def test_a_fingerprint_tells_stores_apart(make_episode, tmp_path):
    episodes = [make_episode(2 + n, n) for n in range(3)]
    first = fingerprint(in_memory(episodes))
    assert (first["episodes"], first["steps"]) == (3, 9)
    assert first == fingerprint(in_memory(episodes)) == fingerprint(build(tmp_path / "store", episodes))
    others = (episodes[::-1], episodes[:2], [*episodes[:2], dataclasses.replace(episodes[2], task="another")])
    changed = dataclasses.replace(episodes[1], action=np.nextafter(episodes[1].action, np.float32(9)))
    for other in (*others, [episodes[0], changed, episodes[2]]):
        assert fingerprint(in_memory(other))["sha256"] != first["sha256"]


def test_only_what_is_asked_for(make_episode, tmp_path):
    store = build(tmp_path / "store", [make_episode(pictures=True)], ["state"])
    assert store.arrays.keys() == {"state", "action"}
    with pytest.raises(ValueError, match="no observation 'force', only state, phase"):
        in_memory([make_episode()], ["force"])


def test_a_store_appears_whole_or_not_at_all(make_episode, tmp_path):
    def broken():
        yield make_episode()
        raise RuntimeError("the disk went away")

    with pytest.raises(RuntimeError):
        build(tmp_path / "store", broken())
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="there are no episodes"):
        build(tmp_path / "store", [])
    build(tmp_path / "store", [make_episode()])
    with pytest.raises(ValueError, match="exists already"):
        build(tmp_path / "store", [make_episode()])


@pytest.mark.parametrize(
    ("change", "words"),
    [({"action": np.zeros((5, 2))}, "action is"), ({"fps": 10}, "fps is 10 in episode 1 and 20 in those before it")],
)
def test_unlike_episodes_are_refused(make_episode, change, words):
    with pytest.raises(ValueError, match=words):
        in_memory([make_episode(), make_episode(**change)])
