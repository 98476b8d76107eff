"""The Go2 against the figures Unitree publishes (unitree_ros go2_description.urdf), written down a second time here."""

import mujoco
import numpy as np
import pytest

from mjx_policies.envs.quadruped.scenes import ACTUATORS, GO2_XML, JOINTS, LEGS, flat

FORWARD = {"FL": 1, "FR": 1, "RL": -1, "RR": -1}
LEFT = {"FL": 1, "FR": -1, "RL": 1, "RR": -1}
LINK = 0.213  # m, thigh and calf
FOOT_X = -0.002  # m, foot sphere in the frame of the calf's end
FOOT_RADIUS = 0.022


@pytest.fixture(scope="module")
def model():
    return mujoco.MjModel.from_xml_path(str(GO2_XML))


@pytest.fixture(scope="module")
def scene():
    return flat()


def symmetric(xx, yy, zz, xy, xz, yz):
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def combine(*parts):
    """Mass, centre and tensor about it of parts given as (mass, centre, tensor about their own centre)."""
    mass = sum(m for m, _, _ in parts)
    centre = sum(m * np.array(c) for m, c, _ in parts) / mass
    tensor = np.zeros((3, 3))
    for m, c, inertia in parts:
        r = np.array(c) - centre
        tensor += inertia + m * (r @ r * np.eye(3) - np.outer(r, r))
    return mass, centre, tensor


def rotor(axis, position):
    diagonal = np.full(3, 5.9647e-5)
    diagonal[axis] = 1.11842e-4
    return 0.089, position, np.diag(diagonal)


def published(name):
    ball = 9.6e-6 * np.eye(3)
    if name == "trunk":
        trunk = symmetric(0.02448, 0.098077, 0.107, 1.2166e-4, 1.4849e-3, -3.12e-5)
        rotors = [rotor(0, (0.11215 * FORWARD[leg], 0.04675 * LEFT[leg], 0)) for leg in LEGS]
        head = [(0.001, (0.285, 0, 0.01), ball), (0.001, (0.293, 0, -0.06), ball)]
        return combine((6.921, (0.021112, 0, -0.005366), trunk), *head, *rotors)
    leg, part = name.split("_")
    x, y = FORWARD[leg], LEFT[leg]
    if part == "hip":
        hip = symmetric(0.00048, 0.000884, 0.000596, -3.01e-6 * x * y, 1.11e-6 * x, -1.42e-6 * y)
        return combine((0.678, (-0.0054 * x, 0.00194 * y, -0.000105), hip), rotor(1, (0, -0.00015 * y, 0)))
    if part == "thigh":
        thigh = symmetric(0.00584, 0.0058, 0.00103, 8.72e-5 * y, -0.000289, 0.000808 * y)
        return combine((1.152, (-0.00374, -0.0223 * y, -0.0327), thigh), rotor(1, (0, -0.03235 * y, 0)))
    calf = symmetric(0.00108, 0.0011, 3.29e-5, 3.4e-7 * y, 1.72e-5, 8.28e-6 * y)
    return combine((0.154, (0.00548, -0.000975 * y, -0.115), calf), (0.04, (0, 0, -0.213), ball))


def foot_position(leg, hip, thigh, calf):
    """Centre of the foot sphere in the trunk frame, by trigonometry."""
    x = -LINK * np.sin(thigh) - LINK * np.sin(thigh + calf) + FOOT_X * np.cos(thigh + calf)
    z = -LINK * np.cos(thigh) - LINK * np.cos(thigh + calf) - FOOT_X * np.sin(thigh + calf)
    y = 0.0955 * LEFT[leg]
    rolled = np.array([x, y * np.cos(hip) - z * np.sin(hip), y * np.sin(hip) + z * np.cos(hip)])
    return np.array([0.1934 * FORWARD[leg], 0.0465 * LEFT[leg], 0]) + rolled


@pytest.mark.parametrize("name", ["trunk", *ACTUATORS])
def test_links_have_the_published_mass_and_inertia(model, name):
    mass, centre, tensor = published(name)
    body = model.body(name)
    axes = np.zeros(9)
    mujoco.mju_quat2Mat(axes, body.iquat)
    axes = axes.reshape(3, 3)
    np.testing.assert_allclose(body.mass[0], mass, rtol=1e-12)
    np.testing.assert_allclose(body.ipos, centre, atol=1e-12)
    np.testing.assert_allclose(axes @ np.diag(body.inertia) @ axes.T, tensor, atol=1e-10)


def test_total_mass_and_bodies(model):
    assert model.nbody == 14  # world, trunk and twelve moving links: nothing that is fixed remains
    np.testing.assert_allclose(model.body_mass.sum(), 16.087, rtol=1e-12)


def test_limits_efforts_and_reflected_rotors(model):
    for i, name in enumerate(ACTUATORS):
        leg, part = name.split("_")
        thigh = (-1.5708, 3.4907) if leg[0] == "F" else (-0.5236, 4.5379)
        limits = {"hip": (-1.0472, 1.0472), "thigh": thigh, "calf": (-2.7227, -0.83776)}[part]
        (effort, gear), stiffness, damping = (45, 9) if part == "calf" else (23.5, 6), 25, 0.5
        joint = model.joint(JOINTS[i])
        np.testing.assert_allclose(joint.range, limits, rtol=1e-12)
        np.testing.assert_allclose(model.actuator_ctrlrange[i], limits, rtol=1e-12)
        np.testing.assert_array_equal(model.actuator_forcerange[i], [-effort, effort])
        np.testing.assert_array_equal(model.actuator_gainprm[i, 0], stiffness)
        np.testing.assert_array_equal(model.actuator_biasprm[i, :3], [0, -stiffness, -damping])
        np.testing.assert_allclose(joint.armature, 1.11842e-4 * gear**2, rtol=1e-12)
        np.testing.assert_array_equal([joint.damping[0], joint.frictionloss[0]], [0.1, 0.2])
    assert model.jnt_limited[1:].all() and model.actuator_ctrllimited.all() and model.actuator_forcelimited.all()


