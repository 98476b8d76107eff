"""The expert that stacks a cube: whole episodes, and the grasps that it chooses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.envs.experts.stack import CARRY, STRATEGIES, WIDE, fits, grasp_rotations, squared, stack_expert
from mjx_policies.envs.franka.scenes import CUBE
from mjx_policies.envs.registry import load
from mjx_policies.rotations import from_yaw

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")

NUM = 64
CUBE_AT, BASE_AT = slice(9, 16), slice(16, 23)  # in qpos
angle = st.floats(-np.pi, np.pi)


@pytest.fixture(scope="module")
def episodes(record_episodes):
    env = load("FrankaStack", "cpu", num_envs=NUM)
    return record_episodes(env, stack_expert(env), NUM)


def yaw(quat):
    w, x, y, z = quat
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def test_every_way_stacks_the_cubes_and_so_do_labels_alone(episodes):
    for number, name in enumerate((*STRATEGIES, "labels")):
        chosen = episodes.strategy == number
        assert chosen.sum() > 5, name
        assert episodes.success[chosen].mean() > 0.8, name
    assert episodes.success.mean() > 0.9 and not episodes.terminated.any()
    assert np.abs(episodes.action).max() <= 1 and np.abs(episodes.label).max() <= 1


def test_the_upper_cube_lies_still_on_the_lower_one_its_faces_along_its_faces(episodes):
    for b in np.flatnonzero(episodes.success):
        before, end = (episodes.qpos[episodes.length[b] - back, b] for back in (4, 0))
        offset = end[CUBE_AT][:3] - end[BASE_AT][:3]
        assert np.hypot(*offset[:2]) < 0.02 and abs(offset[2] - 2 * CUBE) < 0.003
        assert np.abs(end[CUBE_AT] - before[CUBE_AT]).max() < 1e-3
        assert end[7:9].min() > CUBE + 0.003  # both fingers are off it
    turned = [yaw(episodes.qpos[n, b, 12:16]) - yaw(episodes.qpos[n, b, 19:23]) for b, n in enumerate(episodes.length)]
    askew = np.abs(np.mod(turned + np.array(np.pi / 4), np.pi / 2) - np.pi / 4)
    assert np.quantile(askew[episodes.success], 0.9) < 0.1


def test_from_above_the_cube_is_carried_higher_than_from_a_side(episodes):
    person = episodes.success & (episodes.strategy < len(STRATEGIES))
    peak = np.array([episodes.qpos[: n + 1, b, 11].max() for b, n in enumerate(episodes.length)]) - 3 * CUBE
    above, side = (np.median(peak[person & (episodes.strategy % 2 == k)]) for k in (0, 1))
    assert above > side + 0.5 * (CARRY[0] - CARRY[1]) and side > 0.01


@settings(max_examples=200, deadline=None)
@given(hand=angle, base_yaw=angle, bearing=angle, apart=st.floats(0.07, 0.14))
def test_fingers_that_fit_do_not_touch_the_base(hand, base_yaw, bearing, apart):
    """Against points all over the pads of 17.5 by 15.2 mm, in the frame of the base."""
    base = apart * np.array([np.cos(bearing), np.sin(bearing)])
    if not fits(jnp.asarray(hand), jnp.zeros(3), jnp.asarray([*base, CUBE])):
        return
    x, y = np.meshgrid(np.linspace(-0.00875, 0.00875, 15), np.linspace(0, 0.0152, 15))
    for side in (1, -1):
        points = np.stack([x, side * (WIDE + y)]).reshape(2, -1)
        c, s = np.cos(hand), np.sin(hand)
        points = np.array([[c, s], [s, -c]]) @ points - base[:, None]
        c, s = np.cos(base_yaw), np.sin(base_yaw)
        inside = np.abs(np.array([[c, s], [-s, c]]) @ points).max(axis=0)
        assert inside.min() > CUBE


@settings(max_examples=50, deadline=None)
@given(cube=angle, base=angle, bearing=angle, apart=st.floats(0.07, 0.14))
def test_grasps_are_across_faces_and_squaring_is_the_least_turn(cube, base, bearing, apart):
    place = jnp.asarray([apart * np.cos(bearing), apart * np.sin(bearing), CUBE])
    grasps = np.asarray(grasp_rotations(from_yaw(jnp.asarray(cube)), jnp.zeros(3), place))
    for grasp in grasps:
        np.testing.assert_allclose(grasp[:, 2], [0, 0, -1], atol=1e-6)
        fingers = np.arctan2(grasp[1, 1], grasp[0, 1]) - cube
        assert abs(np.sin(2 * fingers)) < 1e-4
    after = np.asarray(squared(jnp.asarray(grasps[0]), from_yaw(jnp.asarray(cube)), from_yaw(jnp.asarray(base))))
    turn = after @ grasps[0].T
    angle = np.arctan2(turn[1, 0], turn[0, 0])
    assert abs(angle) < np.pi / 4 + 1e-4
    assert abs(np.sin(2 * (cube + angle - base))) < 1e-3
