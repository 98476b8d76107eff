"""A process between the policy and the robot, which damps the robot when the policy's process dies or falls silent.

`GuardedRobot` stands in for the robot. The robot itself lives in a second process that runs at 500 Hz and talks to the
first through shared memory: readings one way, targets the other. It waits for nobody. Targets that are too old, a
parent that is gone, an error of the robot: each damps the robot for good, until the operator says `clear`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import signal
import struct
import time
import types
import weakref
import zlib
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np

from mjx_policies.deploy.robot import Reading, Robot, Targets
from mjx_policies.deploy.robots import Clock, check_targets, ticks

PERIOD = 0.002  # s
TIMEOUT = 0.06  # s: three control periods at 50 Hz, one more than the runtime itself lets pass
DAMPING = 3.0  # N m s / rad
START_TIMEOUT = 60.0  # s for the robot to be made
STOP_TIMEOUT = 10.0  # s for it to be closed
CAPACITY = 1 << 16  # bytes of a message
MAX_NAME = 32  # bytes of a value's name

WAITING, RUNNING, DAMPED = range(3)
"""What the guard does: it damps until the first targets, passes targets on, damps for good."""


class GuardError(RuntimeError):
    """The guard does not pass anything on; the message says why and what to do."""


class Slot:
    """The newest message from one writer to any reader, in shared memory. Neither ever waits.

    The count is odd while a message is being written, and counts messages otherwise. Since processors may reorder
    what they store, a checksum over count and message has the last word: a torn message is never returned.
    """

    HEADER = struct.Struct("=QII")  # count, length, checksum
    SIZE = HEADER.size + CAPACITY

    def __init__(self, buffer: memoryview):
        self._buffer = buffer
        self._count: int = self.HEADER.unpack_from(buffer)[0]
        self._newest = b""

    def put(self, message: bytes) -> None:
        """Replaces the message.

        Raises:
          GuardError: it is longer than `CAPACITY`.
        """
        if len(message) > CAPACITY:
            raise GuardError(f"a message to the other process has {len(message)} bytes, {CAPACITY} fit")
        start = self.HEADER.size
        self.HEADER.pack_into(self._buffer, 0, self._count + 1, 0, 0)
        self._buffer[start : start + len(message)] = message
        self._count += 2
        self.HEADER.pack_into(self._buffer, 0, self._count, len(message), _checksum(self._count, message))

    def get(self) -> bytes:
        """The newest message that could be read whole, empty before the first."""
        start = self.HEADER.size
        for _ in range(10):
            count, length, checksum = self.HEADER.unpack_from(self._buffer)
            if count == self._count:
                break
            if count % 2 == 0 and length <= CAPACITY:
                message = bytes(self._buffer[start : start + length])
                if _checksum(count, message) == checksum:
                    self._count, self._newest = count, message
                    break
        return self._newest

    def close(self) -> None:
        """Releases the memory."""
        self._buffer.release()


def _checksum(count: int, message: bytes) -> int:
    return zlib.crc32(message, count & 0xFFFFFFFF)


@dataclasses.dataclass(frozen=True)
class Order:
    """The parent's orders to the guard.

    Attributes:
      stamp: s, when the targets were written.
      sequence: of the targets, 0 for none.
      clears: how often the operator cleared.
      stop: whether the guard shall end.
      targets: None before the first, and after a clear.
    """

    stamp: float = 0.0
    sequence: int = 0
    clears: int = 0
    stop: bool = False
    targets: Targets | None = None

    _HEADER = struct.Struct("=dQI?I")

    def encode(self) -> bytes:
        """The fields as a message."""
        parts = () if self.targets is None else dataclasses.astuple(self.targets)
        joints = len(parts[0]) if parts else 0
        header = self._HEADER.pack(self.stamp, self.sequence, self.clears, self.stop, joints)
        return header + b"".join(np.asarray(part, np.float64).tobytes() for part in parts)

    @classmethod
    def decode(cls, message: bytes) -> Order:
        """Decodes what `encode` wrote; an empty message asks for nothing."""
        if not message:
            return cls()
        stamp, sequence, clears, stop, joints = cls._HEADER.unpack_from(message)
        targets = None
        if joints:
            targets = Targets(*np.frombuffer(message, np.float64, offset=cls._HEADER.size).reshape(3, joints))
        return cls(stamp, sequence, clears, stop, targets)


@dataclasses.dataclass(frozen=True)
class GuardReport:
    """The guard's report to the parent.

    Attributes:
      state: one of `WAITING`, `RUNNING`, `DAMPED`.
      clears: of the orders that it has seen.
      reason: why it damps.
      reading: the robot's newest.
    """

    state: int = WAITING
    clears: int = 0
    reason: str = ""
    reading: Reading | None = None

    _HEADER = struct.Struct("=IIIdQI")  # the number of values last
    _VALUE = struct.Struct(f"={MAX_NAME}sI")

    def encode(self) -> bytes:
        """The fields as a message."""
        reason = self.reason.encode()[:1000]
        stamp, sequence, values = 0.0, 0, {}
        if self.reading is not None:
            stamp, sequence, values = self.reading.stamp, self.reading.sequence, dict(self.reading.values)
        parts = [self._HEADER.pack(self.state, self.clears, len(reason), stamp, sequence, len(values)), reason]
        for name, value in values.items():
            data = np.asarray(value, np.float64)
            if data.ndim != 1 or len(name.encode()) > MAX_NAME:
                raise GuardError(
                    f"the robot reads {name!r} with shape {data.shape}: only short names and one axis pass"
                )
            parts += [self._VALUE.pack(name.encode(), len(data)), data.tobytes()]
        return b"".join(parts)

    @classmethod
    def decode(cls, message: bytes) -> GuardReport:
        """Decodes what `encode` wrote; an empty message tells nothing."""
        if not message:
            return cls()
        state, clears, length, stamp, sequence, count = cls._HEADER.unpack_from(message)
        start = cls._HEADER.size + length
        reason = message[cls._HEADER.size : start].decode(errors="replace")
        values = {}
        for _ in range(count):
            name, size = cls._VALUE.unpack_from(message, start)
            start += cls._VALUE.size
            values[name.rstrip(b"\0").decode()] = np.frombuffer(message, np.float64, size, start)
            start += 8 * size
        reading = Reading(stamp, sequence, values) if count else None
        return cls(state, clears, reason, reading)


class Guard:
    """The work of the second process in each period, apart from processes and shared memory.

    Attributes:
      damping: the targets that damp the robot.
      state, reason: see `GuardReport`.
    """

    def __init__(self, robot: Robot, timeout: float, note: Callable[..., None]):
        """Watches over a robot.

        Args:
          robot: to be watched.
          timeout: s, age of targets that is still obeyed.
          note: called with the name of an event and what belongs to it.
        """
        self._robot, self._timeout, self._note = robot, timeout, note
        joints = len(robot.joint_names)
        self.damping = Targets(np.zeros(joints), np.zeros(joints), np.full(joints, DAMPING))
        self._sequence = 0
        self._clears = 0
        self._reading: Reading | None = None
        self.state, self.reason = WAITING, "no targets were written yet"

    def cycle(self, now: float, order: Order, orphaned: bool) -> GuardReport:
        """Obeys, or damps.

        Raises:
          Exception: whatever the robot raised when it was to be damped: nothing more can be done from here.
        """
        if order.clears != self._clears:
            self._clears = order.clears
            if self.state == DAMPED:
                self._note("cleared", time=now)
            self.state, self.reason = WAITING, "no targets were written since the guard was cleared"
        fresh = order.targets is not None and order.sequence != self._sequence
        age = now - order.stamp if order.sequence else 0.0
        if orphaned:
            self._damp(now, "the policy's process is gone", age)
        elif (fresh or self.state == RUNNING) and not -self._timeout <= age <= self._timeout:
            self._damp(now, f"targets are {age:.3f} s old, {self._timeout:g} s are allowed", age)
        try:
            self._reading = self._robot.read()
            if order.targets is not None and fresh and self.state != DAMPED:
                self._robot.write(order.targets)
                self._sequence, self.state, self.reason = order.sequence, RUNNING, ""
        except Exception as error:
            self._damp(now, f"the robot refused: {type(error).__name__}: {error}", age)
        if self.state != RUNNING:
            self._robot.write(self.damping)  # again and again: one may be lost
        return GuardReport(self.state, self._clears, self.reason, self._reading)

    def _damp(self, now: float, reason: str, age: float) -> None:
        if self.state == DAMPED:
            return
        self.state, self.reason = DAMPED, reason
        self._robot.write(self.damping)
        self._note("damped", time=now, age=age, reason=reason)


class GuardedRobot:
    """Implements `Robot` for a robot in a process of its own."""

    def __init__(
        self,
        make_robot: Callable[[], Robot],
        *,
        timeout: float = TIMEOUT,
        record: Path | None = None,
        clock: Clock = time.monotonic,
    ):
        """Starts the process and waits until it has its robot.

        Args:
          make_robot: called in the process; must be importable there, like a function of a module or a
            `functools.partial` of one. Scripts that use this need the usual `if __name__ == "__main__":`.
          timeout: s, age of targets beyond which the robot is damped.
          record: file to which the guard appends a line of JSON for each event.
          clock: of the stamps of targets, the same as that of `time.monotonic` in the other process.

        Raises:
          ValueError: `timeout` is not above zero.
          GuardError: the robot could not be made; the message says why.
        """
        if not 0 < timeout < np.inf:
            raise ValueError(f"timeout is {timeout} s, it must be above 0")
        self._clock = clock
        self._order = Order()
        self._memory = shared_memory.SharedMemory(create=True, size=2 * Slot.SIZE)
        self._reports, self._orders = _slots(self._memory)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_main,
            args=(make_robot, self._memory.name, os.getpid(), timeout, record, theirs),
            name="guard",
            daemon=True,  # or an exit without `close` would wait for it forever
        )
        self._finalizer = weakref.finalize(
            self, _shut_down, os.getpid(), self._process, self._memory, self._reports, self._orders
        )
        try:
            self._process.start()
            theirs.close()
            self._name, self._joint_names = _introduction(ours)
        except BaseException:
            self._finalizer()
            raise
        finally:
            ours.close()

    @property
    def name(self) -> str:
        """The name of the robot."""
        return self._name

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The names of the robot's joints."""
        return self._joint_names

    @property
    def memory_name(self) -> str:
        """The name of the shared memory, by which to check that it is gone."""
        return self._memory.name

    @property
    def report(self) -> GuardReport:
        """The last report of the guard."""
        self._check()
        return GuardReport.decode(self._reports.get())

    def read(self) -> Reading | None:
        """The newest measurement that the guard passed on.

        Raises:
          GuardError: the guard's process is gone.
        """
        return self.report.reading

    def write(self, targets: Targets) -> None:
        """Passes targets on.

        Raises:
          ValueError: they are not finite or not of the robot's shape.
          GuardError: the guard's process is gone, or it has damped the robot for good and these have stiffness.
        """
        checked = Targets(*check_targets(targets, len(self._joint_names)))
        report = self.report
        if report.state == DAMPED and report.clears == self._order.clears and checked.stiffness.any():
            raise GuardError(f"the guard damped the robot: {report.reason}. When that is understood, call clear()")
        sequence = self._order.sequence + 1
        self._send(dataclasses.replace(self._order, stamp=self._clock(), sequence=sequence, targets=checked))

    def clear(self) -> None:
        """The operator's word that targets may be passed on again, from the next on."""
        self._check()
        # Without targets: whatever targets come with this count of clears were written after it.
        self._send(dataclasses.replace(self._order, clears=self._order.clears + 1, targets=None))

    def close(self) -> None:
        """Has the robot damped and closed, ends the process and frees the memory."""
        if self._finalizer.alive and self._process.is_alive():
            self._send(dataclasses.replace(self._order, stop=True))
        self._finalizer()

    def _send(self, order: Order) -> None:
        self._order = order
        self._orders.put(order.encode())

    def _check(self) -> None:
        if not self._finalizer.alive:
            raise GuardError("the guarded robot is closed")
        if not self._process.is_alive():
            raise GuardError(
                f"the guard's process ended with exit code {self._process.exitcode}: damp the robot by hand"
            )


