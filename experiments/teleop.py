"""Drives an exported policy by hand, on a simulated robot: python experiments/teleop.py runs/a/policy.onnx

With a display, MuJoCo's viewer opens; elsewhere, or with --page, a page for a browser is served on this
computer. The robot stays in the middle of the page and the floor moves. Both take keys:

    page      viewer
    1 2 3 4   1 2 3 4       stand, run, damp, clear
    I K       up, down      first command, forward
    J L       A D           second command, left
    U O       left, right   third command, turn
    space     space         no motion
    R         R             set a damped robot upright

The page leaves W A S D Q E and the arrows to the camera, which viser moves with them. When no page answers any more,
because all are closed or hidden, the robot is damped. Ctrl-C, or closing the viewer, ends the session, which is a
success: exit code 0. The controller, the loop and the log are those of a real robot.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import html
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import tyro
from rich.console import Console

from mjx_policies.deploy import loop
from mjx_policies.deploy.controller import Controller, Request
from mjx_policies.deploy.log import LogError, RingLog, tick_fields
from mjx_policies.deploy.operator import HandOperator
from mjx_policies.deploy.policy import PolicyError, load_policy
from mjx_policies.deploy.simulation.robot import SimulatedRobot
from mjx_policies.deploy.simulation.sim_to_sim import Scene
from mjx_policies.errors import UserError
from mjx_policies.experiments.display import MOVES, has_display, open_viewer
from mjx_policies.training import packages
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors

MODEL = Path(__file__).parents[1] / "envs" / "models" / "go2.xml"
FPS = 25
STATUS_EVERY = 5  # pictures; nobody reads faster
LOG_SECONDS = 600  # the log keeps the last ten minutes
RECENT_SECONDS = 5  # over which the largest deviation of a period is taken, and for which a refusal stays on view
STEPS = 20  # presses of a key from one end of a command's range to the other
ATTEND_EVERY = 1.0  # s, after which pages are asked again whether they are alive
ANSWER_SECONDS = 2.0  # that a page has to say so
GRID = 1.0  # m, after which the floor's pattern repeats
BUTTONS = {"stand": "blue", "run": "green", "damp": "red", "clear": "gray", "set upright": "gray", "no motion": "gray"}


@dataclasses.dataclass(frozen=True)
class Teleop:
    """Drives an exported policy by hand, on a simulated robot."""

    policy: tyro.conf.Positional[Path]  # exported ONNX file
    page: bool = False  # serve a page even where a viewer could open
    host: str = "127.0.0.1"  # address to serve the page on; whoever reaches it can drive
    port: int = 8080  # port to serve the page on; 0: any free one
    seconds: float = 0.0  # length of the session, on the robot's clock (s); 0: until Ctrl-C
    speed: float = 1.0  # speed of the robot's clock; 0.5 is slow motion
    log: Path | None = None  # log file of every tick; must not exist
    model: Path | None = None  # MJCF of the robot; None: this library's Go2

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise ValueError(f"--port is {self.port}, it must lie between 0 and {2**16 - 1}.")
        if not 0 <= self.seconds < np.inf:
            raise ValueError(f"--seconds is {self.seconds}, it must not be negative.")
        if not 0 < self.speed <= 1:
            raise ValueError(f"--speed is {self.speed}, it must lie above 0, and not above 1.")


class Driver(HandOperator):
    """The operator of a simulated robot, who can also set it upright; and the loop's log, for people to see.

    Args:
      robot, controller: what is driven.
      model: of the robot.
      log: that ticks are passed on to, if any.

    Attributes:
      data: a copy that can be read while the robot moves.
    """

    def __init__(self, robot: SimulatedRobot, controller: Controller, model: mujoco.MjModel, log: RingLog | None):
        super().__init__(controller.contract.commands)
        self.data = mujoco.MjData(model)
        self._robot, self._controller, self._log = robot, controller, log
        self._upright = threading.Event()
        self._velocity = np.zeros(3)
        self._control_dt = controller.contract.timing.control_dt
        self._ticks: collections.deque[Mapping[str, Any]] = collections.deque(
            maxlen=round(RECENT_SECONDS / self._control_dt)
        )

    @property
    def driven(self) -> bool:
        """Whether the robot is driven, rather than damped."""
        return self._controller.driven

    def set_upright(self) -> None:
        """Asks for the robot to be set upright at the next tick, unless it is driven."""
        self._upright.set()

    def poll(self) -> tuple[np.ndarray, str | None]:
        """See `HandOperator.poll`. In the loop's thread, since nobody else may drive a robot that is set upright."""
        if self._upright.is_set():
            self._upright.clear()
            if not self.driven:
                self._robot.close()
                self._robot.reset()
                self._robot.start()
        return super().poll()

    def refresh(self) -> None:
        """Takes the robot's pose of now into `data`."""
        self.data.qpos[:], self.data.qvel[:] = self._robot.data.qpos, self._robot.data.qvel
        mujoco.mj_forward(self.data.model, self.data)
        velocity = [*self.data.sensor("local_linvel").data[:2], self.data.sensor("gyro").data[2]]
        self._velocity = self._velocity + 0.2 * (velocity - self._velocity)  # over 0.2 s, or nobody could read it

    def write(self, values: Mapping[str, Any]) -> None:
        """A tick, as `log.tick_values` has it."""
        if self._log is not None:
            self._log.write(values)
        self._ticks.append(values)

    def status(self) -> dict[str, str]:
        """The last state of the runtime, and each command beside its measurement, if it is a velocity of the trunk."""
        ticks, fault = self._ticks.copy(), self._controller.fault
        measured = dict(zip(("forward", "left", "turn"), self._velocity, strict=True))
        found = {"mode": self._controller.mode.name, "fault": "none" if fault is None else fault.sentence}
        if ticks:
            jitter = np.abs(np.diff([tick["time"] for tick in ticks]) - self._control_dt).max(initial=0.0)
            refused = next((tick["text"] for tick in reversed(ticks) if "is refused: " in tick["text"]), "")
            found |= {"refused": refused} if refused else {}
            found |= {
                "missed deadlines": f"{ticks[-1]['missed']:,}",
                "age of readings": f"{1e3 * ticks[-1]['age']:.1f} ms",
                f"jitter in {RECENT_SECONDS} s": f"{1e3 * jitter:.1f} ms",
            }
        for each, value in zip(self.commands, self.command, strict=True):
            now = f"{measured.get(each.name, np.nan):+.2f}".replace("+nan", "?")
            found[each.name] = f"{now}, told {value:+.2f} {each.unit}"
        return found

    def actions(self) -> list[tuple[str, str, int, Callable[[], Any]]]:
        """The actions of keys: name, the page's key, GLFW's code of the viewer's key, and the function."""
        found: list[tuple[str, str, int, Callable[[], Any]]] = [
            (request.value, str(number), ord(str(number)), functools.partial(self.ask, request))
            for number, request in enumerate(Request, 1)
        ]
        found += [("set upright", "R", ord("R"), self.set_upright), ("no motion", "space", ord(" "), self.halt)]
        for key, (code, (index, sign)) in zip("IKJLUO", MOVES.items(), strict=True):
            if index < len(self.commands):
                command = self.commands[index]
                change = sign * (command.high - command.low) / STEPS
                nudge = functools.partial(self.nudge, index, change)
                found.append((f"{command.name} {change:+g}", key, code, nudge))
        return found


