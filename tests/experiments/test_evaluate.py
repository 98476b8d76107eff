"""The scripts that evaluate policies, on runs that were never trained."""

import errno
import json
import os
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mjx_policies.data.episodes import Episode
from mjx_policies.data.formats import write
from mjx_policies.experiments.runs import ppo as ppo_run
from mjx_policies.experiments.runs.evaluation import EVALUATION_SEED
from mjx_policies.training import waiting
from mjx_policies.training.checkpoints import Checkpoints
from mjx_policies.training.run_folder import RunFolder

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
SCRIPTS = Path(__file__).parents[2] / "experiments"
FEW = ("--backend", "cpu", "--episodes", "3")


@pytest.fixture(scope="module", autouse=True)
def path_of_a_script():
    """A script finds its neighbours, as where Python runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two policies of the point robot and one of the pendulum."""
    folder = tmp_path_factory.mktemp("runs")
    for task, seeds in (("Obstacle2D", (1, 2)), ("Pendulum", (3,))):
        config = ppo_run.PPORun(task=task, backend="cpu", num_envs=4, policy_layers=(8,), critic_layers=(8,))
        init = jax.jit(ppo_run.build(config).runner.init, compiler_options={"xla_backend_optimization_level": 0})
        for seed in seeds:
            with RunFolder.create(folder / f"{task.lower()}{seed}", config) as run:
                Checkpoints(run.path / "checkpoints").save(100 * seed, init(jax.random.key(seed), config.hyper))
    return folder


def script(name, *arguments):
    """Runs a script in this process, which spares its imports; returns the exit code."""
    argv, sys.argv = sys.argv, [name, *map(str, arguments)]
    try:
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        return 0
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = argv


def test_a_policy_is_evaluated_on_a_page_and_in_a_file(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(waiting, "LINE_SECONDS", 0.1)
    demonstration = Episode(
        observation={"state": np.zeros((4, 8), np.float32)},
        action=np.full((4, 2), 0.25, np.float32),
        reward=np.zeros(4, np.float32),
        terminated=False,
        success=True,
        task="Obstacle2D",
        fps=10.0,
    )
    write(tmp_path / "demos", [demonstration])
    run, file, page = runs / "obstacle2d1", tmp_path / "new" / "a.json", tmp_path / "pages" / "a.html"
    options = ("--json", file, "--report", page, "--demos", tmp_path / "demos", "--conditions", "delay", "nominal")
    assert script("evaluate.py", "--run", run, *FEW, *options) == 0
    said = capsys.readouterr().out
    assert "Obstacle2D after 100 steps, on cpu" in said and "stage/passed" in said and f"report: {page}" in said
    assert "compiling the evaluation ..." in said and "rendering the video of obstacle2d1" in said, "no silence"
    assert "compiling the evaluation of obstacle2d1 ... " in said and "delay: 0 of 3" not in said
    assert max(map(len, said.splitlines()[: said.splitlines().index(f"report: {page}")])) <= 80
    figures = json.loads(file.read_text())
    assert list(figures["conditions"]) == ["delay", "nominal"] and figures["seed"] == EVALUATION_SEED
    assert figures["conditions"]["nominal"]["success"]["count"] == 3
    html = page.read_text()
    for words in (
        "obstacle2d1 after 100 steps; 3 episodes",
        "success, delay",
        "of seed 1000003",
        "data:video/mp4;base64,",
    ):
        assert words in html
    assert "distance to demonstrations" in html and "Comparison" not in html
    assert not (run / "report.html").exists()


def test_two_policies_are_compared_on_the_same_episodes(runs, tmp_path, capsys):
    first, second = runs / "obstacle2d1", runs / "obstacle2d2"
    file = tmp_path / "new" / "verdict.json"
    assert script("compare.py", first, second, *FEW, "--no-videos", "--json", file) == 0
    said = capsys.readouterr().out
    assert "These episodes do not tell obstacle2d1 and obstacle2d2 apart" in said, "neither has learned anything"
    verdict = json.loads(file.read_text())["comparisons"][0]
    assert verdict["policies"] == ["obstacle2d1", "obstacle2d2"]
    assert (verdict["first"]["count"], verdict["p_value"], verdict["episodes_needed"]) == (3, 1.0, None)
    html = (first / "comparison.html").read_text()
    assert "Comparison" in html and "obstacle2d2 after 200 steps" in html and "<video" not in html


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("evaluate.py", ("--run", "{runs}"), "is not a run folder"),
        ("evaluate.py", ("--run", "{runs}/pendulum3", "--conditions", "rain"), "there is no condition 'rain' for this"),
        ("evaluate.py", ("--run", "{runs}/pendulum3", "--conditions"), "error: --conditions is empty"),
        ("evaluate.py", ("--run", "{runs}/pendulum3", "--conditions", "delay", "delay"), "which names one twice"),
        (
            "evaluate.py",
            ("--run", "{runs}/pendulum3", "--episodes", "0"),
            "error: --episodes is 0, it must be at least 1",
        ),
        ("evaluate.py", ("--run", "{runs}/pendulum3", "--demos", "{runs}/none"), "none"),
        ("compare.py", ("{runs}/obstacle2d1",), "pass two run folders at least"),
        ("compare.py", ("{runs}/obstacle2d1", "{runs}/pendulum3/../obstacle2d1"), "obstacle2d1 is given twice"),
        (
            "compare.py",
            ("{runs}/obstacle2d1", "{runs}/obstacle2d2", "--numbers", "0"),
            "--numbers names 1: name one for each of the 2 runs",
        ),
        ("compare.py", ("{runs}/obstacle2d1", "{runs}/obstacle2d2", "--numbers", "0", "1"), "obstacle2d2 is no sweep"),
        ("compare.py", ("{runs}/obstacle2d1", "{runs}/pendulum3"), "only policies of one task can be compared"),
        ("compare.py", ("{runs}/obstacle2d1", "{runs}/gone"), "gone is not a run folder"),
    ],
)
def test_what_cannot_be_evaluated_is_told_in_a_sentence(runs, capsys, name, arguments, sentence):
    given = [argument.format(runs=runs) for argument in arguments]
    assert script(name, *given, "--backend", "cpu") == 2
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert sentence in error and "Traceback" not in error


