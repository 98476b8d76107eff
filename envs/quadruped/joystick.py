"""A quadruped follows velocity commands, on flat or rough ground.

Control at 50 Hz through joint position servos. The policy senses what the robot can: gyroscope, direction of gravity,
joint encoders, its last action, the command, and a clock for the gait. Diagonal legs swing in turns, as in a trot,
unless the command is zero. The policy never sees its own velocity, which a real Go2 does not measure.
An episode terminates in a fall, and is truncated where a robot walks off the tiles of rough ground.
Axes: J joints (12), F feet (4), S physics substeps.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.draws import draw_uniform
from mjx_policies.envs.base import EnvSpec, restart, transition
from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.envs.quadruped.robot import SOFT_LIMIT, foot_contacts, joint_limits, spawn, trunk_contact
from mjx_policies.envs.quadruped.scenes import ACTUATORS, LEGS, Terrain
from mjx_policies.envs.quadruped.sensing import trunk_motion
from mjx_policies.envs.sensors import read_sensor
from mjx_policies.spec import CommandRange, GaitClock, Term
from mjx_policies.types import Array, TimeStep, actuator_targets, assemble

CONTROL_DT = 0.02
ACTION_SCALE = 0.5  # rad

# Noise and bias are those of consumer IMUs and joint encoders, as legged_gym and its descendants use them.
OBSERVATION = (
    Term("gyro", 3, unit="rad/s", frame="imu", kind="pseudovector", scale=0.25, noise=0.2, bias=0.02),
    Term("gravity", 3, unit="1", frame="imu", kind="vector", noise=0.05, bias=0.01),
    Term("joint_position", 12, unit="rad", frame="relative to the default pose", kind="joints", noise=0.01, bias=0.02),
    Term("joint_velocity", 12, unit="rad/s", kind="joints", scale=0.05, noise=1.0),
    Term("last_action", 12, unit="1", kind="joints", measured=False),
    Term("command", 3, unit="m/s, m/s, rad/s", frame="base", kind="planar_twist", measured=False),
    Term("gait", 2, unit="1", frame="cosine and sine of the phase, zero while standing", kind="gait", measured=False),
)

PRIVILEGED = (
    Term("linear_velocity", 3, unit="m/s", frame="imu", kind="vector"),
    Term("height", 1, unit="m", frame="above the ground"),
    Term("foot_contact", 4, unit="1", kind="feet"),
    Term("foot_height", 4, unit="m", frame="above the ground", kind="feet", scale=5.0),
    Term("foot_air_time", 4, unit="s", kind="feet"),
)


@struct.dataclass
class Commands:
    """Ranges that velocity commands are drawn from, anew every few seconds.

    Attributes:
      low, high: [3] forward and leftward velocity (m/s) and yaw rate (rad/s).
      stand: probability of the zero command: stand still.
      seconds: [2] shortest and longest time until the next draw.
    """

    low: Array = struct.field(default_factory=lambda: jnp.asarray([-0.8, -0.5, -1.0]))
    high: Array = struct.field(default_factory=lambda: jnp.asarray([1.2, 0.5, 1.0]))
    stand: Array = struct.field(default_factory=lambda: jnp.asarray(0.1))
    seconds: Array = struct.field(default_factory=lambda: jnp.asarray([3.0, 8.0]))


def command_ranges(commands: Commands) -> tuple[CommandRange, ...]:
    """The ranges as an operator reads them."""
    names = (("forward", "m/s"), ("left", "m/s"), ("turn", "rad/s"))
    return tuple(
        CommandRange(name, unit, round(float(low), 6), round(float(high), 6))  # of float32
        for (name, unit), low, high in zip(names, commands.low, commands.high, strict=True)
    )


def new_command(uniform: Array, commands: Commands) -> tuple[Array, Array]:  # [5] in [0, 1)
    """A command [3] and the number of control steps [] it holds."""
    twist = commands.low + (commands.high - commands.low) * uniform[:3]
    seconds = commands.seconds[0] + (commands.seconds[1] - commands.seconds[0]) * uniform[3]
    stand = uniform[4] < commands.stand
    return jnp.where(stand, 0.0, twist), jnp.ceil(seconds / CONTROL_DT).astype(jnp.int32)


@struct.dataclass
class JoystickWeights:
    """Reward per second for one unit of each term of `reward_terms`."""

    track_linear: float = 1.5
    track_yaw: float = 0.8
    linear_error: float = -1.0
    vertical_velocity: float = -1.0
    roll_pitch_rate: float = -0.05
    tilt: float = -2.0
    height: float = -20.0
    posture: float = -0.3
    torque: float = -1e-4
    action_rate: float = -0.01
    joint_limit: float = -1.0
    gait: float = 1.5  # with half of it some seeds shuffle, and fall in one episode of six
    slip: float = -0.3
    stand_still: float = -0.5
    fall: float = -300.0


@struct.dataclass
class JoystickState:
    """The state of an episode under command.

    Attributes:
      data: physics.
      dynamics: replaced model fields of this episode.
      key: random key of the commands to come.
      command: [3] forward and leftward velocity (m/s), yaw rate (rad/s), in the base frame.
      command_steps: [] int32, control steps left until the next command.
      command_age: [] int32, control steps since the command last changed.
      last_action: [J] the action before this one.
      air_time: [F] seconds since each foot left the ground, zero in contact.
      phase: [] of the gait, 0..1.
    """

    data: Data
    dynamics: Dynamics
    key: Array
    command: Array
    command_steps: Array
    command_age: Array
    last_action: Array
    air_time: Array
    phase: Array


@struct.dataclass
class Go2Joystick:
    """The task of walking as commanded. Build it with `envs.load`.

    Attributes:
      weights, commands: numbers of the task.
      difficulty: [] 0..1, the roughest ground a robot is placed on; unused on flat ground.
      physics, spec, terrain: static.
    """

    weights: JoystickWeights
    commands: Commands
    difficulty: Array
    physics: Physics = struct.field(pytree_node=False)
    spec: EnvSpec = struct.field(pytree_node=False)
    terrain: Terrain | None = struct.field(pytree_node=False)

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[JoystickState, TimeStep]:
        """Stands the robot on the ground, slightly disturbed, facing anywhere."""
        uniform, key_spawn, key_next = draw_uniform(key, 6, num_keys=2)
        qpos, qvel = spawn(key_spawn, self.physics.model, self.terrain, self.difficulty)
        command, command_steps = new_command(uniform[:5], self.commands)
        state = JoystickState(
            data=self.physics.init(qpos, qvel, dynamics),
            dynamics=dynamics,
            key=key_next,
            command=command,
            command_steps=command_steps,
            command_age=jnp.asarray(BRAKING_STEPS, jnp.int32),  # it stands already
            last_action=jnp.zeros(len(ACTUATORS)),
            air_time=jnp.zeros(len(LEGS)),
            phase=jnp.where(uniform[5] < 0.5, 0.5, 0.0),
        )
        return state, restart(self._observe(state, self._measure(state.data)), dict.fromkeys(METRICS, jnp.zeros(())))

    def step(self, state: JoystickState, action: Array, applied: Array | None = None):
        """See `Env.step`."""
        rows = jnp.broadcast_to(action, (self.physics.substeps, len(ACTUATORS))) if applied is None else applied
        data = self.physics.step(state.data, actuator_targets(self.spec.action, rows), state.dynamics)
        now = self._measure(data)
        terms = reward_terms(self, state, now, data, action)
        rewards = {name: getattr(self.weights, name) * term for name, term in terms.items()}
        reward = sum(rewards.values()) * CONTROL_DT
        fell = terms["fall"] > 0
        stepping = steps_out(state)

        uniform, key_next = draw_uniform(state.key, 5)
        command, command_steps = new_command(uniform, self.commands)
        redraw = state.command_steps <= 1
        command = jnp.where(redraw, command, state.command)
        changed = jnp.any(command != state.command)
        known = terms | {f"reward/{name}": value for name, value in rewards.items()}
        known["standing_speed"] = jnp.where(stepping, jnp.nan, jnp.linalg.norm(now["velocity"][:2]))
        metrics = {name: known[name] for name in METRICS}
        state = dataclasses.replace(
            state,
            data=data,
            key=key_next,
            command=command,
            command_steps=jnp.where(redraw, command_steps, state.command_steps - 1),
            command_age=jnp.where(changed, 0, state.command_age + 1),  # a stand after a stand changes nothing
            last_action=action,
            air_time=jnp.where(now["contact"], 0.0, state.air_time + CONTROL_DT),
            phase=jnp.where(stepping, (state.phase + GAIT.hz * CONTROL_DT) % 1.0, state.phase),
        )
        return state, transition(self._observe(state, now), reward, fell, metrics, now["outside"])

    def hold(self, state: JoystickState) -> Array:
        """See `Env.hold`: the default pose, in which a controller stands the robot before its policy runs."""
        return jnp.zeros(len(ACTUATORS))

    def data(self, state: JoystickState) -> Data:
        """See `Env.data`."""
        return state.data

    def replace_data(self, state: JoystickState, data: Data) -> JoystickState:
        """See `Env.replace_data`."""
        return dataclasses.replace(state, data=data)

    def _measure(self, data: Data) -> dict[str, Array]:
        """Measures what observation and reward share."""
        model = self.physics.model

        def read(name):
            return read_sensor(model, data.sensordata, name)

        trunk = trunk_motion(model, data)
        position = trunk.position
        feet = jnp.stack([read(f"{leg}_foot_pos") for leg in LEGS])  # [F, 3]
        ground = jnp.zeros(()) if self.terrain is None else self.terrain.height(position[:2])
        ground_feet = jnp.zeros(4) if self.terrain is None else jax.vmap(self.terrain.height)(feet[:, :2])
        return {
            "gyro": trunk.gyro,
            "gravity": trunk.gravity,
            "velocity": trunk.velocity,
            "height": position[2] - ground,
            "contact": foot_contacts(model, data.sensordata),
            "foot_height": feet[:, 2] - ground_feet,
            "foot_speed": jnp.stack([jnp.linalg.norm(read(f"{leg}_foot_linvel")[:2]) for leg in LEGS]),
            "trunk_contact": trunk_contact(model, data.sensordata),
            "outside": jnp.zeros((), bool) if self.terrain is None else ~self.terrain.inside(position[:2]),
        }

    def _observe(self, state: JoystickState, now: dict[str, Array]) -> dict[str, Array]:
        table = self.spec.action
        angle = 2 * jnp.pi * state.phase
        sensed = {
            "gyro": now["gyro"],
            "gravity": now["gravity"],
            "joint_position": state.data.qpos[7:] - jnp.asarray(table.default),
            "joint_velocity": state.data.qvel[6:],
            "last_action": state.last_action,
            "command": state.command,
            "gait": jnp.where(steps_out(state), jnp.stack([jnp.cos(angle), jnp.sin(angle)]), 0.0),
        }
        privileged = {
            "linear_velocity": now["velocity"],
            "height": now["height"][None],
            "foot_contact": now["contact"],
            "foot_height": now["foot_height"],
            "foot_air_time": state.air_time,
        }
        return {"state": assemble(OBSERVATION, sensed), "privileged": assemble(PRIVILEGED, privileged)}


REWARDS = tuple(field.name for field in dataclasses.fields(JoystickWeights))
METRICS = ("track_linear", "track_yaw", "standing_speed", *(f"reward/{name}" for name in REWARDS))
NOMINAL_HEIGHT = 0.32  # m, of the imu above the ground
FOOT_RADIUS = 0.022  # m
GAIT = GaitClock(hz=3.0, braking_seconds=1.0)  # steps of each leg; how long a robot told to stand may still step
BRAKING_STEPS = round(GAIT.braking_seconds / CONTROL_DT)
SWING_HEIGHT = 0.07  # m
SIGMA = 0.25  # (m/s)^2 and (rad/s)^2, the width of the tracking terms that the field has settled on


def steps_out(state: JoystickState) -> Array:  # -> [] bool
    """Whether the robot should step: it is told to move, or was a moment ago. Stopping dead from a trot fells it."""
    return jnp.any(state.command != 0) | (state.command_age < BRAKING_STEPS)


def swing_height(phase: Array, stepping: Array) -> Array:  # [], [] -> [F]
    """Height (m) that each foot's centre should have: half a sine while it swings, on the ground while it stands."""
    offset = jnp.asarray([0.0, 0.5, 0.5, 0.0])  # diagonal legs together
    lift = SWING_HEIGHT * jnp.maximum(jnp.sin(2 * jnp.pi * (phase + offset)), 0.0)
    return FOOT_RADIUS + jnp.where(stepping, lift, 0.0)


