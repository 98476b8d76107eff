"""Records demonstrations by hand: python experiments/record_demos.py --task FrankaPickCube --out demos/by-hand

Keys of the terminal or of MuJoCo's viewer, which opens where there is a screen, move the robot's hand; so does
a gamepad, with --gamepad /dev/input/js0.

| | |
|---|---|
| W S, A D, R F | forward and back, left and right, up and down |
| Q E, T G, Z C | yaw, pitch, roll |
| = - | faster, slower |
| space | gripper |
| enter | begin an episode, then save it |
| backspace | discard it |
| U | take back the last one saved |
| X | quit |

A press moves the hand for a fifth of a second, a key that is held moves it on. Half a second after the task was solved
an episode waits to be saved. Each is on the disk as soon as it is, also if it is a failure, which the dataset says.
`--resume --out OUT` adds to a dataset of this script; a file of robomimic is finished by quitting, and only one whose
session was killed goes on. Figures and a picture lie in OUT.about in the end.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import mujoco
import numpy as np
from rich.console import Console

from mjx_policies.data.formats import WritableFormat, read
from mjx_policies.data.paths import about
from mjx_policies.envs.franka.actions import ActionName
from mjx_policies.envs.registry import load, scene
from mjx_policies.envs.teleoperation import make_handle
from mjx_policies.experiments.collection import demonstration_files
from mjx_policies.experiments.collection.collect import SEEDS, check_seed
from mjx_policies.experiments.collection.demonstration_files import (
    check_same,
    dataset_path,
    open_writer,
    prepare,
    robots,
    show,
)
from mjx_policies.experiments.collection.input import gamepad, glfw_key, terminal
from mjx_policies.experiments.collection.teleoperation import HELP, Pilot, Session, make_robot, run
from mjx_policies.experiments.screen import has_screen
from mjx_policies.training import config
from mjx_policies.training.config import may_change
from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.files import read_json, write_json
from mjx_policies.training.preemption import Preemption, exit_code
from mjx_policies.training.progress import open_console
from mjx_policies.types import table_slices

FILE = "session.json"  # what a dataset was begun with
Read = Callable[[Pilot], Iterable[str]]


@dataclasses.dataclass(frozen=True)
class Record:
    """Records demonstrations by hand."""

    task: str  # of a Franka, or Obstacle2D
    out: str = may_change("")  # folder, for robomimic a file that ends in .hdf5; empty: demos/TASK
    format: WritableFormat = "lerobot"  # of the dataset
    actions: ActionName | None = None  # what is recorded, for the tasks of an arm; None: what the task chose
    randomize: float = 0.0  # times the ranges of the robot's preset of masses, friction, motors; 0: as the model says
    seed: int = 0  # of the starts; a dataset that goes on has those after its last
    operator: str = may_change("")  # who acts, kept as the strategy of each episode
    gamepad: str = may_change("")  # such as /dev/input/js0
    resume: bool = may_change(False)  # add to the dataset in OUT; what is not given is as it was

    def __post_init__(self) -> None:
        if not 0 <= self.randomize < np.inf:
            raise ValueError(f"randomize is {self.randomize}, it must be a number from 0 on.")

    @property
    def path(self) -> Path:
        """Of the dataset."""
        return dataset_path(self.out, self.task, self.format)


def parse(arguments: Sequence[str] | None = None) -> Record:
    """Reads the command line; with --resume, what it leaves out is as it was.

    Raises:
      UserError: there is no dataset that was begun by this script.
    """
    return demonstration_files.parse(Record, FILE, read_begun, __doc__, arguments)


def read_begun(path: Path) -> Record:
    """What a dataset was begun with.

    Raises:
      UserError: nobody knows.
    """
    return config.from_json(Record, read_json(about(path) / FILE))


def main(asked: Record, keys: Read | None = None) -> None:
    """Records until the person quits.

    Args:
      asked: what is recorded.
      keys: presses them in place of a person.
    """
    jax.config.update("jax_platforms", "cpu")  # one robot runs fastest on the C engine
    check_seed(asked.seed)
    console = open_console()
    if asked.resume:
        check_same(asked.path, read_begun(asked.path), asked)
    with contextlib.ExitStack() as stack:
        with clean_errors(ValueError):
            task = load(asked.task, "cpu", 1, asked.actions)
            handle = make_handle(task)
            dynamics = robots(task, asked.randomize)
        prepare(asked.path, asked.format, asked.resume, FILE)
        window = stack.enter_context(Window.opened(asked.task)) if keys is None and has_screen() else None
        read_keys = keys or stack.enter_context(reader(asked, len(handle.motions), window))
        writer = stack.enter_context(open_writer(asked.path, asked.format, task.spec, asked.resume))
        kept = dataclasses.replace(asked, out=str(asked.path), resume=False)
        write_json(about(asked.path) / FILE, config.to_json(kept))
        before = len(writer)
        with console.status("compiling") if console.is_terminal else contextlib.nullcontext():
            robot = make_robot(task, handle, dynamics)
        session = Session(robot, writer, asked.task, first_seed(asked, before), asked.operator)
        console.print(HELP, highlight=False)
        preemption = stack.enter_context(Preemption())
        status = stack.enter_context(Status(console))

        def look(session: Session) -> bool:
            status.update(session)
            return preemption.requested is None and (window is None or window.update(session))

        run(session, read_keys, look)
        writer.close()
    added = len(writer) - before
    late = sum(each.steps for each in session.lateness)
    worst = max((each.worst for each in session.lateness), default=0.0)
    console.print(
        f"{asked.path}: {len(writer):,} episodes, {added:+,} in this session; "
        f"{late:,} of their steps were late, {1e3 * worst:.0f} ms at worst",
        highlight=False,
    )
    if len(writer):
        show(asked.path, task, f"{asked.task}: demonstrations by hand", console)
        console.print(f"figures and picture in {about(asked.path)}")
    if preemption.requested is not None:
        raise SystemExit(exit_code(preemption.requested))


def first_seed(asked: Record, episodes: int) -> int:
    """The one after that of the last episode."""
    last = read(asked.path)[-1].seed if episodes else None
    return asked.seed * SEEDS if last is None else last + 1


@contextlib.contextmanager
def reader(asked: Record, axes: int, window: Window | None) -> Iterator[Read]:
    """Every source of keys that there is.

    Raises:
      UserError: there is none.
    """
    with contextlib.ExitStack() as stack:
        pad = stack.enter_context(gamepad(Path(asked.gamepad), axes)) if asked.gamepad else None
        try:
            typed = stack.enter_context(terminal())
        except UserError:
            if pad is None and window is None:
                raise
            typed = None

        def read_keys(pilot: Pilot) -> list[str]:
            pressed = [] if window is None else window.read()
            if typed is not None:
                pressed += typed.read()
            if pad is not None:
                pressed += pad.read()
                pilot.sticks = pad.sticks
            return pressed

        yield read_keys


class Status:
    """How a session goes: one line that changes in a terminal, a line for each event elsewhere."""

    def __init__(self, console: Console):
        self._console = console
        self._line = console.status("") if console.is_terminal else contextlib.nullcontext()
        self._note = ""

    def __enter__(self) -> Status:
        self._line.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._line.__exit__(*error)

    def update(self, session: Session) -> None:
        """Shows it."""
        if session.note != self._note:
            self._note = session.note
            self._console.print(session.note, highlight=False)
        if self._console.is_terminal:
            self._line.update(status_line(session))


def status_line(session: Session) -> str:
    """For a terminal: where things are tells a person without a screen what to do."""
    pilot, task = session.pilot, session.task
    stages = [name for name in task.spec.stages if session.timestep.metrics[f"stage/{name}"] > 0.5]
    parts = [f"{session.phase} {session.seconds:.1f} s", " ".join(stages)]
    state, slices = np.asarray(session.timestep.obs["state"]), table_slices(task.spec.observation)
    for term in task.spec.observation:
        if term.unit == "m" and 1 < term.size <= 3:
            values = " ".join(f"{value:+.2f}" for value in state[slices[term.name]] / term.scale)
            parts.append(f"{term.name.removesuffix('_position')} {values}")
    parts += ["closed" if pilot.closed else "", f"speed {pilot.speed:.0%}", f"{session.saved:,} saved"]
    return "   ".join(part for part in parts if part)


class Window:
    """MuJoCo's viewer, which also hears keys."""

    def __init__(self, model: mujoco.MjModel):
        self._model, self._data = model, mujoco.MjData(model)
        self._pressed: collections.deque[str] = collections.deque()
        self._viewer: Any = None
        self._shown: Any = None

    @classmethod
    @contextlib.contextmanager
    def opened(cls, task: str) -> Iterator[Window]:
        """Opens it.

        Raises:
          UserError: it does not open.
        """
        from mujoco.viewer import launch_passive  # loads a graphics library

        window = cls(scene(task))
        try:
            viewer = launch_passive(
                window._model,
                window._data,
                key_callback=lambda code: window._pressed.append(glfw_key(code)),
                show_left_ui=False,
                show_right_ui=False,
            )
        except RuntimeError as error:  # macOS
            raise UserError(f"the viewer does not open ({error}): start with mjpython.") from None
        with viewer:
            window._viewer = viewer
            window._shown = np.array(viewer.opt.flags), np.array(viewer.opt.geomgroup)
            yield window

    def read(self) -> list[str]:
        """The keys since the last call; the viewer presses them on its own thread."""
        return [self._pressed.popleft() for _ in range(len(self._pressed))]

    def update(self, session: Session) -> bool:
        """Shows the robot, and says whether the window is still open."""
        viewer = self._viewer
        if not viewer.is_running():
            return False
        data = session.task.data(session.state)
        with viewer.lock():
            self._data.qpos[:], self._data.mocap_pos[:] = data.qpos, data.mocap_pos
            self._data.mocap_quat[:] = data.mocap_quat
            mujoco.mj_forward(self._model, self._data)
            viewer.opt.flags[:], viewer.opt.geomgroup[:] = self._shown  # our keys are also the viewer's
        viewer.sync()
        return True


if __name__ == "__main__":
    with clean_errors(ValueError):
        chosen = parse()
    with clean_errors():
        main(chosen)
