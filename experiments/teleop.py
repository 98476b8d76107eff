"""Drives an exported policy by hand, on a simulated robot: python experiments/teleop.py runs/a/policy.onnx

Where there is a screen, MuJoCo's viewer opens; elsewhere, or with --page, a page for a browser is served on this
computer. The robot stays in the middle of the page and the floor moves. Both take keys:

| page | viewer | |
|---|---|---|
| 1 2 3 4 | 1 2 3 4 | stand, run, damp, clear |
| I K | up, down | first command, forward |
| J L | A D | second command, left |
| U O | left, right | third command, turn |
| space | space | no motion |
| R | R | set a damped robot upright |

The page leaves W A S D Q E and the arrows to the camera, which viser moves with them. When no page answers any more,
because all are closed or hidden, the robot is damped. Ctrl-C, or closing the viewer, ends the session, which is a
success: exit code 0. The controller, the loop and the log are those of a real robot.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import collections
import contextlib
import dataclasses
import html
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import mujoco
import numpy as np
import tyro
from rich.console import Console

from mjx_policies.deploy import loop
from mjx_policies.deploy.contract import Command, Contract, ContractError
from mjx_policies.deploy.controller import Controller, Mode, Request
from mjx_policies.deploy.log import LogError, RingLog, tick_fields
from mjx_policies.deploy.operator import HandOperator
from mjx_policies.deploy.policy import PolicyError, load_policy
from mjx_policies.deploy.simulation.robot import SimulatedRobot
from mjx_policies.deploy.simulation.sim_to_sim import Scene
from mjx_policies.experiments.screen import has_screen
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.progress import open_console

MODEL = Path(__file__).parents[1] / "envs" / "models" / "go2.xml"
FPS = 25
STATUS_EVERY = 5  # pictures; nobody reads faster
LOG_SECONDS = 600  # the log keeps the last ten minutes
JITTER_SECONDS = 5  # over which the largest deviation of a period is shown
NOTE_SECONDS = 5  # for which a refusal stays on view
STEPS = 20  # presses of a key from one end of a command's range to the other
ATTEND_EVERY = 1.0  # s, after which pages are asked again whether they are alive
ANSWER_SECONDS = 2.0  # that a page has to say so
GRID = 1.0  # m, after which the floor's pattern repeats


@dataclasses.dataclass(frozen=True)
class Teleop:
    """Drives an exported policy by hand, on a simulated robot."""

    policy: tyro.conf.Positional[Path]  # an exported file
    page: bool = False  # serve a page even where a window could open
    host: str = "127.0.0.1"  # address to serve the page on; whoever reaches it can drive
    port: int = 8080  # 0: any that is free
    seconds: float = 0.0  # to run, on the robot's clock; 0: until Ctrl-C
    speed: float = 1.0  # of the robot's clock; 0.5 is slow motion
    log: Path | None = None  # file to write every tick to; must not exist
    model: Path = MODEL  # MJCF of the robot

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise ValueError(f"--port is {self.port}, it must lie between 0 and {2**16 - 1}.")
        if not 0 <= self.seconds < np.inf:
            raise ValueError(f"--seconds is {self.seconds}, it must not be negative.")
        if not 0 < self.speed <= 1:
            raise ValueError(f"--speed is {self.speed}, it must lie above 0, and not above 1.")


class Clock:
    """Time that goes on at `speed`, from now."""

    def __init__(self, speed: float):
        self._start, self._speed = time.monotonic(), speed

    def __call__(self) -> float:
        """The robot's time, s."""
        return self._start + self._speed * (time.monotonic() - self._start)

    def sleep(self, seconds: float) -> None:
        """Waits for seconds of the robot's time."""
        time.sleep(seconds / self._speed)


@dataclasses.dataclass(frozen=True)
class Status:
    """What the runtime did last.

    Attributes:
      mode: of the controller.
      fault: its sentence, empty without one.
      note: why a request was refused lately.
      missed: deadlines so far.
      age: s, of the newest reading.
      jitter: s, largest deviation of a period in the last seconds.
    """

    mode: Mode
    fault: str
    note: str
    missed: int
    age: float
    jitter: float


