"""The expert that inserts a peg: whole episodes, checked with C MuJoCo, and the laws of its way in."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mjx_policies.envs.experts.peg_insert import (
    BESIDE,
    FLOOR,
    SEARCHING,
    SLANT,
    SLANTED,
    STEP,
    STRAIGHT,
    STRATEGIES,
    next_place,
    peg_insert_expert,
    spiral,
    turn_to,
)
from mjx_policies.envs.franka.scenes import HOLE_DEPTH, HOLE_WIDTH, PEG_RADIUS
from mjx_policies.envs.registry import load

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")

NUM = 48
SOCKET = 0.03  # m, half its side


@pytest.fixture(scope="module")
def env():
    return load("FrankaPegInsert", "cpu", num_envs=NUM)


@pytest.fixture(scope="module")
def episodes(env, record_episodes):
    return record_episodes(env, peg_insert_expert(env), NUM)


@pytest.fixture(scope="module")
def paths(env, episodes):
    """The tip relative to the mouth [T + 1, 3], and the lean of peg and hand, rad, for each episode, from C MuJoCo."""
    model = env.physics.model
    data = mujoco.MjData(model)
    paths = []
    for b in range(NUM):
        rows = []
        data.mocap_pos[:] = episodes.mocap_pos[b]
        for qpos in episodes.qpos[: episodes.length[b] + 1, b]:
            data.qpos[:] = qpos
            mujoco.mj_kinematics(model, data)
            peg, hand = data.body("peg").xmat[8], -data.site("tcp").xmat[8]
            ball = data.site("peg_tip").xpos + PEG_RADIUS * data.body("peg").xmat.reshape(3, 3)[:, 2]
            place = ball - data.mocap_pos[0] - [0, 0, HOLE_DEPTH + PEG_RADIUS]
            rows.append([*place, *np.arccos(np.clip([peg, hand], -1, 1))])
        paths.append(np.array(rows))
    return paths


def test_every_way_in_inserts_the_peg_and_so_do_labels_alone(episodes, paths):
    for number, name in enumerate((*STRATEGIES, "labels")):
        chosen = episodes.strategy == number
        assert chosen.sum() > 5, name
        assert episodes.success[chosen].mean() > 0.85, name
    assert episodes.success.mean() > 0.95
    assert np.abs(episodes.action).max() <= 1 and np.abs(episodes.label).max() <= 1
    for b in np.flatnonzero(episodes.success):
        assert paths[b][-1, 2] < -0.025 and np.abs(paths[b][-1, :2]).max() < 0.001


def test_each_way_in_is_the_one_it_is_called(episodes, paths):
    felt = []
    for b in np.flatnonzero(episodes.success):
        place, lean = paths[b][:, :3], paths[b][:, 3]
        aside = np.hypot(place[:, 0], place[:, 1])
        entry = np.flatnonzero((place[:, 2] < 0) & (aside < HOLE_WIDTH / 4))[0]
        strategy = episodes.strategy[b]
        if strategy == SLANTED:
            assert abs(lean[entry] - SLANT) < 0.1
        elif strategy == STRAIGHT:
            assert lean[entry] < 0.06
        elif strategy == SEARCHING:
            touching = (np.abs(place[:entry, 2]) < 0.002) & (aside[:entry] > HOLE_WIDTH / 2)
            felt.append(touching.sum() >= 3)  # 0.15 s on the top
    assert np.mean(felt) > 0.8  # some happen to come down over the hole


def test_the_hand_neither_slams_nor_ends_askew(episodes, paths):
    """A tenth of a metre a second is slow for a hand, and what PUSH allows; the servos' lag adds a little."""
    for b in np.flatnonzero(episodes.success & (episodes.strategy < len(STRATEGIES))):
        place, hand = paths[b][:, :3], paths[b][:, 4]
        speed = np.linalg.norm(np.diff(place, axis=0), axis=1) / 0.05
        low = (place[1:, 2] < 0.004) & (place[1:, 2] > -0.004)
        assert speed[low].max() < 0.2
        assert hand[-1] < 0.2


@jax.jit
def walk(start, strategy):
    """A tip that goes where it is told, up to 3 mm a step, but for the socket, which keeps it out."""

    def step(place, _):
        caught = (place[2] < -0.003) & jnp.all(jnp.abs(place[:2]) < HOLE_WIDTH / 2)
        wanted, speed = next_place(place, jnp.zeros(()), strategy, jnp.zeros(3), caught)
        offset = wanted - place
        after = place + offset * jnp.minimum(0.003 / jnp.maximum(jnp.linalg.norm(offset), 1e-9), 1.0)
        solid = jnp.all(jnp.abs(after[:2]) < SOCKET) & (jnp.linalg.norm(after[:2]) > 0.003) & ~caught
        on_top = solid & (place[2] >= 0) & (after[2] < 0)
        return jnp.where(on_top, after.at[2].set(-1e-6), after), (after, solid & ~on_top & (after[2] < -0.002), speed)

    end, (path, through, speed) = jax.lax.scan(step, start, length=250)
    return end, path, through, speed


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(-0.1, 0.1),
    y=st.floats(-0.1, 0.1),
    height=st.floats(-0.025, 0.15),
    strategy=st.sampled_from([STRAIGHT, SLANTED, SEARCHING]),
)
def test_from_anywhere_the_way_leads_to_the_ground_of_the_hole_and_not_through_the_socket(x, y, height, strategy):
    assume(height > 0 or max(abs(x), abs(y)) > SOCKET)
    end, _, through, speed = walk(jnp.asarray([x, y, height]), strategy)
    assert not through.any()
    np.testing.assert_allclose(end, [0, 0, FLOOR], atol=1e-4)
    assert (speed > 0).all()


@settings(deadline=None)
@given(x=st.floats(-0.02, 0.02), y=st.floats(-0.02, 0.02))
def test_a_spiral_comes_nearer_in_steps_of_bounded_length(x, y):
    here = np.array([x, y], np.float32)
    there = np.asarray(spiral(jnp.asarray(here)))
    distance = np.hypot(*here)
    assert np.hypot(*there) <= distance
    assert np.linalg.norm(there - here) < 1.3 * STEP
    if distance > STEP:  # 1.5 mm nearer a radian
        np.testing.assert_allclose(distance - np.hypot(*there), 0.0015 * STEP / distance, rtol=1e-3, atol=1e-7)


def test_a_search_ends_at_the_hole_within_one_turn():
    place, turned = jnp.asarray([BESIDE, 0.0]), 0.0
    while np.hypot(*place) > HOLE_WIDTH / 2:
        after = spiral(place)
        turned += np.arctan2(place[0] * after[1] - place[1] * after[0], place @ after)
        place = after
    assert 1.5 < turned < 2 * np.pi


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(0, 0.5))
def test_a_turn_leads_the_peg_to_its_lean_by_rodrigues(axis, slant):
    assume(np.linalg.norm(axis) > 0.1)
    axis = np.array(axis) / np.linalg.norm(axis)
    wanted = np.array([-np.sin(slant), 0, np.cos(slant)])
    assume(axis @ wanted > -0.99)
    turn = np.asarray(turn_to(jnp.asarray(axis, jnp.float32), jnp.asarray(slant)), float)
    angle = np.linalg.norm(turn)
    k = turn / max(angle, 1e-12)
    turned = axis * np.cos(angle) + np.cross(k, axis) * np.sin(angle) + k * (k @ axis) * (1 - np.cos(angle))
    np.testing.assert_allclose(turned, wanted, atol=2e-5)
