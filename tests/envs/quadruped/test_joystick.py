"""The joystick task against MuJoCo's sensors and against rewards worked out by hand. Axes: J joints, F feet."""

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.envs.quadruped import joystick
from mjx_policies.envs.quadruped.joystick import CONTROL_DT, GAIT, SIGMA, Commands, new_command, reward_terms
from mjx_policies.envs.quadruped.robot import SOFT_LIMIT, foot_contacts, joint_limits, spawn
from mjx_policies.envs.quadruped.scenes import ACTUATORS, LEGS, flat, make_terrain
from mjx_policies.envs.registry import load
from mjx_policies.envs.sensors import read_sensor
from mjx_policies.spec import table_column, table_slices
from mjx_policies.types import actuator_targets

FAST = {"xla_backend_optimization_level": 0}  # quickly compiled: these programs run for an instant
REST = jnp.zeros(12)


@pytest.fixture(scope="module")
def task():
    return load("Go2JoystickFlat", "cpu", num_envs=1)


@pytest.fixture(scope="module")
def step(task):
    return jax.jit(task.step, compiler_options=FAST)


@pytest.fixture(scope="module")
def begin(task):
    """A robot at these coordinates, by default in the home pose; any other field of its state can be given too."""
    init = jax.jit(task.physics.init, compiler_options=FAST)
    state, _ = jax.jit(task.reset, compiler_options=FAST)(jax.random.key(0), {})

    def place(qpos=None, **fields):
        qpos = np.float32(task.physics.model.key("home").qpos if qpos is None else qpos)
        return state.replace(data=init(qpos, np.zeros(task.physics.model.nv, np.float32), {}), **fields)

    return place


def home(task, height=None, roll=0.0, pitch=0.0, leg=None):  # about one of the two axes
    qpos = task.physics.model.key("home").qpos.copy()
    qpos[2] = qpos[2] if height is None else height
    qpos[3:7] = [np.cos((roll + pitch) / 2), np.sin(roll / 2), np.sin(pitch / 2), 0]
    qpos[7:] = qpos[7:] if leg is None else np.tile(leg, 4)
    return qpos


def test_observations_are_what_the_sensors_of_mujoco_say(task):
    model, data = task.physics.model, mujoco.MjData(task.physics.model)
    state, timestep = task.reset(jax.random.key(3), {})
    data.qpos[:], data.qvel[:] = state.data.qpos, state.data.qvel
    mujoco.mj_forward(model, data)
    site = data.site("imu")
    world = np.zeros(6)
    mujoco.mj_objectVelocity(
        model, data, mujoco.mjtObj.mjOBJ_SITE, site.id, world, 1
    )  # angular and linear, in its frame
    feet = np.stack([data.site(f"{leg}_foot").xpos for leg in LEGS])
    lowest = np.abs(feet[:, 2] - joystick.FOOT_RADIUS) < 0.2
    assert lowest.all()
    expected = {
        "gyro": world[:3],
        "gravity": site.xmat.reshape(3, 3).T @ [0, 0, -1],
        "joint_position": data.qpos[7:] - np.asarray(task.spec.action.default),
        "joint_velocity": data.qvel[6:],
        "last_action": np.zeros(12),
        "command": state.command,
        "linear_velocity": world[3:],
        "height": site.xpos[2:],
        "foot_contact": [data.sensor(f"{leg}_foot_contact").data[0] > 0 for leg in LEGS],
        "foot_height": feet[:, 2],
        "foot_air_time": np.zeros(4),
    }
    for name, table in (("state", joystick.OBSERVATION), ("privileged", joystick.PRIVILEGED)):
        where, scale = table_slices(table), table_column(table, "scale")
        for term in table:
            if term.name in expected:
                got = timestep.obs[name][where[term.name]] / scale[where[term.name]]
                # Sensors in float64, the rotation of gravity in float32.
                np.testing.assert_allclose(got, expected.pop(term.name), atol=2e-6, err_msg=term.name)
    assert not expected, "every expectation is a term of a table"


