import dataclasses
import math

import numpy as np
import pytest

from mjx_policies.deploy import safety
from mjx_policies.deploy.contract import Action, Contract, Golden, Joint, RobotModel, Timing, Training
from mjx_policies.deploy.safety import Fault, limits_of

NAMES = ("hip", "thigh", "calf")
LOWER, UPPER = np.array([-1.0, -0.5, -2.7]), np.array([1.0, 3.0, -0.8])
NAN = float("nan")


def contract(clip=0.0, max_observation_age=0.04):
    ranges = zip(NAMES, LOWER.tolist(), UPPER.tolist(), strict=True)
    return Contract(
        schema_version="1.0",
        robot=RobotModel("toy", "", "wxyz"),
        timing=Timing(0.02, 0.005, max_observation_age, (0.0, 0.0)),
        joints=tuple(
            Joint(name, (low + high) / 2, 0.0, 0.5, 20.0, 0.5, low, high, low + 0.1, high - 0.1, 20.0, 10.0)
            for name, low, high in ranges
        ),
        observation=(),
        action=Action("joint_position", clip, 20.0, 1),
        state=(),
        noise=(),
        commands=(),
        gait=None,
        randomization=(),
        training=Training("toy", 0, 0, "", {}),
        golden=Golden({}, {}, "", 1e-5),
        graph_sha256="",
    )


LIMITS = limits_of(contract())


def objection(fault, name):
    """The fault's sentence, after checking that it is one."""
    assert isinstance(fault, Fault) and fault.name == name
    assert fault.sentence.endswith(".") and "\n" not in fault.sentence
    return fault.sentence


def test_limits_come_from_the_contract():
    assert pytest.approx(0.02, rel=1e-5) == LIMITS.fresh_age and pytest.approx(0.04, rel=1e-5) == LIMITS.lost_age
    assert limits_of(contract(max_observation_age=0.01)).fresh_age == pytest.approx(0.01, rel=1e-5)
    np.testing.assert_allclose(LIMITS.lower, LOWER - 0.2)
    np.testing.assert_allclose(LIMITS.velocity, 40.0)
    np.testing.assert_allclose(LIMITS.soft_upper, UPPER - 0.1)
    # Range plus 10 N m / 20 N m per rad, over 0.5 rad for one unit.
    np.testing.assert_allclose(LIMITS.action_bound, (UPPER - LOWER + 0.5) / 0.5)
    assert LIMITS.target_step == pytest.approx(0.4)
    assert LIMITS.action_clip == math.inf and limits_of(contract(clip=2.0)).action_clip == 2.0
    assert limits_of(contract(), tilt=0.5).tilt == 0.5


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tilt": 0.0}, "tilt is 0.0, it must be above zero"),
        ({"lost_age": NAN}, "lost_age is not a number"),
        ({"fresh_age": 1.0}, "beyond lost_age"),
        ({"effort": np.ones(2)}, r"effort has shape \(2,\)"),
        ({"soft_lower": UPPER}, "soft_lower < soft_upper"),
        ({"soft_upper": UPPER + 1}, "soft_upper <= upper"),
    ],
)
def test_limits_that_are_none_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        limits_of(contract(), **changes)


def test_a_fault_has_a_known_name():
    with pytest.raises(ValueError, match="no fault is named 'bad luck'"):
        Fault("bad luck", "It rained.")


def test_age():
    for age in (0.0, 0.02, 0.04, -0.001):
        assert safety.check_age(age, LIMITS) is None
    assert "50.0 ms old, the limit is 40.0 ms" in objection(safety.check_age(0.05, LIMITS), "age")
    assert "stamped 100.0 ms ahead" in objection(safety.check_age(-0.1, LIMITS), "age")
    objection(safety.check_age(NAN, LIMITS), "age")