def _shut_down(
    owner: int, process: multiprocessing.process.BaseProcess, memory: shared_memory.SharedMemory, *slots: Slot
) -> None:
    """Ends the guard, which may be about to end by itself, and frees the memory."""
    if os.getpid() != owner:
        return  # a fork of the policy's process ends: the guard is not its own
    if process.pid is not None:
        process.join(0.5)
        if process.is_alive():
            process.terminate()
            process.join(STOP_TIMEOUT)
        if process.is_alive():
            process.kill()
            process.join()
    for slot in slots:
        slot.close()
    memory.close()
    memory.unlink()


def _slots(memory: shared_memory.SharedMemory) -> tuple[Slot, Slot]:
    """The slots for reports and for orders."""
    assert memory.buf is not None  # it is open
    return Slot(memory.buf[: Slot.SIZE]), Slot(memory.buf[Slot.SIZE : 2 * Slot.SIZE])


def _introduction(pipe: multiprocessing.connection.Connection) -> tuple[str, tuple[str, ...]]:
    """The first message: the robot's name and joints."""
    if not pipe.poll(START_TIMEOUT):
        raise GuardError(f"the robot was not there after {START_TIMEOUT:g} s, nothing was started")
    try:
        kind, *rest = pipe.recv()
    except EOFError:
        raise GuardError(
            "the guard's process ended before its robot was made: its output says why. A script that makes a "
            'GuardedRobot must do so below `if __name__ == "__main__":`'
        ) from None
    if kind != "robot":
        raise GuardError(f"the robot could not be made: {rest[0]}")
    name, joint_names = rest
    return name, tuple(joint_names)


