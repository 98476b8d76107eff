import sys

import numpy as np
import pytest

from mjx_policies.deploy.robot import Targets
from mjx_policies.deploy.robots import franka
from mjx_policies.deploy.robots.franka import FER, FR3, HOLD, JOINTS, Franka, Interpolator

START = np.array([0.0, -0.4, 0.0, -2.0, 0.0, 1.8, 0.8])
STIFFNESS = np.array([600.0, 600.0, 600.0, 600.0, 250.0, 150.0, 50.0])
STEP = 0.001


class Reflex(Exception):
    """The stop of an arm when a limit is violated, until it is unlocked."""


class FakeArm:
    """Seven independent joints, gravity compensated; enforces the documented limits every millisecond."""

    INERTIA = np.array([1.2, 1.2, 1.0, 0.8, 0.15, 0.12, 0.05])

    def __init__(self, limits, start=START, blocked=False):
        self.limits, self.blocked = limits, blocked
        self.q, self.dq = np.array(start), np.zeros(7)
        self.torque = np.zeros(7)
        self.way = None  # position, velocity and acceleration that were commanded last
        self.commands, self.stopped = [], False

    def state(self):
        return self.q.copy(), self.dq.copy()

    def stop(self):
        self.stopped = True

    def command(self, command):
        limits = self.limits
        if not all(np.isfinite(value).all() for value in vars(command).values()):
            raise Reflex("not finite")
        self._check_way(command)
        torque = command.stiffness * (command.position - self.q)
        torque += command.damping * (command.velocity - self.dq) + command.torque
        if (np.abs(torque) > limits.effort).any():
            raise Reflex(f"torque {torque}")
        if (np.abs(torque - self.torque) > limits.effort_rate * STEP).any():
            raise Reflex(f"torque rate {(torque - self.torque) / STEP}")
        self.torque = torque
        self.commands.append(command)
        if self.blocked:
            return
        self.dq = self.dq + STEP * torque / self.INERTIA
        self.q = self.q + STEP * self.dq
        low, high = limits.velocity_bounds(self.q)
        if (
            (self.q < limits.lower).any()
            or (self.q > limits.upper).any()
            or (self.dq < low).any()
            or (self.dq > high).any()
        ):
            raise Reflex(f"moves at {self.dq} at {self.q}")

    def _check_way(self, command):
        """Backward differences, as the arm's controller takes them."""
        if self.way is None or not command.stiffness.any():  # a position means nothing without stiffness
            self.way = command.position, np.zeros(7), np.zeros(7)
            return
        check_step(self.limits, self.way, command.position)
        velocity = (command.position - self.way[0]) / STEP
        self.way = command.position, velocity, (velocity - self.way[1]) / STEP
        np.testing.assert_allclose(command.velocity, velocity, atol=1e-9)


def check_step(limits, way, position):
    velocity = (position - way[0]) / STEP
    acceleration = (velocity - way[1]) / STEP
    jerk = (acceleration - way[2]) / STEP
    low, high = limits.velocity_bounds(position)
    for what, value, least, most in (
        ("position", position, limits.lower, limits.upper),
        ("velocity", velocity, low, high),
        ("acceleration", acceleration, -np.array(limits.acceleration), limits.acceleration),
        ("jerk", jerk, -np.array(limits.jerk), limits.jerk),
    ):
        if (value < least).any() or (value > most).any():
            raise Reflex(f"{what} {value}")


class Time:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def make(limits=FR3, **kwargs):
    time = Time()
    arm = FakeArm(limits, **kwargs)
    return Franka(limits=limits, arm=arm, clock=time, sleep=time.sleep, target_period=0.02), arm, time


def targets(position, stiffness=STIFFNESS, damping=None):
    return Targets(np.array(position), np.array(stiffness), np.sqrt(stiffness) if damping is None else damping)


def run(robot, time, seconds, written=None):
    """Runs at 1 kHz, with targets at 50 Hz."""
    for i in range(round(seconds / STEP)):
        if written is not None and i % 20 == 0:
            robot.write(written)
        robot.step(time())
        time.now += STEP


