import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.experiments.collection.demonstrators import Demonstrator
from mjx_policies.experiments.collection.rollouts import make_recorder


@pytest.fixture(scope="session")
def record_episodes():
    """`(env, expert, num) -> Rollouts`, every fourth by labels, whose strategy is the number after the last."""

    def record(env, expert, num):
        def init(key, state, obs):
            key_labels, key_expert = jax.random.split(key)
            return jax.random.bernoulli(key_labels, 0.25), expert.init(key_expert, state)

        def act(carry, state, obs, key, step):
            del obs, step
            labels, person = carry
            action, person = expert.act(person, state, key)
            label = expert.label(state)
            return jnp.where(labels, label, action), label, (labels, person)

        def strategy(carry):
            labels, person = carry
            return jnp.where(labels, len(expert.strategies), person.manner.strategy)

        episodes = make_recorder(env, Demonstrator(init, act, strategy, strategies=expert.strategies))(np.arange(num))
        return jax.device_get(episodes)

    return record
