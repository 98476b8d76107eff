"""Each planted fault is the finding, and healthy demonstrations raise no alarm."""

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
    assert found.finding is None, (found.cause, found.finding)


MISSED = {("early", "walker")}  # known: nothing is found there
CASES = [
    pytest.param(plant, cause, world, marks=pytest.mark.xfail(strict=True) if (plant.__name__, world) in MISSED else ())
    for plant, (cause, suitable) in faults.FAULTS.items()
    for world in dict.fromkeys((suitable[0], suitable[-1]))  # of its list; all would take minutes
]


@pytest.mark.parametrize(("plant", "cause", "world"), CASES)
def test_a_planted_fault_is_the_finding(plant, cause, world):
    found = diagnose(plant(worlds.demonstrations(world, seed=0), np.random.default_rng(0)))
    assert found.cause == cause, found.finding
    if cause == "data: finite":  # the other numbers are healthy
        assert list(found.findings) == [cause] and found.data.association is not None
