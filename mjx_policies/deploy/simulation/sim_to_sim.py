"""A policy file against robots it has not met, in MuJoCo alone: what separates it from hardware, one thing at a time.

A robot here is MuJoCo's C engine behind the `Robot` protocol, driven by the same controller as a real one; nothing of
the training environments takes part. Most conditions go up to `MARGIN` times as far from the model as the preset `go2`
of training does, which every policy must bear. Those that go farther count for policies that were trained for it, see
`GateCondition.covered`. Axes: T control steps, A joints, F feet.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from mjx_policies.deploy.contract import Contract
from mjx_policies.deploy.controller import Controller, Mode, Request
from mjx_policies.deploy.policy import ExportedPolicy
from mjx_policies.deploy.simulation.robot import NO_FAULTS, Faults, Push, SimulatedRobot

SIGMA = 0.25  # (m/s)^2 and (rad/s)^2, as in training
FALLEN = 0.5  # of the trunk's up axis along the world's: tilted by 60 degrees
HOLD = (3.0, 8.0)  # s, shortest and longest time that a command holds
STAND = 0.1  # probability of the command to stand still
TRUNK = 1  # the first body after the world
FLOOR = "sim_to_sim_floor"
SENSORS = ("gyro", "orientation", "local_linvel")  # the last tells how fast it is
ITERATIONS = (100, 50)  # at most, of the constraint solver and its line search: contacts are solved to the end
LEGS = ("FL", "FR", "RL", "RR")
SLOPE = math.radians(6.0)
WEAK = 0.6  # of a motor's torque
PAYLOAD = (3.0, 5.0)  # kg
MARGIN = 2.0  # of deviations from the model, over those of training
ACROSS = 9.81 * math.sin(SLOPE)  # m/s^2, of gravity along the floor
STAND_WITHIN = 10.0  # s
SETTLE = 1.0  # s after a change of the command that do not count as standing still


@dataclasses.dataclass(frozen=True)
class GateCondition:
    """A way in which robots differ from the model.

    Attributes:
      about: one line for people.
      change: alters a model in place.
      faults: draws what is wrong with sensors, motors and links.
      pushes: draws forces on the trunk, given the seconds of the episode and the robot's mass.
      beyond: of a condition that goes far, by name of a randomization term: the lowest and highest values that it has,
        of each axis or of all.
    """

    about: str
    change: Callable[[mujoco.MjModel, np.random.Generator], None] = lambda model, random: None
    faults: Callable[[np.random.Generator], Faults] = lambda random: NO_FAULTS
    pushes: Callable[[np.random.Generator, float, float], tuple[Push, ...]] = lambda random, seconds, mass: ()
    beyond: Mapping[str, tuple[ArrayLike, ArrayLike]] = dataclasses.field(default_factory=dict)

    def covered(self, contract: Contract) -> bool:
        """Whether training, by the contract, went at least 1 / `MARGIN` as far from the model as this does."""
        drawn = {entry.name: entry for entry in contract.randomization}
        for name, (low, high) in self.beyond.items():
            if name not in drawn or drawn[name].operation == "set":  # which does not tell where the model lies
                return False
            model = 1.0 if drawn[name].operation == "scale" else 0.0
            reach = model + MARGIN * (np.array([drawn[name].low, drawn[name].high]) - model)
            if np.any(low < reach[0] - 1e-6) or np.any(high > reach[1] + 1e-6):  # of rounding
                return False
        return True


def change_mass(model: mujoco.MjModel, random: np.random.Generator) -> None:
    """Every link off by 15 %, and up to 3 kg on the trunk, 3 cm off centre."""
    factor = random.uniform(0.85, 1.15, model.nbody)
    model.body_mass *= factor
    model.body_inertia *= factor[:, None]
    model.body_mass[TRUNK] += random.uniform(-1.0, 3.0)
    model.body_ipos[TRUNK] += random.uniform(-0.03, 0.03, 3)
    mujoco.mj_setConst(model, mujoco.MjData(model))


def change_friction(model: mujoco.MjModel, random: np.random.Generator) -> None:
    """Everything slides at 0.35 to 1.4."""
    model.geom_friction[:, 0] = random.uniform(0.35, 1.4)


def change_motors(model: mujoco.MjModel, random: np.random.Generator) -> None:
    """Weaker by up to a fifth, with other friction, damping and rotors in each joint."""
    joints = model.actuator_trnid[:, 0]
    dofs = model.jnt_dofadr[joints]
    model.actuator_forcerange *= random.uniform(0.8, 1.0, (model.nu, 1))
    model.dof_damping[dofs] *= random.uniform(0.3, 4.0, model.nu)
    model.dof_frictionloss[dofs] *= random.uniform(0.0, 2.0, model.nu)
    model.dof_armature[dofs] *= random.uniform(0.8, 3.0, model.nu)
    mujoco.mj_setConst(model, mujoco.MjData(model))


def change_solver(model: mujoco.MjModel, random: np.random.Generator) -> None:
    """Other time steps, integrators, friction cones, solvers and contact stiffness."""
    option = model.opt
    option.timestep = random.choice([0.001, 0.002, 0.004])
    option.integrator = random.choice([mujoco.mjtIntegrator.mjINT_IMPLICITFAST, mujoco.mjtIntegrator.mjINT_IMPLICIT])
    option.cone = random.choice([mujoco.mjtCone.mjCONE_PYRAMIDAL, mujoco.mjtCone.mjCONE_ELLIPTIC])
    option.solver = random.choice([mujoco.mjtSolver.mjSOL_NEWTON, mujoco.mjtSolver.mjSOL_CG])
    model.geom_solref[:, 0] = random.uniform(0.01, 0.04)


def draw_latency(random: np.random.Generator) -> Faults:
    """Measurements up to 10 ms late, commands up to 20 ms, both with jitter, a few lost."""
    return Faults(
        observation_latency=random.uniform(0.0, 0.01),
        observation_jitter=0.004,
        action_latency=random.uniform(0.0, 0.02),
        action_jitter=0.004,
        drop_readings=0.02,
    )


def draw_noise(random: np.random.Generator) -> Faults:
    """Twice the noise and bias of consumer sensors."""
    del random
    return Faults(
        noise={"gyro": 0.4, "orientation": 0.05, "joint_position": 0.02, "joint_velocity": 2.0},
        bias={"gyro": 0.04, "orientation": 0.01, "joint_position": 0.04},
    )


def draw_pushes(random: np.random.Generator, seconds: float, mass: float) -> tuple[Push, ...]:
    """Every 3 s a tenth of a second that changes the trunk's velocity by up to 0.5 m/s."""
    found = []
    for start in np.arange(2.0, seconds, 3.0):
        angle, change = random.uniform(-np.pi, np.pi), random.uniform(0.2, 0.5)
        force = mass * change / 0.1
        found.append(Push(float(start), 0.1, (force * np.cos(angle), force * np.sin(angle), 0.0)))
    return tuple(found)


