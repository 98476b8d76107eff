import dataclasses

import jax
import numpy as np
import pytest

from mjx_policies.envs.registry import load
from mjx_policies.randomization.conditions import Condition, apply_condition, conditions
from mjx_policies.randomization.domain import DomainRandomization

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")


@pytest.fixture(scope="module")
def walker():
    return load("Go2JoystickFlat", "cpu", num_envs=1)


def changed(task, condition):
    """The model fields that differ from the nominal ones in some draw."""
    _, dynamics = apply_condition(task, condition)
    drawn = dynamics(jax.random.key(0)).dynamics
    nominal = apply_condition(task, conditions(task)["nominal"])[1](jax.random.key(0)).dynamics
    assert drawn.keys() == nominal.keys()
    return {name for name in drawn if not np.array_equal(drawn[name], nominal[name])}


def test_each_condition_changes_what_it_names(walker):
    tests = conditions(walker)
    assert list(tests)[:2] == ["nominal", "randomized"]
    for name in ("nominal", "noise", "delay", "latency"):
        assert changed(walker, tests[name]) == set()
    assert changed(walker, tests["friction"]) == {"geom_friction"}
    assert changed(walker, tests["kp"]) == {"actuator_gainprm", "actuator_biasprm"}
    assert "body_mass" in changed(walker, tests["mass"]) and "geom_friction" not in changed(walker, tests["mass"])
    everything = changed(walker, tests["dynamics"])
    assert everything == changed(walker, tests["randomized"]) and {"body_mass", "geom_friction"} < everything


def test_what_is_not_dynamics_is_its_own_condition(walker):
    ranges = DomainRandomization(noise=2.0, delay=(0.01, 0.03), push_velocity=0.7)
    tests = {name: test.randomization for name, test in conditions(walker, ranges).items()}
    nothing = tests["nominal"]
    assert nothing == ranges.scaled(0.0) and tests["randomized"] == ranges
    assert tests["noise"].noise == 2.0 and tests["noise"].delay == nothing.delay
    assert tests["delay"].delay == (0.01, 0.03) and tests["delay"].noise == 0.0
    assert tests["latency"] == dataclasses.replace(nothing, latency=ranges.latency) != nothing
    assert tests["push"].push_velocity == 0.7 and tests["mass"].push_velocity == 0.0


def test_a_draw_alone_equals_that_among_all(walker):
    """The same robots, so that what a condition costs can be told pair by pair."""
    key = jax.random.key(3)
    alone, among = (
        apply_condition(walker, conditions(walker)[name])[1](key).dynamics["geom_friction"]
        for name in ("friction", "randomized")
    )
    np.testing.assert_array_equal(alone, among)


def test_all_conditions_are_one_program(walker):
    trees = {jax.tree.structure(apply_condition(walker, test)) for test in conditions(walker).values()}
    assert len(trees) == 1
    leaves = [jax.tree.leaves(apply_condition(walker, test)) for test in conditions(walker).values()]
    types = {tuple((np.shape(leaf), isinstance(leaf, float)) for leaf in row) for row in leaves}
    assert len(types) == 1, "a leaf of another shape, or no Python number any more, compiles anew"


def test_a_robot_without_a_preset_has_fewer_conditions():
    names = ["nominal", "randomized", "noise", "delay", "latency"]
    assert list(conditions(load("Pendulum", "cpu", num_envs=1))) == names


def test_unknown_terms_are_named(walker):
    with pytest.raises(ValueError, match=r"has no term 'colour'; it has .*friction"):
        apply_condition(walker, Condition("", DomainRandomization(), ("colour",)))
