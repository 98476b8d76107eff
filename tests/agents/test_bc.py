"""Behaviour cloning against closed forms. Axes: N examples, O observations, H horizon, A action."""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.actor import Scales, Units, actor
from mjx_policies.agents.bc import BCHyper, augment, bc, imitation_loss
from mjx_policies.agents.optimizer import warmup_cosine
from mjx_policies.chunking import receding_horizon
from mjx_policies.data.statistics import Accumulator, min_max, standard
from mjx_policies.data.windows import Window
from mjx_policies.heads.deterministic import deterministic_head
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.networks.flat import Flat
from mjx_policies.normalize import Scale

OBSERVATIONS, H, A, N = 2, 3, 2, 64
HYPER = BCHyper(learning_rate=1e-2, warmup_steps=20, total_steps=600, max_ema=0.99)


class Linear(nn.Module):
    """One layer, of a chunk's shape."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(H * A)(x).reshape(H, A)


def windows(seed, count=N):
    """A demonstrator that is a linear function of what it saw, in units far from one."""
    rng = np.random.default_rng(seed)
    state = 40.0 + 5.0 * rng.normal(size=(count, OBSERVATIONS, 3)).astype(np.float32)
    weights = np.random.default_rng(99).normal(size=(OBSERVATIONS * 3, H * A)).astype(np.float32) * 0.01
    action = ((state.reshape(count, -1) - 40.0) @ weights).reshape(count, H, A)
    return Window(
        {"state": state}, action, np.ones((count, OBSERVATIONS), bool), np.ones((count, H), bool), np.zeros(count, int)
    )


def scales(batch):
    seen, done = Accumulator(), Accumulator()
    seen.add(batch.observation["state"].reshape(-1, 3))
    done.add(batch.action.reshape(-1, A))
    return Scales({"state": standard(seen.result())}, min_max(done.result()))


SCALES = scales(windows(0, 1000))
EXAMPLE = {"state": jnp.asarray(windows(0, 1000).observation["state"][0])}


def make(head=None, encoder=None, units=None, **options):
    """An actor, the learner of it, which acts by a chunk in every two steps, and its functions, compiled once."""
    head = head or gaussian_head(Linear(), (H, A), init_std=0.3, min_std=0.02)
    network = actor(encoder or Flat(), head, units=units or Units(SCALES), **options)

    def policy(params):
        return receding_horizon(lambda key, seen: network.mode(params, seen), (H, A), 2, OBSERVATIONS, keys=("state",))

    return network, bc(network, policy)


@pytest.fixture(scope="module")
def network():
    return make()[0]


@pytest.fixture(scope="module")
def learner():
    return make()[1]


@pytest.fixture(scope="module")
def update(learner):
    """One compiled program for all tests of that learner."""
    return jax.jit(learner.update)


@pytest.fixture(scope="module")
def start(learner):
    """`hyper -> state` of that learner, compiled once."""
    init = jax.jit(learner.init)
    return lambda hyper=HYPER: init(jax.random.key(0), EXAMPLE, hyper)


@pytest.fixture(scope="module")
def loss(network):
    """`(params, key, batch) -> []` of that learner's actor."""
    return jax.jit(lambda params, key, batch: imitation_loss(network, params, key, batch))


def train(learner, state, steps, key=1):
    batches = [windows(seed) for seed in range(20)]
    batches = jax.tree.map(lambda *rows: jnp.stack(rows), *batches)

    def step(state, step):
        batch = jax.tree.map(lambda rows: rows[step % 20], batches)
        return learner.update(state, jax.random.fold_in(jax.random.key(key), step), batch)

    return jax.lax.scan(step, state, jnp.arange(steps))


@pytest.fixture(scope="module")
def trained(learner, start):
    return jax.jit(lambda state: train(learner, state, 600))(start())