def main(teleop: Teleop) -> None:
    """Opens everything, and runs the robot in this thread: the loop hears Ctrl-C here."""
    console = open_console()
    began = time.monotonic()

    def clock() -> float:
        return began + teleop.speed * (time.monotonic() - began)

    def sleep(seconds: float) -> None:
        time.sleep(seconds / teleop.speed)

    with clean_errors(ValueError, PolicyError):
        policy, scene = load_policy(teleop.policy), Scene(teleop.model or MODEL)
        robot = scene.robot(policy.contract, clock=clock, sleep=sleep)
        controller = Controller(policy, robot.joint_names, clock=clock)
    served = teleop.page or not has_display()
    viser = packages.load("viser", "the page", "teleop") if served else None
    with contextlib.ExitStack() as stack:
        log = None
        if teleop.log is not None:
            capacity = round(LOG_SECONDS / policy.contract.timing.control_dt)
            with clean_errors(LogError):
                log = stack.enter_context(RingLog(teleop.log, capacity, tick_fields(policy.contract)))
        driver = Driver(robot, controller, scene.model, log)
        if served:
            page = stack.enter_context(page_of(viser, teleop, driver))
            tasks = {page.draw: 1 / FPS, page.attend: ATTEND_EVERY}
            console.print(f"open http://{teleop.host}:{page.port} and press stand, then run; Ctrl-C ends")
        else:
            tasks = {stack.enter_context(window_of(driver, console)): 1 / FPS}
        ended = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(len(tasks)) as pool:
            try:
                repeated = [pool.submit(repeat, task, period, ended) for task, period in tasks.items()]
                robot.start()
                statistics = loop.run(
                    robot,
                    controller,
                    driver,
                    seconds=teleop.seconds or None,
                    until=ended.is_set,
                    log=driver,
                    clock=clock,
                    sleep=sleep,
                )
            finally:
                ended.set()
        for each in repeated:
            each.result()
    faults = ", ".join(fault.name for fault in statistics.faults) or "none"
    console.print(
        f"{statistics.ticks:,} ticks, {statistics.missed:,} missed deadlines, "
        f"jitter {1e3 * statistics.jitter_p99:.1f} ms (99 %), faults: {faults}"
    )