class Watch:
    """A log for the loop that keeps the last tick for people to see, and passes everything on to a file's, if any."""

    def __init__(self, controller: Controller, log: RingLog | None):
        self.started = threading.Event()
        self.status = Status(controller.mode, "", "", 0, float("nan"), float("nan"))
        self._controller, self._log = controller, log
        self._control_dt = controller.contract.timing.control_dt
        self._deviations: collections.deque[float] = collections.deque(maxlen=round(JITTER_SECONDS / self._control_dt))
        self._last: float | None = None
        self._note, self._note_time = "", -np.inf

    def write(self, values: Mapping[str, Any]) -> None:
        """A tick, as `log.tick_values` has it."""
        if self._log is not None:
            self._log.write(values)
        now = values["time"]
        if self._last is not None:
            self._deviations.append(abs(now - self._last - self._control_dt))
        self._last = now
        fault = "" if self._controller.fault is None else self._controller.fault.sentence
        if values["text"] not in ("", fault):
            self._note, self._note_time = values["text"], now
        self.status = Status(
            mode=Mode(values["mode"]),
            fault=fault,
            note=self._note if now - self._note_time < NOTE_SECONDS else "",
            missed=values["missed"],
            age=values["age"],
            jitter=max(self._deviations, default=float("nan")),
        )
        self.started.set()


class Driver:
    """The operator of a simulated robot, who can also set it upright."""

    def __init__(self, robot: SimulatedRobot, controller: Controller):
        self.hand = HandOperator(controller.contract.commands)
        self._robot, self._controller = robot, controller
        self._upright = threading.Event()

    @property
    def driven(self) -> bool:
        """Whether the robot is, rather than damped."""
        return self._controller.driven

    def set_upright(self) -> None:
        """At the next tick, unless the robot is driven."""
        self._upright.set()

    def poll(self) -> tuple[np.ndarray, str | None]:
        """For the loop, in whose thread the robot is put in its place: nobody else may drive it meanwhile."""
        if self._upright.is_set():
            self._upright.clear()
            if not self.driven:
                self._robot.close()
                self._robot.reset()
                self._robot.start()
        return self.hand.poll()


class Stage:
    """A copy of the robot that can be looked at while the robot moves.

    Attributes:
      model, data: of the copy.
    """

    def __init__(self, model: mujoco.MjModel, robot: SimulatedRobot):
        self.model, self.data = model, mujoco.MjData(model)
        self._robot = robot
        self._velocity = np.zeros(3)
        self.refresh()

    def refresh(self) -> None:
        """Takes the robot's pose of now."""
        self.data.qpos[:] = self._robot.data.qpos
        self.data.qvel[:] = self._robot.data.qvel
        mujoco.mj_forward(self.model, self.data)
        velocity = [*self.data.sensor("local_linvel").data[:2], self.data.sensor("gyro").data[2]]
        self._velocity = self._velocity + 0.2 * (velocity - self._velocity)  # over 0.2 s, or nobody could read it

    def measured(self, command: Command) -> float:
        """What a command asks for, as it is; NaN for what is no velocity of the trunk."""
        known = dict(zip(("forward", "left", "turn"), self._velocity, strict=True))
        return float(known.get(command.name, np.nan))


def main(teleop: Teleop) -> None:
    """Opens everything, and runs the robot in this thread: the loop hears Ctrl-C here."""
    console = open_console()
    contract, model, robot, controller, clock = open_robot(teleop)
    viser = None if not teleop.page and has_screen() else import_viser()
    driver = Driver(robot, controller)
    with contextlib.ExitStack() as stack:
        log = None
        if teleop.log is not None:
            capacity = round(LOG_SECONDS / contract.timing.control_dt)
            with clean_errors(LogError):
                log = stack.enter_context(RingLog(teleop.log, capacity, tick_fields(contract)))
        watch = Watch(controller, log)
        stage = Stage(model, robot)
        if viser is None:
            tasks = {stack.enter_context(window_of(stage, driver, watch, console)): 1 / FPS}
        else:
            page = stack.enter_context(page_of(viser, teleop, stage, driver, watch))
            tasks = {page.draw: 1 / FPS, page.attend: ATTEND_EVERY}
            console.print(f"open http://{teleop.host}:{page.port} and press stand, then run; Ctrl-C ends")
        with contextlib.ExitStack() as running:
            running.enter_context(interrupts_noted())
            for task, period in tasks.items():
                running.enter_context(background(task, period, watch))
            robot.start()
            statistics = loop.run(
                robot,
                controller,
                driver,
                seconds=teleop.seconds or None,
                log=watch,
                clock=clock,
                sleep=clock.sleep,
            )
    faults = ", ".join(fault.name for fault in statistics.faults) or "none"
    console.print(
        f"{statistics.ticks:,} ticks, {statistics.missed:,} missed deadlines, "
        f"jitter {1e3 * statistics.jitter_p99:.1f} ms (99 %), faults: {faults}"
    )