def test_after_a_step_too_the_trunk_is_observed_at_the_instant_of_the_joints(task, step):
    model = flat()  # with sensors of the trunk
    data = mujoco.MjData(model)
    state, _ = task.reset(jax.random.key(4), {})
    state, timestep = step(state, jnp.asarray(np.random.default_rng(0).normal(size=12), jnp.float32))
    data.qpos[:], data.qvel[:] = state.data.qpos, state.data.qvel
    mujoco.mj_forward(model, data)
    expected = {name: data.sensor(name).data for name in ("gyro", "local_linvel")}
    where = table_slices(joystick.OBSERVATION)
    stale = read_sensor(task.physics.model, state.data.sensordata, "FL_foot_linvel")
    assert np.abs(stale - data.sensor("FL_foot_linvel").data).max() > 0.05  # what there would be to see otherwise
    seen = np.asarray(timestep.obs["state"])
    np.testing.assert_allclose(seen[where["gyro"]], 0.25 * expected["gyro"], atol=1e-5)
    np.testing.assert_allclose(seen[where["gravity"]], data.site("imu").xmat.reshape(3, 3).T @ [0, 0, -1], atol=1e-5)
    privileged, where = np.asarray(timestep.obs["privileged"]), table_slices(joystick.PRIVILEGED)
    np.testing.assert_allclose(privileged[where["linear_velocity"]], expected["local_linvel"], atol=1e-5)
    np.testing.assert_allclose(privileged[where["height"]], data.site("imu").xpos[2:], atol=1e-5)


def test_a_zero_action_holds_the_home_pose_and_one_unit_moves_by_the_scale(task):
    model, table = task.physics.model, task.spec.action
    assert table.names == ACTUATORS == tuple(model.actuator(i).name for i in range(12))
    np.testing.assert_allclose(actuator_targets(table, REST), model.key("home").ctrl, rtol=1e-6)
    np.testing.assert_allclose(
        actuator_targets(table, REST.at[2].set(0.5)) - actuator_targets(table, REST), 0.25 * np.eye(12)[2], atol=1e-6
    )
    for action, limit in zip((-99.0, 99.0), joint_limits(model, SOFT_LIMIT), strict=True):
        np.testing.assert_allclose(actuator_targets(table, REST + action), limit, rtol=1e-6)
    np.testing.assert_array_equal(table.stiffness, model.actuator_gainprm[:, 0])
    np.testing.assert_array_equal(table.damping, -model.actuator_biasprm[:, 2])


def test_commands_cover_their_ranges_and_stand_now_and_then():
    commands = Commands()
    uniform = jax.random.uniform(jax.random.key(0), (4000, 5))
    twist, steps = jax.vmap(new_command, in_axes=(0, None))(uniform, commands)
    standing = ~np.asarray(twist).any(axis=1)
    # Four standard errors of 4000 draws.
    assert abs(standing.mean() - commands.stand) < 4 * np.sqrt(0.1 * 0.9 / 4000)
    moving = np.asarray(twist)[~standing]
    assert (moving >= commands.low).all() and (moving <= commands.high).all()
    np.testing.assert_allclose(moving.min(axis=0), commands.low, atol=0.01)
    np.testing.assert_allclose(moving.max(axis=0), commands.high, atol=0.01)
    assert 150 <= steps.min() < 153 and 397 < steps.max() <= 400  # 3 to 8 s at 50 Hz
    # What a curriculum puts in their place is obeyed.
    fixed = Commands(low=jnp.asarray([0.5, 0, 0]), high=jnp.asarray([0.5, 0, 0]), stand=jnp.asarray(0.0))
    np.testing.assert_allclose(new_command(uniform[0], fixed)[0], [0.5, 0, 0], rtol=1e-6)
    assert not new_command(uniform[0], fixed.replace(stand=jnp.asarray(1.0)))[0].any()


def test_a_command_is_redrawn_when_its_time_is_over(task, step, begin):
    command = jnp.asarray([0.3, 0.0, 0.0])
    state = begin(command=command, command_steps=jnp.asarray(3), command_age=jnp.asarray(7))
    seen = []
    for _ in range(4):
        state, timestep = step(state, REST)
        seen.append((state.command.tolist(), int(state.command_steps), int(state.command_age)))
        observed = timestep.obs["state"][table_slices(joystick.OBSERVATION)["command"]]
        np.testing.assert_array_equal(observed, state.command)  # what is observed is what the next reward tracks
    new = seen[2][0]
    assert [row[0] for row in seen] == [command.tolist(), command.tolist(), new, new] and new != command.tolist()
    assert [row[1] for row in seen[:2]] == [2, 1] and 150 <= seen[2][1] <= 400 and seen[3][1] == seen[2][1] - 1
    assert [row[2] for row in seen] == [8, 9, 0, 1]
    # The next command depends on the robot's own key.
    other, _ = step(begin(command_steps=jnp.asarray(1), key=jax.random.key(9)), REST)
    assert other.command.tolist() != new