def repeat(task: Callable[[], bool], period: float, ended: threading.Event) -> None:
    """Does a task every period (s) until it returns False or raises, which ends the session, or the session ends."""
    try:
        while not ended.wait(period) and task():
            pass
    finally:
        ended.set()


@contextlib.contextmanager
def page_of(viser: Any, teleop: Teleop, driver: Driver) -> Iterator[Page]:
    """Serves the page while the context is open.

    Raises:
      UserError: it cannot be served there; viser itself would search for another port, for ever where there is none.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(teleop.host, teleop.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        raise UserError(
            f"the page cannot be served on {teleop.host}, port {teleop.port} ({error.strerror}): choose another --port "
            "or --host."
        ) from None
    server = viser.ViserServer(host=teleop.host, port=teleop.port, label="teleop", verbose=False)
    try:
        if teleop.port and server.get_port() != teleop.port:
            raise UserError(f"port {teleop.port} of {teleop.host} was taken just now: choose another --port.")
        yield Page(server, driver)
    finally:
        server.stop()


class Page:
    """A picture, sliders, buttons and keys. Callbacks are coroutines: threads could swap the order of two."""

    def __init__(self, server: Any, driver: Driver):
        self.port = server.get_port()
        self._server, self._driver = server, driver
        self._count = 0
        server.gui.configure_theme(show_logo=False, show_share_button=False, dark_mode=False)
        server.initial_camera.position, server.initial_camera.look_at = (1.1, -1.3, 0.75), (0.0, 0.0, 0.22)
        self._grid = server.scene.add_grid(
            "/floor", 30.0, 30.0, cell_size=GRID / 4, section_size=GRID, plane_color=(226, 229, 233), plane_opacity=1.0,
            cell_color=(205, 209, 214), section_color=(170, 176, 184), fade_distance=14.0, fade_from="origin",
            shadow_opacity=0.3,
        )  # fmt: skip
        self._frames = add_robot(server.scene, driver.data.model)
        self._status = server.gui.add_html("")
        self._sliders: list[Any] = []
        for name, key, _, act in driver.actions():

            async def do(_: Any, act: Callable[[], Any] = act) -> None:
                act()
                self._move_sliders()

            server.gui.add_command(name, hotkey=key).on_trigger(do)
            if name in BUTTONS:
                hint = f"key {key}" + "; damp it first" * (name == "set upright")
                server.gui.add_button(name, color=BUTTONS[name], hint=hint).on_click(do)
        self._sliders += [self._add_slider(i) for i in range(len(driver.commands))]

    def draw(self) -> bool:
        """The next picture; pages that open later get the last one."""
        self._count += 1
        self._driver.refresh()
        data = self._driver.data
        middle = np.array([*data.xpos[1, :2], 0.0])
        with self._server.atomic():
            self._grid.position = (-middle[0] % GRID, -middle[1] % GRID, 0.0)
            for body, frame in self._frames.items():
                frame.position, frame.wxyz = data.xpos[body] - middle, data.xquat[body]
        if self._count % STATUS_EVERY == 1:
            self._status.content = as_html(self._driver.status())
        return True

    def attend(self) -> bool:
        """Damps a driven robot that no page displays. Connections prove nothing: browsers keep those of pages left."""
        if self._driver.driven and not any(answers(client) for client in self._server.get_clients().values()):
            self._driver.halt()
            self._move_sliders()
            self._driver.ask(Request.DAMP)
        return True

    def _add_slider(self, index: int) -> Any:
        command, now = self._driver.commands[index], float(self._driver.command[index])
        slider = self._server.gui.add_slider(
            f"{command.name} ({command.unit})", min=command.low, max=command.high, step=0.01, initial_value=now
        )

        async def change(_: Any) -> None:
            self._driver.set(index, slider.value)

        slider.on_update(change)
        return slider

    def _move_sliders(self) -> None:
        for slider, value in zip(self._sliders, self._driver.command, strict=False):  # none before all are there
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


def as_html(rows: Mapping[str, str]) -> str:
    """The status of the robot as an HTML table."""
    style = "vertical-align:top;padding:1px 8px 1px 12px"
    lines = [
        f"<tr><td style='{style};white-space:nowrap'>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    ]
    return f"<table style='font-size:0.85em;line-height:1.25'>{''.join(lines)}</table>"


def add_robot(scene: Any, model: mujoco.MjModel) -> dict[int, Any]:
    """Adds what MuJoCo's viewers show at first; returns a frame for each body that shows something, by its number."""
    frames: dict[int, Any] = {}
    for geom in range(model.ngeom):
        body, material = int(model.geom_bodyid[geom]), model.geom_matid[geom]
        rgba = model.geom_rgba[geom] if material < 0 else model.mat_rgba[material]
        shape = triangles(model, geom)
        if shape is None or model.geom_group[geom] > 2 or rgba[3] == 0:
            continue
        if body not in frames:
            frames[body] = scene.add_frame(f"/body_{body}", show_axes=False)
        scene.add_mesh_simple(
            f"/body_{body}/{geom}",
            *shape,
            color=tuple(round(255 * float(value)) for value in rgba[:3]),
            flat_shading=model.geom_type[geom] in (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER),
            position=model.geom_pos[geom],
            wxyz=model.geom_quat[geom],
        )
    return frames


