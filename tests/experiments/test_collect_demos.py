"""Campaigns at the smallest task as a user runs them: stopped, taken up again, enlarged, shown."""

import importlib.util
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from mjx_policies.data import lerobot
from mjx_policies.data.formats import read
from mjx_policies.training.errors import UserError
from mjx_policies.training.progress import LiteralConsole

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        spec = importlib.util.spec_from_file_location("collect_demos", EXPERIMENTS / "collect_demos.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["collect_demos"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(EXPERIMENTS))
    return module


@pytest.fixture(scope="module", autouse=True)
def compiled_once(script):
    """Every campaign here has the same program, so only the first is compiled."""
    made = {}
    build = script.make_recorder

    class Lowered:
        def __init__(self, record):
            self.record = record

        def lower(self, keys):
            if not made:
                made["program"] = self.record.lower(keys).compile()
            return self

        def compile(self):
            return made["program"]

    script.make_recorder = lambda *arguments: Lowered(build(*arguments))
    yield
    script.make_recorder = build


def ask(script, out, **changes):
    arguments = {"episodes": 10, "batch": 4, "film": False, "backend": "cpu"} | changes
    return script.Collect(task="Obstacle2D", out=str(out), **arguments)


@pytest.fixture(scope="module")
def whole(script, tmp_path_factory):
    path = tmp_path_factory.mktemp("demos") / "whole"
    script.main(ask(script, path, film=True))
    return path


@pytest.fixture
def unseen(script, monkeypatch):
    """Pictures are drawn once, of `whole`."""
    monkeypatch.setattr(script, "show", lambda *_: None)


def actions(path):
    return {episode.seed: episode.action for episode in read(path)}


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for seed in expected:
        np.testing.assert_array_equal(found[seed], expected[seed])


def test_a_campaign_leaves_a_dataset_with_figures_picture_and_film(whole):
    dataset = read(whole)
    assert len(dataset) == 10 and dataset.fps == 10 and dataset.tasks == ("Obstacle2D",)
    assert all(episode.success and episode.strategy in ("left", "right") for episode in dataset)
    features = json.loads((whole / "meta/info.json").read_text())["features"]
    assert features["observation.environment_state"]["places"] == [4, 5, 6, 7]  # of the obstacle and the goal
    assert features["observation.state"]["shape"] == [4] and dataset[0].observation["state"].shape[1:] == (8,)
    about = whole.with_name("whole.about")
    figures = json.loads((about / "quality.json").read_text())
    assert figures["episodes"] == 10 and figures["steps"] == sum(dataset.lengths)
    assert figures["success"]["all"]["count"] == figures["attempts"] >= 10
    assert sum(figures["strategies"].values()) == 10 and figures["duplicates"]["count"] == 0
    assert figures["durations"]["left"]["mean"] == pytest.approx(
        np.mean([len(e) / 10 for e in dataset if e.strategy == "left"])
    )
    assert "| all | 10 | 1.000 [0.7" in (about / "quality.md").read_text()
    assert (about / "demos.png").read_bytes()[:4] == b"\x89PNG"
    assert (about / "film.mp4").read_bytes()[4:8] == b"ftyp"


def test_attempts_are_those_of_their_seeds(script, whole):
    """One attempt alone, from the seed that the dataset names."""
    from mjx_policies.envs.experts.registry import load_expert
    from mjx_policies.envs.registry import load
    from mjx_policies.experiments.collection.demonstrators import expert_demonstrator
    from mjx_policies.experiments.collection.rollouts import make_recorder

    task = load("Obstacle2D", "cpu", 1)
    record = make_recorder(task, expert_demonstrator(load_expert("Obstacle2D", task)))
    episode = read(whole)[7]
    alone = jax.device_get(record(jax.vmap(jax.random.key)(np.array([episode.seed]))))
    np.testing.assert_allclose(alone.action[: len(episode), 0], episode.action, atol=1e-5)


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize("format", ["lerobot", "robomimic"])
def test_a_campaign_that_was_stopped_goes_on_as_if_it_had_not_been(
    script, whole, tmp_path, capsys, monkeypatch, format
):
    out = tmp_path / "demos"
    path = out if format == "lerobot" else tmp_path / "demos.hdf5"
    save = script.save_campaign

    def interrupted(asked, account):
        save(asked, account)
        if account.successes:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(script, "save_campaign", interrupted)
    with pytest.raises(SystemExit) as stop:
        script.main(ask(script, out, format=format))
    assert stop.value.code == 143  # as shells say of SIGTERM
    assert f"{path}: stopped by SIGTERM with 4 of 10 demonstrations; go on with --resume --out {path}" in (
        capsys.readouterr().out
    )
    assert len(read(path)) == 4
    monkeypatch.setattr(script, "save_campaign", save)
    script.main(script.parse(["--resume", "--out", str(path)]))
    assert_equal(actions(path), actions(whole))
    assert script.read_campaign(path)[1].counts == script.read_campaign(whole)[1].counts


@pytest.mark.usefixtures("unseen")
def test_a_campaign_whose_process_was_killed_goes_on(script, whole, tmp_path, monkeypatch):
    """Dead in the middle of a batch: episodes are ahead of the account."""
    writer = lerobot.Writer

    class Dying(writer):
        def add(self, episode):
            if len(self) == 6:
                raise MemoryError
            return super().add(episode)

    monkeypatch.setattr(lerobot, "Writer", Dying)
    with pytest.raises(MemoryError):
        script.main(ask(script, tmp_path / "a"))
    assert len(read(tmp_path / "a")) == 6
    monkeypatch.setattr(lerobot, "Writer", writer)
    script.main(script.parse(["--resume", "--out", str(tmp_path / "a")]))
    assert_equal(actions(tmp_path / "a"), actions(whole))


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize("lost", [4, 10])
def test_what_a_killed_process_did_not_tell_of_is_counted(script, whole, tmp_path, monkeypatch, lost):
    """Dead between the episodes of a batch and its account; what is there is counted, however few are asked for."""
    save, path = script.save_campaign, tmp_path / "a"

    def dying(asked, account):
        if account.successes >= lost:
            raise MemoryError
        save(asked, account)

    monkeypatch.setattr(script, "save_campaign", dying)
    with pytest.raises(MemoryError):
        script.main(ask(script, path))
    there, told = len(read(path)), script.read_campaign(path)[1].successes
    assert told < lost <= there
    monkeypatch.setattr(script, "save_campaign", save)
    script.main(script.parse(["--resume", "--out", str(path), "--episodes", str(lost)]))
    assert script.read_campaign(path)[1].successes == len(read(path)) == there
    script.main(script.parse(["--resume", "--out", str(path), "--episodes", "10"]))
    assert script.read_campaign(path)[1].counts == script.read_campaign(whole)[1].counts
    assert_equal(actions(path), actions(whole))


@pytest.mark.usefixtures("unseen")
def test_the_film_of_a_campaign_that_was_stopped_is_that_of_one_that_was_not(script, tmp_path, monkeypatch):
    films = []
    monkeypatch.setattr(script, "film_montage", lambda model, cells, *_: films.append(cells))
    script.main(ask(script, tmp_path / "a", film=True))
    script.main(ask(script, tmp_path / "b", episodes=2, film=True))
    few = films.pop()
    assert len(few) <= 2
    again = ["--resume", "--out", str(tmp_path / "b"), "--episodes"]
    script.main(script.parse([*again, "10"]))
    script.main(script.parse([*again, "10"]))  # as after a kill while the dataset was shown
    assert len(films) == 3 and len(few) <= len(films[0]) > 1
    for cells in films[1:]:
        assert [cell.caption for cell in cells] == [cell.caption for cell in films[0]]
        for one, other in zip(cells, films[0], strict=True):
            np.testing.assert_array_equal(one.qpos, other.qpos)


@pytest.mark.usefixtures("unseen")
def test_the_engine_of_a_campaign_is_kept(script, tmp_path):
    """What `auto` means depends on the device, and a campaign may go on on another one."""
    script.main(ask(script, tmp_path / "a", episodes=1, backend="auto"))
    assert script.read_campaign(tmp_path / "a")[0].backend == "cpu"


@pytest.mark.usefixtures("unseen")
def test_a_campaign_is_enlarged(script, whole, tmp_path):
    script.main(ask(script, tmp_path / "a", episodes=3))
    script.main(script.parse(["--resume", "--out", str(tmp_path / "a"), "--episodes", "10"]))
    assert_equal(actions(tmp_path / "a"), actions(whole))
    script.main(script.parse(["--resume", "--out", str(tmp_path / "a"), "--episodes", "5"]))  # nothing left to do
    assert len(read(tmp_path / "a")) == 10


def test_the_bar_fits_a_terminal_of_80_columns(script):
    console = LiteralConsole(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    counts = {"left": {"success": 900, "lost": 142}}
    with script.Bar(1_000, 100, console) as bar:
        bar.update(900, script.Account(counts))
    said = console.file.getvalue()
    assert "900 of 1,000 demonstrations, 0s left" in said and "…" not in said


def test_a_slow_batch_is_not_silent(script, monkeypatch):
    monkeypatch.setattr("mjx_policies.training.waiting.LINE_SECONDS", 0.02)
    console = LiteralConsole(file=io.StringIO())
    with script.Bar(10, 0, console) as bar:
        bar.update(4, script.Account({"left": {"success": 4}}))
        end = time.monotonic() + 60
        while console.file.getvalue().count("of 4 attempts") < 2 and time.monotonic() < end:
            time.sleep(0.01)
        bar.update(10, script.Account({"left": {"success": 10}}))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "collecting ..." and sum("4 of 10 demonstrations, " in line for line in lines) >= 2
    assert any(line.startswith("10 of 10 demonstrations, 0s left, 100.0% [") for line in lines)


@pytest.mark.usefixtures("unseen")
def test_campaigns_of_other_seeds_share_nothing(script, whole, tmp_path):
    script.main(ask(script, tmp_path / "a", seed=1, labels="intended"))
    other = actions(tmp_path / "a")
    assert not other.keys() & actions(whole).keys() and min(other) == 1_000_000


@pytest.mark.usefixtures("unseen")
def test_a_campaign_goes_on_as_it_began(script, whole, tmp_path):
    with pytest.raises(UserError, match=r"goes on as it began, but seed: 0 in the run, now 3"):
        script.main(script.parse(["--resume", "--out", str(whole), "--seed", "3"]))
    with pytest.raises(UserError, match="holds something already"):
        script.main(ask(script, whole))
    script.main(ask(script, tmp_path / "a.hdf5", episodes=2, format="robomimic"))
    with pytest.raises(UserError, match=r"is finished, and a file of robomimic cannot go on"):
        script.main(script.parse(["--resume", "--out", str(tmp_path / "a"), "--episodes", "5"]))
    with pytest.raises(UserError, match="was not begun by this script"):
        script.parse(["--resume", "--out", str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="--out, which is missing"):
        script.parse(["--resume"])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("[]", "does not describe a campaign"),
        ('{"config": {}, "account": {}}', "config holds other settings than are wanted here"),
        ("{", "campaign.json"),
        ('{"config": 1}', "does not describe a campaign"),
    ],
)
def test_a_damaged_account_is_one_sentence(script, tmp_path, damage, sentence):
    (tmp_path / "a.about").mkdir()
    (tmp_path / "a.about" / "campaign.json").write_text(damage)
    with pytest.raises(UserError, match=sentence):
        script.parse(["--resume", "--out", str(tmp_path / "a")])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task": "Pendulum"}, "there is no expert for 'Pendulum'; tasks with an expert: Obstacle2D"),
        ({"task": "Nothing"}, "unknown task 'Nothing'"),
        ({"actions": "joint_delta"}, "Obstacle2D has actions of its own"),
        ({"randomize": 1.0}, "needs a robot with a preset"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_before_anything_is_written(script, tmp_path, capsys, changes, sentence):
    arguments = {"task": "Obstacle2D", "out": str(tmp_path / "a"), "backend": "cpu"} | changes
    try:
        script.main(script.Collect(**arguments))
        words = ""
    except UserError as error:
        words = str(error)
    except SystemExit as stop:
        assert stop.code == 2
        words = capsys.readouterr().err
    assert sentence in words and not list(tmp_path.iterdir())


def test_the_command_line_ends_with_code_2(tmp_path):
    command = [sys.executable, str(EXPERIMENTS / "collect_demos.py"), "--task", "Obstacle2D", "--episodes", "0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "episodes is 0, it must be at least 1." in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())
