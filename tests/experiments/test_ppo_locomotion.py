"""The script as a user runs it: a tiny run to its end, and one sentence for everything that cannot be."""

import csv
import errno
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from mjx_policies.errors import UserError
from mjx_policies.experiments.runs import results, run
from mjx_policies.training import plots

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
SCRIPT = Path(__file__).parents[2] / "experiments" / "ppo_locomotion.py"
TINY = (
    *("--task", "Pendulum", "--backend", "cpu", "--num-envs", "16", "--rollout-length", "4"),
    *("--policy-layers", "8", "--critic-layers", "8", "--eval-episodes", "3", "--evaluations", "1"),
    *("--hyper.learning-rate", "0.002", "--randomization.delay", "0", "0.01"),
)
FINISHED = ("config.json", "metrics.csv", "curves.png", "evaluation.json", "episode.mp4")


def command(*arguments):
    """Runs the script in this process, which spares its imports; returns the exit code."""
    argv, sys.argv = sys.argv, [str(SCRIPT), *map(str, arguments)]
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return 0
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = argv


def contents(folder):
    """Every file and its bytes, but for the lock, in which a process that reads leaves its number."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def unframed(text):
    """The words inside the frame that the parser of the command line draws around its own errors and its help."""
    return " ".join(re.sub("[╭╮╰╯│─|]", " ", text).split())


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of four iterations: its folder and what the script printed."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    arguments = [sys.executable, str(SCRIPT), *TINY, "--seed", "3", "--steps", "256", "--run-dir", str(folder)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "default"}
    process = subprocess.run(arguments, capture_output=True, text=True, timeout=600, env=environment, check=False)
    return folder, process


def test_a_run_ends_with_a_complete_folder(finished):
    folder, process = finished
    assert process.returncode == 0, process.stderr
    assert set(FINISHED) <= {path.name for path in folder.iterdir()}
    assert all((folder / name).stat().st_size > 100 for name in FINISHED)
    assert not (folder / "crash").exists()

    config = json.loads((folder / "config.json").read_text())["config"]
    assert (config["task"], config["num_envs"], config["policy_layers"]) == ("Pendulum", 16, [8])
    assert config["backend"] == "cpu", "where it is resumed, auto might be another one"
    assert config["hyper"]["learning_rate"] == 0.002 and config["randomization"]["delay"] == [0.0, 0.01]

    table = rows(folder)
    assert [int(row["step"]) for row in table] == [64, 128, 192, 256]
    assert all(float(row["env/upright"]) >= 0 for row in table)
    assert [bool(row["eval/upright"]) for row in table] == [False, False, True, False]

    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert (evaluation["task"], evaluation["steps"], evaluation["interval"]) == ("Pendulum", 256, 0.95)
    assert set(evaluation["conditions"]) == {"nominal", "randomized"}
    for figures in evaluation["conditions"].values():
        assert figures["upright"]["count"] == 3 and figures["failures"]["value"] == 0.0
    assert (folder / "episode.mp4").read_bytes()[4:8] == b"ftyp"
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_it_shows_what_it_did(finished):
    _, process = finished
    for text in ("Pendulum after 256 steps", "nominal [95 %]", "upright", "run folder: "):
        assert text in process.stdout
    assert re.search(r"^100%  256 steps  .*  reward 0\.\d+$", process.stdout, re.MULTILINE)
    assert "Traceback" not in process.stderr and "mjx_policies" not in process.stderr, "our code warns"


def test_a_folder_that_holds_a_run_is_left_alone(finished, capsys):
    folder, _ = finished
    before = contents(folder)
    assert command(*TINY, "--steps", "256", "--run-dir", folder) == 2
    expected = f"error: {folder} already holds a run. Choose another --run-dir or pass --resume.\n"
    assert capsys.readouterr().err == expected
    assert command(*TINY, "--run-dir", folder, "--resume", "--num-envs", "32") == 2
    error = capsys.readouterr().err
    assert "num_envs: 16 in the run, now 32" in error and error.count("\n") == 1
    assert contents(folder) == before


def test_a_finished_run_goes_on(finished, tmp_path, capsys, monkeypatch):
    """With more steps its table continues, and what it ends with is made anew; all else is as it was started."""
    folder = Path(shutil.copytree(finished[0], tmp_path / "copy"))
    before, recorded = rows(folder), []
    monkeypatch.setattr(results, "record_video", lambda *_, **__: recorded.append(1) or b"video")
    assert command("--steps", "320", "--run-dir", folder, "--resume") == 0
    assert "resumed at step 256 of 320" in capsys.readouterr().out
    assert rows(folder)[: len(before)] == before and len(rows(folder)) == len(before) + 1
    assert json.loads((folder / "evaluation.json").read_text())["steps"] == 320
    assert recorded and (folder / "episode.mp4").read_bytes() == b"video"
    config = json.loads((folder / "config.json").read_text())["config"]
    assert (config["task"], config["seed"], config["steps"]) == ("Pendulum", 3, 320)


def test_a_finished_run_that_is_resumed_says_so_and_does_nothing(finished, tmp_path, capsys):
    folder = Path(shutil.copytree(finished[0], tmp_path / "copy"))
    before = contents(folder)
    assert command("--run-dir", folder, "--resume") == 0
    assert f"{folder} is finished: 256 steps, evaluated, and nothing is left to do." in capsys.readouterr().out
    assert contents(folder) == before
    assert command("--run-dir", folder, "--resume", "--seed", "4") == 2
    assert "goes on as it began, but seed: 3 in the run, now 4" in capsys.readouterr().err


def test_steps_that_make_no_whole_iteration_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "train", None)
    with pytest.raises(TypeError):
        command(*TINY, "--steps", "10", "--run-dir", tmp_path / "run")
    assert "--steps 10 becomes 64: an iteration takes 64, 4 of each of 16 environments" in capsys.readouterr().out


def test_a_finished_run_without_its_checkpoints_is_left_alone(finished, tmp_path, capsys):
    folder = Path(shutil.copytree(finished[0], tmp_path / "copy"))
    shutil.rmtree(folder / "checkpoints")
    before = contents(folder)
    assert command("--run-dir", folder, "--resume") == 2
    error = capsys.readouterr().err
    assert "holds the results of a finished run, but no checkpoint" in error and error.count("\n") == 1
    assert contents(folder) == before


def test_what_comes_after_training_can_be_stopped_and_may_fail(finished, tmp_path, capsys, monkeypatch):
    folder = Path(shutil.copytree(finished[0], tmp_path / "copy"))
    resume = ("--run-dir", folder, "--resume")
    (folder / "episode.mp4").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(results, "write_evaluation", lambda *_: signal.raise_signal(signal.SIGTERM))
        patch.setattr(results, "record_video", None)
        assert command(*resume) == 143
    said = " ".join(capsys.readouterr().out.split())
    assert "resumed at step 256 of 256" in said
    assert f"ended it: go on with --resume --run-dir {folder}" in said

    def fail(*_, **__):
        raise UserError("video episode.mp4 was not written: the disk is full, make room.")

    with monkeypatch.context() as patch:
        patch.setattr(results, "record_video", fail)
        assert command(*resume) == 2
    said = capsys.readouterr()
    assert "Pendulum after 256 steps" in said.out and said.err.startswith("error: video ")

    def full(csv, png, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(png))

    monkeypatch.setattr(plots, "plot_curves", full)
    assert command(*resume) == 2
    said = capsys.readouterr()
    assert "Pendulum after 256 steps" in said.out, "what was measured is printed, whatever can be written"
    assert f"the disk is full, {folder / 'curves.png'} could not be written. Make room" in said.err


def test_a_mistake_of_ours_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(run, "train", broken)
    with pytest.raises(ValueError, match="could not be broadcast"):
        command(*TINY, "--run-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluations_are_spread_and_leave_the_end_alone():
    for evaluations in range(1, 5):
        for iterations in range(evaluations * (evaluations + 1) + 1, 400):
            every = run.spacing(iterations, evaluations, last=False)
            assert iterations // every == evaluations and iterations % every
    assert run.spacing(100, 0, last=False) == 0


def test_a_run_is_evaluated_again(finished, tmp_path, run_script):
    folder, _ = finished

    def evaluate(*arguments):
        return run_script("evaluate.py", *arguments)

    again = tmp_path / "new" / "again.json"
    done = evaluate("--run", folder, "--episodes", "3", "--json", again)
    assert done.returncode == 0 and "Pendulum after 256 steps, on cpu" in done.stdout, done.stderr
    again, first = (json.loads(path.read_text()) for path in (again, folder / "evaluation.json"))
    assert again["conditions"] == first["conditions"], "the same robots as at the end of training"
    for arguments, sentence in (
        ((tmp_path, "--episodes", "3"), "is not a run folder"),
        ((folder, "--episodes", "0"), "episodes is 0"),
        ((folder, "--json", folder / "episode.mp4" / "a.json"), "cannot create the folder"),
    ):
        refused = evaluate("--run", *arguments)
        assert refused.returncode == 2 and sentence in unframed(refused.stderr) and "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--task", "Nope"), "error: unknown task 'Nope'; known tasks: Go2JoystickFlat, "),
        (("--backend", "abacus"), "invalid choice 'abacus' for argument '--backend'"),
        (("--num-envs", "0"), "error: --num-envs is 0, it must be at least 1"),
        (("--num-envs", "-16"), "error: --num-envs is -16, it must be at least 1"),
        (("--num-envs", "many"), "many"),
        (("--num-envs", "18"), "choose a multiple of 4, or another --sizes.num-minibatches"),
        (("--rollout-length", "0"), "error: --rollout-length is 0, it must be at least 1"),
        (("--policy-layers", "8", "0"), "error: --policy-layers is (8, 0), every width must be at least 1"),
        (("--sizes.num-epochs", "0"), "error: --sizes.num-epochs is 0, it must be at least 1"),
        (("--sizes.num-minibatches", "-1"), "error: --sizes.num-minibatches is -1, it must be at least 1"),
        (("--steps", "-1"), "error: --steps is -1, it must be at least 0"),
        (("--eval-episodes", "0"), "eval-episodes is 0, it must be at least 1"),
        (("--evaluations", "-2"), "evaluations is -2, it must be at least 0"),
        (("--checkpoint-seconds", "-1"), "error: --checkpoint-seconds is -1.0, it must be at least 0"),
        (("--checkpoint-seconds", "nan"), "error: --checkpoint-seconds is nan, it must be at least 0"),
        (("--seed", "-1"), "seed is -1, it must be at least 0 and below 2**32"),
        (("--seed", "99999999999999999999"), "seed is 99999999999999999999, it must be at least 0 and below 2**32"),
        (("--randomization.dynamics", "-1"), "error: --randomization.dynamics is -1, it must be a number from 0 on"),
        (("--randomization.noise", "nan"), "error: --randomization.noise is nan, it must be a number from 0 on"),
        (
            ("--randomization.push-seconds", "0", "0"),
            "error: --randomization.push-seconds is (0.0, 0.0), it must rise from above 0",
        ),
        (
            ("--task", "Go2JoystickFlat", "--randomization.dynamics", "5"),
            "randomization.dynamics does not suit this robot: randomization term 'damping': a scale",
        ),
        (("--init-std", "0.001"), "error: standard deviations must satisfy 0 < min_std=0.05 <= init_std=0.001"),
        (("--randomization.delay", "0", "1"), "longer than its buffer"),
        (("--task", "Go2JoystickFlat", "--policy-layers", "127"), "127"),
        (("--resume",), "holds no run (there is no config.json). Check --run-dir, or start without --resume."),
        (("--lerning-rate", "1"), "--lerning-rate"),
    ],
)
def test_what_cannot_be_ends_with_a_sentence(tmp_path, capsys, arguments, sentence):
    folder = tmp_path / "run"
    assert command(*TINY, "--run-dir", folder, *arguments) == 2
    error = capsys.readouterr().err
    assert sentence in unframed(error) and "Traceback" not in error
    assert error.count("\n") == 1 or not error.startswith("error:")
    assert not folder.exists(), "a folder is left, which the corrected command would have to avoid"


def test_help_explains_every_field(capsys):
    assert command("--help") == 0
    words = unframed(capsys.readouterr().out)
    for text in ("--num-envs", "parallel environments", "--hyper.learning-rate", "--randomization.delay", "--resume"):
        assert text in words
