"""Each planted fault is the suspect, and healthy demonstrations raise no alarm."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from mjx_policies.diagnosis.diagnosis import diagnose


def sibling(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


worlds, faults = sibling("worlds"), sibling("faults")


@pytest.mark.parametrize("world", sorted(worlds.WORLDS))
def test_healthy_demonstrations_raise_no_alarm(world):
    found = diagnose(worlds.demonstrations(world, seed=0))
    assert found.suspect is None, (found.culprit, found.suspect)


MISSED = {("early", "walker")}  # known: nothing is found there
CASES = [
    pytest.param(
        plant, culprit, world, marks=pytest.mark.xfail(strict=True) if (plant.__name__, world) in MISSED else ()
    )
    for plant, (culprit, suitable) in faults.FAULTS.items()
    for world in dict.fromkeys((suitable[0], suitable[-1]))  # of its list; all would take minutes
]


@pytest.mark.parametrize(("plant", "culprit", "world"), CASES)
def test_a_planted_fault_is_the_suspect(plant, culprit, world):
    found = diagnose(plant(worlds.demonstrations(world, seed=0), np.random.default_rng(0)))
    assert found.culprit == culprit, found.suspect
    if culprit == "data: finite":  # the other numbers are healthy
        assert list(found.suspects) == [culprit] and found.data.association is not None
