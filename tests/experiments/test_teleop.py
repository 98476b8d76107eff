"""The operator alone, the command line, and the page in a browser, driven over Chromium's own protocol."""

import asyncio
import base64
import contextlib
import importlib.util
import io
import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from unittest.mock import MagicMock

import mujoco
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mjx_policies.deploy.contract import ContractTerm, Joint, Timing
from mjx_policies.deploy.log import read_log
from mjx_policies.deploy.operator import HandOperator
from mjx_policies.spec import CommandRange

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "teleop.py"
COMMANDS = (
    CommandRange("forward", "m/s", -0.8, 1.2),
    CommandRange("left", "m/s", -0.5, 0.5),
    CommandRange("turn", "rad/s", -1.0, 1.0),
)
TIMEOUT = 300.0  # s, for what a busy machine takes long to do
_spec = importlib.util.spec_from_file_location("files", ROOT / "tests" / "mjx_policies" / "deploy" / "conftest.py")
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)
BENDS = 0.5  # rad that every thigh turns by for a forward command of 1


def write_policy(path):
    """A policy that stands, and leans as far as it is told to go."""
    model = mujoco.MjModel.from_xml_path(str(ROOT / "envs" / "models" / "go2.xml"))
    joints = []
    for i, default in enumerate(model.key("home").qpos[7:].tolist()):
        low, high = model.jnt_range[1 + i].tolist()
        limits = (low, high, low + 0.05, high - 0.05, 20.0, float(model.actuator_forcerange[i, 1]))
        joints.append(Joint(model.actuator(i).name, default, default, 0.5, 25.0, 0.5, *limits))
    weight = np.zeros((6, 12), np.float32)  # of gyro and command
    weight[3, 1::3] = BENDS / 0.5
    constants = {
        "weight": weight,
        **{name: [getattr(joint, name) for joint in joints] for name in ("default", "scale", "lower", "upper")},
    }
    nodes = [
        helper.make_node("MatMul", ["observation", "weight"], ["action"]),
        helper.make_node("Mul", ["action", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "default"], ["free"]),
        helper.make_node("Max", ["free", "lower"], ["raised"]),
        helper.make_node("Min", ["raised", "upper"], ["target"]),
    ]
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["B", 6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 12]) for name in ("action", "target")],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    contract = files.example_contract(
        timing=Timing(0.02, float(model.opt.timestep), 0.04, (0.0, 0.02)),
        joints=tuple(joints),
        observation=tuple(
            ContractTerm(name, 3, "", "", 1.0, 0.0, 1, True, "first", 0.0, 0.0, name == "gyro")
            for name in ("gyro", "command")
        ),
        commands=COMMANDS,
        gait=None,
    )
    files.write_policy(path, contract, file)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "policy.onnx"
    write_policy(path)
    return path


# The operator.


def test_commands_are_clipped_and_start_at_rest():
    operator = HandOperator((*COMMANDS, CommandRange("height", "m", 0.2, 0.3)))
    np.testing.assert_array_equal(operator.command, [0, 0, 0, 0.2])
    assert operator.set(0, 9.0) == 1.2 and operator.set(1, -9) == -0.5 and operator.nudge(2, 0.25) == 0.25
    command, request = operator.poll()
    np.testing.assert_array_equal(command, [1.2, -0.5, 0.25, 0.2])
    assert request is None
    command[:] = 7  # a copy
    operator.halt()
    np.testing.assert_array_equal(operator.poll()[0], [0, 0, 0, 0.2])


def test_ten_steps_of_a_tenth_are_one():
    operator = HandOperator(COMMANDS)
    for _ in range(10):
        operator.nudge(0, 0.1)
    assert operator.command[0] == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_changes_nothing(value):
    operator = HandOperator(COMMANDS)
    operator.set(0, 0.5)
    with pytest.raises(ValueError, match=r"command forward was to become .* finite"):
        operator.set(0, value)
    assert operator.command[0] == 0.5


def test_a_request_comes_once_and_nothing_overtakes_damp():
    operator = HandOperator(COMMANDS)
    operator.ask("stand")
    assert operator.poll()[1] == "stand" and operator.poll()[1] is None
    operator.ask("stand")
    operator.ask("damp")
    operator.ask("run")
    assert operator.poll()[1] == "damp" and operator.poll()[1] is None
    with pytest.raises(ValueError, match="jump"):
        operator.ask("jump")
    assert operator.poll()[1] is None


