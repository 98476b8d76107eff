import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mjx_policies.data.episodes import Episode
from mjx_policies.data.formats import read, write
from mjx_policies.training.errors import UserError

SCRIPT = Path(__file__).parents[2] / "experiments" / "convert_dataset.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("convert_dataset", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["convert_dataset"] = module
    spec.loader.exec_module(module)
    return module


def episode(number):
    rng = np.random.default_rng(number)
    steps = 3 + number
    observation = {
        "state": rng.normal(size=(steps, 2)),
        "pixels": rng.integers(0, 256, (steps, 8, 8, 3), dtype=np.uint8),
    }
    final = {name: rows[-1] for name, rows in observation.items()}
    return Episode(
        observation, rng.normal(size=(steps, 2)), rng.normal(size=steps), False, number != 1, "push", 20, final
    )


def same(a, b):
    pairs = [(a.action, b.action), (a.reward, b.reward)]
    pairs += [(a.observation[name], b.observation[name]) for name in b.observation]
    pairs += [(a.final_observation[name], b.final_observation[name]) for name in b.final_observation]
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in pairs)


def test_there_and_back(script, tmp_path):
    write(tmp_path / "a", [episode(n) for n in range(3)])
    script.main(script.Convert(tmp_path / "a", tmp_path / "b.hdf5"))
    script.main(script.Convert(tmp_path / "b.hdf5", tmp_path / "c"))
    assert all(same(found, episode(n)) for n, found in enumerate(read(tmp_path / "c")))
    script.main(script.Convert(tmp_path / "a", tmp_path / "good", only_successes=True))
    assert read(tmp_path / "good").lengths == [3, 5]
    script.main(script.Convert(tmp_path / "a", tmp_path / "film", videos=True))
    info = json.loads((tmp_path / "film/meta/info.json").read_text())
    assert info["features"]["observation.pixels"]["dtype"] == "video"


def test_a_conversion_goes_on(script, tmp_path):
    write(tmp_path / "a", [episode(n) for n in range(3)])
    write(tmp_path / "b", [episode(0)])
    script.main(script.Convert(tmp_path / "a", tmp_path / "b", append=True))
    assert all(same(found, episode(n)) for n, found in enumerate(read(tmp_path / "b")))
    for wrong, words in (
        ({"append": True, "only_successes": True}, "cannot go on"),
        ({"out": tmp_path / "c.hdf5", "videos": True}, "no videos"),
        ({"out": tmp_path / "a"}, "what is to be converted"),
    ):
        with pytest.raises(UserError, match=words):
            script.main(script.Convert(**{"source": tmp_path / "a", "out": tmp_path / "b", **wrong}))


def test_from_minari(script, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/metadata.json").write_text(json.dumps({"dataset_id": "pen/human-v2"}))
    with h5py.File(tmp_path / "data/main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        group["observations"], group["actions"] = np.arange(8.0).reshape(4, 2), np.zeros((3, 1), np.float32)
        group["rewards"], group["terminations"] = np.ones(3), np.array([False, False, True])
    script.main(script.Convert(tmp_path, tmp_path / "out", fps=50))
    found = read(tmp_path / "out")[0]
    np.testing.assert_array_equal(found.observation["state"], [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(found.final_observation["state"], [6, 7])
    assert (found.terminated, found.success, found.task, found.fps) == (True, None, "pen/human-v2", 50)


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path / "nowhere"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == f"error: {tmp_path}/nowhere does not exist. Check the path.\n"
    assert not (tmp_path / "out").exists()