def test_the_gait_goes_round_while_it_moves(step, begin):
    state = begin(command=jnp.asarray([0.5, 0.0, 0.0]), command_steps=jnp.asarray(100), phase=jnp.asarray(0.9))
    for i in range(1, 5):
        state, timestep = step(state, REST)
        phase = (0.9 + i * GAIT.hz * CONTROL_DT) % 1.0
        np.testing.assert_allclose(state.phase, phase, atol=1e-5)  # float32 sums
        expected = [np.cos(2 * np.pi * phase), np.sin(2 * np.pi * phase)]
        np.testing.assert_allclose(timestep.obs["state"][-2:], expected, atol=1e-4)


def test_air_time_counts_while_a_foot_is_up(task, step, begin):
    state = begin(home(task, height=1.0))
    for i in range(1, 4):
        state, timestep = step(state, REST)
        np.testing.assert_allclose(state.air_time, [i * CONTROL_DT] * 4, rtol=1e-6)
    np.testing.assert_array_equal(timestep.obs["privileged"][-4:], state.air_time)
    state, _ = step(begin(air_time=jnp.ones(4)), REST)
    np.testing.assert_array_equal(state.air_time, np.zeros(4))


def test_it_falls_when_it_tilts_or_its_trunk_touches(task, step, begin):
    cases = {  # 60 degrees is the limit; a robot that high up touches nothing
        "upright": (home(task), False),
        "50 degrees": (home(task, 2.0, np.deg2rad(50)), False),
        "70 degrees": (home(task, 2.0, np.deg2rad(70)), True),
        "on its back": (home(task, 2.0, np.pi), True),
        "trunk on the ground": (home(task, 0.05, leg=[0, 2.8, -2.7]), True),  # legs folded up
        "head above the ground": (home(task, 0.27, pitch=np.deg2rad(30), leg=[0, 2.8, -2.7]), False),
        "head on the ground": (home(task, 0.23, pitch=np.deg2rad(30), leg=[0, 2.8, -2.7]), True),  # and nothing else
    }
    for name, (qpos, falls) in cases.items():
        _, timestep = step(begin(qpos), REST)
        assert bool(timestep.terminated) == falls, name
        assert timestep.metrics["reward/fall"] == (task.weights.fall if falls else 0), name
        assert not timestep.truncated


def test_the_reward_is_the_weighted_sum_of_its_terms(task, step, begin):
    state = begin(command=jnp.asarray([0.5, 0.1, -0.2]))
    rng = np.random.default_rng(0)
    for _ in range(3):
        state, timestep = step(state, jnp.asarray(rng.normal(size=12), jnp.float32))
        terms = [value for name, value in timestep.metrics.items() if name.startswith("reward/")]
        assert len(terms) == len(joystick.REWARDS)
        # Another order of sums, of terms that nearly cancel.
        np.testing.assert_allclose(timestep.reward, CONTROL_DT * np.sum(terms), rtol=1e-5, atol=1e-8)


def perfect(task, begin, **fields):
    """A robot that stands still as told, and what `reward_terms` is told of it."""
    state = begin(command=jnp.zeros(3), command_age=jnp.asarray(10**6), last_action=REST, **fields)
    now = {
        "gyro": jnp.zeros(3),
        "gravity": jnp.asarray([0.0, 0.0, -1.0]),
        "velocity": jnp.zeros(3),
        "height": jnp.asarray(joystick.NOMINAL_HEIGHT),
        "contact": jnp.ones(4, bool),
        "foot_height": jnp.full(4, joystick.FOOT_RADIUS),
        "foot_speed": jnp.zeros(4),
        "trunk_contact": jnp.asarray(False),
    }
    return state, now, state.data.replace(actuator_force=jnp.zeros(12))


def test_standing_still_as_told_loses_nothing(task, begin):
    terms = reward_terms(task, *perfect(task, begin), REST)
    best = {name: 1.0 if weight > 0 else 0.0 for name, weight in vars(task.weights).items()}
    best["linear_error"] = 1e-3  # its root is rounded off at zero
    assert set(terms) == set(best)
    for name, value in terms.items():
        np.testing.assert_allclose(value, best[name], atol=1e-6, err_msg=name)


