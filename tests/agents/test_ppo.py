"""PPO's update and its losses. Axes: T time, B environments, N samples."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.actor import Units, actor
from mjx_policies.agents import ppo as module
from mjx_policies.agents.critic import CLIP, critic
from mjx_policies.agents.ppo import adapt_learning_rate, anneal, ppo, with_scales
from mjx_policies.agents.ppo_config import PPOConfig, PPOHyper, Symmetry
from mjx_policies.agents.ppo_losses import clipped_surrogate, reduced
from mjx_policies.agents.rollout import Transition
from mjx_policies.envs.vectorize import where_rows
from mjx_policies.heads.bins import bins_head
from mjx_policies.heads.denoising import Denoiser
from mjx_policies.heads.diffusion import diffusion_head
from mjx_policies.heads.flow import flow_head
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.heads.mixture import mixture_head
from mjx_policies.memory import gru
from mjx_policies.networks.denoiser import MLPDenoiser
from mjx_policies.networks.flat import Flat
from mjx_policies.networks.mlp import MLP
from mjx_policies.normalize import merge, moments, scale_of
from mjx_policies.policy import acting, beneath

T, B, A = 5, 4, 2
jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)  # programs that run a few times
CONFIG = PPOConfig(num_epochs=2, num_minibatches=2)
EXAMPLE = {"state": jnp.zeros(3), "privileged": jnp.zeros(1)}
FROZEN = PPOHyper(learning_rate=0.0, desired_kl=0.0)
"""Nothing learns: what `update` reports is about the policy that acted, in all minibatches alike."""

head = gaussian_head(MLP((8, A)), A, init_std=0.5, min_std=0.1)
network = actor(Flat(), head, units=Units(clip=CLIP))
value_net = critic(MLP((8, 1)))
learner = ppo(network, value_net, CONFIG)
update = jit(learner.update)
initial = jit(learner.init)


def with_hyper(state, hyper):
    hyper = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hyper)
    return state.replace(hyper=hyper, learning_rate=hyper.learning_rate)


@functools.cache
def walk(learner):
    """`(state, key, obs [T, B, ...], ended [T, B]) -> actions, extras, first memory`, compiled once a learner."""

    @jit
    def walk(state, key, obs, ended):
        policy = learner.act(state)
        keys = jax.random.split(key, (2, T, B))
        start = jax.vmap(policy.init)(keys[0, 0], jax.tree.map(lambda x: x[0], obs))

        def step(memory, inputs):
            clock, obs, began, keys = inputs
            memory = where_rows(began, jax.vmap(policy.init)(keys[0], obs), memory)
            made, memory = jax.vmap(policy.act, in_axes=(0, 0, 0, None))(memory, keys[1], obs, clock)
            return memory, made

        began = jnp.concatenate([jnp.zeros((1, B), bool), ended[:-1]])
        made = jax.lax.scan(step, start, (jnp.arange(T), obs, began, jnp.moveaxis(keys, 1, 0)))[1]
        return *made, start

    return walk


def collect(state, seed, ends=0.3, learner=learner):
    """Steps of the current policy through observations off centre; a portion `ends` of them ends an episode."""
    rng = np.random.default_rng(seed)
    path = {name: rng.normal(2.0, 3.0, (T + 1, B, *x.shape)).astype(np.float32) for name, x in EXAMPLE.items()}
    elsewhere = {name: rng.normal(2.0, 3.0, (T, B, *x.shape)).astype(np.float32) for name, x in EXAMPLE.items()}
    ended, which = rng.random((T, B)) < ends, rng.random((T, B)) < 0.5
    obs = jax.tree.map(lambda x: x[:-1], path)
    final_obs = {name: np.where(ended[..., None], elsewhere[name], path[name][1:]) for name in EXAMPLE}
    action, extras, memory = walk(learner)(state, jax.random.key(seed), obs, ended)
    reward = rng.normal(size=(T, B)).astype(np.float32)
    return Transition(obs, action, extras, reward, ended & which, ended & ~which, final_obs, memory)


def value_of(state, obs):  # [T, B, ...] -> [T, B]
    return jax.vmap(jax.vmap(value_net.value, (None, 0)), (None, 0))(state.params["critic"], obs)


@pytest.fixture(scope="module")
def trained():
    """A state after three updates, whose normalization is no longer the identity."""
    state = initial(jax.random.key(0), EXAMPLE, PPOHyper())
    for seed in range(3):
        state, _ = update(state, jax.random.key(seed), collect(state, seed))
    return state


def assert_same(a, b):
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


# Losses


def test_the_surrogate_is_equation_7():
    rng = np.random.default_rng(0)
    log_prob, old = rng.normal(0, 0.3, (2, 200)).astype(np.float32)
    advantage = rng.normal(size=200).astype(np.float32)
    expected = []
    for new, before, a in zip(log_prob, old, advantage, strict=True):
        ratio = math.exp(new - before)
        expected.append(-min(ratio * a, min(max(ratio, 0.8), 1.2) * a))
    np.testing.assert_allclose(clipped_surrogate(log_prob - old, advantage, 0.2), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "learns"),
    [(1.5, 1, False), (1.5, -1, True), (0.5, 1, True), (0.5, -1, False), (1.1, 1, True), (0.9, -1, True)],
)
def test_only_what_would_go_further_is_clipped(ratio, advantage, learns):
    gradient = jax.grad(clipped_surrogate)(jnp.log(ratio), float(advantage), 0.2)
    np.testing.assert_allclose(gradient, -advantage * ratio if learns else 0.0, rtol=1e-5)


def test_the_first_ratio_is_one(trained):
    """The log-probability is recomputed as it was when the robot acted, normalization included."""
    state = with_hyper(trained, FROZEN.replace(clip=1e-4))  # so narrow that only rounding stays inside
    rollout = collect(state, 7)
    _, info = update(state, jax.random.key(0), rollout)
    assert float(info["policy/clip_fraction"]) == 0.0
    assert abs(float(info["policy/kl"])) < 1e-7  # rounding of numbers of order one
    assert abs(float(info["loss/policy"])) < 1e-6  # minus the mean of a centred advantage
    # It would be noticed: moments of the new observations, as if merged too early, shift every ratio.
    flat = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), rollout.obs)
    early = state.replace(params=with_scales(state.params, merge(state.normalizer, moments(flat)), CONFIG))
    assert float(update(early, jax.random.key(0), rollout)[1]["policy/clip_fraction"]) > 0.5


def test_the_normalization_moves_after_the_gradient_steps(trained):
    state = with_hyper(trained, FROZEN)
    rollout = collect(state, 8)
    after, _ = update(state, jax.random.key(0), rollout)
    flat = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), rollout.obs)
    expected = merge(state.normalizer, moments(flat))
    for x, y in zip(jax.tree.leaves(after.normalizer), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)  # sums in another order
    assert_same(after.params, with_scales(state.params, after.normalizer, CONFIG))
    for part in after.params.values():
        for name, scale in part["scales"].observation.items():
            assert_same(scale, scale_of(after.normalizer.part(name)))
    assert int(after.updates) == int(state.updates) + 1


def test_the_critic_learns_returns_that_end_where_episodes_end(trained):
    state = with_hyper(trained, FROZEN)
    rollout = collect(state, 9)
    value, final = (np.asarray(value_of(state, obs), float) for obs in (rollout.obs, rollout.final_obs))
    gamma, lambda_ = state.hyper.discount, state.hyper.trace_decay
    errors, follows = np.zeros((T, B)), np.zeros(B)
    for t in reversed(range(T)):
        delta = rollout.reward[t] + gamma * np.where(rollout.terminated[t], 0, final[t]) - value[t]
        follows = delta + gamma * lambda_ * np.where(rollout.terminated[t] | rollout.truncated[t], 0, follows)
        errors[t] = follows
    info = update(state, jax.random.key(0), rollout)[1]
    np.testing.assert_allclose(info["loss/value"], np.mean(errors**2), rtol=1e-4)


def test_a_truncation_is_valued_by_the_true_final_observation(trained):
    state = with_hyper(trained, FROZEN)
    rollout = collect(state, 10, ends=0.6)
    info = update(state, jax.random.key(0), rollout)[1]

    def doctored(where):
        """The update if the final observations were others."""
        final = jax.tree.map(lambda x: np.where(where[..., None], x + 1.0, x), rollout.final_obs)
        return update(state, jax.random.key(0), rollout.replace(final_obs=final))[1]

    assert rollout.terminated.any() and rollout.truncated.any()
    assert abs(float(doctored(rollout.truncated)["loss/value"] - info["loss/value"])) > 1e-3
    assert_same(doctored(rollout.terminated), info)


def test_the_critic_sees_what_is_privileged_and_the_actor_does_not(trained):
    obs = {"state": jnp.asarray([1.0, -2.0, 0.5]), "privileged": jnp.asarray([3.0])}
    deployed, acts = learner.policy(trained).act, learner.act(trained).act
    jacobian = jax.jacobian(lambda obs: deployed((), jax.random.key(0), obs, 0)[0])(obs)
    assert (jacobian["privileged"] == 0).all() and (jacobian["state"] != 0).any()
    sampled = jax.jacobian(lambda obs: acts((), jax.random.key(0), obs, 0)[0][0])(obs)
    assert (sampled["privileged"] == 0).all()

    state = with_hyper(trained, FROZEN)
    rollout = collect(state, 11)
    info = update(state, jax.random.key(0), rollout)[1]
    other = update(
        state, jax.random.key(0), rollout.replace(obs=rollout.obs | {"privileged": 0 * rollout.obs["privileged"]})
    )[1]
    assert abs(float(other["loss/value"] - info["loss/value"])) > 1e-3
    assert float(other["policy/clip_fraction"]) == 0.0 and abs(float(other["policy/kl"])) < 1e-7


# Exploration


def test_the_entropy_is_exact_and_its_weight_widens_or_narrows(trained):
    log_std = trained.params["actor"]["head"]["log_std"]
    rollout = collect(trained, 12)
    change = {}
    for weight in (10.0, -10.0):
        hyper = PPOHyper(learning_rate=0.01, desired_kl=0.0, entropy=weight, final_entropy=weight)
        state, _ = update(with_hyper(trained, hyper), jax.random.key(0), rollout)
        change[weight] = state.params["actor"]["head"]["log_std"] - log_std
    # Four steps of Adam, whose moments hold smaller gradients, of at most 0.01 each and all the same way.
    assert (change[10.0] > 0.01).all() and (change[-10.0] < -0.01).all()
    frozen = update(with_hyper(trained, FROZEN), jax.random.key(0), rollout)[1]
    expected = float(jnp.sum(log_std)) + A * 0.5 * math.log(2 * math.pi * math.e)
    np.testing.assert_allclose(frozen["policy/entropy"], expected, rtol=1e-5)


def test_the_deviation_has_a_floor_and_comes_back_from_it(trained):
    rollout = jax.tree.map(jnp.asarray, collect(trained, 13))

    @jit
    def press(state, weight):
        hyper = PPOHyper(learning_rate=0.05, desired_kl=0.0, entropy=weight, final_entropy=weight)
        state = with_hyper(state, hyper)
        return jax.lax.scan(
            lambda state, key: learner.update(state, key, rollout), state, jax.random.split(jax.random.key(0), 20)
        )

    def std(state):
        return np.asarray(network.distribution(state.params["actor"], EXAMPLE).stddev())

    low, info = press(trained, -100.0)
    np.testing.assert_allclose(std(low), 0.1, rtol=1e-5)
    np.testing.assert_allclose(info["policy/std"][-1], 0.1, rtol=1e-5)
    high, _ = press(low, 100.0)
    high, _ = press(high, 100.0)
    assert (std(high) > 0.15).all()


# Learning rate and gradients


@pytest.mark.parametrize(
    ("kl", "expected"),
    [(0.0, 1.5), (0.004, 1.5), (0.006, 1.0), (0.01, 1.0), (0.019, 1.0), (0.021, 1 / 1.5), (9.0, 1 / 1.5)],
)
def test_the_learning_rate_follows_the_divergence(kl, expected):
    rate = adapt_learning_rate(1e-3, kl, PPOHyper(desired_kl=0.01))
    np.testing.assert_allclose(rate, 1e-3 * expected, rtol=1e-5)


def test_the_learning_rate_stays_in_bounds():
    hyper = PPOHyper(desired_kl=0.01, min_learning_rate=1e-5, max_learning_rate=1e-2)
    assert float(adapt_learning_rate(9e-3, 0.001, hyper)) == np.float32(1e-2)
    assert float(adapt_learning_rate(1.1e-5, 0.1, hyper)) == np.float32(1e-5)
    assert float(adapt_learning_rate(0.5, 0.1, hyper.replace(desired_kl=0.0))) == 0.5  # no steering, no bounds


@pytest.mark.parametrize(("desired_kl", "rate"), [(1e-12, 1e-3 / 1.5**3), (1e9, 1e-3 * 1.5**3), (0.0, 1e-3)])
def test_every_gradient_step_steers(trained, desired_kl, rate):
    """Four steps in two epochs: the first finds no divergence yet and leaves the rate as it is."""
    state = with_hyper(trained, PPOHyper(learning_rate=1e-3, desired_kl=desired_kl, final_desired_kl=desired_kl))
    state, info = update(state, jax.random.key(0), collect(state, 14))
    np.testing.assert_allclose(state.learning_rate, rate, rtol=1e-5)
    assert float(info["learning_rate"]) == float(state.learning_rate)


def test_annealing():
    hyper = PPOHyper(desired_kl=0.04, final_desired_kl=0.01, entropy=0.02, final_entropy=-0.02, anneal_updates=100.0)
    for updates, kl, entropy in ((0, 0.04, 0.02), (50, 0.02, 0.0), (100, 0.01, -0.02), (1000, 0.01, -0.02)):
        now = anneal(jnp.asarray(updates), hyper)
        np.testing.assert_allclose(now.desired_kl, kl, rtol=1e-5)
        np.testing.assert_allclose(now.entropy, entropy, atol=1e-8)
    assert anneal(jnp.asarray(7), hyper).replace(desired_kl=0.04, entropy=0.02) == hyper, "something else changed"


def test_nothing_is_annealed_unless_asked():
    """One number set by hand is not drawn to the default of another."""
    for updates in (0, 1, 10**6):
        now = anneal(jnp.asarray(updates), PPOHyper(desired_kl=0.5, entropy=0.5))
        assert float(now.desired_kl) == 0.5 and float(now.entropy) == 0.5


def test_numbers_are_finite():
    """The host loop saves no state that holds anything else."""
    assert all(math.isfinite(x) for x in jax.tree.leaves(PPOHyper()))


def test_a_constant_learning_rate_stays_constant_while_the_rest_anneals():
    for updates in (0, 1, 10):
        now = anneal(jnp.asarray(updates), PPOHyper(desired_kl=0.0, anneal_updates=1.0))
        assert float(now.desired_kl) == 0.0


def test_the_gradients_of_actor_and_critic_are_clipped_one_by_one(trained):
    """So a critic that is far off does not slow the actor down: after one step, the actor knows nothing of it."""
    config = PPOConfig(num_epochs=1, num_minibatches=1)
    once = jit(ppo(network, value_net, config).update)
    after = []
    for value in (0.0, 1e6):
        hyper = PPOHyper(learning_rate=1e-3, desired_kl=0.0, value=value, max_grad_norm=1e-3)
        state = with_hyper(trained, hyper)
        after.append(once(state, jax.random.key(0), collect(state, 14))[0])
    assert_same(after[0].params["actor"], after[1].params["actor"])
    for x, y in zip(*(jax.tree.leaves(state.params["critic"]["net"]) for state in after), strict=True):
        assert (x != y).any()


# Batches


def test_every_epoch_sees_each_environment_once_and_whole(monkeypatch):
    seen, losses = [], module.losses

    def watching(params, batch, *rest):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), batch.obs["state"], ordered=True)
        return losses(params, batch, *rest)

    monkeypatch.setattr(module, "losses", watching)
    state = initial(jax.random.key(0), EXAMPLE, FROZEN)
    number, time = np.broadcast_arrays(np.arange(1.0, B + 1), np.arange(1.0, T + 1)[:, None])
    rollout = collect(state, 0)
    state_obs = np.stack([number, time, 0 * time], axis=-1).astype(np.float32)
    watched = jit(lambda *inputs: learner.update(*inputs))
    jax.block_until_ready(watched(state, jax.random.key(1), rollout.replace(obs=rollout.obs | {"state": state_obs})))
    jax.effects_barrier()
    batches = [x[..., :2].reshape(-1, 2) for x in seen]  # [N, 2]
    assert len(batches) == 2 * 2 and all(len(batch) == T * B // 2 for batch in batches)
    everything = sorted(zip(number.ravel(), time.ravel(), strict=True))
    for epoch in (batches[:2], batches[2:]):
        assert sorted(map(tuple, np.concatenate(epoch))) == everything
        assert all(len(np.unique(batch[:, 0])) == B // 2 for batch in epoch), "an environment was split"


def test_a_batch_that_does_not_divide_is_refused():
    three = ppo(network, value_net, PPOConfig(num_minibatches=3))
    state = initial(jax.random.key(0), EXAMPLE, PPOHyper())
    with pytest.raises(
        ValueError, match="4 environments do not divide into 3 minibatches: choose num_envs as a multiple"
    ):
        three.update(state, jax.random.key(0), collect(state, 0))


def test_a_head_without_a_density_is_refused():
    with pytest.raises(ValueError, match=r"ppo needs a head with log_prob; this one has none. Use gaussian_head"):
        ppo(network._replace(log_prob=None), value_net, CONFIG)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"discount": 2.0}, "hyper.discount is 2, it must lie between 0 and 1"),
        ({"learning_rate": math.nan}, "hyper.learning_rate is nan"),
        ({"clip": -1.0}, "hyper.clip is -1"),
        ({"min_learning_rate": 0.1}, "hyper.min_learning_rate 0.1 lies above hyper.max_learning_rate 0.01"),
    ],
)
def test_numbers_that_cannot_be_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        PPOHyper(**fields)
    jax.jit(lambda value: PPOHyper(**dict.fromkeys(fields, value)))(1.0)  # traced numbers pass


@pytest.mark.parametrize("name", ["num_epochs", "num_minibatches"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0, it must be at least 1"):
        PPOConfig(**{name: 0})


def test_a_head_without_entropy_learns_the_same_but_for_the_bonus(trained):
    sampled = ppo(network._replace(distribution=None, mode=None), value_net, CONFIG)
    hyper = PPOHyper(learning_rate=3e-3, desired_kl=0.0, entropy=0.0, final_entropy=0.0)
    state, key = with_hyper(trained, hyper), jax.random.key(0)
    rollout = collect(state, 15)
    after, info = jit(sampled.update)(state, key, rollout)
    expected, reported = update(state, key, rollout)
    assert set(reported) - set(info) == {"policy/entropy", "policy/std"}
    for x, y in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(info["policy/kl"], reported["policy/kl"], rtol=1e-3)


# Decisions and memories


def test_numbers_of_a_decision_are_added_or_averaged_within_bounds():
    log_prob = jnp.asarray(np.random.default_rng(0).normal(0, 4, (6, 3, 2, 2)))  # [N, K, H, A]
    np.testing.assert_allclose(reduced(log_prob, PPOConfig()), log_prob.sum((2, 3)), rtol=1e-5)
    np.testing.assert_allclose(
        reduced(log_prob, PPOConfig(density="mean")), log_prob.mean((2, 3)), rtol=1e-5, atol=1e-6
    )
    bounded = reduced(log_prob, PPOConfig(density="mean", density_bounds=(-5.0, 2.0)))
    np.testing.assert_allclose(bounded, jnp.clip(log_prob, -5, 2).mean((2, 3)), rtol=1e-5, atol=1e-6)
    joint = log_prob[..., 0, 0]  # of heads that know only that
    np.testing.assert_allclose(reduced(joint, PPOConfig()), joint)


def residual():
    """A Gaussian around what a frozen policy does."""
    params = network.init(jax.random.key(5), EXAMPLE)
    units = Units(clip=CLIP, reference=lambda obs: obs["base_action"])
    return actor(Flat(), head, units=units, memory=beneath(acting(network, params, draw=True)))


ACTORS = {
    "flow": lambda: actor(Flat(), flow_head(MLPDenoiser(8, 1, 4), A, 3, step_std=0.2), units=Units(clip=CLIP)),
    "diffusion": lambda: actor(
        Flat(),
        diffusion_head(Denoiser(MLPDenoiser(8, 1, 4), (A,), num_steps=3, eta=1.0, min_std=0.1)),
        units=Units(clip=CLIP),
    ),
    "mixture": lambda: actor(Flat(), mixture_head(MLP((8,)), A, 2), units=Units(clip=CLIP)),
    "bins": lambda: actor(Flat(), bins_head(MLP((8,)), A, 4), units=Units(clip=CLIP)),
    "recurrent": lambda: actor(Flat(), head, units=Units(clip=CLIP), memory=gru(4)),
    "residual": residual,
}


@pytest.mark.parametrize("name", ACTORS)
def test_the_first_ratio_is_one_whatever_acts(name):
    """It is that of every decision, and of an actor with a memory also behind the end of an episode."""
    whole = ACTORS[name]()
    each = ppo(whole, value_net, CONFIG)
    step = jit(each.update)
    with jax.debug_key_reuse(True):
        state = jit(each.init)(jax.random.key(0), EXAMPLE, PPOHyper(learning_rate=1e-2, desired_kl=0.0))
    for seed in range(2):
        rollout = collect(state, seed, learner=each)
        state, _ = step(state, jax.random.key(seed), rollout)
    state = with_hyper(state, FROZEN.replace(clip=1e-4))
    rollout = collect(state, 7, learner=each)
    assert rollout.terminated.any() and rollout.truncated.any()
    assert rollout.extras["log_prob"].shape[:3] == (T, B, whole.decisions)
    _, info = step(state, jax.random.key(0), rollout)
    assert float(info["policy/clip_fraction"]) == 0.0 and abs(float(info["policy/kl"])) < 1e-7
    if whole.memory is not None and whole.memory.learned:  # it would be noticed
        other = rollout.replace(memory=rollout.memory + 1.0)
        assert float(step(state, jax.random.key(0), other)[1]["policy/clip_fraction"]) > 0.1


def test_decisions_are_weighed_and_clipped_one_by_one():
    """With weights of zero for all but one decision, what the others were does not matter."""
    each = ppo(ACTORS["flow"](), value_net, CONFIG)
    weight = jnp.asarray([0.0, 1.0, 0.0])
    hyper = FROZEN.replace(decision_weight=weight, clip=jnp.asarray([0.1, 0.2, 0.3]), value=0.0)
    state = jit(each.init)(jax.random.key(0), EXAMPLE, hyper)
    rollout, step = collect(state, 0, learner=each), jit(each.update)
    grads = [float(step(state, jax.random.key(0), rollout)[1]["gradient/actor"])]
    for k in range(3):
        factor = jnp.ones(3).at[k].set(0.0)  # a decision that stands for another one
        trace = rollout.extras["trace"]
        moved = trace._replace(after=trace.after + 0.1 * (1 - factor)[:, None])
        other = rollout.replace(extras=rollout.extras | {"trace": moved})
        grads.append(float(step(state, jax.random.key(0), other)[1]["gradient/actor"]))
    np.testing.assert_allclose(grads[1], grads[0], rtol=1e-4)
    np.testing.assert_allclose(grads[3], grads[0], rtol=1e-4)
    assert abs(grads[2] / grads[0] - 1) > 1e-2


def test_scales_of_imitation_stay():
    """A critic has its own, which follow what is seen."""
    fixed = ppo(network, value_net, dataclasses.replace(CONFIG, normalize=False))
    state = initial(jax.random.key(0), EXAMPLE, PPOHyper())
    after, _ = jit(fixed.update)(state, jax.random.key(0), collect(state, 0))
    assert_same(after.params["actor"]["scales"], state.params["actor"]["scales"])
    for name, scale in after.params["critic"]["scales"].observation.items():
        assert_same(scale, scale_of(after.normalizer.part(name)))


# Symmetry


FLIP = jnp.asarray([1.0, -1.0, -1.0])
SYMMETRY = Symmetry(
    observation=lambda obs: obs | {"state": obs["state"] * FLIP},
    action=lambda action: action[..., ::-1],  # left and right motor
)


def test_the_mirror_loss_is_zero_for_a_symmetric_policy_and_teaches_others():
    linear = actor(Flat(), gaussian_head(MLP((A,)), A, init_std=0.5))
    mirrored = ppo(linear, value_net, CONFIG, SYMMETRY)
    step = jit(mirrored.update)
    state = jit(mirrored.init)(jax.random.key(0), EXAMPLE, FROZEN)

    def with_kernel(state, kernel):
        dense = {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(A)}
        inner = state.params["actor"]["head"] | {"net": {"params": {"Dense_0": dense}}}
        return state.replace(params=state.params | {"actor": state.params["actor"] | {"head": inner}})

    rollout = collect(initial(jax.random.key(0), EXAMPLE, FROZEN), 0)
    even, odd = [0.3, 0.3], [0.7, -0.7]  # what the motors do together, and against each other
    symmetric = with_kernel(state, [even, odd, [-0.2, 0.2]])
    assert float(step(symmetric, jax.random.key(0), rollout)[1]["loss/mirror"]) < 1e-12

    lopsided = with_kernel(state, [even, even, odd])
    info = step(lopsided, jax.random.key(0), rollout)[1]
    # Both motors follow the second entry, whose mirror image is its negative: each is wrong by twice that.
    expected = np.mean((2 * 0.3 * rollout.obs["state"][..., 1]) ** 2)
    np.testing.assert_allclose(info["loss/mirror"], expected, rtol=1e-4)

    learning = PPOHyper(learning_rate=0.02, desired_kl=0.0, symmetry=100.0, entropy=0.0)
    state, losses = with_hyper(lopsided, learning), []
    for i in range(10):
        state, info = step(state, jax.random.key(i), rollout)
        losses.append(float(info["loss/mirror"]))
    assert losses[-1] < 0.1 * losses[0]


def test_the_mirror_loss_needs_a_mode_and_no_memory():
    for whole in (ACTORS["flow"](), ACTORS["recurrent"]()):
        with pytest.raises(ValueError, match="the mirror loss needs a head with a mode and no memory"):
            ppo(whole, value_net, CONFIG, SYMMETRY)
        ppo(whole, value_net, CONFIG, SYMMETRY._replace(loss=False))


def test_an_entry_that_nobody_reads_is_nobodys_business(trained):
    """Moments are of what actor and critic read: what sets a robot apart, where the critic is told to read it."""
    example = EXAMPLE | {"extrinsics": jnp.zeros(4)}
    everything = (*EXAMPLE, "extrinsics")
    for keys, read in (((), set(EXAMPLE)), ((everything,), set(everything))):
        each = ppo(network, critic(MLP((8, 1)), *keys), CONFIG)
        state = jax.eval_shape(each.init, jax.random.key(0), example, PPOHyper())
        assert set(state.normalizer.mean) == set(state.params["critic"]["scales"].observation) == read
    rollout = collect(trained, 3)
    told = dataclasses.replace(
        rollout,
        obs=rollout.obs | {"extrinsics": np.ones((T, B, 4), np.float32)},
        final_obs=rollout.final_obs | {"extrinsics": np.ones((T, B, 4), np.float32)},
    )
    after, expected = (update(trained, jax.random.key(0), each)[0] for each in (told, rollout))
    assert_same(after.params, expected.params)