def test_shapes():
    shapes = {"gyro": (3,)}
    assert safety.check_shapes({"gyro": np.zeros(3), "more": "things"}, shapes) is None
    assert "lacks gyro" in objection(safety.check_shapes({}, shapes), "shape")
    assert "shape (4,), not (3,)" in objection(safety.check_shapes({"gyro": np.zeros(4)}, shapes), "shape")
    for strange, kind in [
        ([0.0] * 3, "list"),
        (None, "NoneType"),
        (np.array(["a"] * 3), "<U1"),
        (np.zeros(3, complex), "complex128"),
        (np.array([None] * 3), "object"),
        (np.zeros(3, bool), "bool"),
    ]:
        assert f"gyro is {kind}" in objection(safety.check_shapes({"gyro": strange}, shapes), "shape")


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
def test_finite(value):
    assert safety.check_finite({"gyro": np.zeros(3)}) is None
    fault = safety.check_finite({"gyro": np.zeros(3), "joint_velocity": np.array([0.0, value])})
    assert f"joint_velocity[1] is {value}" in objection(fault, "finite")


def test_quaternion():
    for norm in (0.91, 1.0, 1.09):
        assert safety.check_quaternion(np.array([norm, 0, 0, 0]), LIMITS) is None
    for norm in (0.0, 0.89, 1.11):
        assert "not 1 ± 0.1" in objection(safety.check_quaternion(np.array([0, norm, 0, 0]), LIMITS), "quaternion")


def test_tilt_is_the_angle_from_upright_about_any_axis():
    random = np.random.default_rng(0)
    for angle in (0.0, 0.5, 0.99, 1.01, 2.0, math.pi):
        for _ in range(10):
            heading, yaw = random.uniform(0, 2 * math.pi, 2)
            tilted = [math.cos(angle / 2), *(math.sin(angle / 2) * np.array([math.cos(heading), math.sin(heading), 0]))]
            turn = [math.cos(yaw / 2), math.sin(yaw / 2)]  # about z, first
            w, x, y, _ = tilted
            quaternion = np.array(
                [w * turn[0], x * turn[0] + y * turn[1], y * turn[0] - x * turn[1], w * turn[1]]
            ) * random.uniform(0.95, 1.05)
            assert safety.tilt(quaternion) == pytest.approx(angle, abs=1e-6)
            fault = safety.check_tilt(quaternion, LIMITS)
            if angle < 1.0:
                assert fault is None
            else:
                assert f"leans by {angle:.2f} rad, the limit is 1.00 rad" in objection(fault, "tilt")


def test_joints_and_gyro():
    middle = (LOWER + UPPER) / 2
    good = {"joint_position": middle, "joint_velocity": np.zeros(3), "gyro": np.zeros(3)}
    assert safety.check_values(good, NAMES, LIMITS) is None
    bad = {
        "joint_position": (middle + np.array([0, 5, 0]), "joint thigh is at 6.25 rad, outside -0.70..3.20 rad"),
        "joint_velocity": (np.array([0, 0, -41.0]), "joint calf moves at -41 rad/s, the limit is 40.0 rad/s"),
        "gyro": (np.array([0, -40.0, 0]), "reads 40 rad/s, the limit is 35.0 rad/s"),
    }
    for name, (value, sentence) in bad.items():
        assert sentence in objection(safety.check_values({**good, name: value}, NAMES, LIMITS), name)
    both = {**good, "orientation": np.array([0, 1.0, 0, 0]), "joint_position": middle + 9}
    objection(safety.check_values(both, NAMES, LIMITS), "tilt")  # comes first


def test_counts():
    assert safety.check_frozen({"gyro": 9}, LIMITS) is None
    assert "gyro was identical 10 times" in objection(safety.check_frozen({"gyro": 10}, LIMITS), "frozen")
    assert LIMITS.saturation_periods == 25
    assert safety.check_saturation(24, LIMITS) is None
    assert "25 times in a row" in objection(safety.check_saturation(25, LIMITS), "saturation")
    assert safety.check_inference(0.01, LIMITS) is None
    assert "took 200.0 ms, the limit is 10.0 ms" in objection(safety.check_inference(0.2, LIMITS), "deadline")
    objection(safety.check_inference(NAN, LIMITS), "deadline")


def test_saturated():
    limits = limits_of(contract(clip=1.0))
    action = np.array([[1.0, -1.0, 1.5], [1.0, 0.9, -1.0], [0, 0, 9.0], [0, 0, 0]])
    assert safety.saturated(action, limits).tolist() == [True, False, True, False]
    assert safety.saturated(action, LIMITS).tolist() == [False, False, True, False]


