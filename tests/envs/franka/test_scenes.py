"""The tables of the Franka in C MuJoCo: things stay where they are put, and fit where and touch what they should."""

import mujoco
import numpy as np
import pytest

from mjx_policies.envs.franka import scenes
from mjx_policies.envs.franka.robot import ACTUATORS, FINGERS, JOINTS, OPENING

SCENES = {
    build.__name__: build
    for build in (scenes.reach, scenes.push, scenes.pick_cube, scenes.stack, scenes.peg_insert, scenes.drawer)
}


@pytest.fixture(scope="module", params=SCENES)
def model(request):
    return SCENES[request.param](lean=True)


def at_ready(model, opening=OPENING, grip=None):
    data = mujoco.MjData(model)
    data.qpos[:7], data.qpos[7:9] = scenes.READY, opening
    data.ctrl[:] = (*scenes.READY, opening if grip is None else grip)
    return data


def run(model, data, seconds):
    for _ in range(round(seconds / model.opt.timestep)):
        mujoco.mj_step(model, data)


def test_the_robot_comes_first_and_at_a_whole_number_of_steps(model):
    assert [model.joint(i).name for i in range(9)] == [*JOINTS, *FINGERS]
    assert [model.actuator(i).name for i in range(model.nu)] == list(ACTUATORS)
    assert (0.05 / model.opt.timestep) % 1 == pytest.approx(0)


@pytest.mark.parametrize("name", SCENES)
def test_decoration_changes_nothing_but_the_picture(name):
    lean, whole = SCENES[name](lean=True), SCENES[name]()
    assert whole.ngeom > lean.ngeom and {whole.camera(i).name for i in range(whole.ncam)} == {"scene", "wrist"}
    states = []
    for model in (lean, whole):
        data = at_ready(model, opening=0.01)
        run(model, data, 0.1)
        states.append(np.concatenate([data.qpos, data.qvel, data.sensordata]))
    np.testing.assert_allclose(*states, atol=1e-9)


def test_ready_is_above_the_table_pointing_down(model):
    data = at_ready(model)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.site("tcp").xpos, [0.5, 0, 0.2], atol=1e-5)
    np.testing.assert_allclose(data.site("tcp").xmat.reshape(3, 3), np.diag([1, -1, -1]), atol=1e-5)
    assert not (data.contact.dist < 0).any()  # nothing touches anything


@pytest.mark.parametrize(
    ("name", "body", "height"),
    [("push", "block", 0.02), ("pick_cube", "cube", 0.02), ("stack", "cube", 0.02), ("stack", "base", 0.02)],
)
def test_what_lies_on_the_table_neither_sinks_nor_drifts(name, body, height):
    model = SCENES[name](lean=True)
    data = at_ready(model)
    for i, other in enumerate({"block", "cube", "base"} & bodies(model)):
        data.joint(other).qpos[:] = [0.5, 0.1 * i, height, np.cos(0.2), 0, 0, np.sin(0.2)]
    start = data.joint(body).qpos.copy()
    run(model, data, 2.0)
    # The contacts give under the weight: by a fraction of a millimetre.
    np.testing.assert_allclose(data.joint(body).qpos, start, atol=5e-4)
    assert np.abs(data.joint(body).qvel).max() < 1e-4


def bodies(model):
    return {model.body(i).name for i in range(model.nbody)}


def test_a_stack_stands():
    model = scenes.stack(lean=True)
    data = at_ready(model)
    data.joint("base").qpos[:3] = [0.5, 0, scenes.CUBE]
    data.joint("cube").qpos[:3] = [0.51, 0.005, 3 * scenes.CUBE]
    run(model, data, 2.0)
    np.testing.assert_allclose(data.joint("cube").qpos[:3], [0.51, 0.005, 3 * scenes.CUBE], atol=1e-3)


def test_a_cube_pushed_over_the_edge_of_another_falls():
    model = scenes.stack(lean=True)
    data = at_ready(model)
    data.joint("base").qpos[:3] = [0.5, 0, scenes.CUBE]
    data.joint("cube").qpos[:3] = [0.5 + 1.1 * scenes.CUBE, 0, 3 * scenes.CUBE]
    run(model, data, 1.0)
    assert data.joint("cube").qpos[2] < 2.5 * scenes.CUBE