def test_it_does_what_the_demonstrator_does(network, trained):
    state, info = trained
    test = windows(1234)
    found = jax.jit(jax.vmap(network.mode, in_axes=(None, 0)))(state.average, test.observation)
    # In the units of the data; its own spread is about 0.12.
    assert np.abs(found - test.action).mean() < 0.01
    assert info["loss/train"][-1] < info["loss/train"][0]
    seen = {"state": jnp.asarray(test.observation["state"][0])}
    plans = jax.jit(jax.vmap(lambda key: network.sample(state.average, key, seen)[0]))
    drawn = plans(jax.random.split(jax.random.key(5), 2000))
    np.testing.assert_allclose(drawn.mean(0), found[0], atol=0.01)


def test_the_average_acts_where_it_collects_and_where_it_is_evaluated(learner, network, trained):
    state, _ = trained
    state = dataclasses.replace(state, params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    obs = {"state": EXAMPLE["state"][0], "privileged": jnp.full(2, jnp.nan)}
    plan = network.mode(state.average, {"state": jnp.stack([obs["state"]] * OBSERVATIONS)})
    memories = []
    for policy, action_of in ((learner.policy(state), lambda x: x), (learner.act(state), lambda pair: pair[0])):
        assert policy.period == 2
        memory = policy.init(jax.random.key(0), obs)
        for clock in range(2):
            action, memory = policy.act(memory, jax.random.key(1), obs, clock)
            np.testing.assert_allclose(action_of(action), plan[clock], rtol=1e-5)
        memories.append(memory)
    chex.assert_trees_all_close(*memories)


def test_padding_teaches_nothing(start, update, loss):
    batch = windows(0)
    mask = np.ones((N, H), bool)
    mask[:, 1:] = False
    garbage = batch.action.copy()
    garbage[:, 1:] = 1e3
    state, key = start(), jax.random.key(3)
    clean = update(state, key, batch.replace(action_mask=mask))[0]
    dirty = update(state, key, batch.replace(action_mask=mask, action=garbage))[0]
    chex.assert_trees_all_equal(clean.params, dirty.params)
    assert float(loss(state.average, key, batch.replace(action=garbage))) > 1e3


@pytest.mark.parametrize("place", range(H))
def test_padding_is_the_nearest_real_action_also_where_steps_have_scales_of_their_own(place):
    """Held after scaling, it would be another action at each step. The loss of this head is what it sees there."""
    linear = deterministic_head(Linear(), (H, A))
    size = jnp.arange(1.0, H + 1)[:, None] * jnp.ones(A)
    network, _ = make(
        linear._replace(loss=lambda params, key, embedding, action, mask: action[place].sum()),
        units=Units(dataclasses.replace(SCALES, action=Scale(0 * size, size))),
    )
    one = jax.tree.map(lambda x: x[:1], windows(0))
    params = network.init(jax.random.key(0), EXAMPLE)
    garbage = one.action.copy()
    garbage[:, 0], garbage[:, 2:] = np.nan, 1e3
    mask = np.arange(H)[None] == 1  # what came before an episode is padding too
    found = imitation_loss(network, params, jax.random.key(0), one.replace(action=garbage, action_mask=mask))
    np.testing.assert_allclose(found, (one.action[0, 1] / size[place]).sum(), rtol=1e-5)


def test_every_step_of_a_batch_counts_alike(network, start, loss):
    """Also those of windows that are mostly padding."""
    mask = np.arange(H) < np.arange(N)[:, None] % H + 1
    batch, params, key = windows(0).replace(action_mask=mask), start().params, jax.random.key(3)
    of_one = jax.vmap(lambda one: imitation_loss(network, params, key, jax.tree.map(lambda x: x[None], one)))
    alone = jax.jit(of_one)(batch)
    np.testing.assert_allclose(loss(params, key, batch), np.average(alone, weights=mask.sum(axis=1)), rtol=1e-5)


def test_kernels_alone_decay():
    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, seen):
            bias = self.param("position", nn.initializers.ones, (2, 3))
            return nn.Dense(3)(seen["state"].ravel()) + bias.sum(axis=0)

    _, learner = make(encoder=Encoder())
    state = jax.jit(learner.init)(jax.random.key(0), EXAMPLE, dataclasses.replace(HYPER, weight_decay=0.5))
    state = dataclasses.replace(state, params=jax.tree.map(lambda x: x + 1.0, state.params))
    plain = dataclasses.replace(state, hyper=dataclasses.replace(state.hyper, weight_decay=jnp.zeros(())))
    update = jax.jit(learner.update)
    (with_decay, _), (without, _) = (update(each, jax.random.key(0), windows(0)) for each in (state, plain))
    hyper = state.hyper
    rate = float(warmup_cosine(state.step, hyper.learning_rate, hyper.warmup_steps, hyper.total_steps))
    for (path, before), a, b in zip(
        jax.tree_util.tree_leaves_with_path(state.params),
        jax.tree.leaves(with_decay.params),
        jax.tree.leaves(without.params),
        strict=True,
    ):
        decays = getattr(path[-1], "key", None) == "kernel"
        np.testing.assert_allclose(b - a, (0.5 * rate if decays else 0.0) * before, atol=1e-6)


