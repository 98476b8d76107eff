import dataclasses
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.deploy.contract import (
    Action,
    Contract,
    ContractError,
    ContractTerm,
    Golden,
    Joint,
    RobotModel,
    Timing,
    Training,
)
from mjx_policies.deploy.observation import ObservationBuilder, ObservationError, gravity
from mjx_policies.envs import load
from mjx_policies.envs.quadruped.joystick import OBSERVATION, Commands
from mjx_policies.envs.registry import scene
from mjx_policies.spec import CommandRange, GaitClock

GAIT = GaitClock(hz=3.0, braking_seconds=1.0)
SIZES = {
    "gyro": 3,
    "gravity": 3,
    "joint_position": 2,
    "joint_velocity": 2,
    "last_action": 2,
    "command": 3,
    "gait": 2,
}


def term(name, size=None, scale=1.0, clip=0.0, history=1, newest_first=True, fill="first"):
    size = SIZES.get(name, 1) if size is None else size
    return ContractTerm(name, size, "1", "", scale, clip, history, newest_first, fill, 0.0, 0.0, True)


def contract(terms, homes=(0.5, -0.5), gait=GAIT):
    return Contract(
        schema_version="1.0",
        robot=RobotModel("toy", "", "wxyz"),
        timing=Timing(0.02, 0.005, 0.04, (0.0, 0.0)),
        joints=tuple(
            Joint(f"joint{i}", 0.0, home, 0.5, 20, 0.5, -2, 2, -1.8, 1.8, 20, 10) for i, home in enumerate(homes)
        ),
        observation=tuple(terms),
        action=Action("joint_position", 0.0, 20.0, 1),
        state=(),
        noise=(),
        commands=tuple(CommandRange(name, "1", -1.0, 1.0) for name in ("forward", "left", "turn")),
        gait=gait,
        randomization=(),
        training=Training("toy", 0, 0, "", {}),
        golden=Golden({}, {}, "", 1e-5),
        graph_sha256="",
    )


VALUES = {
    "gyro": np.array([0.1, -0.2, 0.3]),
    "orientation": np.array([0.5, 0.5, -0.5, 0.5]),
    "joint_position": np.array([0.7, -0.1]),
    "joint_velocity": np.array([3.0, -4.0]),
}
COMMAND = np.array([0.3, 0.0, -0.4])
ACTION = np.array([0.25, -0.75])


def build(builder, values=VALUES, command=COMMAND, action=ACTION, time=0.0):
    return builder.build(values, command, action, time)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gyro", [0.1, -0.2, 0.3]),
        ("joint_position", [0.2, 0.4]),
        ("joint_velocity", [3.0, -4.0]),
        ("last_action", [0.25, -0.75]),
        ("command", [0.3, 0.0, -0.4]),
        ("gait", [1.0, 0.0]),
    ],
)
def test_each_term_is_what_its_table_says(name, expected):
    found = build(ObservationBuilder(contract([term(name)])))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    scaled = build(ObservationBuilder(contract([term(name, scale=0.5, clip=0.25)])))
    np.testing.assert_allclose(scaled, 0.5 * np.clip(expected, -0.25, 0.25), atol=1e-6)


@pytest.mark.parametrize(("name", "expected"), [("joint_position", [0.2]), ("joint_velocity", [3.0])])
def test_a_short_term_is_of_the_first_joints(name, expected):
    np.testing.assert_allclose(build(ObservationBuilder(contract([term(name, size=1)]))), expected, atol=1e-6)


def test_gravity_is_the_third_row_of_the_rotation_matrix():
    random = np.random.default_rng(0)
    for _ in range(100):
        w, *axis = quaternion = random.normal(size=4)
        w, axis = w / np.linalg.norm(quaternion), np.array(axis) / np.linalg.norm(quaternion)
        cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
        matrix = np.eye(3) + 2 * w * cross + 2 * cross @ cross  # Rodrigues
        np.testing.assert_allclose(gravity(quaternion), matrix.T @ [0, 0, -1], atol=1e-12)
    half = math.pi / 8
    pitched = gravity(np.array([math.cos(half), 0, math.sin(half), 0]))  # nose down: down is ahead
    np.testing.assert_allclose(pitched, [math.sin(math.pi / 4), 0, -math.cos(math.pi / 4)], atol=1e-12)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("fill", ["first", "zero"])
def test_a_history_is_a_slice_of_the_trajectory(fill, newest_first):
    builder = ObservationBuilder(contract([term("gyro", history=4, fill=fill, newest_first=newest_first, scale=2.0)]))
    trajectory = np.random.default_rng(1).normal(size=(10, 3))
    for _ in range(2):  # a reset forgets everything
        for t in range(10):
            before = trajectory[0] if fill == "first" else np.zeros(3)
            rows = [trajectory[t - k] if t >= k else before for k in range(4)]
            expected = 2 * np.concatenate(rows if newest_first else rows[::-1])
            found = build(builder, {**VALUES, "gyro": trajectory[t]}, time=0.02 * t)
            np.testing.assert_allclose(found, expected, rtol=1e-6)
        builder.reset()


def phases(builder, commands, times=None):
    """The gait's phase under a list of forward commands; None while the robot stands."""
    found = []
    for step, forward in enumerate(commands):
        time = 0.02 * step if times is None else times[step]
        cosine, sine = build(builder, command=np.array([forward, 0.0, 0.0]), time=time)
        stands = cosine == 0 and sine == 0
        found.append(None if stands else math.atan2(sine, cosine) / (2 * math.pi) % 1.0)
    return found


