"""Sweeps of any learner. Axes: S runs."""

import doctest
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.actor import actor
from mjx_policies.agents import sweep as module
from mjx_policies.agents.base import Learner
from mjx_policies.agents.critic import critic
from mjx_policies.agents.on_policy import on_policy
from mjx_policies.agents.ppo import PPOConfig, PPOHyper, ppo
from mjx_policies.agents.sweep import member, seed_keys, stack, sweep
from mjx_policies.chunking import receding_horizon
from mjx_policies.envs.vectorize import vectorize
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.networks.flat import Flat
from mjx_policies.networks.mlp import MLP
from mjx_policies.policy import Policy

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # programs that run rarely
POINTS = [
    PPOHyper(learning_rate=rate, desired_kl=0.0, discount=discount)
    for rate in (1e-3, 3e-3, 1e-2, 3e-2)
    for discount in (0.5, 0.8, 0.9, 0.95)
]
SEEDS = [number % 2 for number in range(16)]


def test_examples_of_the_docstrings():
    assert doctest.testmod(module).failed == 0


@pytest.fixture(scope="module")
def runner(probes):
    head = gaussian_head(MLP((4, 1), output_scale=0.01), 1, init_std=0.5)
    learner = ppo(actor(Flat(), head), critic(MLP((4, 1))), PPOConfig(num_epochs=1, num_minibatches=1))
    return on_policy(learner, probes.vectorized("asymmetric critic", 4), rollout_length=2)


def test_a_grid_of_sixteen_points_is_traced_once_and_equals_runs_alone(runner):
    several = sweep(runner._replace(step=chex.assert_max_traces(runner.step, n=1)))
    step = jit(several.step)
    state = jit(several.init)(seed_keys(SEEDS), stack(POINTS))
    for _ in range(3):
        state, info = step(state)
    assert all(value.shape == (16,) for value in info.values())
    assert several.steps_per_iteration == runner.steps_per_iteration == 8
    init, alone = jit(runner.init), jit(runner.step)
    for number in (0, 5, 15):
        one = init(jax.random.key(SEEDS[number]), POINTS[number])
        for _ in range(3):
            one, said = alone(one)
        chex.assert_trees_all_close(member(state.learner, number), one.learner, rtol=1e-3, atol=1e-4)
        chex.assert_trees_all_close(member(info, number), said, rtol=1e-3, atol=1e-4)
    rates = np.asarray(state.learner.hyper.learning_rate)
    assert rates.tolist() == np.float32([point.learning_rate for point in POINTS]).tolist()


def test_a_plan_is_made_once_for_a_batch_in_every_run(counting):
    """The clock is no part of a run: where it says so, and nowhere else, the network of a chunk is evaluated."""
    calls, robots, runs, n_action_steps, length = [], 3, 2, 2, 4

    def plan(key, history):
        jax.debug.callback(lambda x: calls.append(x), history["state"][0, 0])
        return jnp.zeros((3, 1))

    inner = receding_horizon(plan, (3, 1), n_action_steps)

    def act(memory, key, obs, clock):
        action, memory = inner.act(memory, key, obs, clock)
        return (action, ()), memory

    acts = Policy(inner.init, act, inner.period)
    learner = Learner(
        init=lambda key, obs, hyper: hyper,
        act=lambda state: acts,
        update=lambda state, key, rollout: (state, {}),
        policy=lambda state: inner,
    )
    envs = vectorize(counting.Counting(), robots, pool_size=5)
    several = sweep(on_policy(learner, envs, length))
    state = jit(several.init)(seed_keys(range(runs)), jnp.zeros(runs))
    step = jit(several.step)
    jax.effects_barrier()
    calls.clear()
    jax.block_until_ready(step(state))
    jax.effects_barrier()
    fresh = runs * 5  # the first plans of the pool
    assert len(calls) == fresh + runs * robots * length // n_action_steps
