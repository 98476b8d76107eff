"""What scripts with datasets share."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest

from mjx_policies.data.episodes import Episode
from mjx_policies.experiments.collection import demonstration_files as demos
from mjx_policies.training.errors import UserError
from mjx_policies.types import Term


def dataset(task):
    rows = np.zeros((3, 1), np.float32)
    return [Episode({"state": rows}, rows, np.zeros(3, np.float32), False, None, task, 20.0)]


@pytest.mark.parametrize("format", ["lerobot", "robomimic"])
def test_a_place_that_is_taken_is_left_as_it_is(format, tmp_path):
    path = tmp_path / "a" if format == "lerobot" else tmp_path / "a.hdf5"
    taken = path if format == "lerobot" else path.with_name("a.hdf5.parts")
    (taken / "meta").mkdir(parents=True)
    about = tmp_path / f"{path.name}.about"
    about.mkdir()
    (about / "session.json").touch()
    with pytest.raises(UserError, match=r"holds something already: choose another --out, or go on with --resume"):
        demos.prepare(path, format, False, "session.json")
    with pytest.raises(UserError, match=r"holds something already: choose another --out\.$"):  # of another script
        demos.prepare(path, format, False, "campaign.json")
    assert set(tmp_path.iterdir()) == {taken, about}
    demos.prepare(path, format, True, "session.json")
    with pytest.raises(UserError, match="too long"):
        demos.prepare(tmp_path / ("x" * 300), format, False, "session.json")


def test_a_finished_file_is_not_said_to_go_on(tmp_path):
    path = tmp_path / "a.hdf5"
    path.touch()
    (tmp_path / "a.hdf5.about").mkdir()
    (tmp_path / "a.hdf5.about" / "session.json").touch()
    with pytest.raises(UserError, match=r"choose another --out\.$"):
        demos.prepare(path, "robomimic", False, "session.json")


@pytest.mark.parametrize(("fps", "fits"), [(20.0, True), (20.1, True), (19, False), (5, False), (50, False)])
def test_a_dataset_has_the_rate_of_its_task(fps, fits):
    with (
        contextlib.nullcontext()
        if fits
        else pytest.raises(
            UserError,
            match=rf"a has {fps} steps a second, FrankaStack acts 20 times a second: take a dataset of that rate",
        )
    ):
        demos.check_rate(SimpleNamespace(fps=fps), "a", "FrankaStack", 0.05)


def test_what_is_not_the_robot_is_told_apart():
    terms = (
        Term("tcp_position", 2, "m"),
        Term("cube_position", 3, "m"),
        Term("last_action", 1, "1"),
        Term("goal", 1, "m"),
    )
    spec = SimpleNamespace(observation=terms, robot="fr3", action=SimpleNamespace(names=("x",)))
    assert demos.describe_robot(spec) == {"robot": "fr3", "action_names": ("x",), "environment": [2, 3, 4, 6]}


def test_a_dataset_of_another_task_is_refused():
    with pytest.raises(UserError, match=r"a\.hdf5 was recorded in FrankaDrawer, not in FrankaStack"):
        demos.check_task(dataset("FrankaDrawer"), "a.hdf5", "FrankaStack")


@pytest.mark.parametrize("task", ["FrankaStack", "put the red cube on the green one", ""])
def test_a_dataset_of_the_task_or_with_an_instruction_is_taken(task):
    demos.check_task(dataset(task), "a.hdf5", "FrankaStack")
    demos.check_task([], "a.hdf5", "FrankaStack")