def test_the_learning_rate_rises_and_falls(trained):
    expected = warmup_cosine(jnp.arange(600), HYPER.learning_rate, HYPER.warmup_steps, HYPER.total_steps)
    np.testing.assert_allclose(trained[1]["learning_rate"], expected, rtol=1e-4, atol=1e-8)


def test_what_acts_is_an_average_of_the_weights(start, update):
    state = start()
    average = None
    for step in range(4):
        state, _ = update(state, jax.random.key(step), windows(step))
        keep = min(0.99, 1 - (1 + step) ** -0.75)
        newest = state.params
        average = newest if average is None else jax.tree.map(lambda a, p, k=keep: k * a + (1 - k) * p, average, newest)
    chex.assert_trees_all_close(state.average, average, rtol=1e-4, atol=1e-6)


def test_the_scales_stay(start, update, trained):
    """Also where noise and dropout are scaled by them."""
    hyper = HYPER.replace(observation_dropout=0.5, observation_noise=0.5, weight_decay=1.0)
    state = start(hyper)
    for step in range(3):
        state, _ = update(state, jax.random.key(step), windows(step))
    for params in (state.params, state.average, trained[0].params, trained[0].average):
        chex.assert_trees_all_close(params["scales"], SCALES, rtol=1e-6)


def test_dropout_hides_what_is_seen(start, update):
    hidden, observed = start(HYPER.replace(observation_dropout=1.0)), start()
    key, batch = jax.random.key(3), windows(0)
    other = batch.replace(observation={"state": batch.observation["state"][::-1]})
    chex.assert_trees_all_equal(update(hidden, key, batch)[0].params, update(hidden, key, other)[0].params)
    assert update(observed, key, batch)[1]["loss/train"] != update(observed, key, other)[1]["loss/train"]


def test_dropout_hides_what_it_is_told_behind_the_mean():
    obs = EXAMPLE | {"picture": jnp.zeros(4, jnp.uint8)}
    hide = np.array([True, False, True])
    found = augment(SCALES, jax.random.key(0), obs, {"state": hide}, 1.0, 0.0)
    np.testing.assert_allclose(
        found["state"][:, hide], np.broadcast_to(SCALES.observation["state"].offset[hide], (2, 2))
    )
    np.testing.assert_array_equal(found["state"][:, ~hide], obs["state"][:, ~hide])
    np.testing.assert_array_equal(found["picture"], obs["picture"])
    whole = augment(SCALES, jax.random.key(0), obs, {}, 1.0, 0.0)
    np.testing.assert_array_equal(whole["state"], obs["state"])
    drawn = jax.vmap(lambda key: augment(SCALES, key, obs, None, 0.25, 0.0)["state"])
    share = (drawn(jax.random.split(jax.random.key(1), 4000)) == SCALES.observation["state"].offset).all(axis=(1, 2))
    assert float(share.mean()) == pytest.approx(0.25, abs=0.03)


