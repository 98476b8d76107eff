"""Demonstrators whose actions go on with a motion, and those whose actions follow from where they are."""

import json

import numpy as np
import pytest

from mjx_policies.diagnosis.data import Data
from mjx_policies.diagnosis.diagnosis import diagnose
from mjx_policies.diagnosis.motion import inertia
from mjx_policies.diagnosis.runs import read_run
from mjx_policies.diagnosis.steps import Steps

EPISODES, LENGTH = 30, 60


def demonstrations(reactive):
    rng = np.random.default_rng(0)
    positions, actions = [], []
    for _ in range(EPISODES):
        if reactive:  # half of what is left to go, from wherever a hand that shakes has led
            x, act = rng.normal(size=2), []
            for _ in range(LENGTH):
                act.append(-0.5 * x)
                positions.append(x)
                x = x + act[-1] + 0.3 * rng.normal(size=2)
        else:  # waves of the hand, about places of its own: where it is tells nothing of where it goes
            phase = rng.uniform(0, 2 * np.pi, 2) + 0.3 * np.arange(LENGTH)[:, None]
            act = list(np.cos(phase))
            positions += list(np.sin(phase) + 5 * rng.normal(size=2))
        actions += act
    episode = np.repeat(np.arange(EPISODES), LENGTH)
    fps = np.full(EPISODES, 20.0)
    return Steps(np.array(positions), np.array(actions), episode, ("x", "y"), np.zeros(2, bool), fps, (0, 1))


@pytest.mark.parametrize("reactive", [False, True])
def test_single_actions_of_a_motion_that_goes_on_are_a_finding(reactive):
    result = inertia(Data(demonstrations(reactive), single_actions=True))
    assert bool(result.finding) == (not reactive), result.evidence


@pytest.mark.parametrize(("horizon", "dropout", "asked"), [(1, 0.0, True), (16, 0.0, False), (1, 0.5, False)])
def test_chunks_and_policies_that_cannot_copy_are_not_asked(horizon, dropout, asked, tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss/train\n1,1.0\n2,0.5\n")
    config = {"horizon": horizon, "hyper": {"observation_dropout": dropout}}
    (tmp_path / "config.json").write_text(json.dumps({"config": config}))
    found = diagnose(demonstrations(reactive=False), read_run(tmp_path))
    assert (found.results["data: inertia"] is not None) == asked
