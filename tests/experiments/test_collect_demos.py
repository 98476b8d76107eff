"""Collections at the smallest task as a user runs them: stopped, resumed, enlarged, reported."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mjx_policies.data import lerobot
from mjx_policies.data.formats import read
from mjx_policies.envs.experts.registry import load_expert
from mjx_policies.envs.registry import load
from mjx_policies.errors import UserError
from mjx_policies.experiments import collect_demos as script
from mjx_policies.experiments.collection.demonstration_files import parse, read_begun
from mjx_policies.experiments.collection.demonstrators import expert_demonstrator
from mjx_policies.experiments.collection.rollouts import make_recorder

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Every collection here has the same program, so only the first is compiled."""
    made, build = {}, script.make_recorder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "make_recorder", lambda *of: made.setdefault("record", build(*of) if not made else None))
        yield


def ask(out, **changes):
    arguments = {"episodes": 10, "batch": 4, "video": False, "backend": "cpu"} | changes
    return script.Collect(task="Obstacle2D", out=str(out), **arguments)


def go_on(path, *arguments):
    script.main(parse(script.Collect, arguments=["--resume", "--out", str(path), *arguments]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("demos") / "whole"
    script.main(ask(path, video=True))
    return path


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures are drawn once, of `whole`."""
    monkeypatch.setattr(script, "show", lambda *_: None)


def actions(path):
    return {episode.seed: episode.action for episode in read(path)}


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for seed in expected:
        np.testing.assert_array_equal(found[seed], expected[seed])


def test_a_collection_leaves_a_dataset_with_figures_picture_and_video(whole):
    dataset = read(whole)
    assert len(dataset) == 10 and dataset.fps == 10 and dataset.tasks == ("Obstacle2D",)
    assert all(episode.success and episode.strategy in ("left", "right") for episode in dataset)
    features = json.loads((whole / "meta/info.json").read_text())["features"]
    assert features["observation.environment_state"]["places"] == [4, 5, 6, 7]  # of the obstacle and the goal
    assert features["observation.state"]["shape"] == [4] and dataset[0].observation["state"].shape[1:] == (8,)
    about = whole.with_name("whole.about")
    figures = json.loads((about / "quality.json").read_text())
    assert figures["durations"]["all"]["count"] == 10 and figures["steps"] == sum(dataset.lengths)
    assert figures["success"]["all"]["count"] == figures["rollouts"] >= 10
    assert not figures["checks"]["data: repeated episodes"]["finding"] and figures["checked"] == 10
    assert figures["durations"]["left"]["mean"] == pytest.approx(
        np.mean([len(e) / 10 for e in dataset if e.strategy == "left"])
    )
    assert "| all | 10 | 1.000 [0.7" in (about / "quality.md").read_text()
    assert (about / "demos.png").read_bytes()[:4] == b"\x89PNG"
    assert (about / "video.mp4").read_bytes()[4:8] == b"ftyp"


def test_rollouts_are_those_of_their_seeds(whole):
    """One rollout alone, from the seed that the dataset names."""
    task = load("Obstacle2D", "cpu", 1)
    record = make_recorder(task, expert_demonstrator(load_expert("Obstacle2D", task)))
    episode = read(whole)[7]
    alone = jax.device_get(record(np.array([episode.seed])))
    np.testing.assert_allclose(alone.action[: len(episode), 0], episode.action, atol=1e-5)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("format", ["lerobot", "robomimic"])
def test_a_collection_that_was_stopped_goes_on_as_if_it_had_not_been(whole, tmp_path, capsys, monkeypatch, format):
    out = tmp_path / "demos"
    path = out if format == "lerobot" else tmp_path / "demos.hdf5"
    save = script.write_progress

    def interrupted(path, progress):
        save(path, progress)
        if progress.tally.successes:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(script, "write_progress", interrupted)
    with pytest.raises(SystemExit) as stop:
        script.main(ask(out, format=format))
    assert stop.value.code == 143  # as shells say of SIGTERM
    assert f"{path}: stopped by SIGTERM with 4 of 10 demonstrations; go on with --resume --out {path}" in (
        capsys.readouterr().out
    )
    assert len(read(path)) == 4
    monkeypatch.setattr(script, "write_progress", save)
    go_on(path)
    assert_equal(actions(path), actions(whole))
    assert script.read_progress(path).tally.counts == script.read_progress(whole).tally.counts


@pytest.mark.usefixtures("undrawn")
def test_a_collection_whose_process_was_killed_goes_on(whole, tmp_path, monkeypatch):
    """Dead in the middle of a batch: episodes are ahead of the progress."""
    writer = lerobot.Writer

    class Dying(writer):
        def add(self, episode):
            if len(self) == 6:
                raise MemoryError
            return super().add(episode)

    monkeypatch.setattr(lerobot, "Writer", Dying)
    with pytest.raises(MemoryError):
        script.main(ask(tmp_path / "a"))
    assert len(read(tmp_path / "a")) == 6
    monkeypatch.setattr(lerobot, "Writer", writer)
    go_on(tmp_path / "a")
    assert_equal(actions(tmp_path / "a"), actions(whole))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("lost", [4, 10])
def test_what_a_killed_process_did_not_tell_of_is_counted(whole, tmp_path, monkeypatch, lost):
    """Dead between the episodes of a batch and the progress; what is there is counted, however few are asked for."""
    save, path = script.write_progress, tmp_path / "a"

    def dying(path, progress):
        if progress.tally.successes >= lost:
            raise MemoryError
        save(path, progress)

    monkeypatch.setattr(script, "write_progress", dying)
    with pytest.raises(MemoryError):
        script.main(ask(path))
    there, told = len(read(path)), script.read_progress(path).tally.successes
    assert told < lost <= there
    monkeypatch.setattr(script, "write_progress", save)
    go_on(path, "--episodes", str(lost))
    assert script.read_progress(path).tally.successes == len(read(path)) == there
    go_on(path, "--episodes", "10")
    assert script.read_progress(path).tally.counts == script.read_progress(whole).tally.counts
    assert_equal(actions(path), actions(whole))


@pytest.mark.usefixtures("undrawn")
def test_the_video_of_a_collection_that_was_stopped_is_that_of_one_that_was_not(tmp_path, monkeypatch):
    videos = []
    monkeypatch.setattr(script, "render_montage", lambda model, cells, *_: videos.append(cells))
    script.main(ask(tmp_path / "a", video=True))
    script.main(ask(tmp_path / "b", episodes=2, video=True))
    few = videos.pop()
    assert len(few) <= 2
    go_on(tmp_path / "b", "--episodes", "10")
    go_on(tmp_path / "b", "--episodes", "10")  # as after a kill while the dataset was checked
    assert len(videos) == 3 and len(few) <= len(videos[0]) > 1
    for cells in videos[1:]:
        assert [cell.caption for cell in cells] == [cell.caption for cell in videos[0]]
        for one, other in zip(cells, videos[0], strict=True):
            np.testing.assert_array_equal(one.qpos, other.qpos)


@pytest.mark.usefixtures("undrawn")
def test_the_engine_of_a_collection_is_kept(tmp_path):
    """What `auto` means depends on the device, and a collection may go on on another one."""
    script.main(ask(tmp_path / "a", episodes=1, backend="auto"))
    assert read_begun(script.Collect, tmp_path / "a").backend == "cpu"


@pytest.mark.usefixtures("undrawn")
def test_a_collection_is_enlarged(whole, tmp_path, capsys):
    script.main(ask(tmp_path / "a", episodes=3))
    go_on(tmp_path / "a", "--episodes", "10")
    assert_equal(actions(tmp_path / "a"), actions(whole))
    assert "none are added" not in capsys.readouterr().out
    go_on(tmp_path / "a", "--episodes", "5")
    assert "a holds 10 demonstrations, --episodes is 5: none are added." in capsys.readouterr().out
    assert len(read(tmp_path / "a")) == 10


@pytest.mark.usefixtures("undrawn")
def test_collections_of_other_seeds_share_nothing(whole, tmp_path):
    script.main(ask(tmp_path / "a", seed=1, labels="intended"))
    other = actions(tmp_path / "a")
    assert not other.keys() & actions(whole).keys() and min(other) == 1_000_000


@pytest.mark.usefixtures("undrawn")
def test_a_collection_goes_on_as_it_began(whole, tmp_path):
    with pytest.raises(UserError, match=r"goes on as it began, but seed: 0 in the run, now 3"):
        go_on(whole, "--seed", "3")
    with pytest.raises(UserError, match="holds something already"):
        script.main(ask(whole))
    script.main(ask(tmp_path / "a.hdf5", episodes=2, format="robomimic"))
    with pytest.raises(UserError, match=r"is finished, and a file of robomimic cannot go on"):
        go_on(tmp_path / "a", "--episodes", "5")
    with pytest.raises(UserError, match="was not begun by this script"):
        parse(script.Collect, arguments=["--resume", "--out", str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="--out, which is missing"):
        parse(script.Collect, arguments=["--resume"])


@pytest.mark.parametrize("file", ["collection.json", "progress.json"])
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [("[]", "holds other settings than are wanted here"), ('{"config": 1}', "holds other settings"), ("{", "{file}")],
)
def test_a_damaged_file_beside_a_dataset_is_one_sentence(whole, tmp_path, file, damage, sentence):
    shutil.copytree(whole.with_name("whole.about"), tmp_path / "a.about")
    (tmp_path / "a.about" / file).write_text(damage)
    with pytest.raises(UserError, match=sentence.format(file=file)):
        go_on(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task": "Pendulum"}, "there is no expert for 'Pendulum'; tasks with an expert: Obstacle2D"),
        ({"task": "Nothing"}, "unknown task 'Nothing'"),
        ({"actions": "joint_delta"}, "Obstacle2D has actions of its own"),
        ({"randomize": 1.0}, "needs a robot with a preset"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2_000}, "seed is 2000"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_before_anything_is_written(tmp_path, capsys, changes, sentence):
    arguments = {"task": "Obstacle2D", "out": str(tmp_path / "a"), "backend": "cpu"} | changes
    try:
        script.main(script.Collect(**arguments))
        words = ""
    except ValueError as error:
        words = str(error)
    except SystemExit as stop:
        assert stop.code == 2
        words = capsys.readouterr().err
    assert sentence in words and not list(tmp_path.iterdir())


def test_the_command_line_ends_with_code_2(tmp_path):
    command = [sys.executable, str(EXPERIMENTS / "collect_demos.py"), "--task", "Obstacle2D", "--episodes", "0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "episodes is 0, it must be at least 1" in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())
