"""The gate's robots: each condition changes what it says, and an episode ends where the robot falls."""

import copy
from pathlib import Path

import mujoco
import numpy as np
import pytest

from mjx_policies.deploy.contract import Range
from mjx_policies.deploy.policy import load_policy
from mjx_policies.deploy.simulation import sim_to_sim
from mjx_policies.deploy.simulation.robot import Faults, Push
from mjx_policies.deploy.simulation.sim_to_sim import (
    CONDITIONS,
    GateCondition,
    Scene,
    has_fallen,
    run_episode,
    touching_floor,
)
from mjx_policies.envs.quadruped.robot import trunk_contact
from mjx_policies.envs.quadruped.scenes import flat
from mjx_policies.rotations import rotate_inverse

MODEL = Path(__file__).parents[4] / "envs" / "models" / "go2.xml"
CHANGED = {
    "nominal": set(),
    "mass": {"body_mass", "body_inertia", "body_ipos"},
    "friction": {"geom_friction"},
    "motors": {"actuator_forcerange", "dof_damping", "dof_frictionloss", "dof_armature"},
    "latency": set(),
    "noise": set(),
    "pushes": set(),
    "solver": {"geom_solref"},
    "payload": {"body_mass", "body_ipos"},
    "slope": {"geom_quat", "key_qpos", "qpos0"},
    "weak_leg": set(),
}
CHANGED["combined"] = CHANGED["mass"] | CHANGED["friction"] | CHANGED["motors"] | CHANGED["solver"]
FIELDS = sorted(CHANGED["combined"] | CHANGED["slope"] | {"actuator_gainprm", "jnt_range", "geom_size"})
BEYOND = ("payload", "slope", "weak_leg")


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


