"""Algorithms that the frame has to carry, each in a page: learners and policies made of its parts alone.

Axes: T time, B environments, K decisions, H horizon, A action.
"""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from mjx_policies.actor import Units, actor, pretrained
from mjx_policies.agents.critic import critic
from mjx_policies.agents.on_policy import on_policy
from mjx_policies.agents.ppo import ppo
from mjx_policies.agents.ppo_config import PPOConfig, PPOHyper
from mjx_policies.agents.rollout import collect, start
from mjx_policies.chunking import receding_horizon
from mjx_policies.heads.denoising import Denoiser, freeze
from mjx_policies.heads.diffusion import diffusion_head
from mjx_policies.heads.flow import flow_head
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.memory import gru
from mjx_policies.networks.denoiser import MLPDenoiser
from mjx_policies.networks.flat import Flat
from mjx_policies.networks.mlp import MLP
from mjx_policies.policy import acting, beneath

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
B = 16
FROZEN = PPOHyper(learning_rate=0.0, desired_kl=0.0)
NET = MLPDenoiser(32, 2, 16)
DENOISER = Denoiser(NET, (1,), num_steps=5)
HEADS = {
    "diffusion": (
        diffusion_head(DENOISER),
        diffusion_head(dataclasses.replace(DENOISER, min_std=0.1, tuned_steps=3)),
        3,
    ),
    "flow": (flow_head(NET, 1, num_steps=4), flow_head(NET, 1, num_steps=4, step_std=0.1), 4),
}


@pytest.fixture(scope="module", params=HEADS)
def bc_policy(request, probes):
    """An actor that has learnt by imitation to stand still, the same for reinforcement, and its parameters."""
    plain, noisy, decisions = HEADS[request.param]
    bc_actor, tuned = actor(Flat(), plain), actor(Flat(), noisy)
    obs = {"state": jnp.stack([jnp.ones(64), jnp.where(jnp.arange(64) % 2, 1.0, -1.0)], axis=1)}
    optimizer = optax.adam(1e-2)

    def loss(params, key):
        keys = jax.random.split(key, 64)
        return jax.vmap(bc_actor.loss, (None, 0, 0, 0))(params, keys, obs, jnp.zeros((64, 1))).mean()

    def step(carry, key):
        updates, opt_state = optimizer.update(jax.grad(loss)(carry[0], key), carry[1])
        return (optax.apply_updates(carry[0], updates), opt_state), None

    @jit
    def learn():
        params = bc_actor.init(jax.random.key(0), jax.tree.map(lambda x: x[0], obs))
        return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(jax.random.key(1), 200))[0][0]

    params = learn()
    if request.param == "diffusion":
        params = params | {"head": freeze(params["head"])}
    return tuned, params, decisions


def test_reinforcement_goes_on_where_imitation_ended(bc_policy, probes):
    """The first ratio of every decision is one, frozen steps get no gradient, and the reward rises."""
    tuned, params, decisions = bc_policy
    assert tuned.decisions == decisions
    config = PPOConfig(num_epochs=4, num_minibatches=2, normalize=False)
    learner = ppo(pretrained(tuned, params), critic(MLP((8, 1))), config)
    runner = on_policy(learner, probes.vectorized("observed action", B), rollout_length=8)

    init, step = (jit(function) for function in (runner.init, runner.step))
    _, info = step(init(jax.random.key(0), FROZEN))
    assert float(info["policy/kl"]) < 1e-5 and float(info["policy/clip_fraction"]) == 0.0
    hyper = PPOHyper(learning_rate=3e-3, desired_kl=0.0, entropy=0.0, final_entropy=0.0)
    state, rewards = init(jax.random.key(0), hyper), []
    for _ in range(60):
        state, info = step(state)
        rewards.append(info["env/reward"])
    rewards = np.asarray(rewards)
    assert rewards[-5:].mean() > rewards[:5].mean() + 0.1, rewards
    after = state.learner.params["actor"]
    if "frozen" in params["head"]:
        jax.tree.map(np.testing.assert_array_equal, after["head"]["frozen"], params["head"]["frozen"])
    assert any((x != y).any() for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(params), strict=True))


def test_a_residual_of_zero_is_the_chunked_policy_beneath(probes):
    """Bit for bit, in a batch whose episodes end at different times; and it plans once a chunk for all of them."""
    horizon, n_action_steps, calls = 6, 4, []
    base = actor(Flat(), gaussian_head(MLP((8, horizon)), (horizon, 1)))
    obs = probes.observation(0.3, 0.0)
    base_params = base.init(jax.random.key(5), {"state": obs["state"][None]})

    def plan(key, seen):
        jax.debug.callback(lambda: calls.append(1))
        return base.mode(base_params, seen)

    policy = receding_horizon(plan, (horizon, 1), n_action_steps, keys=("state",))
    head = gaussian_head(MLP((8, 1)), 1)
    still = head._replace(sample=lambda params, key, embedding: (jnp.zeros(1), jnp.zeros((1, 1))))
    units = Units(reference=lambda obs: obs["base_action"])
    residual = actor(Flat(), still, units=units, memory=beneath(policy))
    learner = ppo(residual, critic(MLP((8, 1))), PPOConfig(num_epochs=1, num_minibatches=2))
    which = jnp.asarray(list(probes.PROBES).index("truncation"))
    envs = probes.vectorize(probes.ProbeEnv(which), B, episode_seconds=3.0)  # the first episodes end at any step

    def rollout(policy, key):
        vectors, _ = envs.init(key)
        return collect(policy, envs, start(policy, vectors, key), key, 2 * n_action_steps)[1]

    state = jit(learner.init)(jax.random.key(1), obs, PPOHyper())
    acts = learner.act(state)
    assert acts.period == n_action_steps
    found = jit(lambda key: rollout(acts, key))(jax.random.key(2))
    ended = (found.terminated | found.truncated).mean(axis=1)
    assert ((ended > 0) & (ended < 1)).all(), "the batch is not staggered"

    plain = policy._replace(
        act=lambda memory, key, obs, clock: (lambda action, kept: ((action, ()), kept))(
            *policy.act(memory, key, obs, clock)
        )
    )
    expected = jit(lambda key: rollout(plain, key))(jax.random.key(2))
    np.testing.assert_array_equal(found.action, expected.action)
    np.testing.assert_array_equal(found.extras["memory"], expected.action)

    jax.effects_barrier()
    calls.clear()
    step = jit(lambda acting, key: collect(acts, envs, acting, key, 2 * n_action_steps))
    acting_state = jit(lambda key: start(acts, envs.init(key)[0], key))(jax.random.key(3))
    jax.block_until_ready(step(acting_state, jax.random.key(4)))
    jax.effects_barrier()
    # One for each chunk, two in this rollout; and those of the pool and of the start, for episodes that begin.
    batches = 2 * B + envs.pool_size + B
    assert len(calls) <= batches, len(calls)


