"""Recording by hand: the script with keys that nobody presses, and in a terminal that nobody sits at."""

import contextlib
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mjx_policies.data.formats import read
from mjx_policies.envs.registry import load
from mjx_policies.errors import UserError
from mjx_policies.experiments import record_demos as script
from mjx_policies.experiments.collection.demonstration_files import parse

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SCRIPT = EXPERIMENTS / "record_demos.py"


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Every session here has the same robot, so it is compiled once."""
    made, build = {}, script.make_teleop_task
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "make_teleop_task", lambda *of: made.setdefault("it", build(*of) if not made else None))
        yield


def pressed(*keys):
    """One entry a period."""
    entries = iter(keys)
    return lambda: next(entries, ["x"])


def test_sessions_add_up(tmp_path, capsys):
    ask = lambda **changes: script.Record(task="Obstacle2D", out=str(tmp_path / "a"), operator="ada", **changes)  # noqa: E731
    script.main(ask(), pressed(["enter"], ["w"], ["w"], ["enter"], ["enter"], ["w"], ["enter"], ["u"]))
    script.main(ask(resume=True), pressed(["enter"], ["a"], [], [], ["enter"], ["enter"], []))
    dataset = read(tmp_path / "a")
    assert dataset.lengths == [3, 4] and [episode.seed for episode in dataset] == [0, 1]
    assert {episode.strategy for episode in dataset} == {"ada"} and not any(episode.success for episode in dataset)
    assert (dataset[0].action[1:, 0] > 0).all() and (dataset[1].action[1:3, 1] > 0).all()  # the first period is at rest
    out = capsys.readouterr().out
    assert "1 episodes, +1 in this session" in out and "2 episodes, +1 in this session" in out
    about = tmp_path / "a.about"
    assert "| ada |" in (about / "quality.md").read_text() and (about / "demos.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(UserError, match="holds something already"):
        script.main(ask(), pressed())


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (["--seed", "3"], "seed: 0 in the run, now 3"),
        (["--randomize", "0.5"], "randomize: 0.0 in the run, now 0.5"),
        (["--task", "FrankaReach"], "task: 'Obstacle2D' in the run, now 'FrankaReach'"),
        (["--actions", "joint_delta"], "actions: None in the run, now 'joint_delta'"),
    ],
)
def test_a_dataset_goes_on_as_it_was_begun(tmp_path, arguments, changed):
    path = tmp_path / "a"
    script.main(script.Record("Obstacle2D", str(path), operator="ada"), pressed())

    def again(*arguments):
        return parse(script.Record, arguments=["--resume", "--out", str(path), *arguments])

    assert again().operator == "ada" and again("--operator", "bob").task == "Obstacle2D"
    with pytest.raises(UserError, match=f"goes on as it began, but {changed}"):
        again(*arguments)


def test_what_does_not_go_on_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="was not begun by this script"):
        parse(script.Record, arguments=["--resume", "--out", str(tmp_path / "a")])
    ask = script.Record("Obstacle2D", str(tmp_path / "a"), "robomimic")
    keys = [["enter"], ["w"], ["enter"]]
    script.main(ask, pressed(*keys))
    with pytest.raises(UserError, match="is finished, and a file of robomimic cannot go on"):
        script.main(parse(script.Record, arguments=["--resume", "--out", str(tmp_path / "a")]), pressed(*keys))
    assert len(read(tmp_path / "a.hdf5")) == 1


def test_a_session_in_which_nothing_was_saved(tmp_path, capsys):
    script.main(script.Record("Obstacle2D", str(tmp_path / "a"), "robomimic"), pressed(["enter"], ["w"]))
    assert "0 episodes, +0 in this session" in capsys.readouterr().out
    assert not (tmp_path / "a.hdf5").exists()


def test_a_terminal(tmp_path):
    """A process with a terminal of its own, and real time."""
    master, slave = pty.openpty()
    command = [sys.executable, str(SCRIPT), "--task", "Obstacle2D", "--out", str(tmp_path / "a")]
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment | {"TERM": "xterm", "COLUMNS": "400"}
    )
    os.close(slave)
    heard = b""

    def wait_for(words, press=b"", seconds=600):
        """Reads until a regular expression is printed, and presses a key again and again."""
        nonlocal heard
        end = time.monotonic() + seconds
        os.set_blocking(master, False)
        while not (found := re.search(words, heard)):
            try:
                heard += os.read(master, 65536)  # all that it said, also if it has ended meanwhile
            except BlockingIOError:
                assert time.monotonic() < end and process.poll() is None, heard.decode(errors="replace")[-2000:]
                if press:
                    os.write(master, press)
                time.sleep(0.05)
        heard = heard[found.end() :]

    try:
        wait_for(b"X: quit")
        wait_for(rb"ready 0\.0 s")
        os.write(master, b"\r")
        wait_for(b"recording")
        os.write(master, b"ww\x1b[A")
        wait_for(rb"recording (0\.[5-9]|[1-9]\d*\.\d) s", press=b"w")  # a busy machine skips what it shows
        os.write(master, b"\n")
        wait_for(b"saved episode 0, a failure")
        assert read(tmp_path / "a").lengths[0] >= 5  # while the session goes on
        os.write(master, b"X")
        wait_for(rb"1 episodes, \+1 in this session")
        os.set_blocking(master, True)
        while process.poll() is None:
            try:
                os.read(master, 65536)
            except OSError:  # its end is closed
                break
        assert process.wait(600) == 0
    finally:
        process.kill()
        process.wait()  # nothing is left running, however this ended
        os.close(master)
    action = read(tmp_path / "a")[0].action
    assert action[:, 0].max() > 0 and not action[:, 1].any()  # the arrow's sequence ends in the letter of another key


def test_without_a_terminal_or_a_display_there_is_one_sentence(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    command = [sys.executable, str(SCRIPT), "--task", "Obstacle2D", "--out", str(tmp_path / "a")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "keys come from a terminal, and there is none" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task": "Pendulum"}, "only a Franka, or the point of Obstacle2D"),
        ({"task": "Nothing"}, "unknown task 'Nothing'"),
        ({"randomize": 1.0}, "needs a robot with a preset"),
        ({"seed": 2_000}, "seed is 2000"),
        ({"gamepad": "/dev/input/js77"}, "cannot open the gamepad /dev/input/js77"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(tmp_path, capsys, monkeypatch, changes, sentence):
    monkeypatch.setattr(script, "has_display", lambda: False)
    arguments = {"task": "Obstacle2D", "out": str(tmp_path / "a")} | changes
    try:
        script.main(script.Record(**arguments), None if "gamepad" in changes else pressed())
        words = ""
    except ValueError as error:
        words = str(error)
    except SystemExit as stop:
        assert stop.code == 2
        words = capsys.readouterr().err
    assert sentence in words and not list(tmp_path.iterdir())


def test_the_viewer_shows_the_robot_and_hears_keys(monkeypatch):
    """A window that is closed after its third picture; MuJoCo's own keys change its flags."""
    viewer = pytest.importorskip("mujoco.viewer")

    class Window(contextlib.nullcontext):
        def __init__(self, data, key_callback):
            super().__init__(self)
            self.data, self.press, self.pictures = data, key_callback, []
            self.opt = SimpleNamespace(flags=np.ones(3), geomgroup=np.ones(2))
            self.lock = contextlib.nullcontext

        def is_running(self):
            return len(self.pictures) < 3

        def sync(self):
            self.pictures.append((self.data.qpos.copy(), self.opt.flags.copy()))

    windows = []

    def launch(model, data, key_callback, **_):
        windows.append(Window(data, key_callback))
        return windows[0]

    monkeypatch.setattr(viewer, "launch_passive", launch)
    task = load("Obstacle2D", "cpu", 1)
    state, _ = task.reset(jax.random.key(0), {})
    with script.viewer("Obstacle2D") as (pressed, update):
        (window,) = windows
        window.press(ord("W"))
        window.press(257)
        assert pressed() == ["w", "enter"] and pressed() == []
        window.opt.flags[:] = 0
        session = SimpleNamespace(task=task, state=state)
        assert [update(session) for _ in range(4)] == [True, True, True, False]
    qpos, flags = window.pictures[0]
    np.testing.assert_allclose(qpos, state.data.qpos)
    assert flags.all()
