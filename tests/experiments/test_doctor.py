"""The doctor on files: each of ten planted faults is its first finding, and healthy data and runs raise no alarm."""

import dataclasses
import importlib.util
import json
import runpy
import shutil
import sys
from pathlib import Path

import h5py
import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mjx_policies.data.formats import write
from mjx_policies.diagnosis.steps import Steps
from mjx_policies.envs.experts.obstacle2d import obstacle2d_expert
from mjx_policies.envs.experts.pick_cube import pick_cube_expert
from mjx_policies.envs.registry import load
from mjx_policies.errors import NonFiniteError
from mjx_policies.experiments.collection.demonstrators import expert_demonstrator
from mjx_policies.experiments.collection.rollouts import make_recorder, to_episodes
from mjx_policies.training.checkpoints import Checkpoints

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "experiments" / "doctor.py"
ORANGE = (0xDD, 0x6B, 0x20)  # of what the picture marks


def imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


faults = imported(HERE.parent / "mjx_policies" / "diagnosis" / "faults.py")
small_runs = imported(HERE / "small_runs.py")
doctor = imported(SCRIPT)


def demonstrations(task, expert, count):
    env = load(task, "cpu", num_envs=count)
    person, seeds = expert(env), np.arange(count)
    rollouts = make_recorder(env, expert_demonstrator(person))(seeds)
    episodes = to_episodes(rollouts, task)
    return [dataclasses.replace(episode, final_observation=None) for episode in episodes]  # faults change its width


@pytest.fixture(scope="module")
def sets():
    return {
        "Obstacle2D": demonstrations("Obstacle2D", obstacle2d_expert, 40),
        "FrankaPickCube": demonstrations("FrankaPickCube", pick_cube_expert, 20),
    }


@pytest.fixture(scope="module")
def runs(sets, tmp_path_factory):
    """Run folders, trained once: two that are healthy, and those with a fault."""
    folder = tmp_path_factory.mktemp("runs")
    train_bc, reinforce = small_runs.bc_runs(sets["Obstacle2D"]), small_runs.reinforcing()
    train_bc(folder / "bc")
    train_bc(folder / "bc, rate 100 times as high", learning_rate=1.0)
    train_bc(folder / "bc, dead units", dead=True)
    with pytest.raises(NonFiniteError):
        train_bc(folder / "bc, overflow", learning_rate=1e12)
    reinforce(folder / "ppo")
    reinforce(folder / "ppo, rate 100 times as high", learning_rate=1.0)
    return folder


def diagnose(tmp_path, *paths):
    """The exit code, the results, and how many pixels of the picture are marked."""
    asked = doctor.Doctor(paths, picture=str(tmp_path / "seen.png"), json=str(tmp_path / "found.json"), overwrite=True)
    code = doctor.main(asked)
    found = json.loads((tmp_path / "found.json").read_text())
    with Image.open(tmp_path / "seen.png") as image:
        marked = int((np.abs(np.asarray(image.convert("RGB"), int) - ORANGE).max(axis=-1) < 8).sum())
    return code, found, marked


PLANTED = [
    (faults.shuffle_rows, "Obstacle2D"),
    (faults.shuffle_within, "FrankaPickCube"),
    (faults.late, "Obstacle2D"),
    (faults.late, "FrankaPickCube"),
    (faults.early, "FrankaPickCube"),
    (faults.unnormalise, "FrankaPickCube"),
    (faults.saturate, "FrankaPickCube"),
    (faults.duplicate, "Obstacle2D"),
    (faults.leak_action, "Obstacle2D"),
    (faults.leak_actions, "FrankaPickCube"),
    (faults.leak_next_state, "Obstacle2D"),
    (faults.freeze, "FrankaPickCube"),
]


