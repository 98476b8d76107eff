"""The Franka against the figures its maker publishes (frankarobotics/franka_description), written down once more."""

import mujoco
import numpy as np
import pytest

from mjx_policies.deploy.robots import franka as deployed
from mjx_policies.envs.franka.robot import (
    ACTUATORS,
    DAMPING,
    FINGERS,
    HOME,
    JOINTS,
    STIFFNESS,
    joint_limits,
    physical_inertia,
    robot_spec,
)

FR3 = {  # mass, centre of mass, xx xy xz yy yz zz: robots/fr3/inertials.yaml
    "link0": (2.3966, (-0.0172, 0.0004, 0.0745), (0.0090, 0, 0.0020, 0.0115, 0, 0.0085)),
    "link1": (
        2.9274653454,
        (0.0000004128, -0.0181251324, -0.0386035970),
        (0.0239273165, 0.0000133179, -0.0001140477, 0.0224821613, -0.0019950321, 0.0063500983),
    ),
    "link2": (
        2.9355370338,
        (0.0031828864, -0.0743221644, 0.0088146084),
        (0.0419389463, 0.0002025733, 0.0040777842, 0.0251451489, -0.0042252158, 0.0617021447),
    ),
    "link3": (
        2.2449013699,
        (0.0407015686, -0.0048200565, -0.0289730823),
        (0.0241014255, 0.0024046946, -0.0028562693, 0.0197405327, -0.0021042127, 0.0190444945),
    ),
    "link4": (
        2.6155955791,
        (-0.0459100965, 0.0630492960, -0.0085187868),
        (0.0345299832, 0.0132255227, 0.0101514300, 0.0288816219, -0.0009762834, 0.0412547117),
    ),
    "link5": (
        2.3271207594,
        (-0.0016039605, 0.0292536262, -0.0972965990),
        (0.0516102785, -0.0057151734, -0.0035673168, 0.0478772971, 0.0106739851, 0.0164236256),
    ),
    "link6": (
        1.8170376524,
        (0.0597131221, -0.0410294666, -0.0101692726),
        (0.0054123336, 0.0061934564, 0.0014219289, 0.0140583295, -0.0013140754, 0.0160808179),
    ),
    "link7": (
        0.6271432862,
        (0.0045225817, 0.0086261921, -0.0161633251),
        (0.0002109239, -0.0000243330, 0.0000456448, 0.0001771857, 0.0000874407, 0.0000599319),
    ),
    "hand": (0.6544, (-0.0000376, 0.0119128, 0.0207260), (0.00186, 0, 0, 0.00030, -0.00002, 0.00174)),
    "left_finger": (0.0291, (0, 0.0152850, 0.0219675), (0.00000849, 0, 0, 0.00000853, -0.00000106, 0.00000177)),
    "right_finger": (0.0291, (0, 0.0152850, 0.0219675), (0.00000849, 0, 0, 0.00000853, -0.00000106, 0.00000177)),
}
FER = {  # robots/fer/inertials.yaml, the links that differ
    "link1": (
        2.7907,
        (0.00033, -0.02204, -0.04762),
        (0.0156478266, 0.0000053124, -0.0000367672, 0.0143988353, -0.0024848084, 0.0050044399),
    ),
    "link4": (
        2.2037,
        (-0.05113, 0.05825, 0.01698),
        (0.0078458557, -0.0033959196, 0.0015870407, 0.0064954314, -0.0018147788, 0.0100307992),
    ),
    "link7": (
        0.35973,
        (0.00089, -0.00044, 0.05491),
        (0.0001954106, 0.0000016523, 0.0000014883, 0.0001921036, -0.0000013113, 0.0001793626),
    ),
}
ARMATURE = (0.605721456,) * 2 + (0.462474144,) * 2 + (0.205544064,) * 3
TOTAL_MASS = {"fr3": 18.604, "panda": 16.895}  # kg with hand and fingers


@pytest.fixture(scope="module", params=["fr3", "panda"])
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def model(variant):
    return robot_spec(variant).compile()


@pytest.fixture(scope="module")
def fr3():
    return robot_spec().compile()


def tensor_of(figures):
    xx, xy, xz, yy, yz, zz = figures
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def compiled_tensor(body):
    axes = np.zeros(9)
    mujoco.mju_quat2Mat(axes, body.iquat)
    axes = axes.reshape(3, 3)
    return axes @ np.diag(body.inertia) @ axes.T


@pytest.mark.parametrize("name", FR3)
def test_links_have_the_published_mass_and_inertia(fr3, name):
    mass, centre, figures = FR3[name]
    body = fr3.body(name)
    np.testing.assert_allclose(body.mass[0], mass, rtol=1e-12)
    np.testing.assert_allclose(body.ipos, centre, atol=1e-12)
    np.testing.assert_allclose(compiled_tensor(body), tensor_of(figures), atol=2e-10)  # ten digits above


