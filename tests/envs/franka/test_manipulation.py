"""The tasks of the Franka: laws that all keep, and each one's success and rewards on states made by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.compiler import compiler_options
from mjx_policies.deploy.robots.franka_sensing import tcp_pose as deployed_tcp
from mjx_policies.envs.franka import drawer, peg_insert, pick_cube, push, reach, scenes, sensing, stack
from mjx_policies.envs.franka.episode import action_change, away_from
from mjx_policies.envs.franka.kinematics import tcp_pose
from mjx_policies.envs.mocap import place
from mjx_policies.envs.progress import HOLD_SECONDS
from mjx_policies.envs.registry import load
from mjx_policies.envs.sensors import read_sensor
from mjx_policies.spec import table_slices

TASKS = {
    "FrankaReach": reach,
    "FrankaPush": push,
    "FrankaPickCube": pick_cube,
    "FrankaStack": stack,
    "FrankaPegInsert": peg_insert,
    "FrankaDrawer": drawer,
}
PEG_STANDS = scenes.PEG_HANDLE[2] + scenes.PEG_LENGTH  # m, of its middle when its tip is on the table


def jit(function):
    return jax.jit(function, compiler_options=compiler_options(runs_once=True))


class Task:
    """A task with what is compiled of it once."""

    def __init__(self, name):
        self.name, self.module = name, TASKS[name]
        self.env = load(name, "cpu", num_envs=1, actions="joint_delta")  # a zero means stay
        self.model = self.env.physics.model
        self.reset, self.step = jit(self.env.reset), jit(self.env.step)
        self.start, _ = self.reset(jax.random.key(0), {})

    def state(self, opening=0.04, grip=None, joints=scenes.READY, mocap=None, **objects):
        """At rest at `joints`, objects and mocap bodies at the poses given."""
        qpos = np.zeros(self.model.nq, np.float32)
        qpos[:7], qpos[7:9] = joints, opening
        for name, pose in objects.items():
            joint = self.model.joint(name)
            free = joint.type[0] == mujoco.mjtJoint.mjJNT_FREE
            size = 7 if free else 1
            pose = np.atleast_1d(np.asarray(pose, np.float32))
            qpos[joint.qposadr[0] :][:size] = np.append(pose, [1, 0, 0, 0]) if free and len(pose) == 3 else pose
        data = self.env.physics.init(jnp.asarray(qpos), jnp.zeros(self.model.nv), {})
        if mocap:
            data = place(self.model, data, {name: jnp.asarray(at, jnp.float32) for name, at in mocap.items()})
        target = jnp.append(jnp.asarray(joints), opening if grip is None else grip)
        return dataclasses.replace(self.start, data=data, target=target.astype(jnp.float32))

    def succeeded(self, **state):
        return bool(self.module.succeeded(self.model, self.state(**state).data))

    def terms(self, **state):
        terms = self.module.reward_terms(self.model, self.state(**state).data)
        return {name: float(term) for name, term in terms.items()}


@pytest.fixture(scope="module", params=TASKS)
def task(request):
    return Task(request.param)


SOLVED = {
    "FrankaReach": dict(mocap={"goal": [0.5, 0, 0.2]}),
    "FrankaPush": dict(opening=0.0, block=[0.55, 0.1, 0.02], mocap={"goal": [0.55, 0.1, 0]}),
    "FrankaPickCube": dict(opening=0.02, grip=0.0, cube=[0.5, 0, 0.2], mocap={"goal": [0.5, 0, 0.2]}),
    "FrankaStack": dict(base=[0.5, 0.2, 0.02], cube=[0.5, 0.2, 0.06]),
    "FrankaPegInsert": dict(peg=[0.5, 0.2, PEG_STANDS], mocap={"socket": [0.5, 0.2, 0]}),
    "FrankaDrawer": dict(drawer=0.17, mocap={"cabinet": [0.65, 0, 0]}),
}


def test_success_takes_half_a_second_and_is_the_last_stage(task):
    state = task.state(**SOLVED[task.name])
    assert bool(task.module.succeeded(task.model, state.data))
    stay = jnp.zeros(task.env.spec.action.size)
    successes, periods = [], round(HOLD_SECONDS / task.env.spec.control_dt)
    for _ in range(periods + 1):
        state, timestep = task.step(state, stay)
        successes.append(float(timestep.metrics["success"]))
        assert timestep.metrics["success"] == timestep.metrics[f"stage/{task.env.spec.stages[-1]}"]
    assert successes == [0.0] * (periods - 1) + [1.0, 1.0]
    assert all(timestep.metrics[f"stage/{name}"] == 1 for name in task.env.spec.stages)


def test_stages_metrics_weights_and_terms_have_the_same_names(task):
    module, data = task.module, task.start.data
    terms = [*module.reward_terms(task.model, data), "action_rate"]
    weights = [field.name for field in dataclasses.fields(module.DENSE)]
    assert weights == terms
    assert tuple(module.reached(task.model, data)) == task.env.spec.stages
    assert ("success", *(f"stage/{name}" for name in task.env.spec.stages)) == module.METRICS
    assert {name for name in weights if getattr(module.SPARSE, name)} == {"success"}


def test_every_term_of_the_reward_lies_between_zero_and_one(task):
    rng, model = np.random.default_rng(0), task.model
    qpos = np.asarray(task.start.data.qpos) + rng.normal(0, 0.2, (200, model.nq))
    mocap = np.asarray(task.start.data.mocap_pos) + rng.normal(0, 0.2, (200, model.nmocap, 3))
    start = jax.vmap(task.env.physics.init, in_axes=(0, 0, None))(jnp.float32(qpos), jnp.zeros((200, model.nv)), {})
    data = start.replace(mocap_pos=jnp.float32(mocap))
    terms = jax.vmap(lambda data: task.module.reward_terms(model, data))(data)
    for name, term in terms.items():
        assert np.isfinite(term).all() and term.min() >= 0 and term.max() <= 1 + 1e-6, name


def test_the_reward_of_a_step_is_the_weighted_sum_of_its_terms(task):
    action = jnp.linspace(-2.0, 2.0, task.env.spec.action.size)  # beyond the limits on both sides
    state, timestep = task.step(task.start, action)
    weights = dataclasses.asdict(task.module.DENSE)
    terms = task.module.reward_terms(task.model, state.data)
    expected = sum(weights[name] * float(term) for name, term in terms.items())
    expected += weights["action_rate"] * np.mean(np.clip(action, -1, 1) ** 2) / 4
    np.testing.assert_allclose(timestep.reward, 0.05 * expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(state.last_action, np.clip(action, -1, 1))


def test_the_observation_holds_what_its_table_says(task):
    state, timestep = task.step(task.start, 0.3 * jnp.ones(task.env.spec.action.size))
    slices, obs = table_slices(task.env.spec.observation), np.asarray(timestep.obs["state"])
    position, rotation = tcp_pose(state.data.qpos[:7])
    lag = read_sensor(task.model, state.data.sensordata, "tcp_position") - position
    assert np.abs(lag).max() > 1e-4  # a sensor, of before the last substep, would be that far off
    np.testing.assert_allclose(obs[slices["tcp_position"]], position, atol=1e-6)
    np.testing.assert_allclose(obs[slices["tcp_rotation"]], np.ravel(rotation[:, :2], order="F"), atol=1e-6)
    np.testing.assert_array_equal(obs[slices["joint_position"]], state.data.qpos[:7])
    np.testing.assert_array_equal(obs[slices["joint_velocity"]], state.data.qvel[:7])
    np.testing.assert_allclose(obs[slices["finger_opening"]], 25 * np.mean(state.data.qpos[7:9]), rtol=1e-6)
    kept = {term.name for term in task.env.spec.observation if not term.measured}
    assert kept == {"last_action"}
    tcp = position
    if "goal" in slices:
        goal = state.data.mocap_pos[task.model.body("goal").mocapid[0]]
        np.testing.assert_allclose(obs[slices["goal"]], goal - tcp, atol=1e-6)
    for name in ("cube", "base", "block", "peg"):
        if f"{name}_position" in slices:
            body = state.data.qpos[task.model.joint(name).qposadr[0] :][:7]
            matrix = np.zeros(9)
            mujoco.mju_quat2Mat(matrix, np.asarray(body[3:], float))
            np.testing.assert_allclose(obs[slices[f"{name}_position"]], body[:3] - tcp, atol=1e-6)
            columns = np.ravel(matrix.reshape(3, 3)[:, :2], order="F")
            np.testing.assert_allclose(obs[slices[f"{name}_rotation"]], columns, atol=1e-6)


@pytest.mark.parametrize("actions", ["joint_target", "pose_delta", "top_down_delta"])
def test_actions_can_be_chosen(actions):
    env = load("FrankaReach", "cpu", num_envs=1, actions=actions)
    state, timestep = jit(env.reset)(jax.random.key(0), {})
    assert env.spec.action == env.actions.table and env.actions.name == actions
    at = sensing.tcp_position(env.physics.model, state.data)
    rotation = tcp_pose(state.data.qpos[:7])[1]
    goal, step = at + jnp.asarray([0.02, -0.03, 0.01]), jit(env.step)
    toward = jit(lambda state: env.actions.toward(state.target, state.data.qpos[:7], goal, rotation, jnp.asarray(0.01)))
    for _ in range(20):
        state, timestep = step(state, toward(state))
    np.testing.assert_allclose(sensing.tcp_position(env.physics.model, state.data), goal, atol=2e-3)
    assert timestep.obs["state"].shape == (7 + 7 + 1 + 3 + 6 + 3 + env.spec.action.size,)


@pytest.mark.parametrize("module", [push, reach])
def test_no_episode_begins_near_its_goal(module):
    """Wherever the block, or the hand, is at the start."""
    rng, (low, high) = np.random.default_rng(0), np.array(module.GOAL)
    middle = np.array([0.5, 0.0, 0.2])[: low.size]
    places = middle + rng.uniform(-1, 1, (20000, low.size)) * np.array([0.05, 0.15, 0.02])[: low.size]
    uniform = rng.uniform(size=places.shape).astype(np.float32)
    draw = jax.vmap(lambda place, portion: away_from(place, module.APART, portion, *module.GOAL))
    goals = np.asarray(draw(jnp.float32(places), uniform))
    plain = low + uniform * (high - low)
    near = np.linalg.norm(plain - places, axis=1) < module.APART
    assert 0.005 < near.mean() < 0.2
    assert np.linalg.norm(goals - places, axis=1).min() >= module.APART - 1e-6
    assert (goals >= low - 1e-6).all() and (goals <= high + 1e-6).all()
    np.testing.assert_allclose(goals[~near], plain[~near], atol=1e-6)


@pytest.mark.parametrize(("name", "apart"), [("FrankaPush", push.APART), ("FrankaReach", reach.APART)])
def test_push_and_reach_begin_so(name, apart):
    env, keys = load(name, "cpu", num_envs=100), jax.random.split(jax.random.key(7), 100)
    reset = jax.jit(jax.vmap(env.reset, (0, None)), compiler_options=compiler_options(runs_once=True))
    data, model = reset(keys, {})[0].data, env.physics.model
    goals = np.asarray(data.mocap_pos[:, model.body("goal").mocapid[0]])
    for qpos, goal in zip(np.asarray(data.qpos), goals, strict=True):
        if name == "FrankaPush":
            away = qpos[model.joint("block").qposadr[0] :][:2] - goal[:2]
        else:
            away = deployed_tcp(qpos[:7])[0] - goal
        assert np.linalg.norm(away) >= apart - 1e-6


# Each task's own success, on both sides of its limits, and closed forms of its reward.


@pytest.fixture(scope="module")
def build():
    return lambda name, made={}: made.setdefault(name, Task(name))


@pytest.mark.parametrize(("off", "there"), [(0.019, True), (0.021, False)])
def test_reach_ends_within_two_centimetres(build, off, there):
    task = build("FrankaReach")
    state = dict(mocap={"goal": [0.5, off, 0.2]})
    assert task.succeeded(**state) == there
    expected = {
        "reach": 1 - np.tanh(5 * off),
        "close": 1 - np.tanh(off / 0.02),
        "point_down": 1.0,
        "success": float(there),
    }
    assert task.terms(**state) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("off", "yaw", "there"), [(0.019, 0.14, True), (0.021, 0.0, False), (0.0, 0.16, False), (0.0, np.pi / 2, True)]
)
def test_push_ends_at_the_place_and_square(build, off, yaw, there):
    task = build("FrankaPush")
    pose = [0.5, off, 0.02, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
    assert task.succeeded(block=pose, mocap={"goal": [0.5, 0, 0]}) == there


@settings(deadline=None, max_examples=20)
@given(st.floats(-3.0, 3.0, width=32))
def test_a_block_is_observed_alike_after_a_quarter_turn(build, yaw):
    task = build("FrankaPush")
    qpos = np.array(task.start.data.qpos)
    qpos[task.model.joint("block").qposadr[0] :][3:7] = np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)
    turn = float(push.turn(task.model, task.start.data.replace(qpos=jnp.asarray(qpos))))
    assert abs(turn) <= np.pi / 4 + 1e-5
    assert np.cos(4 * turn) == pytest.approx(np.cos(4 * yaw), abs=1e-4)
    assert np.sin(4 * turn) == pytest.approx(np.sin(4 * yaw), abs=1e-4)


def test_push_comes_from_behind(build):
    task = build("FrankaPush")
    data = task.state(block=[0.5, 0, 0.02], mocap={"goal": [0.5, 0.2, 0]}).data
    np.testing.assert_allclose(push.behind(task.model, data), [0.5, -0.05, 0.02], atol=1e-6)
    assert np.isfinite(push.behind(task.model, data.replace(mocap_pos=jnp.asarray([[0.5, 0.0, 0.0]])))).all()


@pytest.mark.parametrize(("off", "there"), [(0.024, True), (0.026, False)])
def test_a_picked_cube_is_brought_to_its_goal(build, off, there):
    task = build("FrankaPickCube")
    assert task.succeeded(cube=[0.5, 0.2, 0.2], mocap={"goal": [0.5, 0.2, 0.2 + off]}) == there


def test_a_cube_that_is_not_held_earns_no_lift(build):
    task = build("FrankaPickCube")
    in_the_air = task.terms(cube=[0.5, 0.0, 0.3], mocap={"goal": [0.5, 0, 0.3]})
    assert in_the_air == pytest.approx(
        {"reach": 1 - np.tanh(0.5), "grasp": 0, "lift": 0, "carry": 0, "success": 1}, abs=1e-4
    )
    held = task.terms(opening=0.0195, grip=0.0, cube=[0.5, 0, 0.2], mocap={"goal": [0.5, 0.1, 0.2]})
    assert held == pytest.approx({"reach": 1, "grasp": 1, "lift": 1, "carry": 1 - np.tanh(0.5), "success": 0}, abs=1e-3)


def test_a_cube_off_the_table_is_lost(build):
    task = build("FrankaPickCube")
    for position, lost in (([0.5, 0.5, 0.02], False), ([0.5, 0.61, 0.02], True), ([0.95, 0, 0.02], True)):
        state = task.state(cube=position, mocap={"goal": [0.5, 0, 0.2]})
        _, timestep = task.step(state, jnp.zeros(task.env.spec.action.size))
        assert bool(timestep.terminated) == lost


@pytest.mark.parametrize(
    ("offset", "height", "on"),
    [((0.0, 0.019), 0.06, True), ((0.0, 0.021), 0.06, False), ((0, 0), 0.066, False), ((0, 0), 0.054, False)],
)
def test_a_stacked_cube_is_over_the_other_and_on_it(build, offset, height, on):
    task = build("FrankaStack")
    assert task.succeeded(base=[0.5, 0.2, 0.02], cube=[0.5 + offset[0], 0.2 + offset[1], height]) == on


def test_a_stacked_cube_is_let_go(build):
    task = build("FrankaStack")
    stacked = dict(base=[0.5, 0, 0.16], cube=[0.5, 0, 0.2], opening=0.0195, grip=0.0)
    data = task.state(**stacked).data
    assert bool(stack.placed(task.model, data)) and not bool(stack.succeeded(task.model, data))
    assert task.succeeded(**(stacked | {"opening": 0.03}))


@pytest.mark.parametrize(("depth", "off", "there"), [(0.026, 0.0, True), (0.024, 0.0, False), (0.026, 0.005, False)])
def test_depth_counts_in_the_hole_alone(build, depth, off, there):
    task = build("FrankaPegInsert")
    state = dict(
        peg=[0.5 + off, 0.2, PEG_STANDS + scenes.HOLE_DEPTH - depth],
        mocap={"socket": [0.5, 0.2, 0]},
    )
    assert task.succeeded(**state) == there
    deep = float(peg_insert.depth(task.model, task.state(**state).data))
    assert deep == pytest.approx(depth if off == 0 else 0.0, abs=1e-5)


def test_a_hand_that_lowers_its_peg_over_the_hole_gets_it_in(build):
    """Straight down after lining up with what it can measure: the friction of hand and hole let it pass."""
    task = build("FrankaPegInsert")
    env, model = task.env, task.model
    down = jnp.diag(jnp.asarray([1.0, -1.0, -1.0]))

    def act(state):
        tip, hole = peg_insert.tip(model, state.data), sensing.mocap_position(model, state.data, "socket")
        aside = (hole - tip)[:2]
        lined_up = jnp.linalg.norm(aside) < 0.0015
        sink = jnp.where(lined_up, -0.008, 0.035 - tip[2])
        sink = jnp.where(peg_insert.succeeded(model, state.data), 0.0, sink)
        position = sensing.tcp_position(model, state.data) + jnp.append(aside, sink)
        return env.actions.toward(state.target, state.data.qpos[:7], position, down, jnp.zeros(()))

    @jit
    def episode(keys):
        def step(states, _):
            states, timestep = jax.vmap(env.step)(states, jax.vmap(act)(states))
            return states, timestep

        states, _ = jax.vmap(env.reset, in_axes=(0, None))(keys, {})
        return jax.lax.scan(step, states, length=80)[1]

    timestep = episode(jax.random.split(jax.random.key(1), 8))
    np.testing.assert_array_equal(timestep.metrics["success"][-1], 1.0)
    assert not timestep.terminated.any()
    assert timestep.metrics["success"][0].sum() == 0


def test_a_dropped_peg_is_lost(build):
    task = build("FrankaPegInsert")
    stay = jnp.zeros(task.env.spec.action.size)
    _, kept = task.step(task.start, stay)
    _, dropped = task.step(task.state(peg=[0.5, 0, 0.1], mocap={"socket": [0.4, 0.2, 0]}), stay)
    assert not kept.terminated and dropped.terminated


@pytest.mark.parametrize(("pulled", "open_"), [(0.151, True), (0.149, False)])
def test_a_drawer_is_open_at_fifteen_centimetres(build, pulled, open_):
    task = build("FrankaDrawer")
    state = dict(drawer=pulled, mocap={"cabinet": [0.65, 0.05, 0]})
    assert task.succeeded(**state) == open_
    np.testing.assert_allclose(
        drawer.handle(task.model, task.state(**state).data), [0.65 - 0.05 - pulled, 0.05, 0.12], atol=1e-6
    )
    assert task.terms(**state)["open"] == pytest.approx(min(pulled / 0.15, 1.0), abs=1e-5)


@settings(deadline=None, max_examples=50)
@given(*[st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3)] * 2)
def test_a_change_of_action_costs_at_most_one(action, last):
    change = action_change(jnp.asarray(action, jnp.float32), jnp.clip(jnp.asarray(last, jnp.float32), -1, 1))
    expected = np.mean((np.clip(action, -1, 1) - np.clip(last, -1, 1)) ** 2) / 4
    assert float(change) == pytest.approx(expected, abs=1e-6) and 0 <= change <= 1


def test_a_grasp_is_around_what_it_holds(build):
    """Pads that press on something three centimetres away stand on it."""
    task = build("FrankaPickCube")
    state = task.state(opening=0.02, grip=0.0, cube=[0.5, 0, 0.2], mocap={"goal": [0.5, 0, 0.3]})
    data = task.step(state, jnp.zeros(8))[0].data
    cube, _ = sensing.object_pose(task.model, data, "cube")
    assert sensing.pressed(task.model, data) and sensing.grasped(task.model, data, cube)
    assert not sensing.grasped(task.model, data, cube - jnp.array([0, 0, 0.03]))


def test_a_grasp_holds_in_mjx_as_in_c(build):
    """Box against box, elliptic cones: the hardest contacts of these scenes, for a tenth of a second in float32."""
    task = build("FrankaPickCube")
    state = task.state(opening=0.02, grip=0.0, cube=[0.5, 0, 0.2], mocap={"goal": [0.5, 0, 0.3]})
    env = load("FrankaPickCube", "mjx", num_envs=1, actions="joint_delta")
    state = task.step(state, jnp.zeros(8))[0]  # to a grip at rest
    step = jit(lambda data, ctrl: env.physics.step(data, ctrl, {}))
    fresh = env.physics._data.replace(qpos=state.data.qpos, qvel=state.data.qvel)
    ctrl = jnp.broadcast_to(state.target, (env.physics.substeps, 8))
    ours, theirs = state.data, fresh
    for _ in range(2):
        ours, theirs = task.env.physics.step(ours, ctrl, {}), step(theirs, ctrl)
    np.testing.assert_allclose(theirs.qpos, ours.qpos, atol=1e-3)
    for data in (ours, theirs):
        assert sensing.grasped(task.model, data, sensing.object_pose(task.model, data, "cube")[0])
    np.testing.assert_allclose(sensing.touch(task.model, theirs), sensing.touch(task.model, ours), rtol=0.1)
