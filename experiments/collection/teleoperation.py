"""Demonstrations by hand: a person moves the robot with keys or a gamepad, and keeps the episodes that are good.

The simulated robot lives at the rate of control: a step of an episode is one control period exactly, whenever the
computer gets round to it, and how late it was is reported. Nothing moves between episodes, so nobody is in a hurry.

    session = Session(make_teleop_task(task, make_action_mapping(task)), writer, "FrankaPickCube", seed=0)
    run(session, read_keys, update)

Axes: D axes of motion, A actions, T steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.compiler import compiler_options
from mjx_policies.data.episodes import Episode, NotFiniteError
from mjx_policies.data.formats import EpisodeWriter
from mjx_policies.envs.base import DynamicsSampler, Env, EnvState, Nominal
from mjx_policies.envs.teleoperation import ActionMapping
from mjx_policies.errors import UserError
from mjx_policies.experiments.collection.rollouts import TAIL_SECONDS
from mjx_policies.types import Array, TimeStep

MOVES = {
    **{"w": (0, 1), "s": (0, -1), "a": (1, 1), "d": (1, -1), "r": (2, 1), "f": (2, -1)},
    **{"z": (3, 1), "c": (3, -1), "t": (4, 1), "g": (4, -1), "q": (5, 1), "e": (5, -1)},
}
"""Key: which axis of motion, in which direction."""

HELP = (
    "W S forward and back, A D left and right, R F up and down, Q E yaw, T G pitch, Z C roll, = - faster and slower; "
    "space: gripper; enter: begin, then save; backspace: discard; U: take back the last one saved; X: quit"
)
HOLD = 0.2  # s, for which a press moves the hand; a key that is held repeats sooner than that
SMOOTHING = 0.1  # s, in which a velocity comes up to what is wanted
SPEEDS = (0.1, 0.2, 0.35, 0.6, 1.0)  # portions of the highest
LATE = 0.2  # of a period, from which on a step counts as a deadline that was missed
MAX_SECONDS = 600.0  # of one episode, which is in memory until it is saved
_NOMINAL = Nominal()


class TeleopDevice:
    """A teleoperation device: the motion wanted by a person who presses keys and pushes sticks.

    Args:
      mapping: how the task's robot is moved.
      control_dt: s, one period.

    Attributes:
      sticks: [D] in -1..1.
      velocity: [D] that is wanted.
      closed: whether the gripper is to be closed.
    """

    def __init__(self, mapping: ActionMapping, control_dt: float):
        self._highest = np.array([motion.highest for motion in mapping.motions])
        self._gripper, self._dt = mapping.gripper, control_dt
        self._level = 1
        self.sticks = np.zeros(len(self._highest))
        self.rest()

    @property
    def speed(self) -> float:
        """Portion of the highest speed."""
        return SPEEDS[self._level]

    def rest(self) -> None:
        """Asks for no motion, and for an open gripper."""
        self.velocity, self.closed = np.zeros(len(self._highest)), False
        self._left = np.zeros((len(self._highest), 2))  # [D, 2] s, for which a press still holds, backward and forward

    def press(self, key: str) -> bool:
        """Takes a key, and says whether it knows it."""
        if key in MOVES and MOVES[key][0] < len(self._highest):
            axis, sign = MOVES[key]
            self._left[axis, int(sign > 0)] = HOLD
            self._left[axis, int(sign < 0)] = 0.0
        elif key == " " and self._gripper:
            self.closed = not self.closed
        elif key in ("=", "+", "-"):
            self._level = int(np.clip(self._level + (-1 if key == "-" else 1), 0, len(SPEEDS) - 1))
        else:
            return False
        return True

    def next_velocity(self) -> np.ndarray:  # [D]
        """The velocity one period on."""
        held = self._left > 1e-9
        wanted = np.clip(held[:, 1] - 1.0 * held[:, 0] + self.sticks, -1.0, 1.0) * self.speed * self._highest
        self._left = np.maximum(self._left - self._dt, 0.0)
        self.velocity = self.velocity + (wanted - self.velocity) * min(1.0, self._dt / SMOOTHING)
        self.velocity[np.abs(self.velocity) < 1e-3 * self._highest] = 0.0
        return self.velocity


class TeleopTask(NamedTuple):
    """A task whose robot is moved by hand, compiled.

    Attributes:
      task, mapping: see `make_teleop_task`.
      reset: `key -> (state, timestep)`.
      advance: `(state, velocity [D], closed []) -> (state, timestep, action [A])`, one control period on.
    """

    task: Env
    mapping: ActionMapping
    reset: Callable[[Array], tuple[EnvState, TimeStep]]
    advance: Callable[[EnvState, Array, Array], tuple[EnvState, TimeStep, Array]]


def make_teleop_task(task: Env, mapping: ActionMapping, dynamics: DynamicsSampler = _NOMINAL) -> TeleopTask:
    """Compiles a task to be moved by hand.

    Args:
      task: without wrappers, with stages, the last of which is success.
      mapping: how its robot is moved.
      dynamics: draws the robot of each episode.
    """

    def reset(key: Array) -> tuple[EnvState, TimeStep]:
        key_dynamics, key_reset = jax.random.split(key)
        return task.reset(key_reset, dynamics(key_dynamics).dynamics)

    def advance(state: EnvState, velocity: Array, closed: Array) -> tuple[EnvState, TimeStep, Array]:
        action = mapping.action(state, velocity, closed)
        state, timestep = task.step(state, action)
        return state, timestep, action

    options = compiler_options(runs_once=True)  # one robot: what costs time is the compilation
    reset, advance = (jax.jit(each, compiler_options=options) for each in (reset, advance))
    state, _ = reset(jax.random.key(0))
    jax.block_until_ready(advance(state, jnp.zeros(len(mapping.motions)), jnp.zeros(())))
    return TeleopTask(task, mapping, reset, advance)


def deadline_misses(delays: Sequence[float], control_dt: float) -> int:
    """The number of late steps of an episode, from the delay [T] s of each."""
    return sum(delay > LATE * control_dt for delay in delays)


class Session:
    """A teleoperation session: one robot, and episodes one after the other.

    Args:
      compiled: see `make_teleop_task`.
      writer: where episodes go.
      name: of the task.
      seed: of the first initial state; each further one has the next.
      operator: who acts, kept as the strategy of each episode.

    Attributes:
      phase: `ready` to begin, `recording`, or `over`, to be saved or discarded.
      state: of the environment.
      timestep: the last.
      device: what is wanted.
      delays: [T] s by which each step was late, of each episode saved in this session.
      note: what happened last, a sentence.
    """

    def __init__(self, compiled: TeleopTask, writer: EpisodeWriter, name: str, seed: int, operator: str = ""):
        self.task, self.name, self.operator = compiled.task, name, operator
        self.control_dt = self.task.spec.control_dt
        self.device = TeleopDevice(compiled.mapping, self.control_dt)
        self._compiled, self._writer = compiled, writer
        self.delays: list[Sequence[float]] = []
        self.note = ""
        self.phase: Literal["ready", "recording", "over"]
        self.state: EnvState
        self.timestep: TimeStep
        self._steps: list[tuple[dict[str, np.ndarray], np.ndarray, float, float]]  # observation, action, reward, delay
        self._begin_anew(seed)

    @property
    def seconds(self) -> float:
        """Duration of the episode so far."""
        return len(self._steps) * self.control_dt

    @property
    def success(self) -> bool:
        """Whether the task has been solved in this episode."""
        return bool(self.timestep.metrics["success"] > 0.5)

    @property
    def saved(self) -> int:
        """The number of episodes in the dataset."""
        return len(self._writer)

    def press(self, key: str) -> None:
        """Takes a key, see `HELP`."""
        if key == "enter" and self.phase == "ready":
            self.device.rest()  # what was pressed before moves nothing
            self.phase, self.note = "recording", "recording"
        elif key in ("enter", "backspace", "u"):
            {"enter": self._save, "backspace": self._discard, "u": self._undo}[key]()
        elif key != " " or self.phase == "recording":  # what is not recorded must not move
            self.device.press(key)

    def tick(self, late: float = 0.0) -> None:
        """Advances an episode, if one goes on, by a control period; `late` s after it was due."""
        if self.phase != "recording":
            return
        wanted = (self.device.next_velocity(), self.device.closed)
        before = jax.device_get(self.timestep.obs)
        advance = self._compiled.advance
        self.state, self.timestep, action = advance(self.state, *(jnp.asarray(each, jnp.float32) for each in wanted))
        self._steps.append((before, np.asarray(action), float(self.timestep.reward), late))
        self._after_success += self.success
        verdict = ""
        if self.timestep.terminated:
            verdict = "the task is lost: backspace discards, enter saves a failure"
        elif self._after_success > round(TAIL_SECONDS / self.control_dt):
            verdict = "solved: enter saves, backspace discards"
        elif self.seconds >= MAX_SECONDS:
            verdict = "the episode is as long as one may be: enter saves, backspace discards"
        if verdict:
            self.phase, self.note = "over", verdict

    def _save(self) -> None:
        if not self._steps:
            self.note = "nothing has happened yet: there is nothing to save"
            return
        observations, actions, rewards, delays = zip(*self._steps, strict=True)
        try:
            episode = Episode(
                observation={name: np.stack([row[name] for row in observations]) for name in observations[0]},
                action=np.stack(actions),
                reward=np.asarray(rewards, np.float32),
                terminated=bool(self.timestep.terminated),
                success=self.success,
                task=self.name,
                fps=1 / self.control_dt,
                final_observation=jax.device_get(self.timestep.obs),
                seed=self._seed,
                strategy=self.operator,
            )
        except NotFiniteError as error:  # the simulation diverged
            self.note = f"{error} Such an episode cannot be saved: backspace discards it"
            return
        number = self._writer.add(episode)
        self.delays.append(delays)
        kind = "success" if episode.success else "failure"
        late = deadline_misses(delays, self.control_dt)
        self.note = f"saved episode {number}, a {kind} of {self.seconds:.1f} s, {late} steps late"
        self._begin_anew(self._seed + 1)

    def _discard(self) -> None:
        if self.phase == "ready":
            self.note = "there is nothing to discard; this is another initial state"
        else:
            self.note = f"discarded {self.seconds:.1f} s"
        self._begin_anew(self._seed + 1)

    def _undo(self) -> None:
        if self.phase != "ready":
            self.note = "save or discard this episode first"
            return
        try:
            self._writer.remove_last()
        except UserError as error:
            self.note = str(error)
            return
        self.delays = self.delays[:-1]
        self.note = f"took back the last episode; {self.saved} are left"

    def _begin_anew(self, seed: int) -> None:
        self.state, self.timestep = self._compiled.reset(jax.random.key(seed))
        self.phase, self._steps = "ready", []
        self.device.rest()
        self._seed = seed
        self._after_success = 0  # steps


def run(
    session: Session,
    read: Callable[[], Iterable[str]],
    update: Callable[[Session], bool] = lambda session: True,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], Any] = time.sleep,
) -> None:
    """Runs a session until a person quits.

    A step that is late is not caught up with by hurrying: a person could not follow.

    Args:
      session: see `Session`.
      read: the keys pressed since it was called last.
      update: shows how things are, and says whether there is still somebody to see it.
      clock, sleep: s.
    """
    due = clock()
    while True:
        began = clock()
        for key in read():
            if key == "x":
                return
            session.press(key)
        session.tick(max(0.0, began - due))
        if not update(session):
            return
        due = max(due, began) + session.control_dt
        sleep(max(0.0, due - clock()))
