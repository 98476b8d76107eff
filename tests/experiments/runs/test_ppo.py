"""Runs put together from a configuration, on the C engine."""

from functools import partial

import jax
import numpy as np
import pytest

from mjx_policies.agents.ppo_config import PPOConfig, PPOHyper
from mjx_policies.envs.mirror import mirror_action, mirror_observation
from mjx_policies.experiments.runs.ppo import PPORun, build
from mjx_policies.randomization.domain import DomainRandomization
from mjx_policies.training.trees import own_buffers

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")

TINY = PPORun(task="Pendulum", backend="cpu", num_envs=4, rollout_length=2, policy_layers=(8,), critic_layers=(8,))
QUICKLY = {"xla_backend_optimization_level": 0}  # programs that run a few times
jit = partial(jax.jit, compiler_options=QUICKLY)


# The curriculum


def test_training_begins_at_level_zero():
    """The first episodes, too, are of robots as their model says."""
    config = PPORun(task="Go2JoystickFlat", backend="cpu", num_envs=4)
    at_level_zero = build(config).envs
    assert at_level_zero.env.level == 0.0 and at_level_zero.env.env.env.env.high == 0.0
    without_curriculum = build(PPORun(task="Go2JoystickFlat", backend="cpu", num_envs=4, curriculum_threshold=0.0)).envs
    assert without_curriculum.env.level == 1.0
    assert build(TINY).envs.env.level == 1.0  # there is nothing to track


# The learner


def test_an_iteration_compiles_once_and_the_policy_commutes_with_the_reflection():
    """With the curriculum, which builds the environments anew from Python numbers in each iteration."""
    config = PPORun(
        task="Go2JoystickFlat", backend="cpu", num_envs=4, rollout_length=2, policy_layers=(8,), critic_layers=(8,)
    )
    parts = build(config)
    state = own_buffers(jit(parts.runner.init)(jax.random.key(0), config.hyper))
    step = jax.jit(parts.runner.step, donate_argnums=0, compiler_options=QUICKLY)
    for _ in range(2):
        state, _ = step(state)
    assert step._cache_size() == 1

    spec, model = parts.envs.spec, parts.envs.model
    mirrored = mirror_observation(spec, model)(state.envs.obs)
    mode = jax.vmap(parts.actor.mode, in_axes=(None, 0))
    action, other = (mode(state.learner.params["actor"], obs) for obs in (state.envs.obs, mirrored))
    np.testing.assert_allclose(mirror_action(spec, model)(action), other, atol=1e-5)
    assert (action != other).any(axis=1).all()


# Configuration


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"symmetry": "loss"}, "symmetry is 'loss' and hyper.symmetry 0, the weight of the mirror loss: choose"),
        ({"hyper": PPOHyper(symmetry=0.5)}, "symmetry is 'network' and hyper.symmetry 0.5"),
        ({"num_envs": 0}, "num_envs is 0, it must be at least 1"),
        ({"curriculum_threshold": 1.5}, "curriculum_threshold is 1.5, it must be at least 0 and below 1"),
        ({"rollout_length": -2}, "rollout_length is -2, it must be at least 1"),
        ({"policy_layers": (8, 0)}, "policy_layers is .*, every width must be at least 1"),
        ({"num_envs": 6}, "num_envs 6 does not divide into 4 minibatches: choose a multiple"),
    ],
)
def test_sizes_that_cannot_be_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        PPORun(**{"num_envs": 8, "sizes": PPOConfig(num_minibatches=4), **fields})


LEGS = {"task": "Go2JoystickFlat", "curriculum_threshold": 0.8}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"task": "Nope"}, "unknown task 'Nope'; known tasks: .*Pendulum"),
        ({"backend": "abacus"}, "unknown physics backend 'abacus'; known: auto, cpu"),
        ({"init_std": 0.01}, "0 < min_std=.* <= init_std=0.01"),
        ({"randomization": DomainRandomization(delay=(0.0, 0.5))}, "longer than its buffer"),
        ({"randomization": DomainRandomization(delay=(0.02, 0.01))}, "must rise from zero"),
        # With a curriculum the first level would not show it.
        ({**LEGS, "randomization": DomainRandomization(delay=(0.0, 0.5))}, "longer than its buffer"),
        ({**LEGS, "randomization": DomainRandomization(dynamics=3.0)}, "term '.*': a scale must be positive"),
    ],
)
def test_what_does_not_exist_or_fit_is_refused_before_anything_is_compiled(fields, sentence):
    config = {"task": "Pendulum", "backend": "cpu", "num_envs": 4, "curriculum_threshold": 0.0, **fields}
    with pytest.raises(ValueError, match=sentence):
        build(PPORun(**config))