def triangles(model: mujoco.MjModel, geom: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Vertices [V, 3] and triangles [F, 3] in the geom's frame; None for planes and height fields."""
    from trimesh import creation  # comes with viser

    kind, size, types = mujoco.mjtGeom(model.geom_type[geom]), model.geom_size[geom], mujoco.mjtGeom
    if kind == types.mjGEOM_MESH:
        mesh = model.mesh(model.geom_dataid[geom])
        vertices = slice(mesh.vertadr[0], mesh.vertadr[0] + mesh.vertnum[0])
        faces = slice(mesh.faceadr[0], mesh.faceadr[0] + mesh.facenum[0])
        return model.mesh_vert[vertices].copy(), model.mesh_face[faces].copy()
    shapes = {
        types.mjGEOM_SPHERE: lambda: creation.icosphere(subdivisions=2, radius=size[0]),
        types.mjGEOM_ELLIPSOID: lambda: creation.icosphere(subdivisions=2).apply_scale(size),
        types.mjGEOM_CAPSULE: lambda: creation.capsule(height=2 * size[1], radius=size[0], count=[16, 16]),
        types.mjGEOM_CYLINDER: lambda: creation.cylinder(radius=size[0], height=2 * size[1], sections=24),
        types.mjGEOM_BOX: lambda: creation.box(extents=2 * size),
    }
    if kind not in shapes:
        return None
    shape = shapes[kind]()
    return np.asarray(shape.vertices), np.asarray(shape.faces)


@contextlib.contextmanager
def window_of(driver: Driver, console: Console) -> Iterator[Callable[[], bool]]:
    """Opens MuJoCo's viewer; gives a function that updates it and says whether it is still open."""
    act = {code: action for _, _, code, action in driver.actions()}
    console.print(
        "1: stand, 2: run, 3: damp, 4: clear, arrows, A, D: move, space: no motion, R: set upright; Ctrl-C ends"
    )
    with (
        console.status("") as status,
        open_viewer(
            driver.data.model, driver.data, lambda key: act.get(key, lambda: None)(), ", or pass --page"
        ) as show,
    ):

        def update() -> bool:
            status.update("   ".join(f"{name} {text}" for name, text in driver.status().items()))
            return show(driver.refresh)

        yield update


if __name__ == "__main__":
    with clean_errors():
        main(parse_arguments(Teleop, __doc__))