def test_the_panda_is_as_published_where_that_is_physical():
    panda = robot_spec("panda").compile()
    for name, (mass, centre, figures) in FER.items():
        body, tensor = panda.body(name), compiled_tensor(panda.body(name))
        np.testing.assert_allclose(body.mass[0], mass, rtol=1e-12)
        np.testing.assert_allclose(body.ipos, centre, atol=1e-12)
        if name == "link4":  # its principal moments are 3.7, 8.0 and 12.7 g m^2: the third exceeds the others' sum
            assert np.abs(tensor - tensor_of(figures)).max() < 5e-4
        else:
            np.testing.assert_allclose(tensor, tensor_of(figures), atol=2e-10)


def test_the_nearest_physical_inertia_is_the_nearest():
    """Against a search: no tensor of positive masses is nearer in second moments."""
    rng = np.random.default_rng(0)
    published = tensor_of(FER["link4"][2])
    moments = np.trace(published) / 2 * np.eye(3) - published
    assert np.linalg.eigvalsh(moments)[0] < -1e-4
    got = physical_inertia(published)
    distance = np.linalg.norm(np.trace(got) / 2 * np.eye(3) - got - moments)
    factor = np.linalg.cholesky(np.trace(got) / 2 * np.eye(3) - got + 1e-12 * np.eye(3))
    for scale in (1e-5, 1e-4, 1e-3, 1e-2):
        for _ in range(500):
            other = factor + scale * rng.normal(size=(3, 3)) * np.abs(factor).max()
            assert np.linalg.norm(other @ other.T - moments) > distance - 1e-8
    valid = tensor_of(FER["link1"][2])
    np.testing.assert_array_equal(physical_inertia(valid), valid)


def test_every_inertia_is_that_of_positive_masses(model):
    a, b, c = np.sort(model.body_inertia[1:], axis=1).T
    assert (a > 0).all() and (a + b >= c).all()


def test_bodies_joints_and_total_mass(model, variant):
    links = [f"link{i}" for i in range(8)]
    assert [model.body(i).name for i in range(1, model.nbody)] == [*links, "hand", "left_finger", "right_finger"]
    assert tuple(model.joint(i).name for i in range(model.njnt)) == JOINTS + FINGERS
    np.testing.assert_allclose(model.body_mass.sum(), TOTAL_MASS[variant], atol=1e-3)


def test_limits_efforts_gains_and_rotors(model, variant):
    limits = joint_limits(variant)
    ranges = np.array([*zip(limits.lower, limits.upper, strict=True), (0, 0.04), (0, 0.04)])
    np.testing.assert_allclose(model.jnt_range, ranges, rtol=1e-12)
    np.testing.assert_allclose(model.actuator_ctrlrange, ranges[:8], rtol=1e-12)
    np.testing.assert_array_equal(model.actuator_forcerange[:, 1], [*limits.effort, 100])
    np.testing.assert_array_equal(model.actuator_forcerange[:, 0], [*(-np.array(limits.effort)), -100])
    np.testing.assert_array_equal(model.actuator_gainprm[:, 0], STIFFNESS)
    np.testing.assert_array_equal(model.actuator_biasprm[:, 1], -np.array(STIFFNESS))
    np.testing.assert_array_equal(model.actuator_biasprm[:, 2], -np.array(DAMPING))
    np.testing.assert_allclose(model.dof_armature[:7], ARMATURE, rtol=1e-12)
    assert tuple(model.actuator(i).name for i in range(model.nu)) == ACTUATORS
    np.testing.assert_array_equal(model.actuator_trnid[:, 0], np.arange(8))


def test_limits_and_gains_are_those_the_controller_takes(variant):
    real, ours = {"fr3": deployed.FR3, "panda": deployed.FER}[variant], joint_limits(variant)
    for name in ("lower", "upper", "velocity", "effort"):
        assert getattr(real, name) == getattr(ours, name)
    assert max(STIFFNESS[:7]) <= deployed.MAX_STIFFNESS and max(DAMPING[:7]) <= deployed.MAX_DAMPING


def test_unknown_variants_are_refused():
    with pytest.raises(ValueError, match="unknown Franka 'fr4'; known: fr3, panda"):
        robot_spec("fr4")


def roll(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1.0]])