@pytest.mark.parametrize(("plant", "task"), PLANTED, ids=[f"{plant.__name__}-{task}" for plant, task in PLANTED])
def test_a_fault_of_the_data_is_the_first_finding(sets, tmp_path, capsys, plant, task):
    write(tmp_path / "demos.hdf5", plant(sets[task], np.random.default_rng(0)), "robomimic")
    code, found, marked = diagnose(tmp_path, tmp_path / "demos.hdf5")
    expected, _ = faults.FAULTS[plant]
    assert (code, found["cause"], found["healthy"]) == (1, expected, False), found
    said = " ".join(capsys.readouterr().out.split())
    finding = found["checks"][expected]
    assert f"finding 1 ({expected}): {finding['finding']}" in said and f"next: {finding['experiment']}" in said
    # Episodes that are there twice have no column to mark.
    assert bool(marked > 20) == bool(finding["where"]) == (plant is not faults.duplicate)


def test_numbers_that_are_not_finite(sets, tmp_path, capsys):
    """The reader refuses such an episode; the others are checked all the same."""
    path = tmp_path / "demos.hdf5"
    write(path, faults.shuffle_rows(sets["Obstacle2D"], np.random.default_rng(0)), "robomimic")
    with h5py.File(path, "a") as file:
        file["data/demo_3/actions"][5, 1] = np.nan
        file["data/demo_7/obs/state"][0, 2] = np.inf
    code, found, _ = diagnose(tmp_path, path)
    assert (code, found["cause"]) == (1, "data: finite")
    evidence, finding = (found["checks"]["data: finite"][key] for key in ("evidence", "finding"))
    assert "2 of 40 episodes" in evidence and evidence.endswith("follows: 3, 7")
    assert "first in episode 3" in finding and "action holds nan at [5, 1]" in finding
    assert found["findings"] == ["data: finite", "data: shuffled actions"]
    assert "finding 2 (data: shuffled actions)" in capsys.readouterr().out

    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            demo["actions"][0, 0] = np.nan
    code, found, _ = diagnose(tmp_path, path)
    assert (code, list(found["checks"])) == (1, ["data: finite"])


def test_steps_that_do_not_follow_the_clock(sets, tmp_path):
    write(tmp_path / "demos", sets["Obstacle2D"])
    (path,) = (tmp_path / "demos/data").rglob("*.parquet")
    table = pq.read_table(path)
    index = table.column_names.index("timestamp")
    times = table["timestamp"].to_numpy().copy()
    times[table["episode_index"].to_numpy() == 4] += 0.1  # a later start is no fault
    episode = np.flatnonzero(table["episode_index"].to_numpy() == 2)
    times[episode[9:]] += 0.3  # three pictures were lost
    pq.write_table(table.set_column(index, table.schema.field(index), pa.array(times, table.schema.types[index])), path)
    code, found, _ = diagnose(tmp_path, tmp_path / "demos")
    assert (code, found["findings"]) == (1, ["data: time stamps"])
    evidence = found["checks"]["data: time stamps"]["evidence"]
    assert (
        "of 1 of 40 episodes" in evidence
        and "step 9 of episode 2 is at 1.2 s, a clock of 10 Hz would say 0.9 s" in evidence
    )


@pytest.mark.parametrize(
    ("name", "causes"),
    [
        ("bc, rate 100 times as high", ["run: learning rate"]),
        ("bc, dead units", ["run: dead gradient"]),
        ("bc, overflow", ["run: finite"]),
        ("ppo, rate 100 times as high", ["run: learning rate"]),
    ],
)
def test_a_fault_of_a_run_is_the_first_finding(runs, tmp_path, name, causes):
    code, found, marked = diagnose(tmp_path, runs / name)
    assert (code, [found["cause"]]) == (1, causes), found
    if "rate" in name:
        assert "learning rate 1 is too high" in found["checks"]["run: learning rate"]["finding"]
        assert found["checks"]["run: learning rate"]["step"] is not None and marked > 20
    if "dead" in name:
        assert "Dense_0" in found["checks"]["run: dead gradient"]["evidence"]


