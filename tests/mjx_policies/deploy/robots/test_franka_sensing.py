"""Observations of the runtime from a reading, against the environment, MuJoCo and the kinematics that training uses."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.deploy.contract import ContractError
from mjx_policies.deploy.observation import ObservationBuilder, ObservationError
from mjx_policies.deploy.robots.franka_sensing import franka_sources, sixd, tcp_pose, to_matrix
from mjx_policies.deploy.simulation.arm import SimulatedArm
from mjx_policies.envs.franka.kinematics import tcp_pose as tcp_pose_of_training
from mjx_policies.envs.franka.robot import robot_spec
from mjx_policies.envs.mocap import place
from mjx_policies.export.tables import by_time
from mjx_policies.rotations import to_sixd, uniform_quaternion
from mjx_policies.spec import table_slices

_spec = importlib.util.spec_from_file_location("franka", Path(__file__).parents[1] / "franka.py")
franka = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(franka)

on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")


@pytest.mark.parametrize("variant", ["fr3", "panda"])
def test_the_tcp_is_where_mujoco_has_it(variant):
    model = robot_spec(variant).compile()
    data, random = mujoco.MjData(model), np.random.default_rng(0)
    training = jax.jit(tcp_pose_of_training)
    for _ in range(50):
        data.qpos[:7] = random.uniform(*model.jnt_range[:7].T)
        mujoco.mj_kinematics(model, data)
        position, rotation = tcp_pose(data.qpos[:7])
        np.testing.assert_allclose(position, data.site("tcp").xpos, atol=1e-12)
        np.testing.assert_allclose(rotation.ravel(), data.site("tcp").xmat, atol=1e-12)
        for ours, theirs in zip((position, rotation), training(jnp.asarray(data.qpos[:7], jnp.float32)), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_rotations_are_observed_as_in_training():
    random = np.random.default_rng(0)
    for _ in range(20):
        quat, expected = random.normal(size=4), np.empty(9)
        mujoco.mju_quat2Mat(expected, quat / np.linalg.norm(quat))
        np.testing.assert_allclose(to_matrix(quat).ravel(), expected, atol=1e-12)
        np.testing.assert_allclose(sixd(to_matrix(quat)), to_sixd(jnp.asarray(expected.reshape(3, 3))), atol=1e-6)


@on_cpu
def test_the_runtime_observes_what_the_environment_does():
    """From the readings of a moving arm with a closing gripper and a falling cube, two stacked observations."""
    env, made = franka.task(), franka.contract()
    model, goal = env.physics.model, np.array([0.5, -0.1, 0.25])
    arm = SimulatedArm(model, made.joint_names, things=("cube",))
    builder = ObservationBuilder(made, franka_sources(made, lambda: goal))
    state, _ = env.reset(jax.random.key(0), {})
    qpos = np.array(state.data.qpos, np.float64)
    qpos[2], qpos[9:12] = 0.4, (0.5, 0.05, 0.2)
    qpos[12:16] = np.asarray(uniform_quaternion(jnp.asarray([0.3, -0.5, 0.2, 0.7])))
    qvel = np.zeros(model.nv)
    qvel[:9], qvel[12:] = np.linspace(-0.5, 0.5, 9), 1.0
    arm.reset(qpos, qvel)
    place_of, expected, random = by_time(env.spec, 2), [], np.random.default_rng(0)
    for step in range(4):
        arm.advance(0.05)
        reading, last_action = arm.read(), random.uniform(-1, 1, 8).astype(np.float32)
        found = builder.build(reading.values, np.zeros(0), last_action, 0.05 * step)
        data = env.physics.init(jnp.asarray(arm.data.qpos), jnp.asarray(arm.data.qvel), {})
        data = place(model, data, {"goal": jnp.asarray(goal)})
        expected.append(np.asarray(env._observe(state.replace(data=data, last_action=last_action))["state"]))
        # float32 of numbers up to 3, sums of a few.
        np.testing.assert_allclose(found[place_of], np.stack([expected[max(0, step - 1)], expected[step]]), atol=2e-6)
    moved = np.abs(expected[-1] - expected[0])
    still = [name for name, rows in table_slices(env.spec.observation).items() if moved[rows].max() < 1e-3]
    assert not still, "a term that stays as it is proves nothing"


@on_cpu
def test_what_does_not_fit_is_refused():
    made = franka.contract()
    with pytest.raises(ContractError, match="observes a goal: say where it is"):
        franka_sources(made)
    with pytest.raises(ContractError, match="drives no joint7: it is not for a Franka"):
        franka_sources(dataclasses.replace(made, joints=tuple(j for j in made.joints if j.name != "joint7")))
    builder = ObservationBuilder(made, franka_sources(made, lambda: np.zeros(3)))
    values = {"joint_position": np.zeros(8), "joint_velocity": np.zeros(8)}
    with pytest.raises(ObservationError, match="'cube_position' needs 'cube_position', which was not read"):
        builder.build(values, np.zeros(0), np.zeros(8), 0.0)