def open_robot(teleop: Teleop) -> tuple[Contract, mujoco.MjModel, SimulatedRobot, Controller, Clock]:
    """What is driven.

    Raises:
      UserError: a file that is not there or is refused, or a model that does not fit it.
    """
    for path in (teleop.policy, teleop.model):
        if not path.is_file():
            raise UserError(f"{path} is not a file: give the path of one that is.")
    try:
        policy = load_policy(teleop.policy)
    except (ContractError, PolicyError) as error:
        raise UserError(str(error)) from None
    contract = policy.contract
    try:
        model = Scene(teleop.model).model
    except ValueError as error:
        raise UserError(f"{teleop.model} is no model that MuJoCo reads: {error}") from None
    for sensor in ("local_linvel", "gyro"):
        if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SENSOR, sensor) < 0:
            raise UserError(f"{teleop.model} has no sensor {sensor}: add it, it tells how fast the robot is.")
    model.opt.timestep = contract.timing.physics_dt
    clock = Clock(teleop.speed)
    try:
        robot = SimulatedRobot(model, contract.joint_names, contract.robot.name, clock=clock, sleep=clock.sleep)
        controller = Controller(policy, robot.joint_names, clock=clock)
    except ValueError as error:
        raise UserError(f"{teleop.policy} does not drive {teleop.model}: {error}") from None
    return contract, model, robot, controller, clock


@contextlib.contextmanager
def interrupts_noted() -> Iterator[None]:
    """Without a loop that listens, an interrupt is let pass: `background` raises one, perhaps when it is late."""
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def background(task: Callable[[], bool], period: float, watch: Watch) -> Iterator[None]:
    """Does a task every period (s) in a thread. When it returns False or raises, the loop is stopped."""
    stop = threading.Event()
    errors: list[Exception] = []

    def run() -> None:
        watch.started.wait()  # until then the loop does not hear interrupts
        try:
            while not stop.wait(period):
                if not task():
                    break
        except Exception as error:
            errors.append(error)
        if not stop.is_set():
            signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        watch.started.set()  # the loop may have failed before its first tick
        thread.join()
    if errors:
        raise errors[0]


# The page.


def import_viser() -> ModuleType:
    try:
        import viser
    except ImportError as error:
        raise UserError(
            f"the page needs the package viser ({error}): pip install 'mjx-policies[teleop]', "
            "or run where there is a screen."
        ) from None
    return viser


