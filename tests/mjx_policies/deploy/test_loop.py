import dataclasses
import math
import os
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from mjx_policies.deploy.contract import (
    Action,
    Contract,
    ContractError,
    ContractTerm,
    Golden,
    Joint,
    RobotModel,
    Timing,
    Training,
)
from mjx_policies.deploy.controller import Controller, Mode
from mjx_policies.deploy.log import LogError, RingLog, describe, read_log, tick_fields
from mjx_policies.deploy.loop import run
from mjx_policies.deploy.robot import Reading
from mjx_policies.spec import CommandRange

NAMES = ("hip", "thigh", "calf")
LOWER, UPPER = np.array([-1.0, -0.5, -2.7]), np.array([1.0, 3.0, -0.8])
DEFAULT = np.array([0.1, 0.9, -1.6])
DT = 0.02
NAN = float("nan")


def contract():
    def term(name, size):
        return ContractTerm(name, size, "1", "", 1.0, 0.0, 1, True, "first", 0.0, 0.0, True)

    rows = zip(NAMES, DEFAULT.tolist(), LOWER.tolist(), UPPER.tolist(), strict=True)
    return Contract(
        schema_version="1.0",
        robot=RobotModel("toy", "", "wxyz"),
        timing=Timing(DT, 0.005, 0.04, (0.0, 0.0)),
        joints=tuple(
            Joint(name, default, 0.0, 0.5, 20.0, 0.5, low, high, low + 0.1, high - 0.1, 20.0, 10.0)
            for name, default, low, high in rows
        ),
        observation=(term("gyro", 3), term("gravity", 3), term("joint_position", 3), term("command", 1)),
        action=Action("joint_position", 1.0, 20.0, 1),
        state=(),
        noise=(),
        commands=(CommandRange("forward", "m/s", -0.5, 1.0),),
        gait=None,
        randomization=(),
        training=Training("toy", 0, 0, "", {}),
        golden=Golden({}, {}, "", 1e-5),
        graph_sha256="",
    )


class FakeClock:
    """Time that goes on only where somebody sleeps or works."""

    def __init__(self):
        self.now, self.sleeps, self.late = 1000.0, [], {}

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.sleeps.append(seconds)
        self.now += seconds + self.late.get(len(self.sleeps), 0.0)


class FakeRobot:
    """A robot whose joints go where they are told. `spoil(reading, robot)` changes what it says."""

    name = "toy"

    def __init__(self, clock, joint_names=NAMES, spoil=None):
        self.clock, self.joint_names, self.spoil = clock, joint_names, spoil
        self.order = [NAMES.index(name) for name in joint_names]
        self.position, self.sequence, self.closed = DEFAULT[self.order], 0, 0
        self.random = np.random.default_rng(0)
        self.written = []  # time and targets
        self.reads = []

    def read(self):
        self.sequence += 1
        self.reads.append(self.clock())
        values = {
            "gyro": 0.1 * self.random.normal(size=3),
            "orientation": np.array([1.0, 0, 0, 0]),
            "joint_position": self.position,
            "joint_velocity": 0.1 * self.random.normal(size=3),
        }
        reading = Reading(self.clock() - 0.001, self.sequence, values)
        return self.spoil(reading, self) if self.spoil else reading

    def write(self, targets):
        assert not self.closed
        self.written.append((self.clock(), targets))
        if targets.stiffness.any():
            self.position = targets.position

    def close(self):
        self.closed += 1


class FakePolicy:
    def __init__(self, answer=None):
        self.contract = contract()
        self.answer = answer or (lambda: np.full(3, 0.1))

    def initial_state(self):
        return None

    def step(self, observation, state):
        action = self.answer()
        return SimpleNamespace(action=action, target=DEFAULT + 0.5 * action, state=None)


class Script:
    """An operator who stands, runs and does what `more` says, tick by tick."""

    def __init__(self, more=None, start=True):
        self.requests = ({0: "stand", 105: "run"} if start else {}) | (more or {})
        self.tick = -1

    def poll(self):
        self.tick += 1
        request = self.requests.get(self.tick)
        if callable(request):
            request = request()
        return np.array([0.5]), request


RUNNING = 2.2  # s, when the script's policy has been running for a while


