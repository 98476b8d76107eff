"""A policy's file on a simulated arm, as a user runs it: side by side in real time, and with what does not fit."""

import dataclasses
import importlib.util
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mjx_policies.deploy import chunks, loop
from mjx_policies.envs.franka import pick_cube
from mjx_policies.evaluation.statistics import proportion

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
DEPLOY = Path(__file__).parents[1] / "mjx_policies" / "deploy"


def imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


franka = imported(DEPLOY / "franka.py")
files = franka.files


def command(*arguments):
    """Runs the script in this process; returns its exit code."""
    argv, sys.argv = sys.argv, ["run_arm.py", *map(str, arguments)]
    try:
        runpy.run_path(str(EXPERIMENTS / "run_arm.py"), run_name="__main__")
        return 0
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = argv


def evaluation(path, successes, episodes):
    estimate = dataclasses.asdict(proportion(successes, episodes))
    path.write_text(json.dumps({"conditions": {"nominal": {"success": estimate}}}))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """An untrained policy, which never succeeds, where the evaluation saw success."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "policy.onnx").write_bytes(franka.policy_bytes())
    evaluation(folder / "evaluation.json", 9, 10)
    asked = (
        folder / "policy.onnx",
        "--episodes",
        "2",
        "--processes",
        "2",
        "--video-episodes",
        "0",
        "--no-sample-actions",
    )
    # Its processes search for what they run in the script that was started.
    return folder, subprocess.run([sys.executable, EXPERIMENTS / "run_arm.py", *asked], check=False).returncode


def test_episodes_run_side_by_side_in_real_time(ran):
    folder, code = ran
    found = json.loads((folder / "arm" / "arm.json").read_text())
    assert code == 1, "it succeeds less often than it did"
    assert found["success"]["value"] == 0.0 and found["success"]["count"] == 2
    assert found["success"]["low"] == 0.0 and 0.6 < found["success"]["high"] < 0.7  # Wilson's, of none in two
    assert found["success_when_evaluated"]["value"] == 0.9
    assert found["reading_age_ms"]["p50"] >= 50
    if found["faults"]:  # of a computer that others keep busy, which is what they must say
        assert all(re.search("ree the computer|no plan arrived in time", fault) for fault in found["faults"])
    else:
        assert found["plans"] >= 20
        assert found["steps"] >= 2 * (pick_cube.EPISODE_SECONDS / 0.05) - found["deadlines_missed"]


def test_they_begin_as_an_evaluation_does():
    script = runpy.run_path(str(EXPERIMENTS / "run_arm.py"))
    _, task, initial = script["initial_states"](3)
    assert len(initial) == 3 and task.seconds == pick_cube.EPISODE_SECONDS and task.radius == pick_cube.GOAL_RADIUS
    first = [state.qpos[9:11] for state in initial]
    low, high = np.array(pick_cube.CUBE_START)
    assert all(((low <= place) & (place <= high)).all() for place in first) and len(np.unique(first, axis=0)) == 3


def wrong_task(contract):
    return dataclasses.replace(contract, training=dataclasses.replace(contract.training, task="FrankaPush"))


def one_action(contract):
    return dataclasses.replace(contract, action=dataclasses.replace(contract.action, horizon=1))


@pytest.mark.parametrize(
    ("make", "more", "sentence"),
    [
        (files.example_contract, (), "is for the robot go2, not for an arm: sim2sim.py is for legs"),
        (
            lambda: wrong_task(franka.contract()),
            (),
            "is for FrankaPush, but this script knows how FrankaPickCube begins",
        ),
        (lambda: one_action(franka.contract(noise=())), (), "makes one action at a time"),
        (franka.contract, ("--latency", "0.2"), "latency is 0.2 s, it must lie below 0.1 s"),
        (franka.contract, ("--out", "{file}"), "cannot create the folder"),
    ],
)
def test_bad_input_is_told_in_one_sentence(tmp_path, capsys, make, more, sentence):
    path = tmp_path / "policy.onnx"
    files.write_policy(path, make())
    assert command(path, *(word.format(file=path) for word in more)) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == [path], "something was left behind"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--episodes", "0"), "episodes is 0, it must be at least 1"),
        (("--latency", "nan"), "latency is nan, it must be at least 0"),
        (("--refill", "1.5"), "refill is 1.5, it must lie above 0, and not above 1"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, capsys, more, sentence):
    assert command(tmp_path / "policy.onnx", *more) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_what_was_done_before_a_signal_is_kept_and_printed(tmp_path, monkeypatch, capsys):
    script = imported(EXPERIMENTS / "run_arm.py")
    files.write_policy(tmp_path / "policy.onnx", franka.contract())
    statistics = loop.LoopStatistics(10, 0, 0.001, 0.001, 0.002, 0, 0, 0, ())
    drawn = chunks.ChunkStatistics(1, 5, 0)
    episode = script.ArmEpisode(True, 2.0, "", np.zeros((3, 9)), np.zeros(3), 0, np.ones(2), statistics, drawn, 0.0)
    monkeypatch.setattr(script, "initial_states", lambda number: (None, None, []))
    for count, stopped, code in ((3, "SIGTERM", 143), (1, "SIGINT", 130)):
        found = dict.fromkeys(range(count), episode)
        monkeypatch.setattr(script, "run_in_workers", lambda *arguments, given=(found, stopped): given)
        assert script.main(script.Arms(tmp_path / "policy.onnx", episodes=5)) == code
        output = capsys.readouterr().out
        written = json.loads((tmp_path / "arm" / "arm.json").read_text())
        assert written["success"]["count"] == count and written["stopped_by"] == stopped
        assert f"{count} episodes in real time" in output and f"arm.json, stopped by {stopped}" in output
        assert "┡" not in output, "a header without words"
    (tmp_path / "arm.json").write_text("somebody's")
    with pytest.raises(SystemExit):
        script.main(script.Arms(tmp_path / "policy.onnx", out=tmp_path))
    assert "arm.json exists already" in capsys.readouterr().err
    assert (tmp_path / "arm.json").read_text() == "somebody's"


@pytest.mark.parametrize("text", ["{}", "[]", '{"conditions": {"nominal": {"success": {"value": 1}}}}', "nothing"])
def test_an_evaluation_of_something_else(tmp_path, capsys, text):
    files.write_policy(tmp_path / "policy.onnx", franka.contract())
    (tmp_path / "evaluation.json").write_text(text)
    assert command(tmp_path / "policy.onnx") == 2
    error = capsys.readouterr().err
    assert "evaluation.json" in error and error.count("\n") == 1


def test_a_file_that_is_no_policy(tmp_path, capsys):
    (tmp_path / "policy.onnx").write_bytes(b"\x08\x0aforeign")
    assert command(tmp_path / "policy.onnx") == 2
    error = capsys.readouterr().err
    assert "policy.onnx" in error and error.count("\n") == 1