def check_address(host: str, port: int) -> None:
    """That the page can be served there: viser itself would look for another port, for ever where there is none.

    Raises:
      UserError: it cannot.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        raise UserError(
            f"the page cannot be served on {host}, port {port} ({error.strerror}): choose another --port or --host."
        ) from None


@contextlib.contextmanager
def page_of(viser: ModuleType, teleop: Teleop, stage: Stage, driver: Driver, watch: Watch) -> Iterator[Page]:
    """Serves the page."""
    check_address(teleop.host, teleop.port)
    server = viser.ViserServer(host=teleop.host, port=teleop.port, label="teleop", verbose=False)
    try:
        if teleop.port and server.get_port() != teleop.port:
            raise UserError(f"port {teleop.port} of {teleop.host} was taken just now: choose another --port.")
        yield Page(server, stage, driver, watch)
    finally:
        server.stop()


class Page:
    """A picture, sliders, buttons and keys. Callbacks are coroutines: threads could swap the order of two."""

    def __init__(self, server: Any, stage: Stage, driver: Driver, watch: Watch):
        self.port = server.get_port()
        self._server, self._stage, self._driver, self._watch = server, stage, driver, watch
        self._count = 0
        server.gui.configure_theme(show_logo=False, show_share_button=False, dark_mode=False)
        server.initial_camera.position, server.initial_camera.look_at = (1.1, -1.3, 0.75), (0.0, 0.0, 0.22)
        self._grid = server.scene.add_grid(
            "/floor", 30.0, 30.0, cell_size=GRID / 4, section_size=GRID, plane_color=(226, 229, 233), plane_opacity=1.0,
            cell_color=(205, 209, 214), section_color=(170, 176, 184), fade_distance=14.0, fade_from="origin",
            shadow_opacity=0.3,
        )  # fmt: skip
        self._frames = self._add_bodies()
        self._status = server.gui.add_html("")
        self._add_buttons()
        self._sliders = [self._add_slider(i) for i in range(len(driver.hand.commands))]
        self._add_keys()

    def draw(self) -> bool:
        """The next picture; pages that open later get the last one."""
        self._count += 1
        stage = self._stage
        stage.refresh()
        middle = np.array([*stage.data.xpos[1, :2], 0.0])
        with self._server.atomic():
            self._grid.position = (-middle[0] % GRID, -middle[1] % GRID, 0.0)
            for body, frame in self._frames.items():
                frame.position, frame.wxyz = stage.data.xpos[body] - middle, stage.data.xquat[body]
        if self._count % STATUS_EVERY == 1:
            self._status.content = status_html(self._watch.status, stage, self._driver.hand)
        return True

    def attend(self) -> bool:
        """Damps a driven robot that nobody looks at. Connections prove nothing: browsers keep those of pages left."""
        if self._driver.driven and not any(answers(client) for client in self._server.get_clients().values()):
            self._halt()
            self._driver.hand.ask(Request.DAMP)
        return True

    def _add_bodies(self) -> dict[int, Any]:
        """A frame for each body that has something to show, by the body's number."""
        frames = {}
        for body in range(self._stage.model.nbody):
            for k, (vertices, faces, color) in enumerate(meshes(self._stage.model, body)):
                if body not in frames:
                    frames[body] = self._server.scene.add_frame(f"/body_{body}", show_axes=False)
                self._server.scene.add_mesh_simple(f"/body_{body}/{k}", vertices, faces, color=color)
        return frames

    def _add_buttons(self) -> None:
        colors = {Request.STAND: "blue", Request.RUN: "green", Request.DAMP: "red", Request.CLEAR: "gray"}
        for number, (request, color) in enumerate(colors.items(), 1):

            async def ask(_: Any, request: Request = request) -> None:
                self._driver.hand.ask(request)

            self._server.gui.add_button(request.value, color=color, hint=f"key {number}").on_click(ask)
            self._server.gui.add_command(request.value, hotkey=str(number)).on_trigger(ask)

        async def set_upright(_: Any) -> None:
            self._driver.set_upright()

        self._server.gui.add_button("set upright", color="gray", hint="key R; damp it first").on_click(set_upright)
        self._server.gui.add_command("set upright", hotkey="R").on_trigger(set_upright)

    def _add_slider(self, index: int) -> Any:
        hand = self._driver.hand
        command = hand.commands[index]
        slider = self._server.gui.add_slider(
            f"{command.name} ({command.unit})",
            min=command.low,
            max=command.high,
            step=0.01,
            initial_value=float(hand.command[index]),
        )

        async def change(_: Any) -> None:
            hand.set(index, slider.value)

        slider.on_update(change)
        return slider

    def _add_keys(self) -> None:
        hand = self._driver.hand
        pairs = zip(("IK", "JL", "UO"), hand.commands[:3], strict=False)
        for index, (pair, command) in enumerate(pairs):
            step = (command.high - command.low) / STEPS
            for key, change in zip(pair, (step, -step), strict=True):

                async def nudge(_: Any, index: int = index, change: float = change) -> None:
                    self._sliders[index].value = hand.nudge(index, change)

                self._server.gui.add_command(f"{command.name} {change:+g}", hotkey=key).on_trigger(nudge)

        async def halt(_: Any) -> None:
            self._halt()

        self._server.gui.add_button("no motion", color="gray", hint="space").on_click(halt)
        self._server.gui.add_command("no motion", hotkey="space").on_trigger(halt)

    def _halt(self) -> None:
        self._driver.hand.halt()
        for slider, value in zip(self._sliders, self._driver.hand.command, strict=True):
            slider.value = float(value)