@pytest.mark.parametrize("task", ["Obstacle2D", "FrankaPickCube"])
def test_healthy_demonstrations_raise_no_alarm(sets, tmp_path, capsys, task):
    path = tmp_path / ("demos" if task == "Obstacle2D" else "demos.hdf5")
    write(path, sets[task], "lerobot" if path.suffix == "" else "robomimic")
    code, found, marked = diagnose(tmp_path, path)
    assert (code, found["healthy"], marked) == (0, True, 0), found["findings"]
    said = " ".join(capsys.readouterr().out.split())
    assert "Nothing found. " in said and "data: leaked future" in said and "overfits: yes" in said


@pytest.mark.parametrize("name", ["bc", "ppo"])
def test_healthy_runs_raise_no_alarm(runs, sets, tmp_path, name):
    paths = [runs / name]
    if name == "bc":  # with its data
        write(tmp_path / "demos.hdf5", sets["Obstacle2D"], "robomimic")
        paths.insert(0, tmp_path / "demos.hdf5")
    code, found, marked = diagnose(tmp_path, *paths)
    assert (code, found["healthy"], marked) == (0, True, 0), found["findings"]
    assert ("data: finite" in found["checks"]) == (name == "bc") and "run: dead gradient" in found["checks"]


def command(*arguments):
    """Runs the script in this process, which spares its imports; returns the exit code."""
    argv, sys.argv = sys.argv, [str(SCRIPT), *map(str, arguments)]
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = argv


def test_the_exit_code_and_the_files_that_nobody_named(runs, tmp_path, capsys, monkeypatch):
    folder = runs / "bc, dead units"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert command(folder) == 1
    assert f"picture: {folder / 'doctor.png'}" in capsys.readouterr().out
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after.pop(folder / "doctor.png")[:4] == b"\x89PNG" and after == before, "it leaves all else alone"
    assert doctor.default_picture(tmp_path / "demos", None) == tmp_path / "demos.about" / "doctor.png"
    monkeypatch.chdir(tmp_path)
    assert doctor.default_picture(Path(), None) == tmp_path.with_name(f"{tmp_path.name}.about") / "doctor.png"


@pytest.mark.parametrize(("columns", "actions"), [(9, 3), (80, 3), (9, 80), (0, 64)])
def test_no_more_numbers_are_printed_than_fit(columns, actions):
    table = Steps(
        observation=np.ones((5, columns)),
        action=np.ones((5, actions)),
        episode=np.zeros(5, int),
        columns=tuple(f"state[{i}]" for i in range(columns)),
        camera=np.zeros(columns, bool),
        fps=np.ones(1),
        cut=True,
    )
    printed = doctor.statistics(table)
    assert printed.row_count == min(columns + actions, doctor.MAX_ROWS) and "the first 1 episodes" in printed.title
    names = list(printed.columns[0].cells)
    assert names[-min(actions, doctor.MAX_ROWS)] == "action[0]"
    left_out = columns + actions - printed.row_count
    assert printed.caption == (f"{left_out} more numbers are left out" if left_out else None)


