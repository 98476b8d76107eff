"""The expert that pushes a block: whole episodes, what each way is called by, and the geometry of a push."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mjx_policies.envs.experts.arm import Seen
from mjx_policies.envs.experts.push import (
    ASLANT,
    FORWARD_FIRST,
    GAP,
    NEAR,
    REACH,
    SIDEWAYS_FIRST,
    STRATEGIES,
    THERE,
    TURNED_LAST,
    Work,
    across,
    axes,
    beside,
    decide,
    gap,
    needs,
    push_expert,
)
from mjx_policies.envs.franka.kinematics import pointing_down
from mjx_policies.envs.franka.push import GOAL_RADIUS, GOAL_TURN
from mjx_policies.envs.franka.scenes import BLOCK
from mjx_policies.envs.registry import load

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")

NUM = 64
angle = st.floats(-np.pi, np.pi)
tilt = st.floats(-0.4, 0.4)


@pytest.fixture(scope="module")
def episodes(record_episodes):
    env = load("FrankaPush", "cpu", num_envs=NUM)
    return record_episodes(env, push_expert(env), NUM)


@pytest.fixture(scope="module")
def paths(episodes):
    """The way that the block has to go still [T + 1, 2], and how it is turned [T + 1], for each episode."""
    paths = []
    for b, length in enumerate(episodes.length):
        qpos = episodes.qpos[: length + 1, b]
        w, x, y, z = qpos[:, 12:16].T
        yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        paths.append((episodes.mocap_pos[b, 0, :2] - qpos[:, 9:11], yaw))
    return paths


def test_every_way_brings_the_block_to_its_goal_and_so_do_labels_alone(episodes, paths):
    for number, name in enumerate((*STRATEGIES, "labels")):
        chosen = episodes.strategy == number
        assert chosen.sum() > 8, name
        assert episodes.success[chosen].mean() > 0.75, name
    assert episodes.success.mean() > 0.9 and not episodes.terminated.any()
    assert np.abs(episodes.action).max() <= 1 and np.abs(episodes.label).max() <= 1
    for b in np.flatnonzero(episodes.success):
        to_go, yaw = paths[b]
        askew = np.abs(np.mod(yaw + np.pi / 4, np.pi / 2) - np.pi / 4)
        held = (np.linalg.norm(to_go, axis=1) < GOAL_RADIUS) & (askew < GOAL_TURN)
        assert np.convolve(held, np.ones(10), mode="valid").max() == 10  # for half a second


def test_the_strategy_says_on_which_side_the_block_is_pushed_first(episodes, paths):
    """Where there is a choice: the block has to go both ways, and the hand sees the goal where it is."""
    right = {FORWARD_FIRST: [], SIDEWAYS_FIRST: []}
    for b, (to_go, _) in enumerate(paths):
        if episodes.strategy[b] in right and np.abs(to_go[0]).min() > 0.05 and to_go[0, 0] > 0:
            went = np.abs(to_go - to_go[0])
            start = went[np.flatnonzero(went.max(axis=1) > 0.03)[0]]
            right[episodes.strategy[b]].append(start[0] > start[1])
    assert len(right[FORWARD_FIRST]) > 2 and np.mean(right[FORWARD_FIRST]) > 0.9
    assert len(right[SIDEWAYS_FIRST]) > 2 and np.mean(right[SIDEWAYS_FIRST]) < 0.1


def test_the_block_is_squared_by_the_first_push_or_else_by_the_last(episodes, paths):
    """How much of its turn a block that started turned is left with, when it has gone 6 cm."""
    left = {number: [] for number in range(len(STRATEGIES))}
    for b, (to_go, yaw) in enumerate(paths):
        gone = np.flatnonzero(np.linalg.norm(to_go - to_go[0], axis=1) > 0.06)
        if episodes.strategy[b] in left and len(gone) and abs(yaw[0]) > 0.15:
            left[episodes.strategy[b]].append(yaw[gone[0]] / yaw[0])
    at_once = np.concatenate([left[FORWARD_FIRST], left[SIDEWAYS_FIRST], left[ASLANT]])
    assert len(at_once) > 10 and len(left[TURNED_LAST]) > 3
    assert np.median(at_once) < 0.6 < 0.8 < np.median(left[TURNED_LAST])


@settings(max_examples=50, deadline=None)
@given(fence=tilt, way=st.integers(0, 3))
def test_ways_are_the_axes_of_a_fence_and_the_fingers_lie_across_them(fence, way):
    forward, sideways = np.asarray(jax.jit(axes)(fence))
    np.testing.assert_allclose(forward[:, 0] + 1j * forward[:, 1], np.exp(1j * fence) * 1j ** np.arange(4), atol=1e-6)
    np.testing.assert_allclose(sideways, np.stack([-forward[:, 1], forward[:, 0]], axis=1), atol=1e-6)
    hand = np.asarray(jax.jit(across)(fence, way))
    np.testing.assert_allclose(hand.T @ hand, np.eye(3), atol=1e-6)
    assert hand[2, 2] == pytest.approx(-1)
    assert abs(hand[:2, 1] @ forward[way]) < 1e-5  # fingers move along y
    assert -np.pi / 4 - 1e-5 <= np.arctan2(hand[1, 0], hand[0, 0]) <= 3 * np.pi / 4 + 1e-5


@settings(max_examples=50, deadline=None)
@given(turn=angle)
def test_the_gap_clears_the_corner_of_a_turned_block(turn):
    corners = BLOCK[0] * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    stands_out = (corners @ np.array([np.cos(turn), -np.sin(turn)])).max() - BLOCK[0]
    assert gap(jnp.asarray(turn)) == pytest.approx(GAP + stands_out, abs=1e-6)


def standing(x, y, yaw, height=0.03):
    rotation = pointing_down(jnp.asarray(yaw))
    return Seen(jnp.asarray([x, y, height]), rotation, rotation, jnp.asarray(0.02), jnp.zeros((), bool))


@jax.jit
def next_push(turn, goal, hand, hand_yaw):
    work = Work(jnp.zeros(2), turn, goal)
    square, hand = jnp.zeros(()), standing(*hand, hand_yaw)
    return needs(work, square), beside(work, hand, square), decide(work, hand, jnp.asarray(ASLANT))


@settings(max_examples=50, deadline=None)
@given(tilt, st.floats(-0.015, 0.015), st.integers(0, 3), st.floats(-0.2, 0.2), st.floats(0.05, 0.2))
def test_what_there_is_to_do_turns_with_the_scene(turn, aside, quarter, x, y):
    """A quarter turn of hand and goal about the block, which stays the same, turns the ways and nothing else."""
    assume(abs(abs(x) - y) > 1e-4 and min(abs(x - limit) for limit in (THERE, -2 * NEAR)) > 1e-4)  # one way is best

    def scene(turned):
        rotate = np.exp(1j * turned)
        goal, hand = rotate * (x + 1j * y), rotate * (-REACH + 1j * aside)
        return next_push(turn, np.array([goal.real, goal.imag]), np.array([hand.real, hand.imag]), turned)

    (need, pushes, push), (turned_need, turned_pushes, turned_push) = scene(0.0), scene(quarter * np.pi / 2)
    np.testing.assert_allclose(np.roll(need, quarter), turned_need, atol=1e-6)
    np.testing.assert_array_equal(np.roll(pushes, quarter), turned_pushes)
    assert not pushes[1:].any()
    assert (push.way + quarter) % 4 == turned_push.way and push.low == turned_push.low


def test_a_block_at_its_goal_is_left_alone_whichever_way_it_came():
    work = Work(jnp.asarray([0.5, 0.1]), jnp.asarray(0.02), jnp.asarray([0.502, 0.099]))
    for strategy in range(len(STRATEGIES)):
        assert decide(work, standing(0.5 - REACH, 0.1, 0.0), jnp.asarray(strategy)).done
        assert not decide(work._replace(turn=jnp.asarray(0.2)), standing(0.3, 0.1, 0.0), jnp.asarray(strategy)).done