@pytest.mark.parametrize("swing", [0.0, 0.15])  # rad of the base joint, twice a second: 0.5 m/s and 7 m/s^2
def test_a_grasped_cube_does_not_slip(swing):
    model = scenes.pick_cube(lean=True)
    data = at_ready(model, opening=scenes.CUBE, grip=0.0)
    data.joint("cube").qpos[:3] = [0.5, 0, 0.2]
    run(model, data, 0.5)
    mujoco.mj_forward(model, data)
    before = in_the_hand(data)
    while data.time < 3.5:
        data.ctrl[0] = swing * (1 - np.cos(4 * np.pi * (data.time - 0.5))) / 2
        mujoco.mj_step(model, data)
    mujoco.mj_forward(model, data)
    # Friction is regularised, so a weight creeps, by 0.1 mm/s. On a circle of radius r a cube drifts outwards besides,
    # at r w^2 / b: the engine's contacts know no centripetal acceleration, and damp what comes of it with b = 2 / (0.95
    # * 0.02 s). The mean of w^2 is half the square of its peak.
    drift = 3.0 * 0.5 * (2 * np.pi * swing) ** 2 / 2 / (2 / (0.95 * 0.02))
    along, across, down = in_the_hand(data) - before
    assert -1e-4 < along < 1.2 * drift + 1e-4 and abs(across) < 1e-3 and abs(down) < 1e-3
    assert all(abs(data.sensor(f"{side}_touch").data[1]) > 0.5 for side in ("left", "right"))


def in_the_hand(data):
    tcp = data.site("tcp")
    return tcp.xmat.reshape(3, 3).T @ (data.body("cube").xpos - tcp.xpos)


def in_the_hole(model, depth, offset=0.0):
    data = at_ready(model)
    data.mocap_pos[0] = [0.3, 0.3, 0]
    tip = scenes.PEG_HANDLE[2] + scenes.PEG_LENGTH
    data.joint("peg").qpos[:] = [0.3 + offset, 0.3, scenes.HOLE_DEPTH - depth + tip, 1, 0, 0, 0]
    return data


def test_the_peg_falls_into_its_hole_and_stays_there():
    model = scenes.peg_insert(lean=True)
    data = in_the_hole(model, depth=0.001)
    run(model, data, 1.0)
    peg = data.joint("peg").qpos
    assert peg[2] == pytest.approx(scenes.PEG_HANDLE[2] + scenes.PEG_LENGTH, abs=1e-3)  # it stands on the table
    np.testing.assert_allclose(peg[:2], 0.3, atol=2e-3)  # it may lean within its play
    assert np.abs(data.joint("peg").qvel).max() < 0.05


@pytest.mark.parametrize("offset", [0.0055, 0.012])
def test_the_peg_does_not_enter_beside_its_hole(offset):
    model = scenes.peg_insert(lean=True)
    data = in_the_hole(model, depth=0.0, offset=offset)
    lowest = np.inf
    for _ in range(20):
        run(model, data, 0.01)
        tip = data.site("peg_tip").xpos
        lowest = min(lowest, tip[2])
    assert lowest > scenes.HOLE_DEPTH - 0.002


def test_the_play_of_the_peg_is_half_a_millimetre():
    model = scenes.peg_insert(lean=True)
    data = in_the_hole(model, depth=0.02)
    mujoco.mj_forward(model, data)
    width = data.geom("socket_back").xpos[0] - data.geom("socket_front").xpos[0] - 2 * model.geom("socket_back").size[0]
    depth = data.geom("socket_left").xpos[1] - data.geom("socket_right").xpos[1] - 2 * model.geom("socket_left").size[1]
    assert width == pytest.approx(0.0085) and depth == pytest.approx(0.0085)
    assert 2 * model.geom("peg_shaft").size[0] == pytest.approx(0.008)


def test_the_drawer_runs_to_its_end_and_no_further():
    model = scenes.drawer(lean=True)
    data = at_ready(model)
    start = data.joint("drawer").qpos[0]
    run(model, data, 0.5)
    assert data.joint("drawer").qpos[0] == pytest.approx(start, abs=1e-4)  # friction holds it
    data.joint("drawer").qfrc_applied[:] = 30.0
    run(model, data, 2.0)
    assert data.joint("drawer").qpos[0] == pytest.approx(scenes.DRAWER_RANGE, abs=2e-3)
    assert data.body("drawer").xpos[0] < data.body("cabinet").xpos[0]  # towards the robot


def test_the_hand_comes_to_the_handle_without_the_cabinet():
    """The open fingers around the handle touch nothing."""
    model = scenes.drawer(lean=True)
    data = at_ready(model)
    data.mocap_pos[0] = np.array([0.5, 0, 0.2]) - scenes.HANDLE
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.site("handle").xpos, data.site("tcp").xpos, atol=1e-5)
    assert not (data.contact.dist < 0).any()