def test_command_and_action():
    assert safety.check_command(np.zeros(2), 2) is None
    for strange in (None, np.zeros(3), [0.0, 0.0], np.array([0, NAN]), np.array([math.inf, 0])):
        objection(safety.check_command(strange, 2), "command")
    assert safety.check_action(np.zeros(3), np.zeros(3, np.float32), 3) is None
    for strange in (None, np.zeros(2), np.zeros((1, 3)), np.array([0, 0, NAN]), np.array(["a"] * 3)):
        assert "policy's action" in objection(safety.check_action(strange, np.zeros(3), 3), "action")
        assert "policy's target" in objection(safety.check_action(np.zeros(3), strange, 3), "action")


def test_a_clipped_action_moves_its_target():
    default, scale = np.zeros(3), np.array([0.5, 0.5, 0.25])
    action, target = safety.clip_action(
        np.array([3.0, 0.5, -3.0]), np.array([7.0, 7.0, 7.0]), default, scale, limits_of(contract(clip=1.0))
    )
    assert action.tolist() == [1.0, 0.5, -1.0] and target.tolist() == [0.5, 7.0, -0.25]
    action, target = safety.clip_action(np.array([3.0, 0.5, -3.0]), target, default, scale, LIMITS)
    assert action.tolist() == [3.0, 0.5, -3.0] and target.tolist() == [0.5, 7.0, -0.25]


def test_a_target_that_is_not_within_its_limits_is_a_fault():
    assert safety.check_target(LIMITS.soft_lower, NAMES, LIMITS) is None
    assert "target of calf is 0.0 rad" in objection(safety.check_target(np.array([0, 0, 0.0]), NAMES, LIMITS), "target")
    objection(safety.check_target(np.array([NAN, 0, -1]), NAMES, LIMITS), "target")


@pytest.mark.parametrize("spread", [0.3, 3.0, 1e6])
def test_filtered_targets_are_safe_whatever_came_in(spread):
    """A million random cases in all, from tame to absurd: 350,000 for each spread, in batches [N, A]."""
    random = np.random.default_rng(int(spread))
    for _ in range(7):
        shape = (50_000, 3)
        middle = (LOWER + UPPER) / 2
        target, last, position = (middle + spread * random.normal(size=shape) for _ in range(3))
        velocity = 10 * spread * random.normal(size=shape)
        stiffness = np.where(random.random(shape) < 0.1, 0.0, random.uniform(1, 100, shape))
        damping = random.uniform(0, 5, shape)
        found = safety.safe_target(target, last, position, velocity, stiffness, damping, LIMITS)

        assert (found >= LIMITS.soft_lower).all() and (found <= LIMITS.soft_upper).all()

        def torque(angle, k=stiffness, q=position, d=damping, dq=velocity):
            return np.abs(k * (angle - q) - d * dq)

        slack = 1e-9 * (1 + torque(found))
        ends = np.minimum(torque(LIMITS.soft_lower), torque(LIMITS.soft_upper))
        balance = position + damping * velocity / np.where(stiffness > 0, stiffness, 1)  # no torque here
        balanced = (balance >= LIMITS.soft_lower) & (balance <= LIMITS.soft_upper)
        least = np.where(balanced, 0.0, ends)  # torque of the best target within the limits
        heeded = stiffness > 0
        assert (torque(found) <= np.maximum(LIMITS.effort, least) + slack)[heeded].all()

        begin = np.clip(last, LIMITS.soft_lower, LIMITS.soft_upper)
        stepped = np.abs(found - begin) <= LIMITS.target_step + 1e-9
        within = np.clip(np.clip(target, LIMITS.soft_lower, LIMITS.soft_upper), begin - 0.4, begin + 0.4)
        assert (stepped | (heeded & (torque(within) > LIMITS.effort - slack))).all()
        # What is safe already is left alone.
        fine = (torque(within) <= LIMITS.effort) | ~heeded
        np.testing.assert_allclose(found[fine], within[fine], atol=1e-12)


def test_one_example_equals_a_row_of_a_batch():
    random = np.random.default_rng(0)
    rows = [random.normal(size=(20, 3)) for _ in range(4)] + [np.full((20, 3), 20.0), np.full((20, 3), 0.5)]
    batch = safety.safe_target(*rows, LIMITS)
    for row in range(20):
        np.testing.assert_array_equal(safety.safe_target(*(values[row] for values in rows), LIMITS), batch[row])


def test_limits_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LIMITS.tilt = 3.0