def change_payload(model: mujoco.MjModel, random: np.random.Generator) -> None:
    """3 to 5 kg on the trunk, 3 cm off centre."""
    model.body_mass[TRUNK] += random.uniform(*PAYLOAD)
    model.body_ipos[TRUNK] += random.uniform(-0.03, 0.03, 3)
    mujoco.mj_setConst(model, mujoco.MjData(model))


def change_slope(model: mujoco.MjModel, random: np.random.Generator) -> None:
    """A floor that rises by 6 degrees in any direction; the robot begins on it as it would on a level one."""
    direction, tilt = random.uniform(-np.pi, np.pi), np.zeros(4)
    mujoco.mju_axisAngle2Quat(tilt, np.array([np.cos(direction), np.sin(direction), 0.0]), SLOPE)
    model.geom_sameframe[model.geom(FLOOR).id] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE  # or its quat would go unread
    for quat in (model.geom(FLOOR).quat, *model.key_qpos[:, 3:7], *model.qpos0[None, 3:7]):
        mujoco.mju_mulQuat(quat, tilt, quat.copy())
    for place in (*model.key_qpos[:, :3], model.qpos0[:3]):
        mujoco.mju_rotVecQuat(place, place.copy(), tilt)


def draw_weak_leg(random: np.random.Generator) -> Faults:
    """One leg whose three motors make 60 % of the torque they are told to, and of their most."""
    leg = str(random.choice(LEGS))
    return Faults(strength={f"{leg}_{part}": WEAK for part in ("hip", "thigh", "calf")})


def change_combined(model: mujoco.MjModel, random: np.random.Generator) -> None:
    """Changes mass, friction, motors and solver together."""
    for change in (change_mass, change_friction, change_motors, change_solver):
        change(model, random)


