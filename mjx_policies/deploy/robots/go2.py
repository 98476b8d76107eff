"""The Unitree Go2 over its own network, through `unitree_sdk2py`.

Axes: A joints, in the order FL, FR, RL, RR, each hip, thigh, calf. The motors have another order: FR, FL, RR, RL.
A thread sends at 500 Hz what was written last, and damping when nothing was for `COMMAND_TIMEOUT` or the robot's state
stays away as long. Before each sending the servos' torque is predicted and kept within the motors'. A state that no
torque can be predicted with (NaN, infinity, what no joint does) counts as none. One whose `tick` is that of the one
before is the same one again, so it does not grow younger. A motor that leaves its servo mode ends the run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from mjx_policies.deploy.robot import Reading, Targets
from mjx_policies.deploy.robots import Clock, check_targets, ticks, usable

JOINTS = tuple(f"{leg}_{part}" for leg in ("FL", "FR", "RL", "RR") for part in ("hip", "thigh", "calf"))
MOTORS = tuple(f"{leg}_{part}" for leg in ("FR", "FL", "RR", "RL") for part in ("hip", "thigh", "calf"))
MOTOR_OF_JOINT = np.array([MOTORS.index(name) for name in JOINTS])

# Hard limits in rad of unitreerobotics/unitree_ros go2_description.urdf, and the lowest torques published, in N m.
_FRONT = ((-1.0472, 1.0472), (-1.5708, 3.4907), (-2.7227, -0.83776))
_REAR = ((-1.0472, 1.0472), (-0.5236, 4.5379), (-2.7227, -0.83776))
LOWER, UPPER = np.array(_FRONT * 2 + _REAR * 2).T  # [A], [A]
EFFORT = np.array((23.5, 23.5, 45.0) * 4)  # [A]
MAX_STIFFNESS, MAX_DAMPING = 100.0, 10.0  # of this adapter; stiff standing takes 80 and 5
TOLERANCE = 1e-4  # rad, by which targets may lie beyond a limit: float32 on the way here

PERIOD = 0.002  # s
COMMAND_TIMEOUT = 0.1  # s
DAMPING = 3.0  # N m s / rad, as in the manufacturer's own controllers on exit

HEAD, LEVEL_FLAG, MOTOR_MODE = (0xFE, 0xEF), 0xFF, 0x01
NUM_MOTORS = 20  # in a command; those from 12 on do not exist in a Go2
POSITION_STOP, VELOCITY_STOP = 2.146e9, 16000.0  # "no target", in the SDK's constants
RELEASE_RETRIES = 10


class Sdk(Protocol):
    """The little of `unitree_sdk2py` that is used here."""

    def release(self) -> bool:
        """Whether no service holds the motors; the one that does is asked to lay the robot down and let go."""
        ...

    def subscribe(self, handler: Callable[[Any], None]) -> None:
        """Calls `handler` with each LowState message, from a thread of the SDK's."""
        ...

    def new_command(self) -> Any:
        """An empty LowCmd message."""
        ...

    def publish(self, command: Any) -> None:
        """Fills in the checksum and sends."""
        ...


def connect(interface: str | None = None) -> Go2:
    """A Go2 whose thread runs; see `Go2`."""
    robot = Go2(interface)
    robot.start()
    return robot


