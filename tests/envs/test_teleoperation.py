"""Motion of a robot by the velocity of a person's hand, measured where the robot ends up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.compiler import compiler_options
from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.kinematics import tcp_pose
from mjx_policies.envs.franka.robot import OPENING
from mjx_policies.envs.registry import load
from mjx_policies.envs.teleoperation import LEAD, make_action_mapping

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
STEPS = 20  # one second


@pytest.fixture(scope="module")
def reach():
    return load("FrankaReach", "cpu", 1)


@pytest.fixture(scope="module")
def move(reach):
    """`(state, velocity [6], closed) -> (state, action)` after a second."""
    mapping = make_action_mapping(reach)

    @functools.partial(jax.jit, compiler_options=compiler_options(runs_once=True))
    def second(state, velocity, closed):
        def step(state, _):
            action = mapping.action(state, velocity, closed)
            return reach.step(state, action)[0], action

        state, actions = jax.lax.scan(step, state, None, STEPS)
        return state, actions

    return second


@pytest.fixture(scope="module")
def start(reach):
    return jax.jit(reach.reset, compiler_options=compiler_options(runs_once=True))(jax.random.key(0), {})[0]


def pose(state):
    position, rotation = tcp_pose(state.data.qpos[:7])
    return np.asarray(position), np.asarray(rotation)


@pytest.mark.parametrize("axis", range(3))
def test_the_hand_goes_where_it_is_told(move, start, axis):
    velocity = 0.05 * jnp.eye(6)[axis]
    state, actions = move(start, velocity, 0.0)
    moved = pose(state)[0] - pose(start)[0]
    expected = 0.05 * np.eye(3)[axis]
    np.testing.assert_allclose(moved, expected, atol=0.006)  # servos lag
    np.testing.assert_allclose(pose(state)[1], pose(start)[1], atol=0.02)
    assert np.abs(actions).max() <= 1


def test_the_hand_turns_about_itself(move, start):
    state, _ = move(start, 0.3 * jnp.eye(6)[5], 0.0)
    turn = pose(state)[1] @ pose(start)[1].T
    assert np.arctan2(turn[1, 0], turn[0, 0]) == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(pose(state)[0], pose(start)[0], atol=0.005)


def test_a_hand_that_is_told_nothing_stays_and_its_gripper_obeys(move, start):
    opened, _ = move(start, jnp.zeros(6), 0.0)
    closed, _ = move(opened, jnp.zeros(6), 1.0)
    np.testing.assert_allclose(pose(closed)[0], pose(opened)[0], atol=1e-3)
    assert sensing.finger_opening(opened.data) == pytest.approx(OPENING, abs=2e-3)
    assert sensing.finger_opening(closed.data) == pytest.approx(0.0, abs=2e-3)


def test_pressing_on_the_table_does_not_wind_up(move, start):
    state = start
    for _ in range(4):  # 0.4 m/s for 4 s, from less than half a metre above
        state, _ = move(state, 0.4 * -jnp.eye(6)[2], 1.0)
    told, _ = tcp_pose(state.target[:7])
    at, _ = pose(state)
    assert at[2] - told[2] < LEAD + 0.4 * 0.05 + 1e-3  # a period's way more
    back, _ = move(state, 0.1 * jnp.eye(6)[2], 1.0)
    assert pose(back)[0][2] - at[2] > 0.03


def test_a_point_goes_at_its_speed():
    task = load("Obstacle2D", "cpu", 1)
    mapping = make_action_mapping(task)
    assert [motion.name for motion in mapping.motions] == ["forward", "left"] and not mapping.gripper
    np.testing.assert_allclose(mapping.action(None, jnp.array([0.5, -3.0]), jnp.zeros(())), [0.5, -1.0])


def test_other_robots_cannot_be_moved_so():
    with pytest.raises(ValueError, match="only a Franka"):
        make_action_mapping(load("Pendulum", "cpu", 1))