CONDITIONS = {
    "nominal": GateCondition("the model itself"),
    "mass": GateCondition("links 15 % off, -1 to 3 kg on the trunk, 3 cm off centre", change_mass),
    "friction": GateCondition("0.35 to 1.4", change_friction),
    "motors": GateCondition("up to 20 % weaker, other damping, friction and rotors", change_motors),
    "latency": GateCondition("10 ms in, 20 ms out, jitter, 2 % lost", faults=draw_latency),
    "noise": GateCondition("twice what training had", faults=draw_noise),
    "pushes": GateCondition("up to 0.5 m/s every 3 s", pushes=draw_pushes),
    "solver": GateCondition("1 to 4 ms, other integrators, cones, solvers, contacts", change_solver),
    "combined": GateCondition("mass, friction, motors, solver and latency at once", change_combined, draw_latency),
    "payload": GateCondition("3 to 5 kg on the trunk, 3 cm off centre", change_payload, beyond={"payload": PAYLOAD}),
    "slope": GateCondition(
        "floor tilted by 6 degrees in any direction",
        change_slope,
        beyond={"gravity": ((-ACROSS, -ACROSS, 0.0), (ACROSS, ACROSS, 0.0))},
    ),
    "weak_leg": GateCondition(
        "one leg with 60 % of its torque", faults=draw_weak_leg, beyond={"strength": (WEAK, 1.0), "kp": (WEAK, 1.0)}
    ),
}


@dataclasses.dataclass(frozen=True)
class GateEpisode:
    """An episode of one robot, from lying still: it stands up before it is commanded.

    It failed if it fell (see `has_fallen`) or if the controller stopped it, which it does before most falls: its limit
    of tilt is a little less than 60 degrees. Whichever came first ended the episode.

    Attributes:
      fallen: whether it fell.
      fault: sentence of the controller that stopped it, empty if none did.
      fault_name: kind of the fault, such as `tilt`; empty likewise.
      track_linear, track_yaw: means of exp(-error^2 / 0.25) from the first command to the end, 0 if there was none.
      standing_speed: m/s when told to stand, after a second; NaN if it never was.
      qpos: [T, nq].
      targets, angles: [T, A] rad.
      contacts: [T, F] bool.
      commands, velocities: [T, 3] m/s, m/s, rad/s.
    """

    fallen: bool
    fault: str
    fault_name: str
    track_linear: float
    track_yaw: float
    standing_speed: float
    qpos: np.ndarray
    targets: np.ndarray
    angles: np.ndarray
    contacts: np.ndarray
    commands: np.ndarray
    velocities: np.ndarray

    @property
    def failed(self) -> bool:
        """Whether it fell or was stopped."""
        return self.fallen or bool(self.fault)


