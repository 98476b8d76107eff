import dataclasses
import errno
import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mjx_policies.data import lerobot, robomimic
from mjx_policies.data.episodes import Episode
from mjx_policies.data.formats import kept, read, write
from mjx_policies.errors import UserError

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
    script.main(script.Convert(tmp_path / "b.hdf5", tmp_path / "c-v1.2"))
    assert all(same(found, episode(n)) for n, found in enumerate(read(tmp_path / "c-v1.2")))
    script.main(script.Convert(tmp_path / "a", tmp_path / "good", only_successes=True))
    assert read(tmp_path / "good").lengths == [3, 5]
    script.main(script.Convert(tmp_path / "a", tmp_path / "video", videos=True))
    info = json.loads((tmp_path / "video/meta/info.json").read_text())
    assert info["features"]["observation.pixels"]["dtype"] == "video"


def test_a_conversion_goes_on(script, tmp_path):
    write(tmp_path / "a", [episode(n) for n in range(3)])
    write(tmp_path / "b", [episode(0)])
    script.main(script.Convert(tmp_path / "a", tmp_path / "b", append=True))
    assert all(same(found, episode(n)) for n, found in enumerate(read(tmp_path / "b")))
    for wrong, words in (
        ({"source": tmp_path / "b", "out": tmp_path / "video", "append": True}, "holds no dataset to append to"),
        ({"out": tmp_path / "c.hdf5", "videos": True}, "no videos"),
        ({"out": tmp_path / "a"}, "what is to be converted"),
        ({"out": tmp_path / "out.txt"}, "is named like a file, and a dataset of LeRobot is a folder: leave .txt out"),
    ):
        with pytest.raises(UserError, match=words):
            script.main(script.Convert(**{"source": tmp_path / "a", "out": tmp_path / "b", **wrong}))


def test_it_goes_on_where_it_stopped_whatever_is_left_out(script, tmp_path, monkeypatch, capsys):
    write(tmp_path / "a.hdf5", [episode(n) for n in range(5)], "robomimic")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["data/demo_2/obs/state"][0, 0] = np.nan
    add, asked = lerobot.Writer.add, {"source": tmp_path / "a.hdf5", "out": tmp_path / "b", "only_successes": True}

    def interrupted(writer, each):
        signal.raise_signal(signal.SIGTERM)
        return add(writer, each)

    with monkeypatch.context() as patch:
        patch.setattr(lerobot.Writer, "add", interrupted)
        with pytest.raises(SystemExit) as stop:
            script.main(script.Convert(**asked))
    assert stop.value.code == 143
    assert "stopped by SIGTERM after 1 of 5 episodes; go on with --append" in capsys.readouterr().out
    script.main(script.Convert(**asked, append=True))
    out = capsys.readouterr().out
    assert "skipped episode 2: " in out and "observation['state'] holds nan at [0, 0]" in out
    assert "3 of 5 episodes; 1 skipped" in out
    assert read(tmp_path / "b").lengths == [3, 6, 7]
    write(tmp_path / "other", [episode(n + 1) for n in range(2)])
    for source, out in (("other", "b"), ("a.hdf5", "other")):
        with pytest.raises(UserError, match="holds other episodes than those of"):
            script.main(script.Convert(tmp_path / source, tmp_path / out, append=True))
    assert len(read(tmp_path / "b")) == 3 and len(read(tmp_path / "other")) == 2


@pytest.mark.parametrize(("out", "module"), [("b", lerobot), ("b.hdf5", robomimic)])
def test_what_failed_leaves_nothing(script, out, module, tmp_path, monkeypatch):
    write(tmp_path / "a", [episode(n) for n in range(3)])
    before, add = sorted(tmp_path.rglob("*")), module.Writer.add

    def full(writer, each):
        if len(writer) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return add(writer, each)

    monkeypatch.setattr(module.Writer, "add", full)
    with pytest.raises(OSError, match="No space left"):
        script.main(script.Convert(tmp_path / "a", tmp_path / out))
    assert sorted(tmp_path.rglob("*")) == before
    write(tmp_path / "c", [dataclasses.replace(episode(0), success=None)])
    with pytest.raises(UserError, match="no episode that is known to have succeeded"):
        script.main(script.Convert(tmp_path / "c", tmp_path / out, only_successes=True))
    assert not (tmp_path / out).exists() and not (tmp_path / f"{out}.parts").exists()


def test_a_full_disk_under_hdf5_is_one_sentence(tmp_path):
    """A limit on the size of files stands for a disk: h5py says what it met in words only."""
    write(tmp_path / "a", [episode(300)])
    code = (
        f"import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); sys.argv[0] = {str(SCRIPT)!r}; "
    )
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, 2**14)); import runpy; "
    code += f"sys.path.insert(0, {str(SCRIPT.parent)!r}); "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(tmp_path / "a"), str(tmp_path / "b.hdf5")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "disk is full" in done.stderr and "b.hdf5.parts" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_names_that_cannot_be_are_one_sentence(script, tmp_path):
    write(tmp_path / "a", [episode(0)])
    (tmp_path / "file").touch()
    for out in ("x" * 300, "x" * 300 + ".hdf5", "file/b", "file/b.hdf5"):
        with pytest.raises(UserError, match=r"cannot (write|create the folder) .*(too long|Not a directory|exists)"):
            script.main(script.Convert(tmp_path / "a", tmp_path / out))
    with pytest.raises(UserError, match=r"cannot read .*too long"):
        script.main(script.Convert(tmp_path / ("x" * 300), tmp_path / "b"))


def test_what_is_known_of_the_robot_is_kept(script, tmp_path):
    about = {"robot": "fr3", "action_names": ("x", "y"), "environment": (1,)}
    write(tmp_path / "a", [episode(n) for n in range(2)], **about)
    script.main(script.Convert(tmp_path / "a", tmp_path / "b.hdf5"))
    script.main(script.Convert(tmp_path / "b.hdf5", tmp_path / "c"))
    for path in ("a", "b.hdf5", "c"):
        assert kept(read(tmp_path / path)) == about
        assert all(same(found, episode(n)) for n, found in enumerate(read(tmp_path / path)))
    info = json.loads((tmp_path / "c/meta/info.json").read_text())
    assert info["robot_type"] == "fr3" and info["features"]["action"]["names"] == ["x", "y"]


def test_uneven_steps_are_not_written_as_even_ones(script, tmp_path, capsys):
    write(tmp_path / "a", [episode(n) for n in range(3)])
    path = tmp_path / "a/data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    times = table["timestamp"].to_numpy().copy()
    times[3 + 2 :][:2] += 0.1  # a gap in the second episode, of 4 steps
    times[7 + 1] += 0.01  # the third is a little off
    column = table.column_names.index("timestamp")
    pq.write_table(table.set_column(column, "timestamp", pa.array(times)), path)
    script.main(script.Convert(tmp_path / "a", tmp_path / "b"))
    out = capsys.readouterr().out
    assert "skipped episode 1: its time stamps are uneven, a step is off by 2.0 times the 0.05 s" in out
    assert "Time stamps are up to 10 ms uneven" in out and "2 of 3 episodes; 1 skipped" in out
    assert read(tmp_path / "b").lengths == [3, 5]


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