def test_where_nothing_can_be_written_is_told_before_the_evaluation(runs, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for flag in ("--report", "--json"):
        where = tmp_path / "file" / "a"
        assert script("evaluate.py", "--run", runs / "pendulum3", *FEW, flag, where) == 2
        assert f"cannot create the folder {where.parent} for {flag}" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_loses_nothing(runs, capsys, monkeypatch):
    replace = os.replace

    def full(source, target):
        if str(target).endswith(".html"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert script("evaluate.py", "--run", runs / "pendulum3", *FEW, "--no-videos") == 2
    said = capsys.readouterr()
    assert "the disk is full, " in said.err and "report.html could not be written" in said.err
    assert "Pendulum after 300 steps" in said.out, "what was measured is printed"


def test_what_is_there_already_stays(runs, tmp_path, capsys):
    """Told before the evaluation: a page, a file, a folder, and both at once."""
    mine, new = tmp_path / "README.md", tmp_path / "new"
    mine.write_text("mine")
    for name, given in (("evaluate.py", ("--run", runs / "pendulum3")), ("compare.py", (runs / "obstacle2d1",) * 2)):
        given = given if name == "evaluate.py" else (runs / "obstacle2d1", runs / "obstacle2d2")
        for flags, sentence in (
            (("--report", mine), f"{mine} exists already: choose another --report, or replace it with --overwrite"),
            (("--json", mine), f"{mine} exists already: choose another --json, or replace it with --overwrite"),
            (("--report", tmp_path), f"{tmp_path} is a folder"),
            (("--report", new, "--json", new), f"--report and --json both name {new}: choose two files"),
        ):
            assert script(name, *given, *FEW, "--no-videos", *flags) == 2
            said = capsys.readouterr()
            assert sentence in said.err and said.err.count("\n") == 1 and "evaluation" not in said.out
    assert mine.read_text() == "mine" and not new.exists()


def test_demonstrations_of_another_rate_are_refused(runs, tmp_path, capsys):
    """The point robot acts ten times a second."""
    rows = {"observation": {"state": np.zeros((4, 8), np.float32)}, "action": np.zeros((4, 2), np.float32)}
    slow = Episode(**rows, reward=np.zeros(4, np.float32), terminated=False, success=True, task="Obstacle2D", fps=5.0)
    write(tmp_path / "demos", [slow])
    assert script("evaluate.py", "--run", runs / "obstacle2d1", *FEW, "--demos", tmp_path / "demos") == 2
    said = capsys.readouterr()
    assert "has 5 steps a second, Obstacle2D acts 10 times a second" in said.err and said.err.count("\n") == 1


def test_policies_that_are_compared_have_names_of_their_own(tmp_path):
    """Runs of sweeps in folders of one name, as compare_heads.py makes them."""
    for name in ("a/mse", "b/mse", "c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "sweep.csv").write_text("")
    compare = runpy.run_path(str(SCRIPTS / "compare.py"))
    a, b, c = (tmp_path / name for name in ("a/mse", "b/mse", "c"))
    assert compare["names"]([(a, 0), (b, 0), (c, 1), (c, 2)]) == [f"{a}-0", f"{b}-0", "c-1", "c-2"]