class Bench:
    def __init__(self, tmp_path=None, spoil=None, answer=None, script=None, joint_names=NAMES):
        self.clock = FakeClock()
        self.robot = FakeRobot(self.clock, joint_names, spoil)
        self.policy = FakePolicy(answer)
        self.controller = Controller(self.policy, joint_names, clock=self.clock)
        self.operator = Script() if script is None else script
        self.path = None if tmp_path is None else tmp_path / "log"
        self.start = self.clock.now

    def run(self, seconds=4.0, **more):
        log = None if self.path is None else RingLog(self.path, 500, tick_fields(contract()))
        more = {"clock": self.clock, "sleep": self.clock.sleep, "log": log} | more
        try:
            return run(self.robot, self.controller, self.operator, seconds=seconds, **more)
        finally:
            if log is not None:
                log.close()

    @property
    def elapsed(self):
        return self.clock.now - self.start

    def damped_since(self):
        """The time when the robot was damped for good, s from the start; None if it is not."""
        last = None
        for time, targets in self.robot.written:
            if targets.stiffness.any() or not (targets.damping > 0).all():
                last = None
            elif last is None:
                last = time - self.start
        return last


def test_it_stands_runs_and_leaves_damped(tmp_path):
    bench = Bench(tmp_path)
    statistics = bench.run()
    assert statistics.ticks == 200 and statistics.missed == 0 and statistics.faults == ()
    assert statistics.late == statistics.held == statistics.reordered == 0
    assert statistics.jitter_max < 1e-9 and statistics.jitter_p99 <= statistics.jitter_max
    np.testing.assert_allclose(np.array(bench.robot.reads) - bench.start, DT * np.arange(200), atol=1e-9)
    assert bench.robot.closed == 1 and bench.damped_since() == pytest.approx(4.0)
    log = read_log(bench.path)
    assert len(log.records) == 201 and log.torn == 0
    modes = log.records["mode"].tolist()
    assert modes == [Mode.STAND] * 105 + [Mode.RUN] * 95 + [Mode.DAMP]
    np.testing.assert_allclose(log.records["target"][199], DEFAULT + 0.05, atol=1e-6)


def test_joints_in_another_order_make_no_difference():
    plain, shuffled = Bench(), Bench(joint_names=("calf", "hip", "thigh"))
    plain.run(), shuffled.run()
    for (_, a), (_, b) in zip(plain.robot.written, shuffled.robot.written, strict=True):
        np.testing.assert_array_equal(a.position, b.position[[1, 2, 0]])


def test_a_deadline_that_passes_is_counted_and_left_out():
    bench = Bench(script=Script(start=False))
    bench.clock.late = {5: 0.005, 10: 0.05}  # after the tenth tick, sleeping lasts for 2.5 periods more
    statistics = bench.run(1.0)
    ticks = (np.array(bench.robot.reads) - bench.start) / DT
    assert statistics.missed == 2 and statistics.ticks == 48
    np.testing.assert_allclose(ticks[:5], range(5), atol=1e-6)
    assert ticks[5] == pytest.approx(5.25) and ticks[6] == pytest.approx(6)  # no drift
    assert ticks[10] == pytest.approx(12.5) and ticks[11] == pytest.approx(13)
    assert np.diff(ticks).min() > 0.49  # no burst
    assert statistics.jitter_max == pytest.approx(0.05)
    assert statistics.jitter_p50 <= 1e-5 and statistics.jitter_p99 == pytest.approx(0.05, abs=1e-5)


def test_work_that_takes_too_long_skips_to_the_next_deadline():
    bench = Bench(script=Script(start=False))
    slow = {7: 0.03, 20: 0.02, 30: 0.0401}

    def spoil(reading, robot):
        bench.clock.now += slow.get(len(robot.reads) - 1, 0.0)
        return reading

    bench.robot.spoil = spoil
    statistics = bench.run(1.0)
    ticks = (np.array(bench.robot.reads) - bench.start) / DT
    assert statistics.missed == 1 + 0 + 2
    np.testing.assert_allclose(ticks[7:9], [7, 9], atol=1e-6)  # eight passed meanwhile
    assert np.diff(ticks).min() > 1 - 1e-6


def test_a_long_run_does_not_drift():
    bench = Bench(script=Script(start=False))
    bench.clock.now = bench.start = 123_456.789
    statistics = bench.run(200.0)
    assert statistics.ticks == 10_000 and statistics.missed == 0
    assert bench.robot.reads[-1] - bench.start == pytest.approx(199.98, abs=1e-6)


def at(time, change):
    """Spoils readings from a time on."""

    def spoil(reading, robot):
        robot.begin = getattr(robot, "begin", robot.clock())
        return change(reading, robot) if robot.clock() - robot.begin >= time - 1e-9 else reading

    return spoil


def value(**changes):
    def change(reading, robot):
        return dataclasses.replace(reading, values={**reading.values, **changes})

    return at(RUNNING, change)


def delay(seconds):
    return at(RUNNING, lambda reading, robot: dataclasses.replace(reading, stamp=reading.stamp - seconds))


