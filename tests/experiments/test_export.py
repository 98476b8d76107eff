"""Export of a run folder to a file that a robot accepts, as a user does it."""

import re
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mjx_policies.deploy.policy import load_policy as load_exported
from mjx_policies.experiments.runs.loading import load_policy
from mjx_policies.types import actuator_targets

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TINY = (
    *("--task", "Pendulum", "--backend", "cpu", "--num-envs", "16", "--rollout-length", "4", "--steps", "640"),
    *("--policy-layers", "8", "--critic-layers", "8", "--eval-episodes", "3", "--evaluations", "0"),
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
    folder = tmp_path_factory.mktemp("runs") / "pendulum"
    assert command("ppo_locomotion.py", *TINY, "--run-dir", folder) == 0
    return folder


def test_the_file_does_what_the_policy_does(run, capsys):
    assert command("export_onnx.py", "--run", run) == 0
    out = capsys.readouterr().out
    assert "10,000 observations" in out and "sha256 of the contract" in out
    exported, trained = load_exported(run / "policy.onnx"), load_policy(run, "cpu")
    observation = np.random.default_rng(0).normal(size=(50, exported.contract.observation_size)).astype(np.float32)
    expected = jax.vmap(lambda o: trained({"state": o}))(observation)
    found = exported.step(observation, exported.initial_state(50))
    np.testing.assert_allclose(found.action, expected, atol=1e-5)
    np.testing.assert_allclose(found.target, actuator_targets(trained.task.spec.action, expected), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--run", "nowhere"), "nowhere is not a run folder"),
        (("--run", "{run}", "--out", "{run}/config.json/policy.onnx"), "cannot create the folder"),
        (("--run", "{run}", "--out", "{run}"), "{run} is a folder"),
        (("--run", "{run}", "--out", "{run}/config.json"), "exists already: choose another --out, or replace it with"),
        (("--run", "{run}", "--out", "{run}/" + 260 * "a"), "File name too long"),
    ],
)
def test_bad_input_is_told_in_one_sentence(run, arguments, sentence, capsys):
    before = sorted(run.rglob("*"))
    assert command("export_onnx.py", *(argument.format(run=run) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert sentence.format(run=run) in error and error.count("\n") == 1
    assert sorted(run.rglob("*")) == before, "something was left behind"


@pytest.mark.parametrize("script", ["sim2sim.py", "teleop.py"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is not a file|cannot be read|No such file"),
        (b"", "empty"),
        (b"\x08\x0aforeign", "not a policy's ONNX file|no graph"),
    ],
)
def test_a_file_that_is_no_policy(tmp_path, script, content, sentence, capsys):
    path = tmp_path / "policy.onnx"
    if content is not None:
        path.write_bytes(content)
    assert command(script, path) == 2
    error = capsys.readouterr().err
    assert re.search(sentence, error) and str(path) in error and error.count("\n") == 1