def answers(client: Any) -> bool:
    """Whether a page is alive, by asking it for something that it need not have."""
    try:
        client.local_storage.get_item("nothing", timeout=ANSWER_SECONDS)
    except TimeoutError:
        return False
    except RuntimeError as error:  # it has left, or it answered that it stores nothing
        return "disconnected" not in str(error)
    return True


def status_html(status: Status, stage: Stage, hand: HandOperator) -> str:
    """A table."""
    rows = {
        "mode": f"<b>{status.mode.name}</b>",
        "fault": html.escape(status.fault) or "none",
        "refused": html.escape(status.note),
        "missed deadlines": f"{status.missed:,}",
        "age of readings": f"{1e3 * status.age:.1f} ms",
        f"jitter in {JITTER_SECONDS} s": f"{1e3 * status.jitter:.1f} ms",
    }
    for command, value in zip(hand.commands, hand.command, strict=True):
        measured = f"{stage.measured(command):+.2f}".replace("+nan", "?")
        rows[command.name] = f"{measured}, told {value:+.2f} {html.escape(command.unit)}"
    style = "vertical-align:top;padding:1px 8px 1px 12px"
    lines = [
        f"<tr><td style='{style};white-space:nowrap'>{html.escape(name)}</td><td>{value}</td></tr>"
        for name, value in rows.items()
        if value
    ]
    return f"<table style='font-size:0.85em;line-height:1.25'>{''.join(lines)}</table>"


def meshes(model: mujoco.MjModel, body: int) -> list[tuple[np.ndarray, np.ndarray, tuple[int, int, int]]]:
    """Vertices [V, 3], triangles [F, 3] and colour of what a body shows, one for each colour, in the body's frame."""
    found: dict[tuple[int, int, int], list[tuple[np.ndarray, np.ndarray]]] = {}
    start = model.body_geomadr[body]
    for i in range(start, start + model.body_geomnum[body]):
        material = model.geom_matid[i]
        rgba = model.geom_rgba[i] if material < 0 else model.mat_rgba[material]
        made = triangles(model, i)
        if made is None or model.geom_group[i] > 2 or rgba[3] == 0:  # as MuJoCo's viewers do at first
            continue
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, model.geom_quat[i])
        r, g, b = (round(255 * float(value)) for value in rgba[:3])
        vertices = made[0] @ rotation.reshape(3, 3).T + model.geom_pos[i]
        found.setdefault((r, g, b), []).append((vertices, made[1]))
    merged = []
    for color, parts in found.items():
        offsets = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
        faces = np.concatenate([part[1] + offset for part, offset in zip(parts, offsets, strict=False)])
        merged.append((np.concatenate([vertices for vertices, _ in parts]), faces, color))
    return merged


def triangles(model: mujoco.MjModel, geom: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Vertices [V, 3] and triangles [F, 3] in the geom's frame; None for planes and height fields."""
    from trimesh import creation  # comes with viser

    kind, size = mujoco.mjtGeom(model.geom_type[geom]), model.geom_size[geom]
    match kind:
        case mujoco.mjtGeom.mjGEOM_SPHERE:
            shape = creation.icosphere(subdivisions=2, radius=size[0])
        case mujoco.mjtGeom.mjGEOM_ELLIPSOID:
            shape = creation.icosphere(subdivisions=2)
            shape.apply_scale(size)
        case mujoco.mjtGeom.mjGEOM_CAPSULE:
            shape = creation.capsule(height=2 * size[1], radius=size[0], count=[16, 16])
        case mujoco.mjtGeom.mjGEOM_CYLINDER:
            shape = creation.cylinder(radius=size[0], height=2 * size[1], sections=24)
        case mujoco.mjtGeom.mjGEOM_BOX:
            shape = creation.box(extents=2 * size)
        case mujoco.mjtGeom.mjGEOM_MESH:
            mesh = model.mesh(model.geom_dataid[geom])
            vertices = slice(mesh.vertadr[0], mesh.vertadr[0] + mesh.vertnum[0])
            faces = slice(mesh.faceadr[0], mesh.faceadr[0] + mesh.facenum[0])
            return model.mesh_vert[vertices].copy(), model.mesh_face[faces].copy()
        case _:
            return None
    vertices, faces = np.asarray(shape.vertices), np.asarray(shape.faces)
    if kind in (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER):
        # Vertices of their own for each triangle, or the edges would be shaded as if they were round.
        vertices, faces = vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3)
    return vertices, faces