class Go2:
    """A Go2 behind the protocol `Robot`. See the module."""

    def __init__(
        self,
        interface: str | None = None,
        *,
        sdk: Sdk | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        """Takes the motors over: the robot must lie on the ground. They are damped until the first write.

        Args:
          interface: network interface to the robot, such as `eth0`; None for the SDK's choice.
          sdk: another way to the robot.
          clock, sleep: in s, the thread's.

        Raises:
          ImportError: `unitree_sdk2py` is not installed.
          RuntimeError: another service keeps the motors.
        """
        self._sdk: Sdk = UnitreeSdk(interface) if sdk is None else sdk
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._reading: Reading | None = None
        self._targets: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._written = -np.inf
        self._failure = self._motor_failure = ""
        self._tick = 0  # of the newest state; 0 from bridges that do not count
        self._served = np.zeros(12, bool)  # [A] motors that have been in their servo mode
        for retry in range(RELEASE_RETRIES):
            if self._sdk.release():
                break
            if retry + 1 < RELEASE_RETRIES:
                sleep(1.0)
        else:
            raise RuntimeError(
                f"another service still holds the Go2's motors after {RELEASE_RETRIES} requests to release them: "
                "switch its sport mode off in the manufacturer's app, and start again"
            )
        self._command = self._new_command()
        self._sdk.subscribe(self._receive)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="go2 writer", daemon=True)

    @property
    def name(self) -> str:
        """The name `go2`."""
        return "go2"

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The names of the joints in the order of `read` and `write`."""
        return JOINTS

    def start(self) -> None:
        """Starts the thread that sends."""
        self._thread.start()

    def read(self) -> Reading | None:
        """The newest measurement, stamped when it arrived.

        Raises:
          RuntimeError: sending failed or a motor left its servo mode, so the robot cannot be controlled.
        """
        self._check()
        if self._motor_failure:  # `write` goes on, for damping
            raise RuntimeError(self._motor_failure)
        return self._reading

    def write(self, targets: Targets) -> None:
        """Has these targets sent from now on.

        Raises:
          ValueError: they are not finite, not of this robot's shape, or beyond a limit. The robot is damped then.
          RuntimeError: sending failed.
        """
        self._check()
        try:
            checked = _check_limits(targets)
        except ValueError:
            with self._lock:
                self._targets = None
            raise
        with self._lock:
            self._targets, self._written = checked, self._clock()

    def close(self) -> None:
        """Ends the thread and leaves the motors with damping as their last command."""
        with self._lock:
            self._targets = None
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for _ in range(10):  # a datagram may be lost
            self.send(self._clock())
            self._sleep(PERIOD)

    def send(self, now: float) -> None:
        """Sends one command; the thread does this at 500 Hz."""
        with self._lock:
            targets, reading = self._targets, self._reading
            if now - self._written > COMMAND_TIMEOUT:
                targets = self._targets = None  # latched: what comes back must be written anew
            if self._motor_failure or reading is None or now - reading.stamp > COMMAND_TIMEOUT:
                targets = None
        position, stiffness, damping = _within_torque(targets, reading)
        for joint, motor in enumerate(MOTOR_OF_JOINT):
            command = self._command.motor_cmd[motor]
            command.q, command.dq, command.tau = float(position[joint]), 0.0, 0.0
            command.kp, command.kd = float(stiffness[joint]), float(damping[joint])
        self._sdk.publish(self._command)

    def _run(self) -> None:
        try:
            for now in ticks(PERIOD, self._stop.is_set, self._clock, self._sleep):
                self.send(now)
        except Exception as error:  # raised again where the runtime calls, which this thread cannot do
            self._failure = f"sending commands to the Go2 failed: {type(error).__name__}: {error}"

    def _check(self) -> None:
        if self._failure:
            raise RuntimeError(self._failure)

    def _receive(self, message: Any) -> None:
        stamp = self._clock()
        tick = int(getattr(message, "tick", 0))
        if tick and tick == self._tick:
            return
        self._tick = tick
        motors = [message.motor_state[i] for i in MOTOR_OF_JOINT]
        self._check_modes(np.array([getattr(motor, "mode", MOTOR_MODE) for motor in motors]))
        values = {
            "gyro": np.array(message.imu_state.gyroscope, np.float64),
            "orientation": np.array(message.imu_state.quaternion, np.float64),  # w, x, y, z
            "joint_position": np.array([motor.q for motor in motors]),
            "joint_velocity": np.array([motor.dq for motor in motors]),
        }
        sequence = 1 if self._reading is None else self._reading.sequence + 1
        self._reading = Reading(stamp, sequence, values)

    def _check_modes(self, modes: np.ndarray) -> None:  # [A]
        """Notes a motor that has stopped to serve while the robot is driven: it would hang limp beside the others."""
        lost = self._served & (modes != MOTOR_MODE)
        if self._targets is not None and lost.any() and not self._motor_failure:
            i = int(np.argmax(lost))
            self._motor_failure = (
                f"the motor of joint {JOINTS[i]} left its servo mode (it reports {modes[i]}, not {MOTOR_MODE}), so the "
                "robot is damped: see in the manufacturer's app what is wrong with it, then start again"
            )
        self._served |= modes == MOTOR_MODE

    def _new_command(self) -> Any:
        command = self._sdk.new_command()
        command.head[0], command.head[1] = HEAD
        command.level_flag = LEVEL_FLAG
        command.gpio = 0
        for i in range(NUM_MOTORS):
            motor = command.motor_cmd[i]
            motor.mode, motor.q, motor.dq = MOTOR_MODE, POSITION_STOP, VELOCITY_STOP
            motor.kp, motor.kd, motor.tau = 0.0, 0.0, 0.0
        return command


def _within_torque(
    targets: tuple[np.ndarray, np.ndarray, np.ndarray] | None, reading: Reading | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # three of [A]
    """Position, stiffness and damping with which no motor's torque is beyond its effort; plain damping without a state.

    A state that is not usable is none. Its numbers must not get into the gains: NaN would send NaN, and a speed without
    bounds would leave no gain at all, a limp joint. Targets that only damp anyway keep the damping that they ask for.
    """
    free = np.full(12, POSITION_STOP)
    if targets is None or reading is None:
        return free, np.zeros(12), np.full(12, DAMPING)
    position, stiffness, damping = targets
    angles, speeds = reading.values["joint_position"], reading.values["joint_velocity"]
    body = np.concatenate([reading.values["gyro"], reading.values["orientation"]])
    if not (usable(angles, speeds) and np.isfinite(body).all()):
        return free, np.zeros(12), np.full(12, DAMPING) if stiffness.any() else damping
    torque = np.abs(stiffness * (position - angles) - damping * speeds)
    share = EFFORT / np.maximum(torque, EFFORT)  # torque is linear in the gains
    return position, stiffness * share, damping * share


def _check_limits(targets: Targets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # three of [A]
    position, stiffness, damping = check_targets(targets, len(JOINTS))
    held = stiffness > 0  # without stiffness a position means nothing
    beyond = held & ((position < LOWER - TOLERANCE) | (position > UPPER + TOLERANCE))
    if beyond.any():
        i = int(np.argmax(beyond))
        raise ValueError(
            f"the target of joint {JOINTS[i]} is {position[i]:.4g} rad, its limits are {LOWER[i]:g} to {UPPER[i]:g}"
        )
    for what, gains, limit in (("stiffness", stiffness, MAX_STIFFNESS), ("damping", damping, MAX_DAMPING)):
        if (gains > limit).any():
            i = int(np.argmax(gains))
            raise ValueError(f"the {what} of joint {JOINTS[i]} is {gains[i]:.4g}, a Go2 is given {limit:g} at most")
    return np.clip(position, LOWER, UPPER), stiffness, damping


class UnitreeSdk:
    """`Sdk` implemented by the manufacturer's library."""

    def __init__(self, interface: str | None = None):
        try:
            from unitree_sdk2py.comm.motion_switcher.motion_switcher_client import MotionSwitcherClient
            from unitree_sdk2py.core.channel import ChannelFactoryInitialize, ChannelPublisher, ChannelSubscriber
            from unitree_sdk2py.go2.sport.sport_client import SportClient
            from unitree_sdk2py.idl.default import unitree_go_msg_dds__LowCmd_
            from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_, LowState_
            from unitree_sdk2py.utils.crc import CRC
        except ImportError as error:
            raise ImportError(
                f"the Go2 needs the package unitree_sdk2py, which cannot be imported here ({error}): "
                "pip install git+https://github.com/unitreerobotics/unitree_sdk2_python"
            ) from error
        if interface is None:
            ChannelFactoryInitialize(0)
        else:
            ChannelFactoryInitialize(0, interface)
        self.new_command = unitree_go_msg_dds__LowCmd_
        self._state_type, self._subscriber_type = LowState_, ChannelSubscriber
        self._checksum = CRC()
        self._publisher = ChannelPublisher("rt/lowcmd", LowCmd_)
        self._publisher.Init()
        self._switcher, self._sport = MotionSwitcherClient(), SportClient()
        for client in (self._switcher, self._sport):
            client.SetTimeout(5.0)
            client.Init()

    def release(self) -> bool:
        """See `Sdk`."""
        code, mode = self._switcher.CheckMode()
        if code == 0 and not mode["name"]:
            return True
        self._sport.StandDown()
        self._switcher.ReleaseMode()
        return False

    def subscribe(self, handler: Callable[[Any], None]) -> None:
        """See `Sdk`."""
        self._subscriber = self._subscriber_type("rt/lowstate", self._state_type)
        self._subscriber.Init(handler, 10)

    def publish(self, command: Any) -> None:
        """See `Sdk`."""
        command.crc = self._checksum.Crc(command)
        self._publisher.Write(command)