def test_each_actuator_drives_the_joint_of_its_name_in_joint_order(model):
    driven = [model.joint(int(joint)).name for joint in model.actuator_trnid[:, 0]]
    assert tuple(driven) == JOINTS
    np.testing.assert_array_equal(model.jnt_qposadr[model.actuator_trnid[:, 0]], 7 + np.arange(12))


def test_feet_are_where_trigonometry_puts_them(model):
    rng = np.random.default_rng(0)
    data = mujoco.MjData(model)
    for _ in range(20):
        angles = rng.uniform(model.jnt_range[1:, 0], model.jnt_range[1:, 1])
        data.qpos[:] = [0, 0, 0, 1, 0, 0, 0, *angles]
        mujoco.mj_forward(model, data)
        for leg, (hip, thigh, calf) in zip(LEGS, angles.reshape(4, 3), strict=True):
            expected = foot_position(leg, hip, thigh, calf)
            np.testing.assert_allclose(data.site(f"{leg}_foot").xpos, expected, atol=1e-12)
            np.testing.assert_allclose(data.geom(f"{leg}_foot").xpos, expected, atol=1e-12)
            np.testing.assert_allclose(data.sensor(f"{leg}_foot_pos").data, expected, atol=1e-12)


def test_home_puts_the_soles_on_the_floor_within_the_limits(model):
    home = model.key("home")
    for leg, angles in zip(LEGS, home.qpos[7:].reshape(4, 3), strict=True):
        sole = home.qpos[2] + foot_position(leg, *angles)[2] - FOOT_RADIUS
        assert abs(sole) < 1e-5  # the figure in the file is rounded to 1e-5
    for values in (home.qpos[7:], home.ctrl):
        assert (values > model.jnt_range[1:, 0]).all() and (values < model.jnt_range[1:, 1]).all()


def test_imu_sensors_at_rest_and_turning(model):
    data = mujoco.MjData(model)
    half = np.pi / 8  # nose down by 45 degrees: the body's z axis leans forward
    data.qpos[:] = model.key("home").qpos
    data.qpos[3:7] = [np.cos(half), 0, np.sin(half), 0]
    data.qvel[:6] = [1, 0, 0, 0, 0, 2]  # linear in the world's frame, angular in the body's
    mujoco.mj_forward(model, data)
    turn = np.array([[1, 0, 1], [0, np.sqrt(2), 0], [-1, 0, 1]]) / np.sqrt(2)
    imu = np.array([-0.02557, 0, 0.04232])
    velocity = np.array([1.0, 0, 0]) + turn @ np.cross([0, 0, 2.0], imu)
    np.testing.assert_allclose(data.sensor("gyro").data, [0, 0, 2], atol=1e-12)
    np.testing.assert_allclose(data.sensor("orientation").data, data.qpos[3:7], atol=1e-12)
    np.testing.assert_allclose(data.site("imu").xpos, data.qpos[:3] + turn @ imu, atol=1e-12)
    np.testing.assert_allclose(data.sensor("local_linvel").data, turn.T @ velocity, atol=1e-12)


def test_the_robot_never_touches_itself(model):
    rng = np.random.default_rng(0)
    data = mujoco.MjData(model)
    for _ in range(20):
        data.qpos[7:] = rng.uniform(model.jnt_range[1:, 0], model.jnt_range[1:, 1])
        mujoco.mj_forward(model, data)
        assert data.ncon == 0


@pytest.mark.parametrize("timestep", [0.004, 0.005])
def test_stands_for_twenty_seconds(scene, timestep):
    data = mujoco.MjData(scene)
    scene.opt.timestep = timestep
    mujoco.mj_resetDataKeyframe(scene, data, 0)
    shaking = 0.0
    for _ in range(round(20 / timestep)):
        mujoco.mj_step(scene, data)
        if data.time > 2:
            shaking = max(shaking, np.abs(data.qvel).max())
    scene.opt.timestep = 0.005
    assert shaking < 1e-3  # the soft contacts creep by 2e-5
    np.testing.assert_allclose(data.qpos[:3], scene.key("home").qpos[:3], atol=2e-3)  # it settles by 1 mm
    assert data.site("imu").xmat[8] > 1 - 1e-5


@pytest.mark.parametrize("timestep", [0.004, 0.005])
def test_few_solver_iterations_survive_wild_targets(scene, timestep):
    data = mujoco.MjData(scene)
    rng = np.random.default_rng(0)
    scene.opt.timestep = timestep
    mujoco.mj_resetDataKeyframe(scene, data, 0)
    deepest = 0.0
    for _ in range(250):
        data.ctrl[:] = scene.key("home").ctrl + rng.normal(size=12) * 0.6
        for _ in range(round(0.02 / timestep)):
            mujoco.mj_step(scene, data)
            deepest = min([deepest, *data.contact.dist])
    scene.opt.timestep = 0.005
    assert not data.warning.number.any()
    assert deepest > -0.05  # of a converged solver: -0.032
