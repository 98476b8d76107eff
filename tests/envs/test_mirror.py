"""The reflection of the Go2, against its definition and against the simulator."""

import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.envs.mirror import mirror_action, mirror_joints, mirror_observation, mirror_table
from mjx_policies.envs.registry import load
from mjx_policies.spec import table_size, table_slices

TASK = load("Go2JoystickFlat", "cpu", num_envs=1)
MODEL = TASK.physics.model


def test_twice_reflected_is_unchanged():
    rng = np.random.default_rng(0)
    observe, act = mirror_observation(TASK.spec, MODEL), mirror_action(TASK.spec, MODEL)
    obs = {
        "state": jnp.asarray(rng.normal(size=table_size(TASK.spec.observation))),
        "privileged": jnp.asarray(rng.normal(size=table_size(TASK.spec.privileged))),
    }
    for name, value in observe(observe(obs)).items():
        np.testing.assert_array_equal(value, obs[name])
        assert (observe(obs)[name] != obs[name]).any()
    action = jnp.asarray(rng.normal(size=12))
    np.testing.assert_array_equal(act(act(action)), action)


def test_left_and_right_change_places_and_only_hips_change_sign():
    source, sign = mirror_joints(TASK.spec.action.names, MODEL)
    for i, name in enumerate(TASK.spec.action.names):
        swapped = name[0] + {"L": "R", "R": "L"}[name[1]] + name[2:]
        assert TASK.spec.action.names[source[i]] == swapped
        assert sign[i] == (-1 if name.endswith("hip") else 1)


def test_vectors_flip_as_their_kind_says():
    source, sign = mirror_table(TASK.spec.observation, TASK.spec, MODEL)
    where = table_slices(TASK.spec.observation)
    for name, expected in (
        ("gyro", [-1, 1, -1]),
        ("gravity", [1, -1, 1]),
        ("command", [1, -1, -1]),
        ("gait", [-1, -1]),
    ):
        np.testing.assert_array_equal(sign[where[name]], expected)
        np.testing.assert_array_equal(source[where[name]], np.arange(where[name].start, where[name].stop))


def test_a_mirrored_robot_moves_as_the_mirror_image():
    """On a robot made symmetric; to float64 rounding grown over 50 steps of contact."""
    model = _symmetric()
    source, sign = mirror_joints(TASK.spec.action.names, model)
    rng = np.random.default_rng(1)
    one, other = mujoco.MjData(model), mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, one, 0)
    one.qvel[:] = 0.3 * rng.normal(size=model.nv)
    one.qpos[:2] = 0.0
    other.qpos[:] = one.qpos
    other.qpos[7:] = sign * one.qpos[7:][source]
    other.qvel[:3] = one.qvel[:3] * [1, -1, 1]
    other.qvel[3:6] = one.qvel[3:6] * [-1, 1, -1]
    other.qvel[6:] = sign * one.qvel[6:][source]
    targets = model.key("home").ctrl + 0.3 * rng.normal(size=12)
    for _ in range(50):
        one.ctrl[:] = targets
        other.ctrl[:] = sign * targets[source]
        mujoco.mj_step(model, one)
        mujoco.mj_step(model, other)
    np.testing.assert_allclose(other.qpos[7:], sign * one.qpos[7:][source], atol=1e-6)
    np.testing.assert_allclose(other.qpos[:3], one.qpos[:3] * [1, -1, 1], atol=1e-6)
    np.testing.assert_allclose(other.qvel[3:6], one.qvel[3:6] * [-1, 1, -1], atol=1e-5)


def test_a_name_without_a_mirror_image_says_so():
    with pytest.raises(ValueError, match="'FL_hip' has no mirror image 'FR_hip' among FL_hip"):
        mirror_joints(("FL_hip",), MODEL)


def _symmetric() -> mujoco.MjModel:
    """The Go2 with the masses of its left half mirrored onto the right, and a trunk that is its own image."""
    model = load("Go2JoystickFlat", "cpu", num_envs=1).physics.model
    for body in range(1, model.nbody):
        name = model.body(body).name
        other = name[0] + {"L": "R", "R": "L"}[name[1]] + name[2:] if name != "trunk" else name
        image = model.body(other).id
        model.body_inertia[image] = model.body_inertia[body]
        model.body_mass[image] = model.body_mass[body]
        if image == body:
            model.body_ipos[body, 1] = 0.0
            model.body_iquat[body] = [1, 0, 0, 0]
        else:
            model.body_ipos[image] = model.body_ipos[body] * [1, -1, 1]
            model.body_iquat[image] = model.body_iquat[body] * [1, -1, 1, -1]
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model
