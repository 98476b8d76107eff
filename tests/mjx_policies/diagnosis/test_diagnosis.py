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


@pytest.mark.parametrize("plant", faults.FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_the_suspect(plant):
    culprit, suitable = faults.FAULTS[plant]
    for world in (suitable[0], suitable[-1]):
        episodes = plant(worlds.demonstrations(world, seed=0), np.random.default_rng(0))
        found = diagnose(episodes)
        assert found.culprit == culprit, (world, found.culprit, found.suspect)