def test_the_gait_stands_at_first_runs_under_a_command_and_brakes_for_a_second():
    builder = ObservationBuilder(contract([term("gait")]))
    found = phases(builder, [0.0] * 3 + [0.5] * 100 + [0.0] * 60)
    assert found[:3] == [None] * 3
    stepping = found[3:153]  # a hundred steps of the command, fifty of braking
    expected = [0.06 * step % 1.0 for step in range(150)]
    distance = [abs((a - b + 0.5) % 1.0 - 0.5) for a, b in zip(stepping, expected, strict=True)]
    assert max(distance) < 1e-5
    assert found[153:] == [None] * 10
    builder.reset()
    assert phases(builder, [0.0]) == [None]


def test_a_step_left_out_moves_the_gait_by_two():
    builder = ObservationBuilder(contract([term("gait")]))
    found = phases(builder, [0.5] * 4, times=[0.0, 0.0201, 0.0599, 0.08])
    np.testing.assert_allclose(found, [0.0, 0.06, 0.18, 0.24], atol=1e-6)


def test_unknown_terms_need_a_source():
    terms = [term("gyro"), term("height", 1, scale=2.0)]
    with pytest.raises(ContractError, match="observes height, which this library does not know: give a source"):
        ObservationBuilder(contract(terms))
    builder = ObservationBuilder(contract(terms), {"height": lambda values: values["gyro"][:1] + 1})
    np.testing.assert_allclose(build(builder), [0.1, -0.2, 0.3, 2.2], rtol=1e-6)
    with pytest.raises(ContractError, match="a source was given for depth"):
        ObservationBuilder(contract(terms), {"depth": None, "height": None})
    with pytest.raises(ContractError, match="a source was given for gyro"):
        ObservationBuilder(contract(terms), {"gyro": None, "height": None})


def test_what_does_not_fit_is_refused():
    with pytest.raises(ContractError, match="'joint_position' has size 12, this robot makes it 2"):
        ObservationBuilder(contract([term("joint_position", 12)]))
    with pytest.raises(ContractError, match="no clock"):
        ObservationBuilder(contract([term("gait")], gait=None))
    with pytest.raises(ObservationError, match="'gyro' needs 'gyro', which was not read"):
        build(ObservationBuilder(contract([term("gyro")])), {})
    with pytest.raises(ObservationError, match=r"'gyro' has shape \(2,\), not \(3,\)"):
        build(ObservationBuilder(contract([term("gyro")])), {"gyro": np.zeros(2)})


def test_it_equals_the_environment_that_the_policy_was_trained_in():
    env = load("Go2JoystickFlat", "cpu", 1)
    table = env.spec.action
    terms = [term(t.name, t.size, scale=t.scale) for t in OBSERVATION]
    builder = ObservationBuilder(contract(terms, homes=table.default))
    reset, step = jax.jit(type(env).reset), jax.jit(type(env).step)

    state, timestep = reset(env, jax.random.key(0), {})
    still = jnp.zeros(3)
    state = dataclasses.replace(state, phase=jnp.zeros(()), command=still, command_steps=jnp.asarray(2**30, jnp.int32))
    random, model = np.random.default_rng(0), scene("Go2JoystickFlat")  # with sensors of the trunk
    sensors = mujoco.MjData(model)
    action, seen_standing, seen_stepping = np.zeros(12, np.float32), 0, 0
    # The command that an environment draws at each of these steps.
    forward = Commands(low=jnp.array([0.5, 0.1, 0.2]), high=jnp.array([0.5, 0.1, 0.2]), stand=jnp.zeros(()))
    sideways = Commands(low=jnp.array([0.0, -0.3, 0.0]), high=jnp.array([0.0, -0.3, 0.0]), stand=jnp.zeros(()))
    stand = Commands(stand=jnp.ones(()))
    changes = {5: forward, 21: sideways, 37: stand, 95: stand}  # told to stand where it stands, it does not step
    for number in range(110):
        if number:
            if number in changes:
                env = dataclasses.replace(env, commands=changes[number])
            due = 1 if number in changes else 2**30
            state = dataclasses.replace(state, command_steps=jnp.asarray(due, jnp.int32))
            action = (0.6 * random.normal(size=12)).astype(np.float32)  # some beyond 1: observed as they are
            state, timestep = step(env, state, jnp.asarray(action))
            expected = timestep.obs["state"]
        else:  # the first observation was made under another command
            expected = env._observe(state, env._measure(state.data))["state"]

        sensors.qpos[:], sensors.qvel[:] = state.data.qpos, state.data.qvel
        mujoco.mj_forward(model, sensors)  # of this instant, as a robot's message is
        values = {
            "gyro": sensors.sensor("gyro").data,
            "orientation": sensors.sensor("orientation").data,
            "joint_position": np.asarray(state.data.qpos[7:]),
            "joint_velocity": np.asarray(state.data.qvel[6:]),
        }
        found = build(builder, values, np.asarray(state.command), action, 0.02 * number)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0, err_msg=f"step {number}")
        seen_standing += not found[-2:].any()
        seen_stepping += bool(found[-2:].any())
    assert seen_standing > 20 and seen_stepping > 70


def test_importing_the_runtime_leaves_jax_and_mujoco_alone():
    code = (
        "import sys, mjx_policies.deploy.loop; "
        "print([name for name in ('jax', 'flax', 'onnx', 'mujoco') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
