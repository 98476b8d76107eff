"""The gate's robots: each condition changes what it says, and an episode ends where the robot falls."""

import copy
from pathlib import Path

import mujoco
import numpy as np
import pytest

from mjx_policies.deploy.policy import load_policy
from mjx_policies.deploy.sim_to_sim import CONDITIONS, Condition, Scene, run_episode

MODEL = Path(__file__).parents[3] / "envs" / "models" / "go2.xml"
CHANGED = {
    "nominal": set(),
    "mass": {"body_mass", "body_inertia", "body_ipos"},
    "friction": {"geom_friction"},
    "motors": {"actuator_forcerange", "dof_damping", "dof_frictionloss", "dof_armature"},
    "latency": set(),
    "noise": set(),
    "pushes": set(),
    "solver": {"geom_solref"},
}
CHANGED["combined"] = CHANGED["mass"] | CHANGED["friction"] | CHANGED["motors"] | CHANGED["solver"]
FIELDS = sorted(CHANGED["combined"] | {"actuator_gainprm", "jnt_range", "geom_size"})


@pytest.fixture(scope="module")
def scene():
    return Scene(MODEL)


@pytest.fixture(scope="module")
def policy(policies, tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "go2.onnx"
    policies.write_policy(path)
    return load_policy(path)


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_changes_what_it_says_and_nothing_else(scene, name):
    model = copy.copy(scene.model)
    CONDITIONS[name].change(model, np.random.default_rng(0))
    changed = {field for field in FIELDS if not np.array_equal(getattr(model, field), getattr(scene.model, field))}
    assert changed == CHANGED[name]
    assert (model.opt.timestep != scene.model.opt.timestep) == (name in ("solver", "combined"))


def test_derived_constants_follow_the_masses(scene):
    model = copy.copy(scene.model)
    CONDITIONS["mass"].change(model, np.random.default_rng(0))
    np.testing.assert_allclose(model.body_subtreemass[0], model.body_mass.sum())
    assert not np.array_equal(model.body_invweight0, scene.model.body_invweight0)


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_same_seed_gives_the_same_episode(scene, policy, name):
    first, second = (run_episode(policy, scene, CONDITIONS[name], 0.2, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.qpos, second.qpos)
    assert 100 < len(first.qpos) <= 120 and first.targets.shape == first.angles.shape == (len(first.qpos), 12)
    other = run_episode(policy, scene, CONDITIONS[name], 0.2, seed=4)
    assert not np.array_equal(first.qpos, other.qpos)


def test_a_robot_that_is_knocked_over_ends_its_episode(scene, policy):
    from mjx_policies.deploy.robots.simulated import Push

    hit = Condition("a blow", pushes=lambda random, seconds, mass: (Push(0.1, 0.2, (0.0, 1500.0, 0.0)),))
    episode = run_episode(policy, scene, hit, 4.0, seed=0)
    assert episode.fallen or "leans" in episode.fault
    assert len(episode.qpos) < 250


def test_the_floor_is_what_feet_stand_on(scene):
    assert scene.model.geom_type[scene.floor] == mujoco.mjtGeom.mjGEOM_PLANE
    assert [scene.model.geom(i).name for i in scene.feet] == ["FL_foot", "FR_foot", "RL_foot", "RR_foot"]