def backwards(reading, robot):
    return dataclasses.replace(reading, sequence=1000 - reading.sequence)


def freeze(reading, robot):
    robot.frozen = getattr(robot, "frozen", reading.values)
    return dataclasses.replace(reading, values=robot.frozen)


def repeat(reading, robot):
    robot.frozen = getattr(robot, "frozen", reading)
    return robot.frozen


def lie(reading, robot):
    values = {name: v[[1, 2, 0]] if name.startswith("joint") else v for name, v in reading.values.items()}
    return dataclasses.replace(reading, values=values)


# How the sensors fail at 2.2 s, what the log must say, and within how many control periods the robot must be damped.
SENSORS = {
    "nan": (value(gyro=np.full(3, NAN)), "finite", 0),
    "inf": (value(joint_position=np.array([math.inf, 0, 0])), "finite", 0),
    "frozen": (at(RUNNING, freeze), "frozen", 10),
    "the same again": (at(RUNNING, repeat), "age", 2),
    "nothing": (at(RUNNING, lambda reading, robot: None), "age", 1),
    "old": (delay(0.05), "age", 0),
    "backwards": (at(RUNNING, backwards), "age", 2),
    "short": (value(joint_velocity=np.zeros(2)), "shape", 0),
    "lying order": (at(RUNNING, lie), "joint_position", 0),
    "fallen": (value(orientation=np.array([math.cos(0.6), math.sin(0.6), 0, 0])), "tilt", 0),
    "no unit": (value(orientation=np.zeros(4)), "quaternion", 0),
}


@pytest.mark.parametrize(("spoil", "name", "periods"), SENSORS.values(), ids=SENSORS)
def test_failing_sensors_damp_the_robot_in_time(tmp_path, spoil, name, periods):
    bench = Bench(tmp_path, spoil)
    statistics = bench.run()
    assert [fault.name for fault in statistics.faults] == [name]
    damped = bench.damped_since()
    assert damped is not None
    assert RUNNING - 1e-9 <= damped <= RUNNING + (periods + 1) * DT + 1e-9
    last = read_log(bench.path).records[-1]
    assert describe(last["fault"]).startswith(f"{name}:") and last["text"].decode() == statistics.faults[0].sentence
    assert bench.robot.closed == 1


def test_late_readings_hold_the_targets():
    bench = Bench(spoil=delay(0.025))
    statistics = bench.run()
    assert statistics.faults == () and statistics.held == statistics.late == 90


def test_dropped_readings_hold_until_two_in_a_row_are_lost(tmp_path):
    random = np.random.default_rng(1)
    drops = []

    def drop(reading, robot):
        drops.append(bool(random.random() < 0.3))
        return None if drops[-1] else reading

    bench = Bench(tmp_path, at(RUNNING, drop))
    statistics = bench.run()
    second = next(i for i in range(1, len(drops)) if drops[i] and drops[i - 1])
    assert [fault.name for fault in statistics.faults] == ["age"]
    assert bench.damped_since() == pytest.approx(RUNNING + second * DT)
    assert statistics.held == sum(drops[: second - 1]) + 1
    assert statistics.late >= statistics.held


def test_swapped_readings_are_discarded_not_acted_on():
    """Swaps neighbours: of each two, the older arrives last."""
    pending = []

    def swap(reading, robot):
        pending.append(reading)
        if len(pending) % 2:
            return dataclasses.replace(reading, sequence=reading.sequence + 1)
        return dataclasses.replace(reading, sequence=reading.sequence - 1, stamp=reading.stamp - DT)

    bench = Bench(spoil=at(RUNNING, swap))
    statistics = bench.run()
    assert statistics.faults == () and statistics.reordered == statistics.held == 45


def raising():
    raise RuntimeError("broken")


POLICIES = {
    "raises": (raising, "policy", 0),
    "nan": (lambda: np.full(3, NAN), "action", 0),
    "shape": (lambda: np.zeros(3)[:, None] * np.zeros(3), "action", 0),
    "saturates": (lambda: np.array([1.0, -1.0, 1.0]), "saturation", 25),
}


@pytest.mark.parametrize(("answer", "name", "periods"), POLICIES.values(), ids=POLICIES)
def test_failing_policies_damp_the_robot_in_time(tmp_path, answer, name, periods):
    bench = Bench(tmp_path)
    bench.policy.answer = lambda: np.zeros(3) if bench.elapsed < RUNNING - 1e-9 else answer()
    statistics = bench.run()
    assert [fault.name for fault in statistics.faults] == [name]
    assert RUNNING - 1e-9 <= bench.damped_since() <= RUNNING + periods * DT + 1e-9
    assert describe(read_log(bench.path).records[-1]["fault"]).startswith(f"{name}:")