def yaw(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def shift(x, y, z):
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def chain(q):
    """Frames of link 0 to 7 and hand: homogeneous transforms of robots/fr3/kinematics.yaml, one after the other."""
    half = np.pi / 2
    origins = [
        (shift(0, 0, 0.333), 0),
        (shift(0, 0, 0), -half),
        (shift(0, -0.316, 0), half),
        (shift(0.0825, 0, 0), half),
        (shift(-0.0825, 0.384, 0), -half),
        (shift(0, 0, 0), half),
        (shift(0.088, 0, 0), half),
    ]
    frames = [np.eye(4)]
    for (origin, angle), joint in zip(origins, q, strict=True):
        frames.append(frames[-1] @ origin @ roll(angle) @ yaw(joint))
    return [*frames, frames[-1] @ shift(0, 0, 0.107) @ yaw(-np.pi / 4)]


def published_tcp(q):
    return chain(q)[-1] @ shift(0, 0, 0.1034)


def test_the_tcp_is_where_the_published_chain_puts_it(model):
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    for _ in range(50):
        q = rng.uniform(model.jnt_range[:7, 0], model.jnt_range[:7, 1])
        data.qpos[:7] = q
        mujoco.mj_forward(model, data)
        expected, quat = published_tcp(q), np.zeros(4)
        mujoco.mju_mat2Quat(quat, expected[:3, :3].ravel())
        np.testing.assert_allclose(data.site("tcp").xpos, expected[:3, 3], atol=1e-6)
        np.testing.assert_allclose(data.site("tcp").xmat.reshape(3, 3), expected[:3, :3], atol=1e-6)
        np.testing.assert_allclose(data.sensor("tcp_position").data, expected[:3, 3], atol=1e-6)
        assert abs(data.sensor("tcp_orientation").data @ quat) > 1 - 1e-9


def test_home_is_in_front_pointing_down():
    pose = published_tcp(HOME)
    np.testing.assert_allclose(pose[:3, 3], [0.45, 0, 0.3], atol=1e-4)
    np.testing.assert_allclose(pose[:3, :3], np.diag([1, -1, -1]), atol=1e-4)


def test_pads_meet_when_the_hand_closes_and_are_eight_centimetres_apart_when_it_opens(fr3):
    data = mujoco.MjData(fr3)
    for opening in (0.0, 0.04):
        data.qpos[:7], data.qpos[7:] = HOME, opening
        mujoco.mj_forward(fr3, data)
        gap = np.linalg.norm(data.geom("left_pad").xpos - data.geom("right_pad").xpos) - 2 * 0.0076
        np.testing.assert_allclose(gap, 2 * opening, atol=1e-4)
        middle = (data.geom("left_pad").xpos + data.geom("right_pad").xpos) / 2
        assert np.linalg.norm(middle - data.site("tcp").xpos) < 0.001
    assert data.geom("left_pad").xpos[1] < data.geom("right_pad").xpos[1]  # left of the hand, which points down


COLLIDING = {  # joint angles, and what meets deepest
    (0, -1.74, 0, -2.91, 0, 0.78, 0.785): ("link2", "hand_shell"),  # the hand comes down on the shoulder
    (0, 0.58, 0, -2.89, 0, 0.56, 0.785): ("link1", "hand_shell"),  # folded, back of the hand against the column
    (0, -1.18, 0, -2.97, 0, 1.05, 0.785): ("link1", "fingers_shell"),  # fingers into the column
    (0, 1.63, 0, -2.37, 0, 1.6, 0.785): ("link0", "fingers_shell"),  # below the shoulder, fingers at the base
    (0, 1.63, 0, -2.44, 0, 1.81, 0.785): ("link1", "link6"),  # the wrist against the column
}
FREE = (HOME, (0, 0, 0, -0.2, 0, 1.6, 0.8), (0, 1.0, 0, -1.0, 0, 2.0, 0.8), (0, -0.785, 0, -2.356, 0, 1.571, 0.785))
SEGMENTS = {  # franka_arm.xacro, franka_hand.xacro: ends of the capsule's axis in its link, radius, number of the joint
    "link0": ((-0.09, 0, 0.06), (-0.06, 0, 0.06), 0.06, 0),
    "link1": ((0, 0, -0.333), (0, 0, -0.05), 0.06, 1),
    "link2": ((0, 0, -0.06), (0, 0, 0.06), 0.06, 2),
    "forearm": ((0, 0.08, -0.2), (0, 0.08, -0.06), 0.025, 5),
    "link6": ((0, 0, -0.07), (0, 0, 0.01), 0.05, 6),
    "link7": ((0, 0, -0.06), (0, 0, 0.08), 0.04, 7),
    "hand_shell": ((0, -0.05, 0.04), (0, 0.05, 0.04), 0.04, 8),
    "fingers_shell": ((0, -0.05, 0.1), (0, 0.05, 0.1), 0.02, 8),
}


def touching(model, data, q):
    data.qpos[:7] = q
    mujoco.mj_forward(model, data)
    return {(model.geom(c.geom[0]).name, model.geom(c.geom[1]).name): c.dist for c in data.contact if c.dist < 0}


def test_self_collision_is_found_in_known_poses_and_nowhere_else(fr3):
    data = mujoco.MjData(fr3)
    for q, expected in COLLIDING.items():
        found = touching(fr3, data, q)
        assert min(found, key=found.__getitem__) == expected
    for q in FREE:
        assert not touching(fr3, data, q)


def test_self_collision_is_that_of_the_published_capsules(fr3):
    """Against points spread densely over the axes of the capsules, put in place by the published chain."""
    data, rng = mujoco.MjData(fr3), np.random.default_rng(1)
    limits, along = joint_limits(), np.linspace(0, 1, 80)[:, None]
    watched = [tuple(fr3.geom(int(g)).name for g in pair) for pair in zip(fr3.pair_geom1, fr3.pair_geom2, strict=True)]
    found = 0
    for _ in range(300):
        q = rng.uniform(limits.lower, limits.upper)
        frames, points = chain(q), {}
        for name, (a, b, _, frame) in SEGMENTS.items():
            local = (1 - along) * np.array(a) + along * np.array(b)
            points[name] = local @ frames[frame][:3, :3].T + frames[frame][:3, 3]
        touched = touching(fr3, data, q)
        for a, b in watched:
            spread = np.linalg.norm(points[a][:, None] - points[b][None], axis=2).min()
            distance = spread - SEGMENTS[a][2] - SEGMENTS[b][2]
            if abs(distance) > 2e-3:  # half of what lies between two points
                assert ((a, b) in touched or (b, a) in touched) == (distance < 0), (a, b, q)
                found += distance < 0
    assert found > 10


def test_only_hand_and_fingers_collide_with_objects(fr3):
    colliding = {fr3.geom(i).name for i in range(fr3.ngeom) if fr3.geom_contype[i] or fr3.geom_conaffinity[i]}
    assert colliding == {"hand", "left_finger", "right_finger", "left_pad", "right_pad"}
    assert not fr3.geom_contype.any()


def test_the_lean_model_is_the_same_robot():
    full, lean = robot_spec().compile(), robot_spec(lean=True).compile()
    assert lean.ngeom < full.ngeom / 2 and lean.npair == full.npair
    data, other = mujoco.MjData(full), mujoco.MjData(lean)
    for q in COLLIDING:
        data.qpos[:7] = other.qpos[:7] = q
        for _ in range(20):
            mujoco.mj_step(full, data)
            mujoco.mj_step(lean, other)
        np.testing.assert_allclose(other.qpos, data.qpos, atol=1e-12)


POSES = (*FREE, (1.2, 0.6, -0.8, -1.9, 0.7, 2.6, -1.0), (-2.0, -1.0, 1.0, -1.5, -1.5, 3.0, 2.0))


@pytest.mark.parametrize("q", POSES)
def test_holds_a_pose_for_a_minute_without_drift(model, q):
    data = mujoco.MjData(model)
    lower, upper = model.jnt_range[:7].T
    q = np.clip(q, lower, upper)
    data.qpos[:7], data.qpos[7:], data.ctrl[:7], data.ctrl[7] = q, 0.02, q, 0.02
    for _ in range(round(60 / model.opt.timestep)):
        mujoco.mj_step(model, data)
    assert np.abs(data.qpos[:7] - q).max() < 1e-6 and np.abs(data.qpos[7:] - 0.02).max() < 1e-6
    assert np.abs(data.qvel).max() < 1e-6


def test_weight_in_the_hand_pulls_it_down_by_what_stiffness_says(fr3):
    """The robot compensates its own weight only: a force of 10 N at the TCP bends the servos by J^T f / stiffness."""
    model = robot_spec().compile()
    model.dof_frictionloss[:] = 0  # which would hold part of it
    data = mujoco.MjData(model)
    data.qpos[:7] = data.ctrl[:7] = HOME
    hand = model.body("hand").id
    for _ in range(2000):
        mujoco.mj_forward(model, data)
        data.qfrc_applied[:] = 0
        mujoco.mj_applyFT(
            model, data, np.array([0, 0, -10.0]), np.zeros(3), data.site("tcp").xpos, hand, data.qfrc_applied
        )
        mujoco.mj_step(model, data)
    jacobian = np.zeros((3, model.nv))
    mujoco.mj_jacSite(model, data, jacobian, None, model.site("tcp").id)
    expected = jacobian[2, :7] * -10.0 / np.array(STIFFNESS[:7])
    np.testing.assert_allclose(data.qpos[:7] - HOME, expected, atol=1e-6)


def test_few_solver_iterations_survive_wild_targets(model):
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    data.qpos[:7] = HOME
    for _ in range(400):
        data.ctrl[:] = rng.uniform(*model.actuator_ctrlrange.T)
        for _ in range(10):
            mujoco.mj_step(model, data)
    assert not data.warning.number.any()
    assert np.abs(data.qvel).max() < 20
    assert abs(data.qpos[7] - data.qpos[8]) < 1e-3  # the fingers move as one