def test_half_precision_keeps_parameters_whole():
    _, learner = make(dtype="bfloat16")

    def run():
        return train(learner, learner.init(jax.random.key(0), EXAMPLE, HYPER), 100)

    state, info = jax.jit(run)()
    assert {x.dtype for x in jax.tree.leaves((state.params, state.average))} == {jnp.dtype("float32")}
    assert np.isfinite(info["loss/train"]).all() and info["loss/train"][-1] < info["loss/train"][0]


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"hyper.max_ema is 2, it must lie between 0 and 1"):
        BCHyper(max_ema=2)


def test_actions_relative_to_what_was_seen_are_learnt_and_given_back():
    """A learner with a reference does as one without does with the differences; each step has a scale of its own."""
    base = lambda seen: seen["state"][-1, :A] / 10  # noqa: E731
    batch = windows(0)
    shift = batch.observation["state"][:, -1:, :A] / 10  # [N, 1, A]
    found = Accumulator()
    found.add((batch.action - shift).reshape(N, -1))
    scale = jax.tree.map(lambda x: x.reshape(H, A), min_max(found.result()))
    own = Units(dataclasses.replace(SCALES, action=scale))
    relative, plain = (make(units=units)[0] for units in (dataclasses.replace(own, reference=base), own))
    params = plain.init(jax.random.key(0), EXAMPLE)
    key, moved = jax.random.key(0), batch.replace(action=batch.action - shift)
    losses = imitation_loss(relative, params, key, batch), imitation_loss(plain, params, key, moved)
    np.testing.assert_allclose(*losses, rtol=1e-5)
    seen = jax.tree.map(lambda x: x[0], batch.observation)

    @jax.jit
    def acted(params):
        return tuple((each.mode(params, seen), each.sample(params, key, seen)[0]) for each in (relative, plain))

    for found, expected in zip(*acted(params), strict=True):
        np.testing.assert_allclose(found, expected + shift[0], rtol=1e-5)
    assert np.ptp(scale.size, axis=0).min() > 0


def test_noise_of_observations_adds_what_it_must_to_the_error_of_a_linear_policy():
    """E (W (x + s e) - a)^2 = (W x - a)^2 + s^2 |W|^2, for each number of the action."""
    network, learner = make(deterministic_head(Linear(), (H, A)))
    batch = jax.tree.map(lambda x: np.repeat(x[:1], 4096, axis=0), windows(0))
    quiet = learner.init(jax.random.key(0), EXAMPLE, HYPER)
    noisy = dataclasses.replace(quiet, hyper=dataclasses.replace(quiet.hyper, observation_noise=jnp.asarray(0.3)))
    update = jax.jit(learner.update)
    plain, more = (float(update(state, jax.random.key(0), batch)[1]["loss/train"]) for state in (quiet, noisy))
    kernel = jax.tree.leaves(quiet.params["head"])[1]
    assert kernel.shape == (OBSERVATIONS * 3, H * A)
    expected = 0.09 * float((kernel**2).sum(axis=0).mean())
    assert more - plain == pytest.approx(expected, rel=0.1)
    assert float(imitation_loss(network, noisy.average, jax.random.key(0), batch)) == pytest.approx(plain, rel=1e-5)


def test_what_is_hidden_does_not_move_what_is_learnt():
    """Of a head whose loss is the action that it sees: with a reference that dropout hides."""
    base = lambda obs: obs["state"][-1, :A] / 10  # noqa: E731
    head = deterministic_head(Linear(), (H, A))._replace(loss=lambda params, key, embedding, action, mask: action.sum())
    network = actor(Flat(), head, units=Units(SCALES, reference=base))
    batch, key = windows(0), jax.random.key(0)
    params = network.init(key, {"state": jnp.asarray(batch.observation["state"][0])})
    plain, hidden = (imitation_loss(network, params, key, batch, None, dropout, 0.0, base) for dropout in (0.0, 1.0))
    np.testing.assert_allclose(hidden, plain, rtol=1e-4)
    moved = imitation_loss(network, params, key, batch, None, 1.0, 0.0)
    assert abs(float(moved - plain)) > 1e-2, "without it the target moves"
