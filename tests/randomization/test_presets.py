from importlib import resources

import jax
import mujoco
import numpy as np
import pytest

from mjx_policies.envs.physics.base import check_dynamics
from mjx_policies.envs.registry import TASKS, load
from mjx_policies.randomization import presets
from mjx_policies.randomization.domain import DomainRandomization, randomize
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


@pytest.mark.parametrize("task", [name for name in TASKS if name.startswith("Franka")])
def test_franka_fits_each_table_and_randomizes_what_is_on_it(task):
    model = load(task, "cpu", num_envs=1).physics.model
    terms = presets.franka(model)
    check(terms, model)
    objects = {model.body(i).name for i in range(model.nbody)} & {"cube", "base", "block", "peg", "drawer"}
    names = terms["object_mass"].names if objects else ()
    assert set(names) == objects
    changed = {name: term.names for name, term in terms.items() if "object" not in name and term.names}
    assert not any(name in objects for name in changed["mass"]) and "drawer" not in changed["friction_loss"]


def test_the_cube_of_an_arm_is_not_pushed_as_a_trunk_is():
    env, dynamics = randomize(load("FrankaPickCube", "cpu", num_envs=1), DomainRandomization())
    kinds = []
    while hasattr(env, "env"):
        kinds.append(type(env).__name__)
        env = env.env
    assert kinds == ["SensorNoise", "ObservationLatency", "ActionDelay"]
    assert "object_mass" in dynamics.terms
