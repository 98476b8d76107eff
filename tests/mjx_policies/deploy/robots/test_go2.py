import sys
import zlib
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest

from mjx_policies.deploy.robot import Targets
from mjx_policies.deploy.robots import go2
from mjx_policies.deploy.robots.go2 import EFFORT, JOINTS, LOWER, UPPER, Go2

# As the manufacturer writes them, leg by leg in the motors' order; not taken from the module under test.
MOTOR_NAMES = [f"{leg}_{part}" for leg in ("FR", "FL", "RR", "RL") for part in ("hip", "thigh", "calf")]
RANGES = {
    "hip": (-1.0472, 1.0472),
    "F_thigh": (-1.5708, 3.4907),
    "R_thigh": (-0.5236, 4.5379),
    "calf": (-2.7227, -0.83776),
}
TORQUES = {"hip": 23.5, "thigh": 23.5, "calf": 45.0}
STAND = np.array([0.0, 0.9, -1.8] * 4)


class Violation(Exception):
    """A command that a robot would answer with damage."""


def checksum(command):
    fields = [command.head, command.level_flag, [vars(motor) for motor in command.motor_cmd]]
    return zlib.crc32(repr(fields).encode())


class FakeSdk:
    """A Go2 that enforces what is documented: header, modes, checksum, rate, ranges and torques."""

    def __init__(self, clock, held=0):
        self.clock, self.held = clock, held
        self.angles, self.speeds = (
            dict(zip(MOTOR_NAMES, np.tile(STAND, 1), strict=True)),
            dict.fromkeys(MOTOR_NAMES, 0.0),
        )
        self.modes, self.tick = dict.fromkeys(MOTOR_NAMES, 1), 0
        self.imu = SimpleNamespace(gyroscope=[0.1, 0.2, 0.3], quaternion=[0.5, 0.1, 0.2, 0.3])
        self.sent, self.times = [], []

    def release(self):
        self.held -= 1
        return self.held < 0

    def subscribe(self, handler):
        assert self.held < 0, "motors are taken over before they were released"
        self.handler = handler

    def new_command(self):
        motors = [SimpleNamespace(mode=0, q=0.0, dq=0.0, tau=0.0, kp=0.0, kd=0.0) for _ in range(20)]
        return SimpleNamespace(head=[0, 0], level_flag=0, gpio=1, crc=0, motor_cmd=motors)

    def state(self):
        motors = [
            SimpleNamespace(mode=self.modes[name], q=self.angles[name], dq=self.speeds[name]) for name in MOTOR_NAMES
        ]
        motors += [SimpleNamespace(mode=0, q=0.0, dq=0.0) for _ in range(8)]
        self.handler(SimpleNamespace(tick=self.tick, motor_state=motors, imu_state=self.imu))

    def publish(self, command):
        command.crc = checksum(command)
        self._check(command)
        self.times.append(self.clock())
        motors = dict(zip(MOTOR_NAMES, command.motor_cmd, strict=False))
        self.sent.append({name: SimpleNamespace(**vars(motor)) for name, motor in motors.items()})

    def _check(self, command):
        if command.crc != checksum(command) or list(command.head) != [0xFE, 0xEF] or command.level_flag != 0xFF:
            raise Violation("header")
        if self.times and not 0.001 <= self.clock() - self.times[-1] <= 0.01:
            raise Violation(f"rate: {self.clock() - self.times[-1]:.4f} s since the last command")
        for i, motor in enumerate(command.motor_cmd):
            if motor.mode != 0x01 or not np.isfinite([motor.q, motor.dq, motor.kp, motor.kd, motor.tau]).all():
                raise Violation(f"motor {i}")
            if i >= 12:
                if (motor.q, motor.dq, motor.kp, motor.kd, motor.tau) != (2.146e9, 16000.0, 0, 0, 0):
                    raise Violation(f"motor {i} does not exist")
                continue
            name = MOTOR_NAMES[i]
            part = name.split("_")[1]
            low, high = RANGES[f"{name[0]}_thigh" if part == "thigh" else part]
            if motor.kp > 0 and not low <= motor.q <= high:
                raise Violation(f"{name}: {motor.q} beyond its range")
            with np.errstate(over="ignore"):
                torque = motor.tau - motor.kd * self.speeds[name]
            if motor.kp > 0:
                torque += motor.kp * (motor.q - self.angles[name])
            if abs(self.speeds[name]) <= 100 and abs(torque) > TORQUES[part] * (1 + 1e-9):
                raise Violation(f"{name}: {torque} N m")