LENGTH = 4


def cue_envs(probes):
    """The sign that is observed in the first of four steps decides which action is rewarded in the last."""

    @struct.dataclass
    class CueEnv(probes.ProbeEnv):
        def reset(self, key, dynamics):
            state, timestep = super().reset(key, dynamics)
            return state, dataclasses.replace(timestep, obs=self.show(state))

        def show(self, state):
            first = state.steps == 0
            seen = jnp.stack([state.steps / LENGTH, jnp.where(first, state.data.qpos[0], 0.0)])
            return {"state": seen, "privileged": state.data.qpos[:1]}

        def step(self, state, action, applied=None):
            last = state.steps == LENGTH - 1
            after, timestep = super().step(state, action)
            reward = jnp.where(last, 1.0 - jnp.square(action[0] - 0.5 * state.data.qpos[0]), 0.0)
            false = jnp.zeros((), bool)
            timestep = dataclasses.replace(
                timestep, obs=self.show(after), reward=reward, terminated=last, truncated=false
            )
            return after, timestep

    return CueEnv


def test_a_recurrent_actor_keeps_a_cue_and_a_feed_forward_one_does_not(probes):
    envs = probes.vectorize(cue_envs(probes)(jnp.asarray(list(probes.PROBES).index("observed value"))), 32)
    reached = {}
    for name, memory in (("gru", gru(16)), ("none", None)):
        network = actor(Flat(), gaussian_head(MLP((16, 1), output_scale=0.01), 1, 0.3, 0.05), memory=memory)
        learner = ppo(network, critic(MLP((16, 1))), PPOConfig(num_epochs=4, num_minibatches=2))
        runner = on_policy(learner, envs, rollout_length=2 * LENGTH)
        hyper = PPOHyper(learning_rate=3e-3, desired_kl=0.0, discount=0.95, entropy=0.0, final_entropy=0.0)

        @jit
        def train(key, runner=runner, hyper=hyper):
            return jax.lax.scan(lambda state, _: runner.step(state), runner.init(key, hyper), length=150)

        _, info = train(jax.random.key(0))
        reached[name] = float(info["env/reward"][-20:].mean()) * LENGTH
    # Chance is 0.75: an action of zero is half a unit from either cue.
    assert reached["gru"] > 0.93 and reached["none"] < 0.78, reached


def test_an_actor_sees_pictures(probes):
    """Left or right half of a picture bright: uint8, of which the scales know nothing."""

    @struct.dataclass
    class Pictures(probes.ProbeEnv):
        def reset(self, key, dynamics):
            state, timestep = super().reset(key, dynamics)
            return state, dataclasses.replace(timestep, obs=self.show(timestep.obs, state))

        def show(self, obs, state):
            bright = (jnp.arange(8) < 4) == (state.data.qpos[0] > 0)
            return obs | {"pixels": jnp.broadcast_to(200 * bright[None, :, None], (8, 8, 1)).astype(jnp.uint8)}

        def step(self, state, action, applied=None):
            after, timestep = super().step(state, action)
            return after, dataclasses.replace(timestep, obs=self.show(timestep.obs, after))

    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, obs):
            x = nn.Conv(4, (3, 3), strides=2)(obs["pixels"] / 255.0 - 0.5)
            return nn.relu(x).ravel()

    envs = probes.vectorize(Pictures(jnp.asarray(list(probes.PROBES).index("observed action"))), B)
    network = actor(Encoder(), gaussian_head(MLP((1,), output_scale=0.01), 1, 0.3, 0.05), keys=("pixels",))
    learner = ppo(network, critic(MLP((8, 1))), PPOConfig(num_epochs=2, num_minibatches=2))
    runner = on_policy(learner, envs, rollout_length=8)
    hyper = PPOHyper(learning_rate=1e-2, desired_kl=0.0, entropy=0.0, final_entropy=0.0)
    state, info = jit(
        lambda key: jax.lax.scan(lambda state, _: runner.step(state), runner.init(key, hyper), length=60)
    )(jax.random.key(0))
    assert "pixels" not in state.learner.normalizer.mean
    assert state.learner.params["actor"]["scales"].observation == {}
    assert info["env/reward"][-10:].mean() > 0.97 > 0.8 > info["env/reward"][:3].mean()
    robot = acting(network, state.learner.params["actor"])
    assert robot.period == 1
