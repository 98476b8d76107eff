"""Memories and clocks of policies that act in vectorized environments. Axes: T steps, B environments, S seeds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.agents.rollout import collect, start
from mjx_policies.chunking import receding_horizon
from mjx_policies.envs.vectorize import vectorize
from mjx_policies.policy import Policy

T, B, POOL = 6, 4, 3
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # programs that run a few times


def first_plan(key, obs):
    return {"first": obs["state"], "plan": jax.random.uniform(key), "age": jnp.zeros((), jnp.int32)}


def act(memory, key, obs, clock):
    extras = {"memory": memory, "clock": clock}
    return (obs["state"][:1], extras), memory | {"age": memory["age"] + 1}


RECORDING = Policy(first_plan, act, period=2)
"""A policy whose memory holds its first observation, what was drawn for it and the number of its steps."""


@pytest.fixture(scope="module")
def rollouts(counting):
    """Two in a row, and the memories between them."""
    envs = vectorize(counting.Counting(), B, pool_size=POOL)

    @jit
    def run(key):
        key_envs, key_start, *keys = jax.random.split(key, 4)
        state = start(RECORDING, envs.init(key_envs)[0], key_start)
        rollouts, memories = [], [state.memory]
        for key_rollout in keys:
            state, rollout, *_ = collect(RECORDING, envs, state, key_rollout, T)
            rollouts.append(rollout)
            memories.append(state.memory)
        return rollouts, memories

    return jax.device_get(run(jax.random.key(0)))


def test_a_memory_begins_with_its_episode(rollouts):
    """It is of the observation that the episode began with, and as old as the episode."""
    for rollout in rollouts[0]:
        steps, draw = np.moveaxis(rollout.obs["state"], -1, 0)
        memory = rollout.extras["memory"]
        np.testing.assert_array_equal(memory["first"][..., 0], 0.0)
        np.testing.assert_array_equal(memory["first"][..., 1], draw)
        np.testing.assert_array_equal(memory["age"], steps)
        assert (rollout.terminated | rollout.truncated)[:-1].any()


def test_a_fresh_memory_comes_with_the_start_of_the_pool(rollouts):
    """Two robots that are given one initial state are given one memory, with what was drawn for it."""
    for rollout in rollouts[0]:
        draw, plan = rollout.obs["state"][..., 1].ravel(), rollout.extras["memory"]["plan"].ravel()
        assert len(set(draw)) == len(set(plan)) == len(set(zip(draw, plan, strict=True)))
        assert len(set(draw)) <= B + POOL
        again = (rollout.terminated | rollout.truncated)[:-1].sum()
        assert again > POOL, "more episodes began than there are resets in the pool"


def test_a_rollout_goes_on_with_the_memories_of_the_last(rollouts):
    for rollout, before in zip(rollouts[0], rollouts[1], strict=False):
        for name, value in before.items():
            np.testing.assert_array_equal(rollout.memory[name], value)
            np.testing.assert_array_equal(rollout.extras["memory"][name][0], value)


def test_the_clock_counts_from_zero_in_each_rollout(rollouts):
    for rollout in rollouts[0]:
        np.testing.assert_array_equal(rollout.extras["clock"], np.broadcast_to(np.arange(T)[:, None], (T, B)))


def test_a_rollout_that_ends_within_a_cycle_is_refused(counting):
    envs = vectorize(counting.Counting(), B)
    state = jax.eval_shape(lambda key: start(RECORDING, envs.init(key)[0], key), jax.random.key(0))
    with pytest.raises(ValueError, match="a rollout of 7 steps is no multiple of the 2 steps after which"):
        jax.eval_shape(lambda state, key: collect(RECORDING, envs, state, key, 7), state, jax.random.key(0))


def test_plans_are_made_together_also_where_seeds_are_a_batch(counting):
    """In every third step for all robots of all seeds, and for each start of the pools."""
    calls, seeds = [], 2

    def plan(key, history):
        jax.debug.callback(lambda x: calls.append(x), history["state"][0, 0])
        return jnp.zeros((4, 1))

    inner = receding_horizon(plan, (4, 1), n_action_steps=3)

    def act(memory, key, obs, clock):
        action, memory = inner.act(memory, key, obs, clock)
        return (action, ()), memory

    policy = inner._replace(act=act)
    envs = vectorize(counting.Counting(), B, pool_size=POOL)
    begin = jit(jax.vmap(lambda key: start(policy, envs.init(key)[0], key)))
    run = jit(jax.vmap(lambda state, key: collect(policy, envs, state, key, T)[0]))
    keys = jax.random.split(jax.random.key(0), seeds)
    state = jax.block_until_ready(begin(keys))
    jax.effects_barrier()
    assert len(calls) == seeds * B  # the first plans
    calls.clear()
    jax.block_until_ready(run(state, keys))
    jax.effects_barrier()
    assert len(calls) == seeds * (POOL + B * T // 3)
