"""What scripts with datasets share."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from mjx_policies.data.episodes import Episode
from mjx_policies.training.errors import UserError

SCRIPTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def demos():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module("demos")


def dataset(task):
    rows = np.zeros((3, 1), np.float32)
    return [Episode({"state": rows}, rows, np.zeros(3, np.float32), False, None, task, 20.0)]


def test_a_dataset_of_another_task_is_refused(demos):
    with pytest.raises(UserError, match=r"a\.hdf5 was recorded in FrankaDrawer, not in FrankaStack"):
        demos.check_task(dataset("FrankaDrawer"), "a.hdf5", "FrankaStack")


@pytest.mark.parametrize("task", ["FrankaStack", "put the red cube on the green one", ""])
def test_a_dataset_of_the_task_or_with_an_instruction_is_taken(demos, task):
    demos.check_task(dataset(task), "a.hdf5", "FrankaStack")
    demos.check_task([], "a.hdf5", "FrankaStack")