def random_targets(generator, limits, count):
    """Steps, walks, swings between the ends, and rests."""
    low, high = np.array(limits.lower), np.array(limits.upper)
    kind = generator.integers(4)
    if kind == 0:
        return generator.uniform(low, high, (count, 7))
    if kind == 1:
        return np.clip(START + np.cumsum(generator.normal(0, 0.05, (count, 7)), axis=0), low, high)
    if kind == 2:
        return np.where(generator.random((count, 7)) < 0.5, low, high)
    return np.repeat(generator.uniform(low, high, (count // 5 + 1, 7)), 5, axis=0)[:count]


@pytest.mark.parametrize("limits", [FER, FR3], ids=["FER", "FR3"])
def test_no_sequence_of_targets_leads_the_way_out_of_its_limits(limits):
    for seed in range(6):
        generator = np.random.default_rng(seed)
        way = Interpolator(limits, START, share=generator.choice([0.2, 0.5, 0.9]))
        past = way.position, np.zeros(7), np.zeros(7)
        for target in random_targets(generator, limits, 50):
            way.aim(target, generator.choice([1, 20, 50]))
            if generator.random() < 0.1:
                way.stop()
            for _ in range(generator.choice([20, 50])):
                way.step()
                check_step(limits, past, way.position)  # raises Reflex
                velocity = (way.position - past[0]) / STEP
                past = way.position, velocity, (velocity - past[1]) / STEP


@pytest.mark.parametrize("limits", [FER, FR3], ids=["FER", "FR3"])
def test_targets_beyond_the_ends_lead_to_the_ends_of_the_range_used(limits):
    way = Interpolator(limits, START, share=0.9)
    past = way.position, np.zeros(7), np.zeros(7)
    for target in (100.0, -100.0):
        way.aim(np.full(7, target), 1)
        for _ in range(4000):
            way.step()
            check_step(limits, past, way.position)  # raises Reflex
            velocity = (way.position - past[0]) / STEP
            past = way.position, velocity, (velocity - past[1]) / STEP
        np.testing.assert_allclose(way.position, way.upper if target > 0 else way.lower, atol=1e-5)


@pytest.mark.parametrize("limits", [FER, FR3], ids=["FER", "FR3"])
@pytest.mark.parametrize("blocked", [False, True], ids=["free", "blocked"])
def test_no_sequence_of_targets_trips_the_arm(limits, blocked):
    for seed in range(2):
        generator = np.random.default_rng(seed)
        robot, _, time = make(limits, blocked=blocked)
        for position in random_targets(generator, limits, 40):
            gains = generator.choice([0.2, 1.0]) * STIFFNESS * (generator.random() > 0.1)
            run(robot, time, 0.02, targets(position, gains))  # raises Reflex
            if generator.random() < 0.05:
                run(robot, time, 0.15)


def test_the_fake_arm_trips_on_what_is_sent_unfiltered():
    for jump, what in ((0.5, "velocity"), (0.001, "acceleration"), (8e-6, "jerk"), (3.0, "position")):
        arm = FakeArm(FR3)
        zero = np.zeros(7)
        arm.command(franka.ArmCommand(START, zero, STIFFNESS, zero, zero))
        with pytest.raises(Reflex, match=what):
            for _ in range(2):
                arm.command(franka.ArmCommand(START + jump, zero, STIFFNESS, zero, zero))
    with pytest.raises(Reflex, match="torque rate"):
        FakeArm(FR3).command(franka.ArmCommand(START, zero, STIFFNESS, zero, np.full(7, 1.1)))


def test_it_gets_there_without_going_beyond():
    robot, arm, time = make()
    goal = START + np.array([0.3, 0.2, -0.3, 0.2, -0.4, 0.3, 0.5])
    run(robot, time, 3.0, targets(goal))
    np.testing.assert_allclose(arm.commands[-1].position, goal, atol=1e-5)
    np.testing.assert_allclose(arm.q, goal, atol=1e-2)
    way = np.array([command.position for command in arm.commands])
    low, high = np.minimum(START, goal), np.maximum(START, goal)
    assert (way >= low - 1e-5).all() and (way <= high + 1e-5).all()


def test_it_follows_a_moving_target_closely():
    way, late = Interpolator(FR3, START), []
    for i in range(200):
        goal = START + 0.1 * np.sin(2 * np.pi * 0.25 * i * 0.02)
        way.aim(goal, 20)
        for _ in range(20):
            way.step()
        late.append(np.abs(way.position - goal).max())
    assert max(late[10:]) < 0.02


def test_each_joint_reads_and_is_written_under_its_name():
    robot, arm, time = make()
    assert robot.joint_names == JOINTS and robot.name == "franka"
    arm.q, arm.dq = START + 0.01, np.arange(7) / 10
    time.now = 2.0
    robot.step(2.0)
    reading = robot.read()
    np.testing.assert_array_equal(reading.values["joint_position"], START + 0.01)
    np.testing.assert_array_equal(reading.values["joint_velocity"], np.arange(7) / 10)
    assert reading.stamp == 2.0
    robot.step(2.001)
    assert robot.read().sequence == reading.sequence + 1


def test_it_starts_without_stiffness_and_from_where_it_was_led():
    robot, arm, time = make()
    run(robot, time, 0.1)
    assert not arm.commands[-1].stiffness.any()
    arm.q = START + 0.5  # by hand
    run(robot, time, 0.1)
    run(robot, time, 1.0, targets(START + 0.5))
    assert np.abs(arm.q - START - 0.5).max() < 1e-3
    np.testing.assert_array_equal(arm.commands[-1].stiffness, STIFFNESS)


def test_when_the_runtime_falls_silent_it_stops_holds_and_fades():
    robot, arm, time = make()
    run(robot, time, 0.5, targets(START + 1.0))
    assert np.abs(arm.commands[-1].velocity).max() > 0.2
    run(robot, time, 0.1)
    assert np.abs(arm.commands[-1].velocity).max() > 0.2  # not yet
    run(robot, time, 0.7)
    assert not arm.commands[-1].velocity.any()
    np.testing.assert_array_equal(arm.commands[-1].stiffness, STIFFNESS)
    held = arm.commands[-1].position
    run(robot, time, HOLD - 0.5)
    np.testing.assert_array_equal(arm.commands[-1].position, held)
    run(robot, time, 1.5)
    assert not arm.commands[-1].stiffness.any()
    np.testing.assert_allclose(arm.commands[-1].damping, franka.DAMPING)
    run(robot, time, 3.0, targets(START))
    assert np.abs(arm.q - START).max() < 0.02


def test_targets_without_stiffness_brake_first():
    robot, arm, time = make()
    run(robot, time, 0.5, targets(START + 1.0))
    run(robot, time, 1.5, targets(START, np.zeros(7), np.full(7, 5.0)))
    assert not arm.commands[-1].stiffness.any() and (arm.commands[-1].damping == 5.0).all()
    moving = [command for command in arm.commands if np.abs(command.velocity).max() > 1e-9]
    np.testing.assert_array_equal(moving[-1].stiffness, STIFFNESS)


def test_something_in_the_way_is_pushed_with_little_force():
    robot, arm, time = make(blocked=True)
    run(robot, time, 2.0, targets(START + 1.0))
    assert (np.abs(arm.torque) <= STIFFNESS * franka.MAX_ERROR + 1e-9).all()
    assert (np.abs(arm.torque) <= 0.9 * np.array(FR3.effort) + 1e-9).all()


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (targets(START + 2 * np.eye(7)[3]), "joint4 is 0 rad, its limits are -3.0421 to -0.1518"),
        (targets(START * np.nan), "not finite"),
        (targets(START[:6], STIFFNESS[:6]), "takes \\(7,\\)"),
        (targets(START, 10 * STIFFNESS), "stiffness of joint joint1 is 6000, this arm is given 1000 at most"),
        (targets(START, STIFFNESS, np.full(7, 500.0)), "damping of joint joint1"),
    ],
)
def test_wrong_targets_are_refused_and_stop_it(wrong, sentence):
    robot, arm, time = make()
    run(robot, time, 0.5, targets(START + 1.0))
    with pytest.raises(ValueError, match=sentence):
        robot.write(wrong)
    run(robot, time, 0.8)
    assert not arm.commands[-1].velocity.any()


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="20 to 50 Hz"):
        Franka(arm=FakeArm(FR3), target_period=0.2)
    with pytest.raises(ValueError, match="share"):
        Interpolator(FR3, START, share=1.0)
    with pytest.raises(ValueError, match="leave some of the range"):
        Interpolator(FR3, START, margin=2.0)
    with pytest.raises(ValueError, match="velocity bounds near the ends"):
        Interpolator(FR3, START, margin=0.0)


