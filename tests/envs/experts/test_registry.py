"""Experts by name: each is found, acts in its task, and an unknown name is answered with those there are."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from mjx_policies.envs import registry
from mjx_policies.envs.experts.registry import EXPERT_TASKS, load_expert

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")


@pytest.mark.parametrize("name", EXPERT_TASKS)
def test_each_expert_acts_and_labels_in_the_space_of_its_task(name):
    task = registry.load(name, "cpu", num_envs=1)
    expert = load_expert(name, task)

    def one(key):
        state, _ = task.reset(key, {})
        carry = expert.init(key, state)
        action, after = expert.act(carry, state, key)
        return action, expert.label(state), carry, after

    action, label, before, after = jax.eval_shape(one, jax.random.key(0))
    for each in (action, label, after.intended):
        assert each.shape == (task.spec.action.size,) and each.dtype == jnp.float32
    assert before == after  # shapes and types: a scan carries them
    assert len(expert.strategies) == len(set(expert.strategies)) > 1


def test_a_task_without_an_expert_is_refused_with_the_names_of_those_that_have_one():
    with pytest.raises(ValueError, match=r"no expert for 'Go2Getup'.*Obstacle2D.*FrankaPickCube"):
        load_expert("Go2Getup", None)


def test_only_the_expert_asked_for_is_imported():
    code = """
import sys
from mjx_policies.envs.experts.registry import EXPERT_TASKS, load_expert
from mjx_policies.envs.registry import load
load_expert("Obstacle2D", load("Obstacle2D", "cpu", num_envs=1))
print([module for module, _ in EXPERT_TASKS.values() if f"mjx_policies.envs.experts.{module}" in sys.modules])
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "['obstacle2d']"