class Time:
    """A clock that only `sleep` moves."""

    def __init__(self):
        self.now = 0.0
        self.each = lambda: None

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.each()


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def sdk(time):
    return FakeSdk(time)


@pytest.fixture
def robot(time, sdk):
    return Go2(sdk=sdk, clock=time, sleep=time.sleep)


def run(robot, sdk, seconds, written=None, states=True):
    """Sends at 500 Hz, with a state before each command and targets at 50 Hz."""
    time = sdk.clock
    for i in range(round(seconds / 0.002)):
        if states:
            sdk.state()
        if written is not None and i % 10 == 0:
            robot.write(written)
        robot.send(time())
        time.sleep(0.002)


def targets(position=STAND, stiffness=25.0, damping=0.5):
    return Targets(np.array(position, float), np.full(12, stiffness), np.full(12, damping))


def damped(sent):
    return all(motor.kp == 0 and motor.kd == go2.DAMPING for motor in sent.values())


def test_orders_are_a_bijection_by_name_and_limits_those_of_the_model():
    from mjx_policies.envs.quadruped.scenes import ACTUATORS, flat

    assert JOINTS == ACTUATORS
    assert sorted(go2.MOTOR_OF_JOINT) == list(range(12))
    assert [MOTOR_NAMES[i] for i in go2.MOTOR_OF_JOINT] == list(JOINTS)
    model = flat(lean=True)
    for i, name in enumerate(JOINTS):
        joint = model.joint(f"{name}_joint")
        np.testing.assert_allclose(joint.range, (LOWER[i], UPPER[i]))
        assert model.actuator_forcerange[i, 1] == EFFORT[i]
        assert model.jnt_type[joint.id] == mujoco.mjtJoint.mjJNT_HINGE


def test_each_target_reaches_its_motor(robot, sdk):
    names = {name: 0.01 * i for i, name in enumerate(JOINTS)}
    run(robot, sdk, 0.02, targets(STAND + np.array(list(names.values()))))
    for i, name in enumerate(JOINTS):
        motor = sdk.sent[-1][name]
        assert motor.q == pytest.approx(STAND[i] + names[name]) and (motor.kp, motor.kd) == (25.0, 0.5)
        assert motor.dq == motor.tau == 0


def test_each_motor_is_read_under_its_name(robot, sdk, time):
    assert robot.read() is None and robot.name == "go2" and robot.joint_names == JOINTS
    sdk.angles = {name: 0.1 * i for i, name in enumerate(MOTOR_NAMES)}
    sdk.speeds = {name: -1.0 * i for i, name in enumerate(MOTOR_NAMES)}
    time.now = 3.0
    sdk.state()
    first = robot.read()
    assert first.stamp == 3.0
    for i, name in enumerate(JOINTS):
        assert first.values["joint_position"][i] == sdk.angles[name]
        assert first.values["joint_velocity"][i] == sdk.speeds[name]
    np.testing.assert_array_equal(first.values["orientation"], [0.5, 0.1, 0.2, 0.3])
    np.testing.assert_array_equal(first.values["gyro"], [0.1, 0.2, 0.3])
    sdk.state()
    assert robot.read().sequence == first.sequence + 1


def test_the_service_that_holds_the_motors_is_released_first(time):
    Go2(sdk=FakeSdk(time, held=3), clock=time, sleep=time.sleep)
    assert time.now == 3.0
    with pytest.raises(RuntimeError, match="still holds the Go2's motors"):
        Go2(sdk=FakeSdk(time, held=100), clock=time, sleep=time.sleep)