def test_a_run_of_a_sweep_is_diagnosed_by_its_number(runs, tmp_path, capsys):
    """Number 1 is the run whose rate is 100 times as high, and its weights are not finite."""
    folder = Path(shutil.copytree(runs / "ppo", tmp_path / "sweep"))
    config = json.loads((folder / "config.json").read_text())
    config["config"]["seeds"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    lines = []
    for number, name in enumerate(("ppo", "ppo, rate 100 times as high")):
        header, *rows = (runs / name / "metrics.csv").read_text().splitlines()
        lines += [row.replace(",", f",{number},", 1) for row in rows]
    (folder / "sweep.csv").write_text("\n".join([header.replace(",", ",number,", 1), *lines, ""]))
    shutil.rmtree(folder / "checkpoints")
    Checkpoints(folder / "checkpoints").save(9, {"params": {"w": np.array([[1.0], [np.nan]], np.float32)}})
    assert command(folder) == 0 and (folder / "doctor-0.png").exists()
    capsys.readouterr()
    assert command(folder, "--number", 1) == 1 and (folder / "doctor-1.png").exists()
    said = capsys.readouterr().out
    assert "w at step 9" in said and "learning rate 1 is too high" in said
    for path, sentence in (
        (folder, "numbered from 0: there is no number 2"),
        (runs / "ppo", "is no sweep"),
        (tmp_path / "demos", "--number is of a run in a sweep: pass its run folder too"),
    ):
        assert command(path, "--number", 2) == 2 and sentence in capsys.readouterr().err


def test_a_run_that_has_just_begun(tmp_path, capsys):
    (tmp_path / "metrics.csv").write_text("step,loss/train\n10,1.0\n")
    assert command(tmp_path) == 0
    said = capsys.readouterr().out
    assert "Nothing found. Checked: run: finite. 8 of 9 checks had nothing to check." in said


def test_what_cannot_be_read_is_one_sentence(runs, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.json").write_text("{}")
    (tmp_path / "table").mkdir()
    (tmp_path / "table/metrics.csv").write_text("step,loss\n1,2,3\n")
    (tmp_path / "file").write_text("")
    bc_run = runs / "bc"
    for arguments, sentence in (
        ([tmp_path / "nowhere"], "nowhere does not exist"),
        (
            [tmp_path / "empty"],
            "is neither a dataset of lerobot, robomimic, minari (name its folder, or the .hdf5 file) nor",
        ),
        ([tmp_path / "config"], "is not a run folder (it has no metrics.csv)"),
        ([tmp_path / "table"], "is damaged in line 2"),
        ([bc_run, runs / "ppo"], "these are 0 datasets and 2 run folders"),
        ([tmp_path / "empty", tmp_path / "nowhere"], "these are 2 datasets and 0 run folders"),
        ([bc_run, "--fps", -3.0], "fps is -3, it must be above 0"),
        ([bc_run, "--json", tmp_path / "file" / "a.json"], "cannot create the folder"),
        ([bc_run, "--picture", tmp_path / "file" / "a.png"], "cannot create the folder"),
        ([bc_run, "--json", tmp_path / "file"], "exists already: choose another --json, or replace it with --over"),
        ([bc_run, "--picture", tmp_path / "file"], "exists already: choose another --picture"),
        ([bc_run, "--picture", tmp_path / ("a" * 300)], "File name too long"),
        ([bc_run, "--picture", tmp_path / "new", "--json", tmp_path / "new"], "both name"),
    ):
        assert command(*arguments) == 2
        said = capsys.readouterr()
        assert sentence in said.err and said.err.count("\n") == 1 and said.err.startswith("error: "), said.err
    assert not (tmp_path / "nowhere.about").exists() and (tmp_path / "file").read_text() == ""


def test_a_dataset_of_another_rate_than_its_task_is_refused(runs, sets, tmp_path, capsys):
    """With a run, and alone where it says what task it is of."""
    slow = [dataclasses.replace(episode, fps=5.0) for episode in sets["Obstacle2D"][:2]]
    write(tmp_path / "demos.hdf5", slow, "robomimic")
    for paths in ((tmp_path / "demos.hdf5",), (tmp_path / "demos.hdf5", runs / "bc")):
        assert command(*paths) == 2
        said = capsys.readouterr()
        assert "has 5 steps a second, Obstacle2D acts 10 times a second" in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "demos.hdf5.about").exists()


def test_a_run_and_demonstrations_of_different_tasks_are_refused(runs, sets, tmp_path, capsys):
    bc_run = tmp_path / "run"
    shutil.copytree(runs / "bc", bc_run)
    (bc_run / "config.json").write_text(json.dumps({"config": {"task": "FrankaStack"}}))
    write(tmp_path / "demos.hdf5", sets["Obstacle2D"][:2], "robomimic")
    assert command(bc_run, tmp_path / "demos.hdf5") == 2
    assert "demos.hdf5 was recorded in Obstacle2D, not in FrankaStack" in capsys.readouterr().err