def test_threads_do_not_lose_or_double_anything():
    operator = HandOperator(COMMANDS)
    polled, presses = [], 200
    done = threading.Event()

    def press():
        for _ in range(presses):
            operator.nudge(2, 0.001)

    def poll():
        while not done.is_set():
            polled.append(operator.poll()[1])

    threads = [threading.Thread(target=press) for _ in range(4)]
    poller = threading.Thread(target=poll)
    operator.ask("stand")
    for thread in (poller, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    poller.join()
    polled.append(operator.poll()[1])
    assert operator.command[2] == pytest.approx(4 * presses * 0.001)
    assert [request for request in polled if request] == ["stand"]


# The command line.


def start(*arguments, code=None):
    command = [sys.executable, *(["-c", code] if code else []), str(SCRIPT), *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def teleop(*arguments, code=None):
    with start(*arguments, code=code) as process:
        output, errors = process.communicate(timeout=TIMEOUT)
    return process.returncode, output, errors


def refused(*arguments, code=None):
    returncode, _, errors = teleop(*arguments, code=code)
    assert returncode == 2 and errors.startswith("error: ") and errors.count("\n") == 1, errors
    return errors


needs_viser = pytest.mark.skipif(importlib.util.find_spec("viser") is None, reason="viser is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_a_missing_file_is_one_sentence():
    assert "nothing.onnx: " in refused("nothing.onnx")


def test_a_foreign_file_is_one_sentence(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no such thing")
    assert "a.onnx: " in refused(tmp_path / "a.onnx")


def test_another_robots_model_is_one_sentence(policy):
    model = ROOT / "envs" / "models" / "pendulum.xml"
    assert "pendulum.xml has no sensor gyro, orientation, local_linvel" in refused(policy, "--model", model)


def test_a_page_without_viser_is_one_sentence(policy):
    code = "import runpy, sys; sys.modules['viser'] = None; sys.argv = sys.argv[1:]; "
    code += "sys.path.insert(0, sys.argv[0].rpartition('/')[0]); runpy.run_path(sys.argv[0], run_name='__main__')"
    assert "pip install 'mjx-policies[teleop]'" in refused(policy, "--page", code=code)


@needs_viser
def test_a_port_in_use_is_one_sentence(policy):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"cannot be served on 127.0.0.1, port {port}" in refused(policy, "--page", "--port", port)


@needs_viser
def test_a_log_that_exists_is_one_sentence(policy, tmp_path):
    (tmp_path / "log").touch()
    assert "exists already" in refused(policy, "--page", "--port", 0, "--log", tmp_path / "log")


@needs_viser
def test_three_seconds_pass_and_are_logged(policy, tmp_path):
    returncode, output, errors = teleop(policy, "--page", "--port", 0, "--seconds", 3, "--log", tmp_path / "log")
    assert returncode == 0, errors
    assert "faults: none" in output
    records = read_log(tmp_path / "log").records
    ticks, missed = map(int, re.search(r"(\d+) ticks, (\d+) missed", output).groups())
    # A busy machine may also miss deadlines after the end, in the last tick.
    assert (ticks + missed == 150 or (missed and ticks + missed > 150)) and len(records) == ticks + 1
    assert not records["mode"][:-1].any()  # nobody asked for anything


# The page.


@needs_viser
def test_keys_buttons_and_sliders_of_the_page_reach_the_operator(policy):
    script = runpy.run_path(str(SCRIPT))
    loaded, scene = script["load_policy"](policy), script["Scene"](script["MODEL"])
    robot = scene.robot(loaded.contract)
    controller = script["Controller"](loaded, robot.joint_names)
    driver, server = script["Driver"](robot, controller, scene.model, None), MagicMock()
    page = script["Page"](server, driver)
    keys = [call.kwargs["hotkey"] for call in server.gui.add_command.call_args_list]
    assert keys == ["1", "2", "3", "4", "R", "space", *"IKJLUO"]
    pressed = [call.args[0] for call in server.gui.add_command.return_value.on_trigger.call_args_list]
    press = dict(zip(keys, pressed, strict=True))
    for key in "IIJO":
        asyncio.run(press[key](None))
    np.testing.assert_allclose(driver.command, [0.2, 0.05, -0.1])
    assert server.gui.add_slider.return_value.value == -0.1, "the last slider has moved"
    asyncio.run(press["1"](None))
    assert driver.poll()[1] == "stand"
    asyncio.run(press["space"](None))
    assert not driver.command.any()
    labels = [call.args[0] for call in server.gui.add_button.call_args_list]
    assert labels == ["stand", "run", "damp", "clear", "set upright", "no motion"]
    assert page.draw() and "told +0.00 m/s" in page._status.content and page.attend()
    drawn = [call.args[0] for call in server.scene.add_mesh_simple.call_args_list]
    assert len(drawn) == len(set(drawn)) > 20


class Browser:
    """A page in Chromium without a window."""

    ARGUMENTS = (
        "--headless=new --no-sandbox --no-first-run --no-proxy-server --disable-dev-shm-usage --use-angle=swiftshader "
        "--enable-unsafe-swiftshader --remote-debugging-port=0 --window-size=800,620"
    )

    def __init__(self, folder):
        from websockets.sync.client import connect

        self.events, self._number = [], 0
        command = [CHROMIUM, *self.ARGUMENTS.split(), f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port_file = Path(folder) / "DevToolsActivePort"
            wait(lambda: port_file.exists() and port_file.read_text().count("\n"), "Chromium to start")
            address = f"http://127.0.0.1:{port_file.read_text().split()[0]}/json"
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address) as answer:
                pages = [target for target in json.load(answer) if target["type"] == "page"]
            self._socket = connect(pages[0]["webSocketDebuggerUrl"], max_size=None, proxy=None)
            for domain in ("Runtime", "Log", "Network", "Page"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def call(self, method, **parameters):
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=TIMEOUT))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def evaluate(self, script):
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def text(self):
        return self.evaluate("document.body.innerText") or ""

    def click(self, script, share=0.5):
        """Presses the mouse on the element that a script finds, at a share of its width."""
        box = self.evaluate(f"(r => [r.x, r.y, r.width, r.height])(({script}).getBoundingClientRect())")
        x, y = box[0] + share * box[2], box[1] + box[3] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def click_button(self, label):
        self.click(f"[...document.querySelectorAll('button')].find(b => b.innerText.trim() == '{label}')")

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            code = f"Key{key.upper()}" if key.isalpha() else f"Digit{key}"
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, text=key if kind == "keyDown" else "")

    def picture(self):  # [height, width, 3]
        data = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def complaints(self):
        """Errors of the console, and addresses outside of this computer that were asked for."""
        found = []
        for event in self.events:
            method, parameters = event["method"], event["params"]
            if method == "Runtime.exceptionThrown" or (
                method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert")
            ):
                found.append(parameters)
            if method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
                found.append(parameters)
            if method == "Network.requestWillBeSent":
                address = parameters["request"]["url"]
                if not address.startswith(("http://127.0.0.1:", "data:", "blob:")):
                    found.append(address)
        return found

    def close(self):
        if hasattr(self, "_socket"):
            self._socket.close()
        self._process.terminate()
        self._process.wait(timeout=TIMEOUT)


def wait(condition, what, press=lambda: None, seconds=TIMEOUT):
    """Presses, and again every second: a page that still builds itself moves its buttons away."""
    start = pressed = time.monotonic()
    press()
    while not condition():
        now = time.monotonic()
        assert now - start < seconds, f"waited {seconds} s for {what}"
        if now - pressed > 1:
            press()
            pressed = now
        time.sleep(0.1)


@pytest.fixture
def page(policy, tmp_path):
    """A browser, the log of what is driven, and its process. Slow motion leaves a busy computer time to keep up."""
    process = start(policy, "--page", "--port", 0, "--speed", 0.4, "--log", tmp_path / "log")
    with contextlib.ExitStack() as stack:
        stack.enter_context(process)
        stack.callback(process.kill)
        for line in process.stdout:
            if found := re.search(r"open (http://\S+)", line):
                break
        browser = Browser(tmp_path / "profile")
        stack.callback(browser.close)
        browser.call("Page.navigate", url=found[1])
        yield browser, tmp_path / "log", process


def mode(browser):
    found = re.search(r"mode\s+([A-Z]+)", browser.text())
    return found and found[1]


@needs_viser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this computer")
def test_the_page_drives_the_robot(page):
    browser, log, process = page
    wait(lambda: mode(browser) == "IDLE", "the page")

    def drawn():
        colors = browser.picture().reshape(-1, 3).astype(int)
        red = (colors[:, 0] > 120) & (colors[:, 1:].max(axis=1) < 90)  # the leg in front on the left
        return colors.std() > 10 and red.sum() > 100

    wait(drawn, "the robot to be drawn")
    refusal = "run is refused: the robot must stand first"
    wait(lambda: refusal in browser.text(), "the refusal", lambda: browser.click_button("run"))
    wait(lambda: mode(browser) == "STAND", "the robot to stand up", lambda: browser.click_button("stand"))
    wait(lambda: mode(browser) == "RUN", "the policy to run", lambda: browser.press("2"))
    before = read_log(log).records[-1]

    def told(name):
        return float(re.search(rf"^{name}.* told (\S+)", browser.text(), re.M)[1])

    slide = "document.querySelector('.mantine-Slider-trackContainer')"
    wait(lambda: told("forward") > 0.7, "the slider to move", lambda: browser.click(slide, share=0.8))
    presses = []  # more than one where the page takes more than a second to answer

    def press():
        presses.append(browser.press("l"))

    wait(lambda: told("left") < 0, "the key to work", press)

    def bent():
        record = read_log(log).records[-1]
        turned = np.abs(record["joint_position"] - before["joint_position"])[1::3]
        return record["command"][1] < 0 and turned.min() > 0.1

    wait(bent, "the robot to move")
    after = read_log(log).records[-1]
    if "TELEOP_PICTURE" in os.environ:
        Image.fromarray(browser.picture()).save(os.environ["TELEOP_PICTURE"])
    assert not before["command"].any() and after["command"][[0, 2]] == pytest.approx([0.8, 0], abs=0.06)
    steps = after["command"][1] / -0.1
    assert 0 < round(steps) <= len(presses) and steps == pytest.approx(round(steps), abs=1e-3)
    assert after["mode"] == before["mode"] == 2
    assert (after["target"] - before["target"])[1::3] == pytest.approx(BENDS * 0.8, abs=0.1)

    assert browser.complaints() == []
    browser.call("Page.navigate", url="about:blank")  # no page is left
    wait(lambda: read_log(log).records[-1]["mode"] == 3, "the robot to be damped")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0 and "faults: none" in output, errors
