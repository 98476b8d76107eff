"""Action spaces: staying stays, targets keep within limits, what leads somewhere gets there, a delay shifts motion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mjx_policies.deploy.robot import Targets
from mjx_policies.deploy.simulation.arm import SimulatedArm
from mjx_policies.deploy.simulation.robot import Faults
from mjx_policies.envs.franka import scenes
from mjx_policies.envs.franka.actions import SPEED, WORKSPACE, action_space
from mjx_policies.envs.franka.kinematics import tcp_pose
from mjx_policies.envs.franka.robot import ACTUATORS, GRIPPER_SPEED, HOME, joint_limits, within

DT, SUBSTEPS = 0.05, 10
NAMES = ("joint_target", "joint_delta", "pose_delta", "top_down_delta")
DOWN = np.diag([1.0, -1.0, -1.0])


class Space:
    """An action space with its functions compiled once."""

    def __init__(self, name, variant):
        self.space, self.limits = action_space(name, DT, variant), within(joint_limits(variant), 0.9)
        self.size = self.space.table.size
        self.lower, self.upper = np.array([*self.limits.lower, 0]), np.array([*self.limits.upper, 0.04])
        self.reach = DT * np.array([*(SPEED * np.array(self.limits.velocity)), GRIPPER_SPEED])
        self.command, self.toward = jax.jit(self.space.command), jax.jit(self.space.toward)

    def start(self, q=HOME, width=0.02):
        return self.space.init(jnp.asarray(q, jnp.float32), jnp.asarray(width, jnp.float32))

    def hold(self, target, action):
        """The target after one period of the same action."""
        return self.command(target, jnp.broadcast_to(jnp.asarray(action, jnp.float32), (SUBSTEPS, self.size)))

    def lead(self, target, position, rotation, width, periods):
        """Targets [periods + 1, 8] of an expert that wants a pose."""
        targets = [target]
        for _ in range(periods):
            action = self.toward(
                target, target[:7], jnp.asarray(position), jnp.asarray(rotation, jnp.float32), jnp.asarray(width)
            )
            assert action.shape == (self.size,) and np.abs(action).max() <= 1
            target, _ = self.hold(target, action)
            targets.append(target)
        return np.array(targets)


@functools.cache
def known(name, variant):
    return Space(name, variant)


@pytest.fixture(scope="module", params=NAMES)
def any_space(request):
    return known(request.param, "fr3")


@pytest.fixture(scope="module", params=NAMES[1:])
def change(request):
    """A space of changes."""
    return known(request.param, "fr3")


@pytest.fixture(scope="module")
def target_space():
    return known("joint_target", "fr3")


@pytest.fixture(scope="module")
def pose():
    return known("pose_delta", "fr3")


def test_tables_name_every_number(any_space):
    table = any_space.space.table
    assert any_space.space.name in NAMES
    sizes = {"joint_target": 8, "joint_delta": 8, "pose_delta": 10, "top_down_delta": 5}
    assert table.size == sizes[any_space.space.name]
    assert len(set(table.names)) == table.size and table.names[-1].startswith("gripper")


def test_unknown_names_and_periods_are_refused():
    with pytest.raises(ValueError, match="unknown action space 'torque'; known: joint_target, joint_delta, pose_"):
        action_space("torque", DT)
    with pytest.raises(ValueError, match="control_dt is 0 s, it must be positive"):
        action_space("joint_delta", 0)
    with pytest.raises(ValueError, match="unknown Franka"):
        action_space("joint_delta", DT, "fr4")


def test_a_zero_action_stays_bit_for_bit(change):
    for q in (HOME, (0.3, 0.5, -1, -2, 1, 2, 0), change.limits.lower, change.limits.upper):
        start = target = change.start(q)
        for _ in range(3):
            target, ctrl = change.hold(target, np.zeros(change.size))
            np.testing.assert_array_equal(target, start)
            np.testing.assert_array_equal(ctrl, np.tile(start, (SUBSTEPS, 1)))


def test_a_zero_target_is_home(target_space):
    target = target_space.start((0.5, 0.3, 0.2, -2.0, 0.1, 2.5, 0.0), 0.04)
    for _ in range(40):
        target, _ = target_space.hold(target, np.zeros(8))
    np.testing.assert_allclose(target, [*HOME, 0.02], atol=1e-6)


def test_targets_end_at_nine_tenths_of_the_ranges(target_space):
    for action, end in ((np.ones(8), target_space.upper), (-np.ones(8), target_space.lower)):
        target = target_space.start()
        for _ in range(120):
            target, _ = target_space.hold(target, action)
        np.testing.assert_allclose(target, end, atol=1e-5)


def test_one_is_the_highest_speed(change):
    action = np.zeros(change.size)
    action[-1] = 1
    target, _ = change.hold(change.start(), action)
    np.testing.assert_allclose(target[-1], 0.02 + GRIPPER_SPEED * DT, atol=1e-7)  # more opens
    if change.size == 8:
        up, _ = change.hold(change.start(), np.ones(8))
        np.testing.assert_allclose(up - change.start(), change.reach, rtol=1e-4)


def test_a_pose_moves_as_its_numbers_say(pose):
    start = pose.start()
    before, turned = (np.asarray(x) for x in tcp_pose(start[:7]))
    action = np.array([0.5, -0.25, 1.0, 0, 0, 0, 0, 0, 0, 0])
    target, _ = pose.hold(start, action)
    position, rotation = tcp_pose(target[:7])
    np.testing.assert_allclose(position - before, 0.02 * action[:3], atol=2e-5)
    np.testing.assert_allclose(rotation, turned, atol=1e-4)
    for axis in range(3):  # a turn of 0.05 rad about each axis of the robot's frame
        turn = Rotation.from_rotvec(0.05 * np.eye(3)[axis]).as_matrix()
        action[:9] = 0, 0, 0, *((turn - np.eye(3))[:, :2].T.ravel() / 0.1)
        position, rotation = tcp_pose(pose.hold(start, action)[0][:7])
        np.testing.assert_allclose(position, before, atol=5e-5)
        np.testing.assert_allclose(rotation, turn @ turned, atol=2e-4)


@pytest.mark.parametrize("name", NAMES[2:])
def test_a_hand_that_pushes_down_stops_above_the_table(name):
    space = known(name, "fr3")
    target = space.start()
    action = np.zeros(space.size)
    action[2] = -1.0
    for _ in range(60):
        target, _ = space.hold(target, action)
    np.testing.assert_allclose(tcp_pose(target[:7])[0][2], WORKSPACE[0][2], atol=1e-3)


def test_a_hand_that_points_down_turns_about_the_vertical_and_stands_up():
    space = known("top_down_delta", "fr3")
    leaning = (0.1, 0.0, 0.0, -2.3, 0.15, 2.3, 0.8)
    target = space.start(leaning)
    assert tcp_pose(target[:7])[1][2, 2] > -0.995
    for _ in range(5):
        before, turned = (np.asarray(x) for x in tcp_pose(target[:7]))
        target, _ = space.hold(target, [0.5, -0.25, 0.75, 0.6, 0.0])
    position, rotation = (np.asarray(x) for x in tcp_pose(target[:7]))
    np.testing.assert_allclose(position - before, 0.02 * np.array([0.5, -0.25, 0.75]), atol=5e-5)
    np.testing.assert_allclose(rotation, Rotation.from_euler("z", 0.06).as_matrix() @ turned, atol=2e-4)
    np.testing.assert_allclose(rotation[2], [0, 0, -1], atol=2e-4)


GOALS = (
    ((0.5, 0.15, 0.15), DOWN, 0.035),
    ((0.4, -0.2, 0.25), Rotation.from_euler("z", 0.7).as_matrix() @ DOWN, 0.0),
    ((0.55, 0.0, 0.1), Rotation.from_euler("y", -0.3).as_matrix() @ DOWN, 0.02),
)


@pytest.mark.parametrize("goal", range(len(GOALS)))
def test_what_leads_to_a_pose_gets_there_on_a_straight_line(any_space, goal):
    position, rotation, width = GOALS[goal]
    targets = any_space.lead(any_space.start(), np.float32(position), rotation, np.float32(width), 40)
    path = np.array([tcp_pose(jnp.asarray(target[:7]))[0] for target in targets])
    np.testing.assert_allclose(path[-1], position, atol=5e-4)
    leans = rotation[2, 2] > -0.999
    expected = DOWN if leans and any_space.space.name == "top_down_delta" else rotation
    np.testing.assert_allclose(tcp_pose(jnp.asarray(targets[-1, :7]))[1], expected, atol=2e-3)
    np.testing.assert_allclose(targets[-1, 7], width, atol=1e-6)
    direction = (np.array(position) - path[0]) / np.linalg.norm(np.array(position) - path[0])
    assert np.linalg.norm(np.cross(path - path[0], direction), axis=1).max() < 0.002
    assert (np.diff((path - path[0]) @ direction) > -1e-4).all()  # and never back


def test_where_the_goal_is_reached_the_action_stays(change):
    target = change.start()
    action = change.toward(target, target[:7], *tcp_pose(target[:7]), target[7])
    np.testing.assert_allclose(action, np.zeros(change.size), atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(("fr3", "panda")), st.sampled_from(NAMES), st.floats(0, 3))
def test_limits_of_position_and_speed_are_never_left(seed, variant, name, size):
    """Actions of any size, from anywhere in the ranges, different in every substep."""
    space, rng = known(name, variant), np.random.default_rng(seed)
    target = space.start(rng.uniform(space.limits.lower, space.limits.upper), rng.uniform(-0.01, 0.05))
    slack = 1e-6 * np.maximum(1, np.abs(space.upper))  # float32
    for _ in range(8):
        old = np.asarray(target)
        rows = size * rng.uniform(-1, 1, (SUBSTEPS, space.size))
        target, ctrl = space.command(target, jnp.asarray(rows, jnp.float32))
        assert np.isfinite(ctrl).all()
        assert (np.asarray(ctrl) >= space.lower - slack).all() and (np.asarray(ctrl) <= space.upper + slack).all()
        steps = np.abs(np.diff(ctrl, axis=0, prepend=old[None]))
        assert (steps <= space.reach / SUBSTEPS + 2 * slack).all()
        np.testing.assert_allclose(ctrl[-1], target, atol=1e-6)


def test_targets_move_linearly_within_a_period(any_space):
    rng = np.random.default_rng(0)
    start = any_space.start()
    target, ctrl = any_space.hold(start, rng.uniform(-1, 1, any_space.size))
    assert np.abs(target - start).max() > 1e-3
    share = (np.arange(SUBSTEPS) + 1)[:, None] / SUBSTEPS
    # A straight line of the TCP bends that of the joints by the square of how far they go.
    bend = 1e-6 if any_space.size == 8 else 1e-3
    np.testing.assert_allclose(ctrl, start + share * (target - start), atol=bend)


def test_the_action_to_hold_leaves_the_target_where_it_is(any_space):
    start = any_space.start((0.3, 0.5, -1.0, -2.0, 1.0, 2.0, 0.5), 0.0)  # a hand that is told to close
    target, ctrl = any_space.hold(start, any_space.space.hold(start))
    np.testing.assert_allclose(ctrl, np.tile(start, (SUBSTEPS, 1)), atol=1e-6)
    np.testing.assert_array_equal(ctrl[-1], target)


@pytest.mark.parametrize("late", [1, 4, 10, 13])
def test_a_delay_shifts_motion_in_time(any_space, late):
    """Delayed by whole substeps, targets stay until the first action arrives, and then go the same way."""
    rng, start = np.random.default_rng(1), any_space.start()
    actions = rng.uniform(-1, 1, (6, any_space.size)).astype(np.float32)
    prompt = np.repeat(actions, SUBSTEPS, axis=0)
    held = np.tile(any_space.space.hold(start), (late, 1)).astype(np.float32)
    delayed = np.concatenate([held, prompt])[: len(prompt)]

    def way(rows):
        target, found = start, []
        for window in rows.reshape(6, SUBSTEPS, -1):
            target, ctrl = any_space.command(target, jnp.asarray(window))
            found.append(np.asarray(ctrl))
        return np.concatenate(found)

    np.testing.assert_allclose(way(delayed)[:late], np.tile(start, (late, 1)), atol=1e-6)
    # What inverse kinematics leaves of a pose at the end of a period, micrometres, is forgotten elsewhere on the way.
    exact = 5e-6 if any_space.size == 8 else 1e-4
    np.testing.assert_allclose(way(delayed)[late:], way(prompt)[:-late], atol=exact)


def test_changes_count_from_the_substep_in_which_they_arrive():
    """Against a loop over substeps, one change and then another."""
    space, start = known("joint_delta", "fr3"), known("joint_delta", "fr3").start()
    first, second = np.full(8, 0.5), np.linspace(-2.0, 1.0, 8)  # beyond the limits
    rows = np.concatenate([np.tile(first, (4, 1)), np.tile(second, (SUBSTEPS - 4, 1))])
    expected, now = [], np.array(start, np.float64)
    for row in rows:
        now = np.clip(now + space.reach * np.clip(row, -1, 1) / SUBSTEPS, space.lower, space.upper)
        expected.append(now)
    _, ctrl = space.command(start, jnp.asarray(rows, jnp.float32))
    np.testing.assert_allclose(ctrl, expected, atol=2e-6)


@pytest.mark.parametrize("late", [0, 4])
def test_late_joint_targets_are_approached_as_by_the_simulated_robot(target_space, late):
    rng, table, dt = np.random.default_rng(2), target_space.space.table, DT / SUBSTEPS
    start = np.asarray(target_space.start())
    robot = SimulatedArm(scenes.reach(lean=True), table.names, faults=Faults(action_latency=late * dt))
    robot.reset(np.append(start, start[-1]))
    # Changes that a period covers: a controller sends no others.
    sent = start + np.cumsum(target_space.reach * rng.uniform(-0.3, 0.3, (6, 8)), axis=0)
    prompt = np.repeat((sent - table.default) / table.scale, SUBSTEPS, axis=0)
    held = np.tile(target_space.space.hold(jnp.asarray(start)), (late, 1))
    rows = np.concatenate([held, prompt])[: len(prompt)].reshape(6, SUBSTEPS, 8)

    def send(position):
        robot.write(Targets(position, np.array(table.stiffness), np.array(table.damping)))

    send(start)
    robot.advance(late * dt)  # until it has arrived
    target = jnp.asarray(start)
    for position, window in zip(sent, rows, strict=True):
        target, ctrl = target_space.command(target, jnp.asarray(window, jnp.float32))
        send(position)
        for expected in ctrl:
            robot.advance(dt)
            np.testing.assert_allclose(robot.data.ctrl, expected, atol=2e-6)


def test_joint_actions_carry_the_gains_of_the_servos(target_space):
    table = target_space.space.table
    assert table.names == ACTUATORS and len(table.stiffness) == len(table.damping) == 8
    # One unit spans the whole range, so that actions recorded with it mean the same wherever targets end.
    limits = joint_limits()
    whole = np.maximum(np.array(limits.upper) - HOME, HOME - np.array(limits.lower))
    np.testing.assert_allclose(table.scale, [*whole, 0.02])
    assert table.clip == 1.0