class Scene:
    """A model with a floor, whose contacts are solved to the end.

    Args:
      path: MJCF of a robot with a free base, actuators as `SimulatedRobot` needs them, and the sensors `SENSORS`.

    Raises:
      ValueError: MuJoCo does not read it, or it lacks a sensor.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            spec = mujoco.MjSpec.from_file(str(path))
            spec.worldbody.add_geom(
                name=FLOOR, type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1], contype=0, conaffinity=1
            )
            # Training saves on the solver. Three iterations throw one robot in a hundred up while it only stands.
            spec.option.iterations, spec.option.ls_iterations = ITERATIONS
            self.model = spec.compile()
        except ValueError as error:
            raise ValueError(f"{path} is no model that MuJoCo reads: {error}") from None
        sensors = {self.model.sensor(i).name for i in range(self.model.nsensor)}
        if absent := [name for name in SENSORS if name not in sensors]:
            raise ValueError(f"{path} has no sensor {', '.join(absent)}: the robot and its speed are read from it.")
        self.floor = self.model.geom(FLOOR).id
        self.feet = [i for i in range(self.model.ngeom) if self.model.geom(i).name.endswith("foot")]

    def robot(self, contract: Contract, **options: Any) -> SimulatedRobot:
        """The robot of a policy, with the time step of its training; see `SimulatedRobot` for options.

        Raises:
          ValueError: the model lacks a joint of the policy.
        """
        model = copy.copy(self.model)
        model.opt.timestep = contract.timing.physics_dt
        try:
            return SimulatedRobot(model, contract.joint_names, contract.robot.name, **options)
        except ValueError as error:
            raise ValueError(f"the policy does not drive {self.path}: {error}") from None


def run_episode(
    policy: ExportedPolicy, scene: Scene, condition: GateCondition, seconds: float, seed: int
) -> GateEpisode:
    """Stands a robot up, then lets it follow random commands.

    Args:
      policy: what drives it.
      scene: the nominal robot.
      condition: how this one differs.
      seconds: after it stands.
      seed: of all that is random.
    """
    contract = policy.contract
    random = np.random.default_rng(seed)
    changed = copy.copy(scene.model)
    changed.opt.timestep = contract.timing.physics_dt
    condition.change(changed, random)
    mass = float(changed.body_mass.sum())
    robot = SimulatedRobot(changed, contract.joint_names, contract.robot.name, seed=seed)
    robot.faults = condition.faults(random)
    controller = Controller(policy, robot.joint_names, clock=robot.time)  # however busy this computer is
    dt = contract.timing.control_dt
    command = np.zeros(3)
    rows: list[tuple[Any, ...]] = []

    def tick(age: float, request: str | None = None) -> bool:
        """Runs one period with a command of this age (s, NaN before there are any); whether the robot has fallen."""
        output = controller.tick(robot.time(), robot.read(), command, request)
        robot.write(output.targets)
        robot.advance(dt)
        data = robot.data
        touching = touching_floor(data, scene.floor)
        velocity = np.array([*data.sensor("local_linvel").data[:2], data.sensor("gyro").data[2]])
        angles = output.values.get("joint_position", np.full(len(output.target), np.nan))
        rows.append((data.qpos.copy(), output.target.copy(), angles, touching[scene.feet], command, velocity, age))
        return has_fallen(data, touching)

    def fault() -> tuple[str, str]:
        return ("", "") if controller.fault is None else (controller.fault.name, controller.fault.sentence)

    robot.advance(dt)
    while controller.mode is not Mode.RUN and robot.time() < STAND_WITHIN:
        tick(math.nan, Request.STAND if controller.mode is Mode.IDLE else Request.RUN)
        if controller.mode is Mode.FAULT:
            break
    if controller.mode is not Mode.RUN:
        robot.close()
        sentence = f"it did not stand within {STAND_WITHIN:g} s: check that the model is that of the policy's robot."
        return _episode(rows, False, fault() if controller.fault else ("stand", sentence))
    started = robot.time()
    robot.pushes = tuple(
        dataclasses.replace(push, start=push.start + started) for push in condition.pushes(random, seconds, mass)
    )
    low, high = np.array([[c.low, c.high] for c in contract.commands]).T
    until, age, fallen = 0.0, 0.0, False
    for step in range(round(seconds / dt)):
        if fallen or controller.mode is Mode.FAULT:
            break
        if step * dt >= until:
            until += random.uniform(*HOLD)
            command = random.uniform(low, high) * (random.random() >= STAND)
            age = 0.0
        fallen = tick(age)
        age += dt
    robot.close()
    return _episode(rows, fallen, fault())


def _episode(rows: list[tuple[Any, ...]], fallen: bool, fault: tuple[str, str]) -> GateEpisode:
    """An episode of its steps: qpos, targets, angles, contacts, commands, velocities, age of the command in s."""
    qpos, targets, angles, contacts, commands, velocities, ages = map(np.array, zip(*rows, strict=True))
    counted = ~np.isnan(ages)
    error = np.square(commands - velocities)[counted]
    standing = (commands == 0).all(axis=1) & (ages > SETTLE)
    speed = np.linalg.norm(velocities[standing, :2], axis=1)
    return GateEpisode(
        fallen=fallen,
        fault=fault[1],
        fault_name=fault[0],
        track_linear=float(np.exp(-error[:, :2].sum(axis=1) / SIGMA).mean()) if counted.any() else 0.0,
        track_yaw=float(np.exp(-error[:, 2] / SIGMA).mean()) if counted.any() else 0.0,
        standing_speed=float(speed.mean()) if speed.size else float("nan"),
        qpos=qpos,
        targets=targets,
        angles=angles,
        contacts=contacts,
        commands=commands,
        velocities=velocities,
    )


def has_fallen(data: mujoco.MjData, touching: np.ndarray) -> bool:  # [ngeom] bool
    """The one rule of training, evaluation and this gate.

    A robot has fallen where any geometry of its trunk's body touches the floor, the head too, or where the trunk is
    tilted by more than 60 degrees.

    Args:
      data: of the robot, whose trunk is the first body.
      touching: which geometries touch the floor.
    """
    return bool(data.xmat[TRUNK, 8] < FALLEN or touching[data.model.geom_bodyid == TRUNK].any())


def touching_floor(data: mujoco.MjData, floor: int) -> np.ndarray:  # -> [ngeom] bool
    """The geometries that touch the geometry `floor`."""
    found = np.zeros(data.model.ngeom, bool)
    pairs = data.contact.geom
    found[pairs[(pairs == floor).any(axis=1)].ravel()] = True
    return found
