"""The expert that picks up a cube, whole."""

import jax
import numpy as np
import pytest

from mjx_policies.agents.demonstrations import expert_actor, make_recorder
from mjx_policies.envs.experts.pick_cube import STRATEGIES, pick_cube_expert
from mjx_policies.envs.registry import load

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")


def test_every_grasp_picks_the_cube_up():
    env = load("FrankaPickCube", "cpu")
    attempts = make_recorder(env, expert_actor(pick_cube_expert(env)))(jax.vmap(jax.random.key)(np.arange(64)))
    success, strategy = np.array(attempts.success), np.array(attempts.strategy)
    for number, name in enumerate(STRATEGIES):
        assert (strategy == number).sum() > 8, name
        assert success[strategy == number].mean() > 0.75, name
    assert success.mean() > 0.9
    assert np.abs(np.array(attempts.action)).max() <= 1
