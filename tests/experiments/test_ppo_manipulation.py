"""An arm's run as a user makes it: tiny, to its end, and what opens it afterwards."""

import json
import runpy
import sys
from pathlib import Path

import jax
import pytest

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TINY = (
    *("--task", "FrankaReach", "--backend", "cpu", "--num-envs", "8", "--rollout-length", "2", "--steps", "32"),
    *("--policy-layers", "8", "--critic-layers", "8", "--eval-episodes", "2", "--evaluations", "0"),
)


def command(script, *arguments):
    """Runs a script in this process; returns its exit code."""
    argv, sys.argv = sys.argv, [script, *map(str, arguments)]
    path = list(sys.path)
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        runpy.run_path(str(EXPERIMENTS / script), run_name="__main__")
        return 0
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv, sys.path[:] = argv, path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "reach"
    assert command("ppo_manipulation.py", *TINY, "--run-dir", folder) == 0
    return folder


def test_a_run_ends_with_a_complete_folder(run):
    config = json.loads((run / "config.json").read_text())["config"]
    assert (config["task"], config["actions"]) == ("FrankaReach", "top_down_delta")
    evaluation = json.loads((run / "evaluation.json").read_text())
    for figures in evaluation["conditions"].values():
        assert figures["success"]["count"] == 2 and figures["completion"]["value"] is not None
    assert (run / "episode.mp4").read_bytes()[4:8] == b"ftyp"
    assert (run / "curves.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("script", ["ppo_manipulation.py", "ppo_locomotion.py"])
def test_a_finished_run_that_is_resumed_says_so(run, script, capsys):
    """By either script: nothing of a run hangs on which one it was, its folder says it all."""
    assert command(script, "--run-dir", run, "--resume") == 0
    assert f"{run} is finished: 32 steps" in capsys.readouterr().out


def test_a_run_does_not_go_back(run, capsys):
    before = (run / "config.json").read_bytes(), (run / "evaluation.json").read_bytes()
    assert command("ppo_manipulation.py", "--run-dir", run, "--resume", "--steps", 16) == 2
    assert f"{run} has taken 32 steps already, more than the 16 of --steps" in capsys.readouterr().err
    assert ((run / "config.json").read_bytes(), (run / "evaluation.json").read_bytes()) == before


def test_it_is_loaded_with_the_actions_it_was_trained_with(run, capsys):
    """Five numbers move a hand that points down, eight change joint angles: no other choice would fit the network."""
    assert command("play.py", "--run", run, "--video", run / "play.mp4", "--seconds", "0.2") == 0
    assert "FrankaReach, trained for 32 steps" in capsys.readouterr().out
    assert (run / "play.mp4").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--task", "Go2JoystickFlat"), "Go2JoystickFlat has actions of its own; actions can be chosen for"),
        (("--actions", "joint_torque"), "joint_torque"),
    ],
)
def test_what_cannot_be_ends_with_a_sentence(tmp_path, capsys, arguments, sentence):
    assert command("ppo_manipulation.py", *TINY, "--run-dir", tmp_path / "run", *arguments) == 2
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert sentence in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()
