"""Grasps that hold, in every backend, at rest and while the arm moves."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.compiler import compiler_options
from mjx_policies.envs.franka.robot import HOME, STIFFNESS, robot_spec
from mjx_policies.envs.physics import make_physics

CONTROL_DT = 0.05


def holding(half, mass):
    """The robot with a cube, of `half` its side (m), between its open fingers."""
    spec = robot_spec(lean=True)
    cube = spec.worldbody.add_body(name="cube", pos=[0.45, 0, 0.3])
    cube.add_freejoint()
    cube.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[half] * 3, mass=mass, friction=[0.6, 0.005, 0.0001])
    return spec.compile()


def start(half):
    return np.array([*HOME, half, half, 0.45, 0, 0.3, 1, 0, 0, 0])


def in_hand(model, qpos):
    """Position (m) and matrix of the cube in the frame of the TCP."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    hand = data.site("tcp").xmat.reshape(3, 3)
    return hand.T @ (data.body("cube").xpos - data.site("tcp").xpos), hand.T @ data.body("cube").xmat.reshape(3, 3)


def slip(model, before, after):
    """The distance (m) and the angle (rad) that the cube moved in the hand."""
    (position, rotation), (later, turned) = in_hand(model, before), in_hand(model, after)
    cosine = (np.trace(rotation.T @ turned) - 1) / 2
    return np.linalg.norm(later - position), np.arccos(np.clip(cosine, -1, 1))


@pytest.mark.parametrize(("half", "mass"), [(0.02, 0.064), (0.02, 0.5), (0.03, 0.2), (0.01, 0.02)])
def test_a_cube_stays_in_the_hand_for_half_a_minute(half, mass):
    model, data = held(half, mass)
    settled = data.qpos.copy()
    for _ in range(round(30 / model.opt.timestep)):
        mujoco.mj_step(model, data)
    moved, turned = slip(model, settled, data.qpos)
    assert moved < 0.003 and turned < 0.02  # soft contacts creep: a convex solver has no dry friction
    force = data.actuator("gripper").force[0]
    assert -100 < force < -5
    # The cube's weight bends the servos, no more: less than 1 N m per 1000 N m / rad for 0.1 kg.
    assert (np.abs(data.qpos[:7] - HOME) * STIFFNESS[:7] < 10 * mass + 0.3).all()


def held(half, mass):
    model = holding(half, mass)
    data = mujoco.MjData(model)
    data.qpos[:], data.ctrl[:] = start(half), (*HOME, 0)
    for _ in range(round(1 / model.opt.timestep)):
        mujoco.mj_step(model, data)
    return model, data


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("half", "mass"), [(0.02, 0.03), (0.02, 0.5), (0.035, 0.3), (0.004, 0.03)])
def test_a_cube_stays_in_the_hand_while_the_arm_shakes(half, mass, seed):
    """Joint targets wander by up to 0.6 rad/s about home, as a policy that explores makes them."""
    model, data = held(half, mass)
    rng, settled, old = np.random.default_rng(seed), data.qpos.copy(), np.array(HOME)
    substeps = round(CONTROL_DT / model.opt.timestep)
    for _ in range(160):
        new = HOME + np.clip(old - HOME + 0.03 * rng.uniform(-1, 1, 7), -0.25, 0.25)
        for share in (np.arange(substeps) + 1) / substeps:
            data.ctrl[:7] = old + share * (new - old)
            mujoco.mj_step(model, data)
        old = new
    moved, _ = slip(model, settled, data.qpos)
    assert moved < 0.008


@pytest.mark.parametrize("backend", ["cpu", "mjx"])
def test_backends_hold_arm_and_cube(backend):
    model = holding(0.02, 0.064)
    physics = make_physics(model, CONTROL_DT, backend)
    rows = jnp.broadcast_to(jnp.asarray([*HOME, 0.0]), (physics.substeps, model.nu))

    def settle_and_hold(qpos):
        def step(data, _):
            data = physics.step(data, rows, {})
            return data, data.qpos

        data = physics.init(qpos, jnp.zeros(model.nv), {})
        return jax.lax.scan(step, data, None, 60)[1]

    program = jax.jit(settle_and_hold, compiler_options=compiler_options())
    qpos = np.asarray(program(jnp.asarray(start(0.02), jnp.float32)), np.float64)
    moved, turned = slip(model, qpos[19], qpos[-1])  # from the first second to the third
    assert moved < 5e-4 and turned < 0.01
    assert np.abs(qpos[-1, :7] - HOME).max() < 1e-3
