"""Policies: by the mode or by samples, with a memory, and over a frozen policy. Axes: H horizon, A action."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.actor import Units, actor, begin, recall
from mjx_policies.chunking import receding_horizon
from mjx_policies.envs.vectorize import where_rows
from mjx_policies.heads.deterministic import deterministic_head
from mjx_policies.heads.flow import flow_head
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.memory import gru
from mjx_policies.networks.denoiser import MLPDenoiser
from mjx_policies.networks.flat import Flat
from mjx_policies.networks.mlp import MLP
from mjx_policies.policy import acting, beneath, stateless

A = 2
OBS = {"state": jnp.asarray([0.5, -1.0, 2.0])}
KEY = jax.random.key(0)
GAUSSIAN = gaussian_head(MLP((8, A)), A)


def test_a_stateless_policy_reads_the_newest_observation():
    policy = stateless(lambda obs: 2 * obs["state"])
    memory = policy.init(KEY, OBS)
    action, memory = policy.act(memory, KEY, OBS, 3)
    np.testing.assert_array_equal(action, 2 * OBS["state"])
    assert memory == () and policy.period == 1


@pytest.mark.parametrize(("samples_alone", "draw"), [(False, False), (False, True), (True, False)])
def test_an_actor_acts_by_its_mode_or_else_by_samples(samples_alone, draw):
    network = actor(Flat(), flow_head(MLPDenoiser(8, 1, 4), A, 2) if samples_alone else GAUSSIAN)
    params = network.init(KEY, OBS)
    policy = acting(network, params, draw)
    keys = jax.random.split(KEY, 50)
    actions = jax.vmap(lambda key: policy.act((), key, OBS, 0)[0])(keys)
    drawn = samples_alone or draw
    assert len(np.unique(actions[:, 0])) == (50 if drawn else 1)
    if not drawn:
        np.testing.assert_allclose(actions[0], network.mode(params, OBS), rtol=1e-6)


def test_an_actor_with_a_memory_keeps_it():
    network = actor(Flat(), GAUSSIAN, memory=gru(4))
    params = network.init(KEY, OBS)
    policy = acting(network, params)
    memory, kept = policy.init(KEY, OBS), begin(network, params, KEY, OBS)
    for clock in range(3):
        action, memory = policy.act(memory, KEY, OBS, clock)
        recalled, kept = recall(network, params, kept, KEY, OBS, clock)
        np.testing.assert_allclose(action, network.mode(params, recalled), rtol=1e-6)
        np.testing.assert_allclose(memory, kept, rtol=1e-6)


def test_a_residual_of_nothing_does_what_the_policy_beneath_it_does():
    """Bit for bit, in a batch whose episodes begin at any time; the base plans once for all of it."""
    robots, steps, calls = 3, 12, []

    def plan(key, history):
        jax.debug.callback(lambda x: calls.append(x), history["state"][0, 0])
        return history["state"][-1, :A] * jnp.arange(1.0, 5.0)[:, None] + jax.random.normal(key, (4, A))

    base = receding_horizon(plan, (4, A), n_action_steps=4, n_obs_steps=2)
    zero = deterministic_head(MLP((A,), output_scale=0.0), A)
    units = Units(reference=lambda obs: obs["base_action"])
    network = actor(Flat(), zero, units=units, memory=beneath(base))
    params = network.init(KEY, OBS)
    residual = acting(network, params)
    assert residual.period == 4
    states = jax.random.normal(jax.random.key(1), (steps, robots, 3))
    begins = jax.random.bernoulli(jax.random.key(2), 0.3, (steps, robots)).at[0].set(False)
    assert begins.any()

    def run(policy, keys_of):
        def step(memory, inputs):
            clock, state, began, key = inputs
            keys = jax.random.split(key, robots)
            fresh = jax.vmap(policy.init)(keys, {"state": state})
            memory = where_rows(began, fresh, memory)
            action, memory = jax.vmap(policy.act, (0, 0, 0, None))(memory, keys_of(keys), {"state": state}, clock)
            return memory, action

        def go():
            first = jax.vmap(policy.init)(jax.random.split(KEY, robots), {"state": states[0]})
            inputs = (jnp.arange(steps), states, begins, jax.random.split(jax.random.key(3), steps))
            return jax.lax.scan(step, first, inputs)[1]

        calls.clear()
        actions = jax.block_until_ready(jax.jit(go)())
        jax.effects_barrier()
        return np.asarray(actions), len(calls)

    # The actor gives what is beneath the first of two keys.
    alone, expected = run(base, lambda keys: jax.vmap(lambda key: jax.random.split(key)[0])(keys))
    above, found = run(residual, lambda keys: keys)
    np.testing.assert_array_equal(above, alone)
    assert found == expected == robots * (1 + steps + steps // 4)  # first plans, fresh ones, those of the clock
