"""A trained policy walks on a Go2 that others modelled as well as on ours, through the controller and without it.

`go2_walk.onnx` was made by `ppo_locomotion.py --seed 10` with the defaults of its day, and `export_onnx.py`. Like any
file that lies on a robot, it has to be read by what comes later.
"""

import runpy
from pathlib import Path

import mujoco
import numpy as np
import pytest

from mjx_policies.deploy.policy import load_policy
from mjx_policies.deploy.sim_to_sim import CONDITIONS, Condition, Scene, run_episode

FOLDER = Path(__file__).parent
FOREIGN = runpy.run_path(str(FOLDER / "foreign_go2.py"))
POLICY = FOLDER / "go2_walk.onnx"
MODEL = FOLDER.parents[2] / "envs" / "models" / "go2.xml"
ROBOTS, SECONDS = 2, 3.0


def as_published(model, random):
    model.opt.timestep = FOREIGN["TIMESTEP"]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    path = tmp_path_factory.mktemp("foreign") / "go2.xml"
    path.write_text(FOREIGN["mjcf"]())
    return path


def test_it_is_another_model_than_ours(foreign):
    ours, theirs = Scene(MODEL).model, Scene(foreign).model
    assert theirs.body_mass.sum() == pytest.approx(15.017) and ours.body_mass.sum() == pytest.approx(16.087)
    assert set(theirs.actuator_forcerange[:, 1]) == {23.7, 45.43} and set(theirs.geom_friction[1:, 0]) >= {0.4}
    assert mujoco.mjtGeom.mjGEOM_CYLINDER in theirs.geom_type and mujoco.mjtGeom.mjGEOM_CYLINDER not in ours.geom_type
    assert [theirs.actuator(i).name for i in range(12)] != [ours.actuator(i).name for i in range(12)]


def test_the_gate_finds_it_to_walk_as_well_there(foreign):
    policy = load_policy(POLICY)
    tracking = {}
    for name, path, condition in (
        ("ours", MODEL, CONDITIONS["nominal"]),
        ("foreign", foreign, Condition("as published", as_published)),
    ):
        scene = Scene(path)
        episodes = [run_episode(policy, scene, condition, SECONDS, seed) for seed in range(ROBOTS)]
        assert not any(episode.failed for episode in episodes), name
        tracking[name] = np.mean([(episode.track_linear, episode.track_yaw) for episode in episodes], axis=0)
    assert tracking["ours"].min() > 0.85
    np.testing.assert_allclose(tracking["foreign"], tracking["ours"], atol=0.05)  # they differed by 0.002 in 4 robots


@pytest.mark.parametrize("place", ["ours", "foreign"])
def test_so_does_a_loop_that_knows_nothing_of_ours(foreign, place):
    walk = runpy.run_path(str(FOLDER / "walk_alone.py"))["walk"]
    found = walk(str(POLICY), str(foreign if place == "foreign" else MODEL), robots=ROBOTS, seconds=SECONDS)
    assert found["falls"] == 0 and found["track_linear"] > 0.8