def test_it_is_damped_before_the_first_write(robot, sdk):
    run(robot, sdk, 0.02)
    assert all(damped(sent) for sent in sdk.sent)


def test_it_is_damped_when_the_runtime_falls_silent(robot, sdk):
    run(robot, sdk, 0.1, targets())
    assert not damped(sdk.sent[-1])
    run(robot, sdk, 0.2)
    first = next(i for i, sent in enumerate(sdk.sent) if i > 5 and damped(sent))
    assert sdk.times[first] == pytest.approx(0.08 + 0.1, abs=0.003)  # the last write was at 0.08 s
    assert all(damped(sent) for sent in sdk.sent[first:])
    run(robot, sdk, 0.02, targets())
    assert not damped(sdk.sent[-1])


def test_it_is_damped_when_its_state_stays_away(robot, sdk):
    run(robot, sdk, 0.1, targets())
    run(robot, sdk, 0.2, targets(), states=False)
    assert damped(sdk.sent[-1])


def test_torques_stay_within_the_motors(robot, sdk):
    generator = np.random.default_rng(0)
    for _ in range(300):
        sdk.angles = dict(zip(MOTOR_NAMES, generator.uniform(-5, 5, 12), strict=True))
        sdk.speeds = dict(zip(MOTOR_NAMES, generator.uniform(-40, 40, 12), strict=True))
        position = generator.uniform(LOWER, UPPER)
        robot.write(Targets(position, generator.uniform(0, 100, 12), generator.uniform(0, 10, 12)))
        run(robot, sdk, 0.004)  # raises Violation


BROKEN = (np.nan, np.inf, -np.inf, 1e300, 500.0)


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("what", ["angles", "speeds"])
def test_a_state_that_cannot_be_computed_with_counts_as_none(robot, sdk, what, broken):
    """Every motor is damped: without NaN in a gain, and without a joint that hangs limp."""
    run(robot, sdk, 0.02, targets())
    sensed = getattr(sdk, what)
    good, sensed["RL_calf"] = sensed["RL_calf"], broken
    run(robot, sdk, 0.02, targets())
    assert all(damped(sent) for sent in sdk.sent[-9:])
    run(robot, sdk, 0.02, Targets(STAND, np.zeros(12), np.full(12, 4.0)))
    assert all((motor.kp, motor.kd) == (0.0, 4.0) for motor in sdk.sent[-1].values()), "damped as told"
    read = robot.read().values["joint_position" if what == "angles" else "joint_velocity"]
    np.testing.assert_equal(read[JOINTS.index("RL_calf")], broken)  # the controller is told what was read
    sensed["RL_calf"] = good
    run(robot, sdk, 0.02, targets())
    assert all(motor.kp == 25.0 for motor in sdk.sent[-1].values())


@pytest.mark.parametrize("value", ["gyroscope", "quaternion"])
def test_it_is_damped_when_its_imu_is_not_finite(robot, sdk, value):
    run(robot, sdk, 0.02, targets())
    getattr(sdk.imu, value)[1] = np.nan
    run(robot, sdk, 0.02, targets())
    assert damped(sdk.sent[-1])


def test_a_state_that_is_repeated_does_not_grow_younger(robot, sdk, time):
    sdk.tick = 7
    sdk.state()
    first, time.now = robot.read(), 0.01
    sdk.state()
    assert robot.read() is first
    run(robot, sdk, 0.15, targets())
    assert damped(sdk.sent[-1])
    sdk.tick = 3  # it was switched off and on again
    run(robot, sdk, 0.02, targets())
    assert robot.read().sequence == first.sequence + 1 and not damped(sdk.sent[-1])