def _main(
    make_robot: Callable[[], Robot],
    memory_name: str,
    parent: int,
    timeout: float,
    record: Path | None,
    pipe: multiprocessing.connection.Connection,
) -> None:
    """The entry point of the second process."""
    terminated: list[int] = []

    def terminate(number: int, frame: types.FrameType | None) -> None:
        terminated.append(number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to both; the parent decides
    signal.signal(signal.SIGTERM, terminate)

    def orphaned() -> bool:
        return os.getppid() != parent

    with contextlib.ExitStack() as stack:
        memory = shared_memory.SharedMemory(memory_name)
        stack.callback(_leave, memory, orphaned)
        reports, orders = _slots(memory)
        stack.callback(reports.close)
        stack.callback(orders.close)
        file = stack.enter_context(open(os.devnull if record is None else record, "a", encoding="utf-8"))

        def note(event: str, **what: Any) -> None:
            file.write(json.dumps({"event": event, **what}) + "\n")
            file.flush()

        try:
            robot = make_robot()
        except Exception as error:
            pipe.send(("error", f"{type(error).__name__}: {error}"))
            return
        stack.callback(lambda: note("ended", time=time.monotonic()))
        stack.callback(robot.close)
        with contextlib.suppress(BrokenPipeError):  # the parent died meanwhile, as the first cycle will see
            pipe.send(("robot", robot.name, tuple(robot.joint_names)))
        pipe.close()
        guard = Guard(robot, timeout, note)
        note("started", time=time.monotonic(), process=os.getpid())
        for now in ticks(PERIOD, lambda: bool(terminated), time.monotonic, time.sleep):
            order = Order.decode(orders.get())
            gone = orphaned()
            reports.put(guard.cycle(now, order, gone).encode())
            if order.stop or gone:
                break


def _leave(memory: shared_memory.SharedMemory, orphaned: Callable[[], bool]) -> None:
    """Lets go of the memory, and frees it where the parent no longer can."""
    memory.close()
    if orphaned():
        with contextlib.suppress(FileNotFoundError):  # the parent ended meanwhile and did it
            memory.unlink()
