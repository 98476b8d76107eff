import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mjx_policies.deploy.guard import (
    CAPACITY,
    DAMPED,
    RUNNING,
    WAITING,
    Guard,
    GuardedRobot,
    GuardError,
    GuardReport,
    Order,
    Slot,
)
from mjx_policies.deploy.robot import Reading, Targets

TIMEOUT = 300.0  # s, for processes to start and end on a busy machine

# A robot that notes what it is told in a file. The guard's process imports it, so it lives in a module of its own.
ROBOT = """
import json, os, time
import numpy as np
from mjx_policies.deploy.robot import Reading

class Robot:
    name, joint_names = "fake", ("a", "b", "c")

    def __init__(self, path):
        self.file = open(path, "a")
        self.sequence = 0
        self.stiff = None

    def read(self):
        self.sequence += 1
        values = {"gyro": np.full(3, float(self.sequence)), "joint_position": np.arange(3.0)}
        return Reading(time.monotonic(), self.sequence, values)

    def write(self, targets):
        if targets.position[0] == 13:
            raise RuntimeError("thirteen brings bad luck")
        if targets.position[0] == 14:
            os._exit(3)
        stiff = bool(targets.stiffness.any())
        if stiff != self.stiff:
            self.note("stiff" if stiff else "damped")
        self.stiff = stiff

    def close(self):
        self.note("closed")

    def note(self, what):
        self.file.write(json.dumps([what, time.monotonic()]) + "\\n")
        self.file.flush()

def fail():
    raise OSError("no robot at this address")
"""

POLICY = """
import sys, time
from functools import partial
from pathlib import Path
import numpy as np
import fake_robot
from mjx_policies.deploy.guard import GuardedRobot
from mjx_policies.deploy.robot import Targets

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    robot = GuardedRobot(partial(fake_robot.Robot, folder / "robot"), timeout=1.0, record=folder / "record")
    ones = np.ones(3)
    for i in range(100000):
        robot.write(Targets(ones, ones, ones))
        if i == 5:
            print(robot.memory_name, robot._process.pid, flush=True)
        if i > 5 and sys.argv[2] == "leave":
            break
        if i > 5 and sys.argv[2] == "silence":
            time.sleep(1000)
        time.sleep(0.01)
"""


def targets(position=1.0, stiffness=1.0):
    return Targets(np.full(3, position), np.full(3, stiffness), np.ones(3))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait(condition):
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "fake_robot.py").write_text(ROBOT)
    monkeypatch.syspath_prepend(tmp_path)
    import fake_robot

    yield fake_robot
    del sys.modules["fake_robot"]


@pytest.fixture
def guarded(tmp_path, module):
    robot = GuardedRobot(partial(module.Robot, tmp_path / "robot"), timeout=20.0, record=tmp_path / "record")
    yield robot
    robot.close()
    assert not Path("/dev/shm", robot.memory_name).exists()


class FakeRobot:
    name, joint_names = "fake", ("a", "b", "c")

    def __init__(self):
        self.written = []
        self.error = None

    def read(self):
        if self.error:
            raise self.error
        return Reading(1.0, 1, {"gyro": np.zeros(3)})

    def write(self, targets):
        self.written.append(targets)

    @property
    def damped(self):
        return not self.written[-1].stiffness.any() and self.written[-1].damping.all()


def watch(timeout=0.06):
    robot, notes = FakeRobot(), []
    return robot, notes, Guard(robot, timeout, lambda event, **what: notes.append((event, what)))


