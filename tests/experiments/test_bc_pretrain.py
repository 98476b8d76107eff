"""A BC policy as a user trains it: tiny, to its end, resumed, corrected, and what loads it afterwards."""

import csv
import dataclasses
import json
import runpy
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.data import lerobot
from mjx_policies.data.episodes import Episode
from mjx_policies.deploy.chunks import ChunkedPolicy
from mjx_policies.deploy.policy import load_policy as load_exported
from mjx_policies.experiments.runs.loading import load_policy
from mjx_policies.export.tables import by_time
from mjx_policies.training.metrics import WALL_CLOCK

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TINY = (
    *("--task", "Obstacle2D", "--backend", "cpu", "--head", "mixture", "--hidden-size", "16", "--episodes", "6"),
    *("--horizon", "4", "--n-action-steps", "2", "--steps", "300", "--batch-size", "8", "--evaluations", "3"),
    *("--interim-episodes", "3", "--eval-episodes", "3", "--checkpoint-seconds", "0", "--hyper.warmup-steps", "10"),
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


def rows(folder):
    with open(folder / "metrics.csv") as file:
        return [{k: v for k, v in row.items() if k not in WALL_CLOCK} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "bc"
    assert command("bc_pretrain.py", *TINY, "--run-dir", folder) == 0
    return folder


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A dataset of the task whose steps take twice as long."""
    path = tmp_path_factory.mktemp("demos") / "slow"
    state = np.zeros((4, 8), np.float32)
    lerobot.write(path, [Episode({"state": state}, state[:, :2], state[:, 0], False, True, "Obstacle2D", 5)])
    return path


def test_a_run_ends_with_a_complete_folder(run):
    table = rows(run)
    assert [int(row["step"]) for row in table] == [100, 200, 300]
    assert all(row["action/error"] and row["loss/validation"] and row["eval/success"] for row in table)
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["task"] == "Obstacle2D"
    assert evaluation["conditions"]["nominal"]["success"]["count"] == 3
    assert (run / "episode.mp4").read_bytes()[4:8] == b"ftyp"
    assert (run / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_the_result_is_the_checkpoint_that_did_best(run):
    best = max(rows(run), key=lambda row: (float(row["eval/success"]), int(row["step"])))
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["steps"] == int(best["step"]) == load_policy(run, "cpu").steps


def test_a_run_that_goes_on_ends_like_one_that_was_not_stopped(run, tmp_path, capsys):
    """As if it had been killed after its second checkpoint: the demonstrations are read again, not made again."""
    folder = Path(shutil.copytree(run, tmp_path / "copy"))
    (newest,) = folder.glob("checkpoints/*300")
    shutil.rmtree(newest)
    (folder / "evaluation.json").unlink()
    made = (folder / "demonstrations" / "meta" / "info.json").stat().st_mtime_ns
    assert command("bc_pretrain.py", "--run-dir", folder, "--resume") == 0
    assert "resumed at step 200 of 300" in capsys.readouterr().out
    assert rows(folder) == rows(run)
    assert (folder / "demonstrations" / "meta" / "info.json").stat().st_mtime_ns == made
    assert (folder / "evaluation.json").read_text() == (run / "evaluation.json").read_text()


def test_a_run_does_not_go_on_with_other_demonstrations(run, tmp_path, capsys):
    folder = Path(shutil.copytree(run, tmp_path / "copy"))
    (newest,) = folder.glob("checkpoints/*300")
    shutil.rmtree(newest)
    (folder / "evaluation.json").unlink()
    episodes = list(lerobot.read(folder / "demonstrations"))
    shutil.rmtree(folder / "demonstrations")
    changed = [dataclasses.replace(each, action=each.action * (n != 2)) for n, each in enumerate(episodes)]
    lerobot.write(folder / "demonstrations", changed)
    assert command("bc_pretrain.py", "--run-dir", folder, "--resume") == 2
    error = capsys.readouterr().err
    assert "the demonstrations have changed since the run in" in error and "with other numbers now" in error
    assert rows(folder) == rows(run), "nothing was learned"


def test_a_finished_run_has_nothing_to_resume(run, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != "run.lock"}
    assert command("bc_pretrain.py", "--run-dir", run, "--resume") == 0
    assert f"{run} is finished" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert command("bc_pretrain.py", "--run-dir", run, "--resume", "--steps", 900) == 2
    assert "goes on as it began, but steps" in capsys.readouterr().err


def test_the_file_for_a_robot_does_what_the_policy_does(run, capsys):
    """Chunk after chunk, from the same observations."""
    assert command("export_onnx.py", "--run", run) == 0
    assert "10,000 observations" in capsys.readouterr().out
    trained, exported = load_policy(run, "cpu"), load_exported(run / "policy.onnx")
    assert exported.contract.action.horizon == 4
    seen = np.random.default_rng(0).normal(size=(7, 8)).astype(np.float32) * 0.5
    robot, place = trained.acts(trained.params), by_time(trained.task.spec, 2)
    key = jax.random.key(0)
    memory = robot.init(key, {"state": jnp.asarray(seen[0])})
    act = jax.jit(robot.act)
    with ChunkedPolicy(exported, n_action_steps=2) as chunked:
        state = chunked.initial_state()
        for step, now in enumerate(seen):
            observation = np.empty(16, np.float32)
            observation[place] = np.stack([seen[max(0, step - 1)], now])
            found = chunked.step(observation, state)
            state = found.state
            expected, memory = act(memory, key, {"state": now}, step)
            np.testing.assert_allclose(found.action, expected, atol=1e-5)


def test_every_tool_opens_it(run, tmp_path, capsys):
    assert command("play.py", "--run", run, "--video", tmp_path / "play.mp4", "--seconds", "0.3") == 0
    assert (tmp_path / "play.mp4").stat().st_size > 1000
    options = (
        "--episodes",
        "3",
        "--no-videos",
        "--report",
        tmp_path / "report.html",
        "--json",
        tmp_path / "again.json",
    )
    assert command("evaluate.py", "--run", run, *options) == 0
    again, first = (json.loads(path.read_text()) for path in (tmp_path / "again.json", run / "evaluation.json"))
    assert again["conditions"] == first["conditions"], "the same robots as at the end of training"
    assert "Obstacle2D" in capsys.readouterr().out


def test_corrections_are_added_to_the_demonstrations_also_after_a_signal(run, tmp_path, capsys, stopping):
    folder = tmp_path / "rounds"
    asked = ("--rounds", "1", "--episodes", "4", "--steps", "300", "--eval-episodes", "3")
    with stopping():
        assert command("dagger.py", "--run", run, "--run-dir", folder, *asked) == 143
    said = capsys.readouterr().out
    assert "saved at step 200 of 300" in said and said.count("--resume") == 1
    assert said.endswith(f"go on with --resume --run-dir {folder}\n")
    assert command("dagger.py", "--run-dir", folder, "--resume") == 0
    assert "best: round " in capsys.readouterr().out
    config = json.loads((folder / "round_1" / "config.json").read_text())["config"]
    assert config["extra_datasets"] == [str(folder / "labels_1")] and config["init_from"] == str(run)
    table = rows(folder)
    successes = [json.loads((each / "evaluation.json").read_text()) for each in (run, folder / "round_1")]
    assert [float(row["eval/success"]) for row in table] == [
        each["conditions"]["nominal"]["success"]["value"] for each in successes
    ]
    assert (folder / "rounds.png").read_bytes()[:4] == b"\x89PNG"
    before, after = load_policy(run, "cpu"), load_policy(folder / "round_1", "cpu")
    np.testing.assert_array_equal(before.params["scales"].action.size, after.params["scales"].action.size)
    assert after.steps == 300


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--task", "Pendulum"), "Pendulum has no stages to solve"),
        (("--demos", "nowhere"), "nowhere does not exist"),
        (("--demos", "{slow}"), "slow has 5 steps a second, Obstacle2D acts 10 times a second"),
        (("--extra-datasets", "{slow}"), "slow has 5 steps a second, Obstacle2D acts 10 times a second"),
        (("--demos", "{run}/demonstrations", "--episodes", "7"), "holds 6 demonstrations, fewer than --episodes 7"),
        (("--n-action-steps", "5"), "n-action-steps is 5, more than the 4 actions of a chunk"),
        (("--exclude-terms", "smell"), "the task observes no 'smell' to leave out"),
        (("--init-from", "{run}", "--hidden-size", "8"), "has hidden_size 16, this run 8: they must agree"),
        (("--init-from", "{run}", "--seeds", "2"), "one policy alone goes on learning"),
        (("--head", "lstm"), "lstm"),
        (("--resume",), "holds no run (there is no config.json)"),
    ],
)
def test_what_cannot_be_ends_with_a_sentence(run, slow, tmp_path, capsys, arguments, sentence):
    arguments = [argument.format(run=run, slow=slow) for argument in arguments]
    assert command("bc_pretrain.py", *TINY, "--run-dir", tmp_path / "run", *arguments) == 2
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert sentence in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_rounds_of_corrections_refuse_a_dataset_of_another_rate(run, slow, tmp_path, capsys):
    folder = Path(shutil.copytree(run, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    config["config"]["extra_datasets"] = [str(slow)]
    (folder / "config.json").write_text(json.dumps(config))
    assert command("dagger.py", "--run", folder) == 2
    assert "slow has 5 steps a second" in capsys.readouterr().err and not (folder / "dagger").exists()


def test_rounds_need_a_finished_run_of_one_policy(run, tmp_path, capsys):
    assert command("dagger.py", "--run", run, "--mixing", 0.5) == 2
    assert "mixing is for policies of one action" in capsys.readouterr().err
    unfinished = Path(shutil.copytree(run, tmp_path / "copy"))
    (unfinished / "evaluation.json").unlink()
    assert command("dagger.py", "--run", unfinished) == 2
    error = capsys.readouterr().err
    assert "is not finished" in error and error.count("\n") == 1 and not (unfinished / "dagger").exists()
