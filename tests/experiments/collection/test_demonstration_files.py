"""Demonstration files, as scripts share them."""

import contextlib
import dataclasses
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from mjx_policies.data.episodes import Episode
from mjx_policies.data.formats import read
from mjx_policies.errors import UserError
from mjx_policies.experiments.collection import demonstration_files as demos
from mjx_policies.spec import Term


def dataset(task, size=1):
    rows = np.zeros((3, size), np.float32)
    return [Episode({"state": rows}, rows[:, :1], np.zeros(3, np.float32), False, None, task, 20.0)]


@dataclasses.dataclass(frozen=True)
class Config(demos.DatasetConfig):
    FILE: ClassVar[str] = "session.json"


SPEC = SimpleNamespace(
    observation=(
        Term("tcp_position", 2, "m"),
        Term("cube_position", 3, "m"),
        Term("last_action", 1, "1"),
        Term("goal", 1, "m"),
    ),
    robot="fr3",
    action=SimpleNamespace(names=("x",)),
)


def begin(path, format="lerobot", **changes):
    return demos.open_dataset(Config("FrankaStack", str(path), format, **changes), SPEC)


@pytest.mark.parametrize("format", ["lerobot", "robomimic"])
def test_a_place_that_is_taken_is_left_as_it_is(format, tmp_path):
    path = tmp_path / "a" if format == "lerobot" else tmp_path / "a.hdf5"
    taken = path if format == "lerobot" else path.with_name("a.hdf5.parts")
    (taken / "meta").mkdir(parents=True)
    about = tmp_path / f"{path.name}.about"
    about.mkdir()
    with pytest.raises(UserError, match=r"holds something already: choose another --out\.$"), begin(path, format):
        pass  # of another script
    (about / "session.json").touch()
    advice = r"holds something already: choose another --out, or go on with --resume"
    with pytest.raises(UserError, match=advice), begin(path, format):
        pass
    assert set(tmp_path.iterdir()) == {taken, about}
    with pytest.raises(UserError, match="too long"), begin(tmp_path / ("x" * 300), format):
        pass


def test_a_folder_is_not_named_like_a_file(tmp_path):
    with pytest.raises(UserError, match=r"LeRobot is a folder: leave \.hdf5 out"), begin(tmp_path / "a.hdf5"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_finished_file_has_no_advice_to_resume(tmp_path):
    path = tmp_path / "a.hdf5"
    path.touch()
    (tmp_path / "a.hdf5.about").mkdir()
    (tmp_path / "a.hdf5.about" / "session.json").touch()
    with pytest.raises(UserError, match=r"choose another --out\.$"), begin(path, "robomimic"):
        pass


@pytest.mark.parametrize("format", ["lerobot", "robomimic"])
def test_what_fails_before_its_first_episode_leaves_nothing(format, tmp_path):
    path = tmp_path / ("a" if format == "lerobot" else "a.hdf5")
    with pytest.raises(UserError, match="no display"), begin(path, format):
        raise UserError("no display")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="no display"), begin(path, format) as writer:
        writer.add(dataset("FrankaStack", 7)[0])
        raise UserError("no display")
    assert len(read(path)) == 1
    assert demos.read_begun(Config, tmp_path / "a") == Config("FrankaStack", str(path), format)
    with begin(path, format, resume=True) as writer:
        assert len(writer) == 1


def test_what_an_earlier_version_began_is_told(tmp_path):
    (tmp_path / "a.about").mkdir()
    (tmp_path / "a.about" / "campaign.json").touch()
    with pytest.raises(UserError, match="was begun by an earlier version of this script: go on with that one"):
        demos.read_begun(Config, tmp_path / "a")


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
    assert demos.describe_robot(SPEC) == {"robot": "fr3", "action_names": ("x",), "environment": [2, 3, 4, 6]}


def test_a_dataset_of_another_task_is_refused():
    with pytest.raises(UserError, match=r"a\.hdf5 was recorded in FrankaDrawer, not in FrankaStack"):
        demos.check_task(dataset("FrankaDrawer"), "a.hdf5", "FrankaStack")


@pytest.mark.parametrize("task", ["FrankaStack", "put the red cube on the green one", ""])
def test_a_dataset_of_the_task_or_with_an_instruction_is_taken(task):
    demos.check_task(dataset(task), "a.hdf5", "FrankaStack")
    demos.check_task([], "a.hdf5", "FrankaStack")