def test_a_motor_that_stops_to_serve_damps_the_others_and_ends_the_run(robot, sdk):
    sdk.modes["FR_calf"] = 0  # before it is driven, motors may come and go
    run(robot, sdk, 0.02)
    sdk.modes["FR_calf"] = 1
    run(robot, sdk, 0.02, targets())
    assert not damped(sdk.sent[-1])
    sdk.modes["FR_calf"] = 0
    sdk.state()
    robot.send(sdk.clock())
    assert damped(sdk.sent[-1])
    with pytest.raises(RuntimeError, match=r"the motor of joint FR_calf left its servo mode \(it reports 0, not 1\)"):
        robot.read()
    robot.write(Targets(STAND, np.zeros(12), np.full(12, 3.0)))  # may still be damped
    sdk.modes["FR_calf"] = 1
    sdk.clock.sleep(0.002)
    run(robot, sdk, 0.02, targets())
    assert damped(sdk.sent[-1]), "for good"


def test_the_fake_robot_refuses_what_is_documented_as_wrong(sdk):
    def spoil(i, **changes):
        vars(command.motor_cmd[i]).update(changes)

    def header(value):
        command.level_flag = value

    for wrong, what in (
        (lambda: header(0), "header"),
        (lambda: spoil(3, mode=0), "motor 3"),
        (lambda: spoil(15, kp=1.0), "does not exist"),
        (lambda: spoil(2, kp=1.0, q=0.0), "FR_calf: 0.0 beyond"),
        (lambda: spoil(1, tau=24.0), "FR_thigh: 24.0 N m"),
    ):
        command = Go2(sdk=sdk, clock=sdk.clock, sleep=sdk.clock.sleep)._command
        wrong()
        with pytest.raises(Violation, match=what):
            sdk.publish(command)


def test_gains_that_need_no_limit_are_sent_as_they_are(robot, sdk):
    run(robot, sdk, 0.02, targets(STAND + 0.01))
    assert all(motor.kp == 25.0 and motor.kd == 0.5 for motor in sdk.sent[-1].values())


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (targets(STAND + np.eye(12)[11] * 1.5), "joint RR_calf is -0.3 rad, its limits are -2.7227 to -0.83776"),
        (targets(np.zeros(12)), "FL_calf is 0 rad"),
        (targets(STAND * np.nan), "position is not finite"),
        (targets(STAND, 500.0), "stiffness of joint FL_hip is 500, a Go2 is given 100 at most"),
        (targets(STAND, 25.0, 50.0), "damping of joint FL_hip is 50"),
        (targets(STAND, -1.0), "negative"),
        (Targets(STAND[:11], np.zeros(11), np.zeros(11)), "takes \\(12,\\)"),
    ],
)
def test_wrong_targets_are_refused_and_damp(robot, sdk, wrong, sentence):
    run(robot, sdk, 0.1, targets())
    with pytest.raises(ValueError, match=sentence):
        robot.write(wrong)
    run(robot, sdk, 0.01)
    assert damped(sdk.sent[-1])


def test_limits_hold_to_float32(robot, sdk):
    run(robot, sdk, 0.01, targets(LOWER.astype(np.float32), 5.0))
    run(robot, sdk, 0.01, targets(UPPER.astype(np.float32), 5.0))
    run(robot, sdk, 0.01, targets(np.full(12, 1e9), 0.0))  # without stiffness a position means nothing


def test_the_thread_sends_at_500_hz_and_ends_with_damping(robot, sdk, time):
    def each():
        sdk.state()
        if time.now < 0.5:
            robot.write(targets())
        if time.now > 1.0:
            robot._stop.set()

    time.each = each
    robot._run()
    np.testing.assert_allclose(np.diff(sdk.times), 0.002, atol=1e-9)
    assert len(sdk.times) >= 500
    time.each = lambda: None
    robot.write(targets())
    robot.close()
    assert damped(sdk.sent[-1])
    assert robot.read() is not None


def test_a_failure_to_send_reaches_the_runtime(robot, sdk, time):
    def fail(command):
        raise OSError("the cable is out")

    sdk.publish = fail
    robot._run()
    for call in (robot.read, lambda: robot.write(targets())):
        with pytest.raises(RuntimeError, match="sending commands to the Go2 failed: OSError: the cable is out"):
            call()


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "unitree_sdk2py", None)
    with pytest.raises(ImportError, match=r"pip install git.*unitree_sdk2_python"):
        go2.connect("eth0")
