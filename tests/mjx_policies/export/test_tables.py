"""Contracts of policies against the robots that these were trained on."""

import jax
import numpy as np
import pytest

from mjx_policies.envs.franka.robot import ACTUATORS, HOME, LIMITS, OPENING
from mjx_policies.envs.registry import load
from mjx_policies.export import Provenance, describe
from mjx_policies.types import actuator_targets

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")


def described(name, actions=None, **more):
    task = load(name, "cpu", 1, actions)
    return describe(task.spec, task.physics.model, Provenance(name, 0, 0), **more)


def column(found, name):
    return np.array([getattr(joint, name) for joint in found["joints"]])


def test_a_franka_with_its_gripper():
    found = described("FrankaPickCube", "joint_target", history=2, horizon=16)
    assert tuple(joint.name for joint in found["joints"]) == ACTUATORS
    np.testing.assert_allclose(column(found, "default"), [*HOME, OPENING / 2])
    assert not column(found, "home").any(), "angles are observed as they are"
    lower, upper = np.array([*LIMITS["fr3"].lower, 0.0]), np.array([*LIMITS["fr3"].upper, OPENING])
    np.testing.assert_allclose(column(found, "lower"), lower)
    np.testing.assert_allclose(column(found, "upper"), upper)
    inside = np.array([0.05] * 7 + [0.0]) * (upper - lower)  # the gripper closes and opens as far as it can
    np.testing.assert_allclose(column(found, "soft_lower"), lower + inside)
    np.testing.assert_allclose(column(found, "soft_upper"), upper - inside)
    np.testing.assert_allclose(column(found, "effort"), [87] * 4 + [12] * 3 + [100])
    assert all(term.history == 2 and not term.newest_first for term in found["observation"])
    assert found["action"].clip == 1.0, "as in training"
    assert found["action"].type == "joint_position" and found["action"].horizon == 16
    assert found["robot"].name == "franka"


def test_legs_are_observed_from_where_they_stand_and_kept_within_the_limits_of_training():
    task = load("Go2JoystickFlat", "cpu", 1)
    found = describe(task.spec, task.physics.model, Provenance("Go2JoystickFlat", 0, 0))
    np.testing.assert_array_equal(column(found, "home"), column(found, "default"))
    assert found["action"].clip == 0, "an action of any size is observed as it was, as in training"
    lower, upper = column(found, "lower"), column(found, "upper")
    np.testing.assert_allclose(np.stack([lower, upper], 1), task.physics.model.jnt_range[1:], rtol=1e-12)
    np.testing.assert_allclose(column(found, "soft_lower"), lower + 0.05 * (upper - lower), rtol=1e-6)
    np.testing.assert_allclose(column(found, "soft_upper"), upper - 0.05 * (upper - lower), rtol=1e-6)
    for action, end in ((-99.0, "soft_lower"), (99.0, "soft_upper")):
        np.testing.assert_allclose(
            actuator_targets(task.spec.action, np.full(12, action)), column(found, end), rtol=1e-6
        )


@pytest.mark.parametrize("actions", ["joint_delta", "pose_delta", "top_down_delta"])
def test_changes_are_no_targets(actions):
    with pytest.raises(ValueError, match=r"such as .*_change, are no targets.*train one with --actions joint_target"):
        described("FrankaPickCube", actions)
