"""A robot in MuJoCo's C engine, with the faults that real ones have. Axes: A joints, in the order of `joint_names`.

Needs the package `mujoco` and nothing else of this library. What goes wrong is drawn from a seed: two robots in
lock-step that are told the same do the same.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import mujoco
import numpy as np

from mjx_policies.deploy.robot import Reading, Targets
from mjx_policies.deploy.robots import Clock, check_targets, ticks

COMMAND_TIMEOUT = 0.1  # s without a write, after which motor drivers damp by themselves
DAMPING = 3.0  # N m s / rad, with which they do
MAX_LAG = 0.1  # s that the thread may catch up in a burst; beyond that it skips
MAX_DETOUR = 0.05  # s
SENSORS = ("gyro", "orientation")
ORDERS = ("true", "shuffled", "lying")


@dataclasses.dataclass(frozen=True)
class Faults:
    """Faults of the simulated robot. The defaults: nothing.

    Attributes:
      observation_latency, observation_jitter: s from a measurement to its arrival, and the width of a uniform addition.
      action_latency, action_jitter: s from a write to the motors, likewise.
      noise, bias: by value, half-widths of uniform errors drawn for each measurement, and once for all.
      drop_readings, drop_writes: probability that one is lost.
      freeze: measurements go on with new stamps, but their values stay as they were.
      reorder: probability that a measurement takes a detour of up to `MAX_DETOUR`, behind later ones.
      joint_order: `true`; `shuffled`, another order, and `joint_names` tells; `lying`, another one than `joint_names`
        tells, for values and targets.
      broken: by value, what its first entry reads, such as nan or inf.
      strength: by joint, the share that its motor makes of the torque it is told to, and of the most it has.
    """

    observation_latency: float = 0.0
    observation_jitter: float = 0.0
    action_latency: float = 0.0
    action_jitter: float = 0.0
    noise: Mapping[str, float] = dataclasses.field(default_factory=dict)
    bias: Mapping[str, float] = dataclasses.field(default_factory=dict)
    drop_readings: float = 0.0
    drop_writes: float = 0.0
    freeze: bool = False
    reorder: float = 0.0
    joint_order: str = "true"
    broken: Mapping[str, float] = dataclasses.field(default_factory=dict)
    strength: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("observation_latency", "observation_jitter", "action_latency", "action_jitter"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"Faults.{name} is {getattr(self, name)}, it must be a time in s, at least 0")
        for name in ("drop_readings", "drop_writes", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Faults.{name} is {getattr(self, name)}, it must be a probability")
        for name, value in self.strength.items():
            if not 0 <= value < np.inf:
                raise ValueError(f"Faults.strength of {name} is {value}, it must be a share of a torque, at least 0")
        if self.joint_order not in ORDERS:
            raise ValueError(f"Faults.joint_order is {self.joint_order!r}, it must be one of {', '.join(ORDERS)}")


NO_FAULTS = Faults()


@dataclasses.dataclass(frozen=True)
class Push:
    """A push: a force on a body.

    Attributes:
      start: s, on the simulation's clock.
      seconds: how long.
      force: [3] N, in the world's frame.
      body: its name; empty for the first body of the model.
    """

    start: float
    seconds: float
    force: tuple[float, float, float]
    body: str = ""


class SimulatedRobot:
    """A simulated `Robot`. Damped until the first write, and when none came for `COMMAND_TIMEOUT`.

    A servo's torque is stiffness * (target - angle) - damping * velocity, within the model's `forcerange`. It is set up
    as the gains of a position actuator, so that the integrator may treat its damping implicitly.

    Either call `advance`, in lock-step: time is then the simulation's own. Or `start` a thread that keeps up with
    `clock`. `time` tells which time it is in both cases, on the clock of readings' stamps.

    Attributes:
      data: of the engine; to be read only while the thread runs.
      pushes: forces to come; may be replaced at any time.
      skipped: s of real time that the thread did not simulate because it was too late.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        joint_names: Sequence[str] | None = None,
        name: str = "go2",
        *,
        faults: Faults = NO_FAULTS,
        pushes: Sequence[Push] = (),
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        seed: int = 0,
    ):
        """Places the robot in the keyframe `home`, or as the model has it where there is none.

        Args:
          model: is copied.
          joint_names: actuators of the model, in the order in which this robot has its joints; None for all of them in
            the model's order. Any other actuator stays without force.
          name: of the robot.
          faults: may be replaced later, also while it runs, through the attribute of that name.
          pushes: see above.
          clock, sleep: of the thread.
          seed: of all that is random.

        Raises:
          ValueError: a joint name that is no actuator or comes twice, or an actuator that is no servo of one joint.
        """
        self._name = name
        self._model = copy.copy(model)
        self._clock, self._sleep = clock, sleep
        self._actuators = _actuators(model, joint_names)
        self._names = tuple(model.actuator(i).name for i in self._actuators)
        joints = model.actuator_trnid[self._actuators, 0]
        self._angles, self._speeds = model.jnt_qposadr[joints], model.jnt_dofadr[joints]
        self._sensors = {}
        for sensor in SENSORS:
            i = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SENSOR, sensor)
            if i >= 0:
                start = model.sensor_adr[i]
                self._sensors[sensor] = slice(start, start + model.sensor_dim[i])
        self._lock = threading.RLock()
        self.data = mujoco.MjData(self._model)
        self._sizes = {name: value.size for name, value in self.sense().items()}

        self._random = np.random.default_rng(seed)
        self._biases = {value: self._random.uniform(-1, 1, size) for value, size in self._sizes.items()}
        self._shuffle = self._random.permutation(len(self._names))
        if len(self._names) > 1 and (self._shuffle == np.arange(len(self._names))).all():
            self._shuffle = np.roll(self._shuffle, 1)  # a fault that changes nothing would be none
        self.pushes = tuple(pushes)
        self._forcerange, self._strength = model.actuator_forcerange[self._actuators], np.ones(model.nu)
        self.faults = faults

        self._model.actuator_gaintype[:] = mujoco.mjtGain.mjGAIN_FIXED
        self._model.actuator_biastype[:] = mujoco.mjtBias.mjBIAS_AFFINE
        self._model.actuator_gainprm[:] = 0
        self._model.actuator_biasprm[:] = 0
        self._model.actuator_ctrllimited[:] = 0  # motors do not know the joints' ranges
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.reset()

    @property
    def name(self) -> str:
        """The name of the robot."""
        return self._name

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the joints, in the order of `read` and `write`."""
        if self._faults.joint_order == "shuffled":
            return tuple(self._names[i] for i in self._shuffle)
        return self._names

    @property
    def faults(self) -> Faults:
        """The faults from now on."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        for kind in ("noise", "bias", "broken"):
            for value in getattr(faults, kind):
                if value not in self._sizes:
                    raise ValueError(f"Faults.{kind} names {value!r}, this robot reads {', '.join(self._sizes)}")
        if unknown := sorted(set(faults.strength) - set(self._names)):
            raise ValueError(f"Faults.strength names {unknown[0]!r}, this robot has {', '.join(self._names)}")
        strength = np.array([faults.strength.get(name, 1.0) for name in self._names])
        with self._lock:
            self._model.actuator_forcerange[self._actuators] = self._forcerange * strength[:, None]
            self._strength[self._actuators] = strength  # of the gains from the next targets on
            self._faults = faults

    @property
    def damped(self) -> bool:
        """Whether no servo has stiffness, whoever decided that."""
        return not self._model.actuator_gainprm[:, 0].any()

    @property
    def watchdog(self) -> bool:
        """Whether the motors damp by themselves for want of a write."""
        return self._watchdog

    def time(self) -> float:
        """The time of now, s, on the clock of the stamps."""
        return self.data.time if self._thread is None else self._clock()

    def coordinates(self) -> np.ndarray:  # [nq]
        """The coordinates of one moment, also while the thread runs."""
        with self._lock:
            return self.data.qpos.copy()

    def sense(self) -> dict[str, np.ndarray]:
        """The exact measurements of this moment: a reading's values without faults."""
        with self._lock:
            return {
                **{sensor: self.data.sensordata[part].copy() for sensor, part in self._sensors.items()},
                "joint_position": self.data.qpos[self._angles],
                "joint_velocity": self.data.qvel[self._speeds],
            }

    def reset(self, qpos: np.ndarray | None = None, qvel: np.ndarray | None = None) -> None:
        """Starts over, at time 0 and damped.

        Args:
          qpos: [nq] pose, None for the one at construction.
          qvel: [nv] velocity, None for the same.
        """
        with self._lock:
            if self._thread is not None:
                raise RuntimeError("the simulated robot runs in its thread: close it before it is reset")
            home = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_KEY, "home")
            if home >= 0:
                mujoco.mj_resetDataKeyframe(self._model, self.data, home)
            else:
                mujoco.mj_resetData(self._model, self.data)
            self.data.time = 0.0
            self.data.ctrl[:] = 0
            if qpos is not None:
                self.data.qpos[:] = qpos
            if qvel is not None:
                self.data.qvel[:] = qvel
            mujoco.mj_forward(self._model, self.data)
            self.skipped = 0.0
            self._steps, self._owed = 0, 0.0
            self._sequence = 0
            self._frozen: dict[str, np.ndarray] | None = None
            self._newest: Reading | None = None
            self._under_way: list[tuple[float, Reading]] = []  # to the runtime
            self._writes: collections.deque[tuple[float, Targets]] = collections.deque()  # to the motors
            self._last_write = self.data.time
            self._watchdog = True
            self._damp()

    def advance(self, seconds: float) -> None:
        """Simulates that long; what is less than a time step is left to the next call."""
        if self._thread is not None:
            raise RuntimeError("the simulated robot runs in its thread: advance is for lock-step use")
        self._simulate(seconds, self.data.time)

    def start(self) -> None:
        """Simulates in real time from now on, in a thread."""
        if self._thread is not None:
            raise RuntimeError("the simulated robot runs already")
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="simulated robot", daemon=True)
        self._thread.start()

    def read(self) -> Reading | None:
        """The newest that arrived, or what arrived last where the faults change the order."""
        with self._lock:
            now = self.time()
            arrived = [entry for entry in self._under_way if entry[0] <= now]
            if arrived:
                self._under_way = [entry for entry in self._under_way if entry[0] > now]
                self._newest = sorted(arrived, key=lambda entry: entry[0])[-1][1]
            return self._newest

    def write(self, targets: Targets) -> None:
        """Sends targets.

        Raises:
          ValueError: they are not finite or not of this robot's shape; it damps then.
        """
        with self._lock:
            try:
                checked = check_targets(targets, len(self._names))
            except ValueError:
                self._writes.clear()
                self._damp()
                raise
            if self._random.random() < self._faults.drop_writes:
                return
            delay = self._faults.action_latency + self._random.uniform(0, self._faults.action_jitter)
            self._writes.append((self.time() + delay, Targets(*checked)))
            if delay == 0:
                self._obey(self.time())

    def close(self) -> None:
        """Ends the thread, if any, and damps."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            self._writes.clear()
            self._damp()

    def _run(self) -> None:
        last = self._clock()
        for now in ticks(self._model.opt.timestep, self._stop.is_set, self._clock, self._sleep):
            self._catch_up(now - last, now)
            last = now

    def _catch_up(self, elapsed: float, now: float) -> None:
        """Simulates what passed, or skips what is too much to catch up with."""
        if elapsed > MAX_LAG:
            self.skipped += elapsed - MAX_LAG
            elapsed = MAX_LAG
        self._simulate(elapsed, now - elapsed)

    def _simulate(self, seconds: float, begin: float) -> None:
        """Steps; `begin` is the time at which `seconds` start, on the clock of the stamps."""
        dt = self._model.opt.timestep
        lock_step = self._thread is None
        self._owed += seconds
        count = int(self._owed / dt + 1e-6)
        self._owed -= count * dt
        for i in range(count):
            with self._lock:
                self._obey(self.data.time if lock_step else begin + i * dt)
                self._drive()
                self.data.xfrc_applied[:] = 0
                for push in self.pushes:
                    if push.start <= self.data.time < push.start + push.seconds:
                        body = self._model.body(push.body).id if push.body else 1
                        self.data.xfrc_applied[body, :3] += push.force
                mujoco.mj_step(self._model, self.data)
                self._steps += 1
                self.data.time = self._steps * dt  # a sum would drift away from the caller's clock
                mujoco.mj_forward(self._model, self.data)  # or sensors would be of before the step
                self._measure(self.data.time if lock_step else begin + (i + 1) * dt)

    def _obey(self, now: float) -> None:
        """Gives the motors what arrived for them, and damps if that was long ago."""
        due = [entry for entry in self._writes if entry[0] <= now + 1e-9]
        if due:
            self._writes = collections.deque(entry for entry in self._writes if entry[0] > now + 1e-9)
            arrival, targets = sorted(due, key=lambda entry: entry[0])[-1]
            self._last_write, self._watchdog = arrival, False
            order = self._actuators
            if self._faults.joint_order != "true":
                order = order[self._shuffle]
            self._aim(order, targets.position)
            self._set_gains(order, targets.stiffness, targets.damping)
        elif not self._watchdog and now - self._last_write > COMMAND_TIMEOUT:
            self._watchdog = True
            self._damp()

    def _aim(self, actuators: np.ndarray, position: np.ndarray) -> None:
        """Tells the servos where to be: at once, unless the robot's own loop makes a way of it."""
        self.data.ctrl[actuators] = position

    def _drive(self) -> None:
        """The work of the robot's own loop before each time step."""

    def _damp(self) -> None:
        self._set_gains(self._actuators, np.zeros(len(self._names)), np.full(len(self._names), DAMPING))

    def _set_gains(self, actuators: np.ndarray, stiffness: np.ndarray, damping: np.ndarray) -> None:
        stiffness, damping = self._strength[actuators] * stiffness, self._strength[actuators] * damping
        self._model.actuator_gainprm[actuators, 0] = stiffness
        self._model.actuator_biasprm[actuators, 1] = -stiffness
        self._model.actuator_biasprm[actuators, 2] = -damping

    def _measure(self, stamp: float) -> None:
        """Puts what the sensors say on its way."""
        faults, random = self._faults, self._random
        true = self.sense()
        if faults.freeze:
            self._frozen = true if self._frozen is None else self._frozen
            values = dict(self._frozen)
        else:
            self._frozen = None
            values = true
        for name, value in values.items():
            width, bias = faults.noise.get(name, 0.0), faults.bias.get(name, 0.0)
            if not faults.freeze:
                value = value + random.uniform(-1, 1, value.shape) * width + self._biases[name] * bias
                if name.endswith("orientation"):
                    value /= np.linalg.norm(value)
            if name.startswith("joint_") and faults.joint_order != "true":
                value = value[self._shuffle]
            if name in faults.broken:
                value = value.copy()
                value[0] = faults.broken[name]
            value.flags.writeable = False
            values[name] = value
        self._sequence += 1
        reading = Reading(stamp, self._sequence, values)
        arrival = stamp + faults.observation_latency + random.uniform(0, faults.observation_jitter)
        detour = random.uniform(0, MAX_DETOUR)
        lost, late = random.random() < faults.drop_readings, random.random() < faults.reorder
        if not lost:
            self._under_way.append((arrival + detour * late, reading))


def _actuators(model: mujoco.MjModel, joint_names: Sequence[str] | None) -> np.ndarray:  # [A]
    """Ids of the actuators that drive the joints."""
    known = [model.actuator(i).name for i in range(model.nu)]
    names = known if joint_names is None else list(joint_names)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"joint_names is {names}: it must name each joint once")
    for name in names:
        if name not in known:
            raise ValueError(f"the model has no actuator {name!r}; it has {', '.join(known)}")
        i = known.index(name)
        if model.actuator_trntype[i] != mujoco.mjtTrn.mjTRN_JOINT:
            raise ValueError(f"actuator {name!r} does not drive a joint, so it cannot be a servo")
        if model.actuator_dyntype[i] != mujoco.mjtDyn.mjDYN_NONE or model.actuator_gear[i, 0] != 1:
            raise ValueError(f"actuator {name!r} has dynamics or a gear, a servo here has neither")
    return np.array([known.index(name) for name in names])
