"""The expert that picks up a cube, whole."""

import jax
import numpy as np
import pytest

from mjx_policies.envs.experts.pick_cube import STRATEGIES, pick_cube_expert
from mjx_policies.envs.registry import load

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")


def test_every_grasp_picks_the_cube_up_and_so_do_labels_alone(record_episodes):
    env = load("FrankaPickCube", "cpu")
    episodes = record_episodes(env, pick_cube_expert(env), 64)
    for number, name in enumerate((*STRATEGIES, "labels")):
        chosen = episodes.strategy == number
        assert chosen.sum() > 5, name
        assert episodes.success[chosen].mean() > 0.75, name
    assert episodes.success.mean() > 0.9
    assert np.abs(episodes.action).max() <= 1 and np.abs(episodes.label).max() <= 1