def test_a_policy_ten_times_too_slow_damps_the_robot_when_it_answers(tmp_path):
    bench = Bench(tmp_path)

    def slow():
        bench.clock.now += 0.1 if bench.elapsed >= RUNNING else 0.001
        return np.zeros(3)

    bench.policy.answer = slow
    statistics = bench.run()
    assert [fault.name for fault in statistics.faults] == ["deadline"]
    assert bench.damped_since() == pytest.approx(RUNNING + 0.1, abs=0.03)
    assert statistics.missed == 4  # the fifth is served at once
    assert "the policy took 100.0 ms" in read_log(bench.path).records[-1]["text"].decode()


def test_a_fault_that_is_cleared_and_comes_again_is_counted_twice():
    falls = {150: (0.0, 1.0), 151: (1.0, 0.0), 300: (0.0, 1.0)}

    def spoil(reading, robot):
        if len(robot.reads) - 1 in falls:
            w, x = falls[len(robot.reads) - 1]
            return dataclasses.replace(reading, values={**reading.values, "orientation": np.array([w, x, 0, 0])})
        return reading

    bench = Bench(spoil=spoil, script=Script({160: "clear", 170: "stand", 280: "run"}))
    assert [fault.name for fault in bench.run(7.0).faults] == ["tilt", "tilt"]


def test_what_the_robot_raises_leaves_it_damped(tmp_path):
    bench = Bench(tmp_path, at(RUNNING, lambda reading, robot: raising()))
    with pytest.raises(RuntimeError, match="broken"):
        bench.run()
    assert bench.damped_since() == pytest.approx(RUNNING) and bench.robot.closed == 1
    last = read_log(bench.path).records[-1]
    assert Mode(last["mode"]) is Mode.FAULT and describe(last["fault"]).startswith("robot:")
    assert last["text"] == b"the robot part of the loop failed: RuntimeError: broken."


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_the_operator_raises_leaves_the_robot_damped(tmp_path, error):
    def fail():
        raise error("gone")

    bench = Bench(tmp_path, script=Script({120: fail}))
    with pytest.raises(error):
        bench.run()
    assert bench.damped_since() == pytest.approx(120 * DT) and bench.robot.closed == 1
    assert describe(read_log(bench.path).records[-1]["fault"]).startswith("operator:")


def test_what_the_clock_or_the_log_raises_leaves_the_robot_damped(tmp_path):
    bench = Bench()
    with pytest.raises(ZeroDivisionError):
        bench.run(sleep=lambda seconds: 1 / 0)
    assert bench.damped_since() == 0.0 and bench.robot.closed == 1

    bench = Bench()
    log = RingLog(tmp_path / "log", 10, tick_fields(contract()))
    log.close()
    with pytest.raises(LogError, match="is closed"):
        bench.run(log=log)
    assert bench.damped_since() is not None and bench.robot.closed == 1


def test_a_robot_that_cannot_be_written_is_closed():
    bench = Bench()
    bench.robot.write = lambda targets: raising()
    with pytest.raises(RuntimeError, match="broken"):
        bench.run()
    assert bench.robot.closed == 1


def test_it_ends_when_it_is_done():
    bench = Bench()
    statistics = bench.run(seconds=None, until=lambda: bench.operator.tick >= 119)
    assert statistics.ticks == 120 and statistics.faults == ()
    assert bench.damped_since() == pytest.approx(120 * DT) and bench.robot.closed == 1


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_damps_and_leaves(kind):
    before = signal.getsignal(kind)
    bench = Bench(script=Script({130: lambda: os.kill(os.getpid(), kind)}))
    statistics = bench.run(seconds=None)
    assert statistics.ticks == 131 and statistics.faults == ()
    assert bench.damped_since() == pytest.approx(131 * DT) and bench.robot.closed == 1
    assert signal.getsignal(kind) is before


def test_it_runs_in_another_thread():
    bench, found = Bench(), []
    thread = threading.Thread(target=lambda: found.append(bench.run(1.0)))
    thread.start()
    thread.join()
    assert found[0].ticks == 50 and bench.damped_since() == pytest.approx(1.0)


def test_a_robot_that_is_not_the_policys_is_refused_unmoved():
    bench = Bench()
    bench.robot.name = "other"
    with pytest.raises(ContractError, match="made for the robot 'toy', this one is 'other'"):
        bench.run()
    assert bench.robot.closed == 1 and bench.robot.written == []
    bench = Bench()
    bench.robot.joint_names = NAMES[::-1]
    with pytest.raises(ContractError, match="not those, in that order"):
        bench.run()
    assert bench.robot.closed == 1 and bench.robot.written == []
