"""The script on a small run, and the parts that need no display."""

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mjx_policies.compiler import compiler_options
from mjx_policies.experiments.runs import ppo as ppo_run
from mjx_policies.training.checkpoints import Checkpoints
from mjx_policies.training.run_folder import RunFolder

SCRIPT = Path(__file__).parents[2] / "experiments" / "play.py"


def test_a_run_is_recorded(tmp_path, run_script):
    run = ppo_run.PPORun(task="Pendulum", num_envs=4, policy_layers=(8,), critic_layers=(8,))
    runner = ppo_run.build(run).runner
    with RunFolder.create(tmp_path / "run", run) as folder:
        state = jax.jit(runner.init, compiler_options=compiler_options(runs_once=True))(jax.random.key(0), run.hyper)
        Checkpoints(folder.path / "checkpoints").save(96, state)
    done = run_script("play.py", "--run", tmp_path / "run", "--video", tmp_path / "clip.mp4", "--seconds", 0.05)
    assert done.returncode == 0, done.stderr
    assert "Pendulum, trained for 96 steps" in done.stdout
    assert (tmp_path / "clip.mp4").stat().st_size > 1000


def test_a_folder_without_a_run_is_one_sentence(tmp_path, run_script):
    done = run_script("play.py", "--run", tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "is not a run folder" in done.stderr


# The parts


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec = importlib.util.spec_from_file_location("play", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        sys.modules["play"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return module


def test_a_video_replaces_only_its_own_file(script, tmp_path):
    (tmp_path / "play.mp4").write_text("of the last time")
    (tmp_path / "holiday.mp4").write_text("somebody's")
    assert script.video_file(script.Play(tmp_path)) == tmp_path / "play.mp4"
    named = script.Play(tmp_path, video=str(tmp_path / "holiday.mp4"))
    with pytest.raises(ValueError, match=r"holiday.mp4 exists already: .* --overwrite"):
        script.video_file(named)
    assert script.video_file(dataclasses.replace(named, overwrite=True)).name == "holiday.mp4"
    with pytest.raises(ValueError, match=r"--video a/README.md must end in .mp4"):
        script.video_file(script.Play(tmp_path, video="a/README.md", overwrite=True))
    assert not Path("a").exists()


LOW, HIGH = np.array([-1.0, -0.4, -1.2]), np.array([1.5, 0.45, 1.3])
UP, DOWN, LEFT, RIGHT = 265, 264, 263, 262


def test_the_script_shows_each_direction_for_as_long_as_it_is_told(script):
    task = SimpleNamespace(spec=SimpleNamespace(control_dt=0.02), commands=SimpleNamespace(low=LOW, high=HIGH))
    names, commands = script.script(task, 0.1)
    assert len(names) == len(commands) == 7 * 5 and commands.dtype == np.float32
    assert (commands >= LOW - 1e-6).all() and (commands <= HIGH + 1e-6).all()
    scenes = dict(zip(names, commands.tolist(), strict=True))
    assert list(scenes) == ["stand", "forward", "fast", "left", "right", "turn", "backward"]
    expected = [[0, 0, 0], [0.75, 0, 0], [1.5, 0, 0], [0, 0.45, 0], [0, -0.4, 0], [0, 0, 1.3], [-0.5, 0, 0]]
    np.testing.assert_allclose(list(scenes.values()), expected, atol=1e-6)
    assert all(names[i] == names[i - i % 5] for i in range(len(names)))
    assert len(script.script(task, 0.001)[0]) == 7  # at least a step each


def test_keys_move_the_command_within_its_range(script):
    stick = script.Stick(LOW, HIGH)
    for key in (UP, UP, DOWN, ord("A"), LEFT):
        stick.press(key)
    np.testing.assert_allclose(stick.command, [0.1, 0.1, 0.2], atol=1e-6)
    for _ in range(30):
        for key in (DOWN, ord("D"), RIGHT):
            stick.press(key)
    np.testing.assert_allclose(stick.command, LOW, atol=1e-6)
    for _ in range(60):
        for key in (UP, ord("A"), LEFT):
            stick.press(key)
    np.testing.assert_allclose(stick.command, HIGH, atol=1e-6)
    stick.press(ord("K"))
    assert not stick.restart
    stick.press(ord("R"))
    np.testing.assert_allclose(stick.command, HIGH, atol=1e-6)
    stick.press(ord(" "))
    assert stick.restart and not stick.command.any()


def test_the_caption_tells_what_was_asked_for_and_what_was_measured(script):
    command, measured = np.array([1.0, 0.0, -0.25]), np.array([0.934, -0.004, -0.2])
    lines = script.caption("fast", command, measured, False)
    assert lines == ["fast", "command  +1.00 +0.00 -0.25", "measured +0.93 -0.00 -0.20", "m/s, m/s, rad/s"]
    assert script.caption("fast", command, measured, True)[0] == "fast (fell)"
