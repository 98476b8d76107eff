from importlib import resources

import jax
import mujoco
import numpy as np
import pytest

from mjx_policies.envs.physics.base import check_dynamics
from mjx_policies.randomization import presets
from mjx_policies.randomization.terms import check, sample


@pytest.fixture(scope="module")
def go2():
    return mujoco.MjModel.from_xml_path(str(resources.files("mjx_policies.envs.models") / "go2.xml"))


def test_go2_fits_its_model(go2):
    terms = presets.go2()
    check(terms, go2)
    robots = jax.jit(jax.vmap(lambda key: sample(key, terms, go2)))(jax.random.split(jax.random.key(0), 16))
    check_dynamics(go2, jax.tree.map(lambda x: x[0], robots))
    assert all(np.isfinite(value).all() for value in robots.values())
    total = np.asarray(robots["body_mass"]).sum(axis=1)
    assert (total > 16.087 * 0.9 - 1).all() and (total < 16.087 * 1.1 + 3).all()
    assert len(np.unique(total)) == 16