def test_it_damps_one_cycle_after_the_bound():
    robot, notes, guard = watch()
    assert guard.cycle(0.0, Order(), False).state == WAITING and robot.damped
    for i in range(100):  # targets every 20 ms, cycles every 2 ms
        order = Order(stamp=i // 10 * 0.02, sequence=1 + i // 10, targets=targets(i))
        assert guard.cycle(i * 0.002, order, False).state == RUNNING
        assert not robot.damped
    assert len(robot.written) == 1 + 10
    for i in range(100, 200):
        state = guard.cycle(i * 0.002, order, False).state
        assert (state == DAMPED) == robot.damped == (i * 0.002 - order.stamp > 0.06 + 1e-9)
    assert [event for event, _ in notes] == ["damped"]
    assert 0.06 < notes[0][1]["age"] <= 0.062 + 1e-9 and "targets are 0.062 s old" in notes[0][1]["reason"]


def test_it_stays_damped_until_it_is_cleared():
    robot, notes, guard = watch()
    guard.cycle(0.0, Order(0.0, 1, targets=targets()), False)
    guard.cycle(1.0, Order(0.0, 1, targets=targets()), False)
    report = guard.cycle(1.1, Order(1.1, 2, targets=targets()), False)
    assert report.state == DAMPED and "old" in report.reason and robot.damped
    report = guard.cycle(1.2, Order(1.1, 2, 1), False)
    assert report.state == WAITING and report.clears == 1 and robot.damped  # by new targets only
    assert guard.cycle(1.3, Order(1.3, 3, 1, targets=targets()), False).state == RUNNING and not robot.damped
    guard.cycle(2.0, Order(1.3, 3, 1, targets=targets()), False)
    assert guard.cycle(2.1, Order(2.1, 4, 2, targets=targets()), False).state == RUNNING  # both within one cycle
    assert [event for event, _ in notes] == ["damped", "cleared"] * 2


@pytest.mark.parametrize("stamp", [-1.0, 1.0, np.nan, np.inf])
def test_targets_of_another_time_are_not_obeyed(stamp):
    robot, _, guard = watch()
    assert guard.cycle(0.0, Order(stamp, 1, targets=targets()), False).state == DAMPED and robot.damped
    assert all(not written.stiffness.any() for written in robot.written)


def test_it_damps_when_the_parent_is_gone():
    robot, notes, guard = watch()
    guard.cycle(0.0, Order(0.0, 1, targets=targets()), False)
    report = guard.cycle(0.01, Order(0.01, 2, targets=targets()), True)
    assert report.state == DAMPED and robot.damped and "process is gone" in notes[0][1]["reason"]


def test_it_damps_when_the_robot_fails():
    robot, notes, guard = watch()
    guard.cycle(0.0, Order(0.0, 1, targets=targets()), False)
    robot.error = OSError("unplugged")
    report = guard.cycle(0.01, Order(0.01, 2, targets=targets()), False)
    assert report.state == DAMPED and robot.damped and report.reason == "the robot refused: OSError: unplugged"
    assert len(notes) == 1


def test_a_torn_message_is_never_read():
    buffer = memoryview(bytearray(Slot.SIZE))
    writer, reader = Slot(buffer[:]), Slot(buffer[:])
    assert reader.get() == b""
    writer.put(b"one")
    assert reader.get() == b"one"
    good = bytes(buffer)
    for wrong in (good[:16] + b"two" + good[19:], struct.pack("=QII", 4, CAPACITY + 1, 0) + good[16:]):
        buffer[:] = wrong  # as if it were half written: other bytes, another count, the wrong checksum
        buffer[0] = 4
        assert reader.get() == b"one"
    buffer[:] = good
    buffer[0] = 3  # being written
    assert reader.get() == b"one"
    writer.put(b"three")
    assert reader.get() == b"three"
    with pytest.raises(GuardError, match="65536 fit"):
        writer.put(bytes(CAPACITY + 1))


def test_a_reader_beside_a_writer_sees_whole_messages_in_order():
    buffer = memoryview(bytearray(Slot.SIZE))
    writer, reader = Slot(buffer[:]), Slot(buffer[:])
    seen = []

    def read():
        while not seen or seen[-1] < 3000:
            message = reader.get()
            if message:
                numbers = np.frombuffer(message, np.int64)
                assert (numbers == numbers[0]).all()
                seen.append(numbers[0])

    thread = threading.Thread(target=read)
    thread.start()
    for i in range(1, 3001):
        writer.put(np.full(1 + i % 50, i).tobytes())
    thread.join()
    assert (np.diff(seen) >= 0).all()


def test_messages_come_back_as_they_were():
    order = Order(1.5, 2, 3, True, Targets(np.arange(3.0), np.ones(3), np.zeros(3)))
    again = Order.decode(order.encode())
    assert (again.stamp, again.sequence, again.clears, again.stop) == (1.5, 2, 3, True)
    np.testing.assert_array_equal(again.targets.position, [0, 1, 2])
    assert Order.decode(Order().encode()) == Order() == Order.decode(b"")
    values = {"gyro": np.arange(3.0), "orientation": np.array([1.0, np.nan, 0, 0])}
    report = GuardReport.decode(GuardReport(DAMPED, 4, "why?", Reading(2.5, 9, values)).encode())
    assert (report.state, report.clears, report.reason) == (DAMPED, 4, "why?")
    assert (report.reading.stamp, report.reading.sequence) == (2.5, 9)
    for name, value in values.items():
        np.testing.assert_array_equal(report.reading.values[name], value)
    assert GuardReport.decode(GuardReport().encode()) == GuardReport() == GuardReport.decode(b"")
    with pytest.raises(GuardError, match="only short names and one axis"):
        GuardReport(reading=Reading(0.0, 1, {"camera": np.zeros((3, 3))})).encode()


def test_it_is_the_robot_from_a_distance(guarded, tmp_path):
    assert guarded.name == "fake" and guarded.joint_names == ("a", "b", "c")
    wait(lambda: guarded.read() is not None)
    first = guarded.read()
    np.testing.assert_array_equal(first.values["joint_position"], [0, 1, 2])
    np.testing.assert_array_equal(first.values["gyro"], [first.sequence] * 3)
    wait(lambda: guarded.read().sequence > first.sequence + 10)
    guarded.write(targets())
    wait(lambda: guarded.report.state == RUNNING)
    with pytest.raises(ValueError, match="not finite"):
        guarded.write(targets(np.nan))
    with pytest.raises(ValueError, match="takes \\(3,\\)"):
        guarded.write(Targets(np.ones(2), np.ones(2), np.ones(2)))
    guarded.write(targets(13.0))  # the robot refuses that
    wait(lambda: guarded.report.state == DAMPED)
    with pytest.raises(GuardError, match=r"damped the robot: .*thirteen brings bad luck.* call clear"):
        guarded.write(targets())
    guarded.write(targets(stiffness=0.0))  # damping is never refused
    guarded.clear()
    guarded.write(targets())
    wait(lambda: guarded.report.state == RUNNING)
    guarded.close()
    guarded.close()
    for call in (guarded.read, partial(guarded.write, targets()), guarded.clear):
        with pytest.raises(GuardError, match="closed"):
            call()
    assert [what for what, _ in lines(tmp_path / "robot")] == ["damped", "stiff", "damped", "stiff", "closed"]
    events = [line["event"] for line in lines(tmp_path / "record")]
    assert events == ["started", "damped", "cleared", "ended"]


def test_a_guard_that_died_is_missed(guarded):
    guarded.write(targets(14.0))  # ends the process on the spot
    wait(lambda: not guarded._process.is_alive())
    for call in (guarded.read, partial(guarded.write, targets())):
        with pytest.raises(GuardError, match="ended with exit code 3"):
            call()


def test_a_robot_that_cannot_be_made_is_said_and_leaves_nothing(module):
    before = set(os.listdir("/dev/shm"))
    with pytest.raises(GuardError, match="could not be made: OSError: no robot at this address"):
        GuardedRobot(module.fail)
    assert set(os.listdir("/dev/shm")) <= before
    with pytest.raises(ValueError, match="above 0"):
        GuardedRobot(module.fail, timeout=0.0)


@pytest.mark.parametrize("how", ["kill", "silence", "leave"])
def test_it_outlives_the_policy(tmp_path, how):
    (tmp_path / "fake_robot.py").write_text(ROBOT)
    (tmp_path / "policy.py").write_text(textwrap.dedent(POLICY))
    policy = subprocess.Popen(
        [sys.executable, tmp_path / "policy.py", tmp_path, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        memory, guard = policy.stdout.readline().split()
        assert Path("/dev/shm", memory).exists()
        killed = time.monotonic()
        if how == "kill":
            os.kill(policy.pid, signal.SIGKILL)
        if how == "silence":
            wait(lambda: any(line["event"] == "damped" for line in lines(tmp_path / "record")))
            assert Path("/proc", guard).exists()  # goes on damping
            os.kill(policy.pid, signal.SIGKILL)
        wait(lambda: not Path("/proc", guard).exists())
        assert not Path("/dev/shm", memory).exists()
        if how == "leave":
            policy.wait(10)  # killed here it could not tell the tracker any more that it freed the memory itself
    finally:
        policy.kill()
        _, errors = policy.communicate()
    assert errors == ""  # not even the tracker of shared memory complains
    record = {line["event"]: line for line in lines(tmp_path / "record")}
    assert "ended" in record
    told = lines(tmp_path / "robot")
    assert told[-1][0] == "closed"
    if how == "leave":
        return  # the exit of the policy's process ends the guard, which closes the robot
    assert told[-2][0] == "damped"
    reason = "process is gone" if how == "kill" else "s old, 1 s are allowed"
    assert reason in record["damped"]["reason"]
    # 2 ms of cycle, or the bound; what is granted above that is for a busy machine
    assert record["damped"]["age"] < 1.0 + 0.5 and told[-2][1] - killed < 1.0 + 0.5