def test_the_arms_own_stop_reaches_the_runtime():
    robot, arm, _ = make()

    def fail():
        raise Reflex("cartesian_reflex")

    arm.state = fail
    robot._run()
    assert arm.stopped
    for call in (robot.read, lambda: robot.write(targets(START))):
        with pytest.raises(RuntimeError, match="the arm stopped: Reflex: cartesian_reflex"):
            call()


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e300, 500.0])
@pytest.mark.parametrize("what", ["q", "dq"])
def test_a_state_that_cannot_be_computed_with_stops_the_arm_at_once(what, broken):
    robot, arm, time = make()
    run(robot, time, 0.05, targets(START + 0.1))
    sent = len(arm.commands)
    getattr(arm, what)[2] = broken
    with pytest.raises(RuntimeError, match="its sensors are at fault"):
        robot.step(time())
    assert arm.stopped and len(arm.commands) == sent, "nothing was computed from it"
    for call in (robot.read, lambda: robot.write(targets(START))):
        with pytest.raises(RuntimeError, match="the arm stopped: RuntimeError: the arm reports angles"):
            call()
    with pytest.raises(RuntimeError, match="its sensors are at fault"):
        Franka(arm=arm)


def test_the_loop_runs_at_1_khz_and_close_lets_go():
    robot, arm, time = make()
    robot._stop.is_set = lambda: len(arm.commands) == 100
    robot._run()
    assert time.now == pytest.approx(0.1)
    robot.close()
    assert arm.stopped


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "franky", None)
    with pytest.raises(ImportError, match="pip install franky-control"):
        franka.connect("172.16.0.2")