# The window.


class Window:
    """MuJoCo's viewer with keys. Calling it updates the picture, and says whether the window is still open."""

    MOVES = {265: (0, 1), 264: (0, -1), ord("A"): (1, 1), ord("D"): (1, -1), 263: (2, 1), 262: (2, -1)}  # noqa: RUF012
    """GLFW's codes: which command, in which direction."""

    def __init__(self, stage: Stage, driver: Driver, watch: Watch, status: Any):
        self._stage, self._driver, self._watch, self._text = stage, driver, watch, status
        self.viewer: Any = None

    def __call__(self) -> bool:
        """The next picture."""
        viewer = self.viewer
        if not viewer.is_running():
            return False
        with viewer.lock():
            self._stage.refresh()
            viewer.opt.flags[:], viewer.opt.geomgroup[:] = self._shown  # our keys are also the viewer's
        viewer.sync()
        self._text.update(status_line(self._watch.status, self._stage, self._driver.hand))
        return True

    def open(self, viewer: Any) -> None:
        """Follows the robot."""
        self.viewer = viewer
        self._shown = np.array(viewer.opt.flags), np.array(viewer.opt.geomgroup)
        viewer.cam.type, viewer.cam.trackbodyid, viewer.cam.distance = mujoco.mjtCamera.mjCAMERA_TRACKING, 1, 2.0

    def press(self, key: int) -> None:
        """What the viewer calls, on its own thread."""
        hand = self._driver.hand
        if key in self.MOVES and self.MOVES[key][0] < len(hand.commands):
            index, sign = self.MOVES[key]
            command = hand.commands[index]
            hand.nudge(index, sign * (command.high - command.low) / STEPS)
        elif key == ord(" "):
            hand.halt()
        elif key == ord("R"):
            self._driver.set_upright()
        elif ord("1") <= key <= ord("4"):
            hand.ask(list(Request)[key - ord("1")])


@contextlib.contextmanager
def window_of(stage: Stage, driver: Driver, watch: Watch, console: Console) -> Iterator[Window]:
    """Opens the window."""
    from mujoco.viewer import launch_passive  # loads a graphics library

    console.print(
        "1: stand, 2: run, 3: damp, 4: clear, arrows, A, D: move, space: no motion, R: set upright; Ctrl-C ends"
    )
    with console.status("") as status:
        window = Window(stage, driver, watch, status)
        try:
            viewer = launch_passive(
                stage.model, stage.data, key_callback=window.press, show_left_ui=False, show_right_ui=False
            )
        except RuntimeError as error:  # macOS
            raise UserError(f"the viewer does not open ({error}): start with mjpython, or pass --page.") from None
        with viewer:
            window.open(viewer)
            yield window


def status_line(status: Status, stage: Stage, hand: HandOperator) -> str:
    """For a terminal."""
    parts = [status.mode.name, status.fault or status.note]
    for command, value in zip(hand.commands, hand.command, strict=True):
        parts.append(f"{command.name} {stage.measured(command):+.2f} told {value:+.2f}")
    parts.append(f"age {1e3 * status.age:.0f} ms, jitter {1e3 * status.jitter:.1f} ms, missed {status.missed}")
    return "   ".join(part for part in parts if part)


if __name__ == "__main__":
    with clean_errors(ValueError):
        chosen = parse_arguments(Teleop, __doc__)
    with clean_errors():
        main(chosen)