def test_reward_terms_by_hand(task, begin):
    state, now, data = perfect(task, begin)
    state = state.replace(command=jnp.asarray([0.5, -0.2, 0.4]), last_action=jnp.full(12, 0.5))
    joints = np.float64(data.qpos[7:])
    joints[0] += 0.3
    lower, upper = joint_limits(task.physics.model, SOFT_LIMIT)
    joints[5] = upper[5] + 0.05
    joints[8] = lower[8] - 0.02
    from_home = joints - task.physics.model.key("home").qpos[7:]
    data = data.replace(qpos=data.qpos.at[7:].set(joints), actuator_force=jnp.arange(12.0))
    now |= {
        "gyro": jnp.asarray([0.1, 0.2, 0.1]),
        "gravity": jnp.asarray([0.6, 0.0, -0.8]),
        "velocity": jnp.asarray([0.2, 0.2, -0.3]),
        "height": jnp.asarray(joystick.NOMINAL_HEIGHT - 0.1),
        "contact": jnp.asarray([True, False, True, False]),
        "foot_speed": jnp.asarray([0.1, 0.2, 0.3, 0.4]),
    }
    expected = {
        "track_linear": np.exp(-(0.3**2 + 0.4**2) / SIGMA),
        "track_yaw": np.exp(-(0.3**2) / SIGMA),
        "linear_error": 0.5,
        "vertical_velocity": 0.09,
        "roll_pitch_rate": 0.01 + 0.04,
        "tilt": 0.36,
        "height": 0.01,
        "posture": np.sum(from_home**2),
        "torque": np.sum(np.arange(12) ** 2),
        "action_rate": 12 * 0.25,
        "joint_limit": 0.07,
        "slip": 0.1**2 + 0.3**2,
        "stand_still": 0.0,  # it is told to move
        "fall": 0.0,
    }
    terms = reward_terms(task, state, now, data, jnp.zeros(12))
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    standing = reward_terms(task, state.replace(command=jnp.zeros(3)), now, data, jnp.zeros(12))
    np.testing.assert_allclose(standing["stand_still"], np.abs(from_home).sum(), rtol=1e-5)
    fallen = reward_terms(task, state, now | {"trunk_contact": jnp.asarray(True)}, data, jnp.zeros(12))
    assert fallen["fall"] == 1


@pytest.mark.parametrize("phase", [0.0, 0.1, 0.25, 0.6])
def test_feet_are_paid_for_following_the_gait(task, begin, phase):
    state, now, data = perfect(task, begin, phase=jnp.asarray(phase))
    state = state.replace(command=jnp.asarray([0.5, 0.0, 0.0]))
    wanted = joystick.swing_height(state.phase, jnp.asarray(True))
    on_time = reward_terms(task, state, now | {"foot_height": wanted}, data, REST)["gait"]
    np.testing.assert_allclose(on_time, 1.0, atol=1e-6)
    for foot in range(4):
        late = reward_terms(task, state, now | {"foot_height": wanted.at[foot].add(0.03)}, data, REST)["gait"]
        assert late < 0.9


def test_numbers_of_the_task_change_without_a_new_trace(task, begin):
    step = jax.jit(chex.assert_max_traces(lambda task, *x: task.step(*x), n=1), compiler_options=FAST)
    # As they are kept in a training run: arrays of a fixed type.
    task = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), task)
    state = begin()
    _, timestep = step(task, state, REST)
    doubled = task.replace(weights=jax.tree.map(lambda x: 2 * x, task.weights))
    _, twice = step(doubled, state, REST)
    np.testing.assert_allclose(twice.reward, 2 * timestep.reward, rtol=1e-6)


def test_feet_that_touch_the_ground(task, begin):
    model = task.physics.model
    data = mujoco.MjData(model)
    data.qpos[:] = home(task)
    data.qpos[2] -= 0.01  # into the ground
    data.qpos[8] = model.key("home").qpos[8] + 0.8  # the thigh of the front left leg lifts its foot
    mujoco.mj_forward(model, data)
    assert foot_contacts(model, jnp.asarray(data.sensordata)).tolist() == [False, True, True, True]