def reward_terms(task: Go2Joystick, state: JoystickState, now, data: Data, action: Array):
    """The terms of the reward, each a scalar; `JoystickWeights` holds their weights."""
    command, velocity, gyro, contact = state.command, now["velocity"], now["gyro"], now["contact"]
    stepping = steps_out(state)
    joints = data.qpos[7:]
    lower, upper = joint_limits(task.physics.model, SOFT_LIMIT)
    excess = jnp.maximum(joints - upper, 0) + jnp.maximum(lower - joints, 0)
    from_home = joints - jnp.asarray(task.physics.model.key("home").qpos[7:], jnp.float32)
    fell = now["trunk_contact"] | (now["gravity"][2] > -0.5)
    return {
        "track_linear": jnp.exp(-jnp.sum(jnp.square(command[:2] - velocity[:2])) / SIGMA),
        "track_yaw": jnp.exp(-jnp.square(command[2] - gyro[2]) / SIGMA),
        "linear_error": jnp.sqrt(jnp.sum(jnp.square(command[:2] - velocity[:2])) + 1e-6),
        "vertical_velocity": jnp.square(velocity[2]),
        "roll_pitch_rate": jnp.sum(jnp.square(gyro[:2])),
        "tilt": jnp.sum(jnp.square(now["gravity"][:2])),
        "height": jnp.square(now["height"] - NOMINAL_HEIGHT),
        "posture": jnp.sum(jnp.square(from_home)),
        "torque": jnp.sum(jnp.square(data.actuator_force)),
        "action_rate": jnp.sum(jnp.square(action - state.last_action)),
        "joint_limit": jnp.sum(excess),
        "gait": 1 - jnp.sum(jnp.abs(now["foot_height"] - swing_height(state.phase, stepping))) / SWING_HEIGHT,
        "slip": jnp.sum(jnp.where(contact, jnp.square(now["foot_speed"]), 0.0)),
        "stand_still": jnp.where(stepping, 0.0, jnp.sum(jnp.abs(from_home))),
        "fall": jnp.where(fell, 1.0, 0.0),
    }