def test_the_slope_rises_by_six_degrees_anywhere_and_the_robot_stands_on_it(scene):
    rises = []
    for seed in range(20):
        model = copy.copy(scene.model)
        CONDITIONS["slope"].change(model, np.random.default_rng(seed))
        data = mujoco.MjData(model)
        mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
        mujoco.mj_forward(model, data)
        normal, up = data.geom_xmat[scene.floor].reshape(3, 3)[:, 2], data.xmat[1].reshape(3, 3)[:, 2]
        assert np.degrees(np.arccos(normal[2])) == pytest.approx(6.0) and normal @ up == pytest.approx(1.0)
        feet = data.geom_xpos[scene.feet] @ normal - model.geom_size[scene.feet, 0]
        np.testing.assert_allclose(feet, 0, atol=2e-3)  # on it, as they stand on a level floor
        rises.append(np.arctan2(normal[1], normal[0]))
    assert len({round(rise // (np.pi / 2)) for rise in rises}) == 4, "not in all directions"


def test_one_leg_is_weak_and_any_may_be():
    drawn = [CONDITIONS["weak_leg"].faults(np.random.default_rng(seed)).strength for seed in range(30)]
    assert {next(iter(each))[:2] for each in drawn} == {"FL", "FR", "RL", "RR"}
    assert all(len({joint[:2] for joint in each}) == 1 and set(each.values()) == {0.6} for each in drawn)


def test_a_payload_weighs_up_to_five_kilograms(scene):
    added = []
    for seed in range(50):
        model = copy.copy(scene.model)
        CONDITIONS["payload"].change(model, np.random.default_rng(seed))
        added.append(model.body_mass.sum() - scene.model.body_mass.sum())
    assert 3.0 <= min(added) < 3.2 and 4.8 < max(added) <= 5.0


def test_conditions_far_beyond_training_count_only_for_a_policy_that_was_trained_for_them(policies):
    def trained(**ranges):
        entries = (Range(name, *entry) for name, entry in ranges.items())
        return policies.example_contract(randomization=tuple(entries))

    def counting(contract):
        return {name for name, condition in CONDITIONS.items() if condition.covered(contract)}

    always = set(CONDITIONS) - set(BEYOND)
    go2 = {
        "payload": ("add", (-1.0,), (2.0,)),
        "gravity": ("add", (-0.25, -0.25, -0.1), (0.25, 0.25, 0.1)),
        "strength": ("scale", (0.85,), (1.0,)),
        "kp": ("scale", (0.9,), (1.1,)),
    }
    assert counting(trained()) == counting(trained(**go2)) == always
    assert counting(trained(**go2 | {"payload": ("add", (-1.0,), (2.5,))})) == always | {"payload"}
    assert counting(trained(**go2 | {"payload": ("set", (0.0,), (9.0,))})) == always
    tilted = {"gravity": ("add", (-0.6, -0.6, -0.1), (0.6, 0.6, 0.1))}
    assert counting(trained(**go2 | tilted)) == always | {"slope"}
    assert counting(trained(**go2 | {"strength": ("scale", (0.8,), (1.0,))})) == always
    weak = {"strength": ("scale", (0.8,), (1.0,)), "kp": ("scale", (0.8,), (1.1,))}
    assert counting(trained(**go2 | weak)) == always | {"weak_leg"}


@pytest.mark.parametrize("name", ["nominal", "noise", "pushes", "combined", *BEYOND])  # all draws among them
def test_the_same_seed_gives_the_same_episode(scene, policy, name):
    first, second = (run_episode(policy, scene, CONDITIONS[name], 0.2, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.qpos, second.qpos)
    assert 100 < len(first.qpos) <= 120 and first.targets.shape == first.angles.shape == (len(first.qpos), 12)
    other = run_episode(policy, scene, CONDITIONS[name], 0.2, seed=4)
    assert not np.array_equal(first.qpos, other.qpos)


def test_a_robot_that_is_knocked_over_ends_its_episode(scene, policy):
    hit = GateCondition("a blow", pushes=lambda random, seconds, mass: (Push(0.1, 0.2, (0.0, 1500.0, 0.0)),))
    episode = run_episode(policy, scene, hit, 4.0, seed=0)
    assert episode.fallen or "leans" in episode.fault
    assert len(episode.qpos) < 250


def posed(scene, height=0.3, quat=(1, 0, 0, 0), joints=None):
    data = mujoco.MjData(scene.model)
    mujoco.mj_resetDataKeyframe(scene.model, data, scene.model.key("home").id)
    data.qpos[2], data.qpos[3:7] = height, quat
    if joints is not None:
        data.qpos[7:] = joints
    mujoco.mj_forward(scene.model, data)
    return data


def leaning(degrees, axis):
    half = np.radians(degrees) / 2
    return (np.cos(half), *(np.sin(half) * np.array(axis)))


@pytest.mark.parametrize(
    ("pose", "fallen"),
    [
        ({}, False),
        ({"height": 0.2}, False),  # thighs and calves may touch
        ({"height": 0.05}, True),  # the box
        ({"height": 0.24, "quat": leaning(30, (0, 1, 0))}, True),  # the head, far from the box
        ({"height": 0.6, "quat": leaning(59, (1, 0, 0))}, False),
        ({"height": 0.6, "quat": leaning(61, (1, 0, 0))}, True),
        ({"height": 0.6, "quat": leaning(61, (0, 1, 0))}, True),
    ],
)
def test_what_a_fall_is(scene, pose, fallen):
    data = posed(scene, **pose)
    touching = touching_floor(data, scene.floor)
    assert has_fallen(data, touching) == fallen
    if pose.get("height") == 0.24:
        assert touching[scene.model.geom("head").id] and not touching[scene.model.geom("trunk_box").id]


def test_the_rule_is_that_of_the_task():
    """On the same poses of the task's own scene its sensors and the gate say the same, of each kind of fall."""
    model = flat(lean=True)
    data, random, falls = mujoco.MjData(model), np.random.default_rng(0), {"contact": 0, "tilt": 0, "none": 0}
    for _ in range(150):
        mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
        data.qpos[2] = random.uniform(0.05, 0.7)
        data.qpos[3:7] = leaning(random.uniform(0, 90), (np.cos(turn := random.uniform(0, 7)), np.sin(turn), 0))
        data.qpos[7:] += random.uniform(-0.5, 0.5, 12)
        mujoco.mj_forward(model, data)
        contact = bool(trunk_contact(model, data.sensordata))
        tilt = bool(rotate_inverse(np.array([0.0, 0.0, -1.0]), data.qpos[3:7])[2] > -0.5)
        assert has_fallen(data, touching_floor(data, model.geom("floor").id)) == (contact or tilt)
        falls["contact" if contact else "tilt" if tilt else "none"] += 1
    assert min(falls.values()) > 10, falls


def test_a_robot_that_never_stands_is_a_failure_and_not_the_end_of_the_gate(scene, policy, monkeypatch):
    monkeypatch.setattr(sim_to_sim, "STAND_WITHIN", 1.0)
    deaf = GateCondition("no readings", faults=lambda random: Faults(drop_readings=1.0))
    episode = run_episode(policy, scene, deaf, 1.0, seed=0)
    assert episode.failed and not episode.fallen and episode.fault_name == "stand"
    assert "did not stand within 1 s" in episode.fault and episode.track_linear == 0


def test_a_robot_that_only_stands_is_not_lifted_by_contacts_that_are_not_solved(scene):
    def change(model, random):
        model.geom_friction[:, 0] = 0.3544

    walk = load_policy(Path(__file__).with_name("go2_walk.onnx"))
    episode = run_episode(walk, scene, GateCondition("slippery", change), 0.1, seed=0)
    assert not episode.fault
    # rad in a control period of the first half second; 0.5 with the three solver iterations of training
    assert np.abs(np.diff(episode.angles[:25], axis=0)).max() < 0.06


def test_the_floor_is_what_feet_stand_on(scene):
    assert scene.model.geom_type[scene.floor] == mujoco.mjtGeom.mjGEOM_PLANE
    assert [scene.model.geom(i).name for i in scene.feet] == ["FL_foot", "FR_foot", "RL_foot", "RR_foot"]