def test_robots_start_on_tiles_no_harder_than_the_difficulty(task):
    terrain, model = make_terrain(), task.physics.model
    keys = jax.random.split(jax.random.key(0), 400)
    place = jax.jit(jax.vmap(lambda key, difficulty: spawn(key, model, terrain, difficulty), in_axes=(0, None)))
    origins = terrain.origins.reshape(-1, 3)  # level by level
    for difficulty, hardest in ((0.0, 0), (0.1, 0), (0.4, 2), (1.0, 5)):
        qpos, qvel = jax.device_get(place(keys, jnp.asarray(difficulty)))
        # The robot stands over the middle of a tile, its feet above the highest ground below it.
        distance = np.linalg.norm(qpos[:, None, :2] - origins[:, :2], axis=2)
        tile = distance.argmin(axis=1)
        assert distance.min(axis=1).max() < 1e-5
        np.testing.assert_allclose(qpos[:, 2], model.key("home").qpos[2] + origins[tile, 2] + 0.01, atol=1e-5)
        levels, kinds = np.divmod(tile, terrain.origins.shape[1])
        assert set(levels) == set(range(hardest + 1)) and set(kinds) == set(range(terrain.origins.shape[1]))
    yaw = 2 * np.arctan2(qpos[:, 6], qpos[:, 3])
    counts = np.bincount(np.int64((yaw + np.pi) / (2 * np.pi) * 4).clip(0, 3), minlength=4)
    assert np.abs(counts - 100).max() < 35, "any heading; four standard deviations of 400 draws in quarters"
    assert np.abs(qpos[:, 7:] - model.key("home").qpos[7:]).max() <= 0.1 + 1e-6 and np.abs(qvel).max() <= 0.2


@pytest.fixture(scope="module")
def rough():
    return load("Go2JoystickRough", "cpu", num_envs=4)


def test_a_robot_that_leaves_the_tiles_is_cut_off(rough):
    limit_x, limit_y = 6 * 8.0 / 2, 5 * 8.0 / 2  # six levels along x, five kinds along y, tiles of 8 m
    places = [(limit_x - 0.1, 0), (limit_x + 0.1, 0), (0, limit_y - 0.1), (0, -limit_y - 0.1), (-limit_x - 0.1, 0)]
    qpos = np.tile(np.float32(rough.physics.model.key("home").qpos), (len(places) + 1, 1))
    qpos[:, :2] = [*places, places[1]]
    qpos[-1, 3:7] = [0, 1, 0, 0]  # outside and upside down: that is a fall

    def step(qpos):
        state, _ = rough.reset(jax.random.key(0), {})
        state = rough.replace_data(state, rough.physics.init(qpos, jnp.zeros(18), {}))
        return rough.step(state, REST)[1]

    timestep = jax.jit(jax.vmap(step), compiler_options=FAST)(qpos)
    assert timestep.truncated.tolist() == [False, True, False, True, True, False]
    assert timestep.terminated.tolist() == [False] * 5 + [True]


def test_the_difficulty_is_replaced_in_the_task(rough):
    place = jax.jit(jax.vmap(lambda key, task: task.reset(key, {})[0].data.qpos[0], (0, None)), compiler_options=FAST)
    keys = jax.random.split(jax.random.key(0), 100)
    for difficulty, hardest in ((None, 5), (0.4, 2), (0.0, 0)):
        task = rough if difficulty is None else rough.replace(difficulty=difficulty)
        x = np.asarray(place(keys, task.replace(difficulty=jnp.asarray(task.difficulty))))
        assert x.max() == rough.terrain.origins[hardest, 0, 0]


def test_on_rough_ground_heights_are_above_the_ground(rough):
    task = rough
    state, timestep = jax.jit(jax.vmap(lambda key: task.reset(key, {})), compiler_options=FAST)(
        jax.random.split(jax.random.key(0), 4)
    )
    where = table_slices(joystick.PRIVILEGED)
    privileged = np.asarray(timestep.obs["privileged"])
    for i, qpos in enumerate(np.asarray(state.data.qpos)):
        data = mujoco.MjData(task.physics.model)
        data.qpos[:] = qpos
        mujoco.mj_forward(task.physics.model, data)
        feet = np.stack([data.site(f"{leg}_foot").xpos for leg in LEGS])
        for got, point in ((privileged[i, where["height"]], data.site("imu").xpos[None]), (None, feet)):
            got = privileged[i, where["foot_height"]] / 5.0 if got is None else got
            expected = point[:, 2] - [ground_below(task.physics.model, data, *p[:2]) for p in point]
            np.testing.assert_allclose(got, expected, atol=1e-4)  # metres, from float32 heights


def ground_below(model, data, x, y):
    geomid = np.zeros(1, np.int32)
    group = np.uint8([1, 0, 0, 0, 0, 0])  # the floor, and feet, which are excluded by starting below the robot
    start = np.array([x, y, 10.0])
    for _ in range(10):
        distance = mujoco.mj_ray(model, data, start, np.array([0.0, 0.0, -1.0]), group, 1, -1, geomid)
        start[2] -= distance
        if model.geom(int(geomid[0])).name == "floor":
            return start[2]
        start[2] -= 1e-4  # through what is in the way
    raise AssertionError("no ground below")
