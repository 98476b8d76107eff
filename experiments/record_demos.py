"""Records demonstrations by hand: python experiments/record_demos.py --task FrankaPickCube --out demos/by-hand

Keys of the terminal or of MuJoCo's viewer, which opens where there is a display, move the robot's hand; so does
a gamepad, with --gamepad /dev/input/js0. W S, A D, R F: forward and back, left and right, up and down; Q E, T G, Z C:
yaw, pitch, roll; = -: faster, slower; space: gripper; enter: begin an episode, then save it; backspace: discard it;
U: take back the last one saved; X: quit.

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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import jax
import mujoco
import numpy as np

from mjx_policies.data.formats import read
from mjx_policies.data.paths import about
from mjx_policies.envs.registry import load, scene
from mjx_policies.envs.teleoperation import make_action_mapping
from mjx_policies.errors import UserError
from mjx_policies.experiments.collection.collect import SEEDS
from mjx_policies.experiments.collection.demonstration_files import (
    DatasetConfig,
    open_dataset,
    parse,
    randomized_dynamics,
    show,
)
from mjx_policies.experiments.collection.input import Gamepad, gamepad, glfw_key, terminal
from mjx_policies.experiments.collection.teleoperation import HELP, Session, deadline_misses, make_teleop_task, run
from mjx_policies.experiments.display import has_display, open_viewer
from mjx_policies.spec import table_slices
from mjx_policies.training.config import may_change
from mjx_policies.training.preemption import Preemption, exit_code
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors

Keys = Callable[[], Iterable[str]]
Update = Callable[[Session], bool]


@dataclasses.dataclass(frozen=True)
class Record(DatasetConfig):
    """Records demonstrations by hand."""

    FILE: ClassVar[str] = "session.json"

    task: str  # task name: one of a Franka, or Obstacle2D
    operator: str = may_change("")  # name of the operator, stored as the strategy of each episode
    gamepad: str = may_change("")  # device of a gamepad, such as /dev/input/js0


def main(asked: Record, keys: Keys | None = None) -> None:
    """Records until the person quits.

    Args:
      asked: what is recorded.
      keys: presses them in place of a person.
    """
    jax.config.update("jax_platforms", "cpu")  # one robot runs fastest on the C engine
    console = open_console()
    with clean_errors(ValueError):
        task = load(asked.task, "cpu", 1, asked.actions)
        mapping = make_action_mapping(task)
        dynamics = randomized_dynamics(task, asked.randomize)
    with open_dataset(asked, task.spec) as writer, contextlib.ExitStack() as stack:
        updates: list[Update] = []
        pad = None
        if keys is None:
            keys, pad = stack.enter_context(devices(asked, len(mapping.motions), updates))
        before = len(writer)
        with console.status("compiling"):
            compiled = make_teleop_task(task, mapping, dynamics)
        last = read(asked.path)[-1].seed if before else None
        seed = asked.seed * SEEDS if last is None else last + 1
        session = Session(compiled, writer, asked.task, seed, asked.operator)
        if pad is not None:
            session.device.sticks = pad.sticks
        console.print(HELP, highlight=False)
        preemption = stack.enter_context(Preemption())
        line, told = stack.enter_context(console.status("")), ""

        def update(session: Session) -> bool:
            nonlocal told
            if session.note != told:
                told = session.note
                console.print(told, highlight=False)
            line.update(status_line(session))  # which a terminal alone displays
            return all([shows(session) for shows in updates]) and preemption.requested is None

        run(session, keys, update)
    added = len(writer) - before
    late = sum(deadline_misses(delays, session.control_dt) for delays in session.delays)
    worst = max(map(max, session.delays), default=0.0)
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


@contextlib.contextmanager
def devices(asked: Record, axes: int, updates: list[Update]) -> Iterator[tuple[Keys, Gamepad | None]]:
    """Every source of keys that there is, and the gamepad; a viewer also shows the session.

    Raises:
      UserError: there is none.
    """
    with contextlib.ExitStack() as stack:
        sources: list[Keys] = []
        if has_display():
            pressed, update = stack.enter_context(viewer(asked.task))
            sources.append(pressed)
            updates.append(update)
        pad = stack.enter_context(gamepad(Path(asked.gamepad), axes)) if asked.gamepad else None
        if pad is not None:
            sources.append(pad.read)
        try:
            sources.append(stack.enter_context(terminal()))
        except UserError:
            if not sources:
                raise
        yield lambda: [key for source in sources for key in source()], pad


def status_line(session: Session) -> str:
    """The state of a session in a line: where things are tells a person without a display what to do."""
    device, task = session.device, session.task
    stages = [name for name in task.spec.stages if session.timestep.metrics[f"stage/{name}"] > 0.5]
    parts = [f"{session.phase} {session.seconds:.1f} s", " ".join(stages)]
    state, slices = np.asarray(session.timestep.obs["state"]), table_slices(task.spec.observation)
    for term in task.spec.observation:
        if term.unit == "m" and 1 < term.size <= 3:
            values = " ".join(f"{value:+.2f}" for value in state[slices[term.name]] / term.scale)
            parts.append(f"{term.name.removesuffix('_position')} {values}")
    parts += ["closed" if device.closed else "", f"speed {device.speed:.0%}", f"{session.saved:,} saved"]
    return "   ".join(part for part in parts if part)


@contextlib.contextmanager
def viewer(task: str) -> Iterator[tuple[Keys, Update]]:
    """MuJoCo's viewer: the keys pressed in it since the last call, and what shows a session while it is open.

    Raises:
      UserError: it does not open.
    """
    model = scene(task)
    data = mujoco.MjData(model)
    pressed: collections.deque[str] = collections.deque()  # the viewer presses keys on its own thread
    with open_viewer(model, data, lambda code: pressed.append(glfw_key(code))) as draw:

        def update(session: Session) -> bool:
            now = session.task.data(session.state)

            def place() -> None:
                data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = now.qpos, now.mocap_pos, now.mocap_quat
                mujoco.mj_forward(model, data)

            return draw(place)

        yield lambda: [pressed.popleft() for _ in range(len(pressed))], update


if __name__ == "__main__":
    with clean_errors():
        main(parse(Record, __doc__))
