"""Behaviour cloning against closed forms. Axes: N examples, O observations, H horizon, A action."""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mjx_policies.agents.bc import BCHyper, Scales, bc, ema_decay, learning_rate
from mjx_policies.data.statistics import Accumulator, Scale, min_max, standard
from mjx_policies.data.windows import Window
from mjx_policies.heads.deterministic import deterministic_head
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.heads.inpainting import Prefix

OBSERVATIONS, H, A, N = 2, 3, 2, 64
HYPER = BCHyper(learning_rate=1e-2, warmup_steps=20, total_steps=600, max_ema=0.99)


class Flat(nn.Module):
    """All that is observed, side by side."""

    @nn.compact
    def __call__(self, observation):
        return jnp.concatenate([observation[name].ravel() for name in sorted(observation)])


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


@pytest.fixture(scope="module")
def learner():
    return bc(Flat(), gaussian_head(Linear(), (H, A), init_std=0.3, min_std=0.02))


@pytest.fixture(scope="module")
def update(learner):
    """One compiled program for all tests of that learner."""
    return jax.jit(learner.update)


def start(learner, key=0, hyper=HYPER, batch=None):
    batch = batch or windows(0, 1000)
    init = jax.jit(learner.init)  # compiled once for each learner
    return init(jax.random.key(key), {"state": jnp.asarray(batch.observation["state"][0])}, scales(batch), hyper)


def train(learner, state, steps, key=1):
    batches = [windows(seed) for seed in range(20)]
    batches = jax.tree.map(lambda *rows: jnp.stack(rows), *batches)

    def step(state, step):
        batch = jax.tree.map(lambda rows: rows[step % 20], batches)
        return learner.update(state, jax.random.fold_in(jax.random.key(key), step), batch)

    return jax.lax.scan(step, state, jnp.arange(steps))


@pytest.fixture(scope="module")
def trained(learner):
    return jax.jit(lambda: train(learner, start(learner), 600))()


def test_it_does_what_the_demonstrator_does(learner, trained):
    state, info = trained
    test = windows(1234)
    found = jax.jit(jax.vmap(learner.mode, in_axes=(None, 0)))(state, test.observation)
    # In the units of the data; its own spread is about 0.12.
    assert np.abs(found - test.action).mean() < 0.01
    assert info["loss/train"][-1] < info["loss/train"][0]
    noise = jnp.zeros((H, A))
    np.testing.assert_allclose(
        jax.jit(learner.act)(state, jax.tree.map(lambda x: jnp.asarray(x[0]), test.observation), noise),
        found[0],
        rtol=1e-4,
        atol=1e-5,
    )
    seen = {"state": jnp.asarray(test.observation["state"][0])}
    plans = jax.jit(jax.vmap(lambda key: learner.plan(state, key, seen)))
    drawn = plans(jax.random.split(jax.random.key(5), 2000))
    np.testing.assert_allclose(drawn.mean(0), found[0], atol=0.01)


def test_padding_teaches_nothing(learner, update):
    batch = windows(0)
    mask = np.ones((N, H), bool)
    mask[:, 1:] = False
    garbage = batch.action.copy()
    garbage[:, 1:] = 1e3
    state, key = start(learner), jax.random.key(3)
    clean = update(state, key, batch.replace(action_mask=mask))[0]
    dirty = update(state, key, batch.replace(action_mask=mask, action=garbage))[0]
    chex.assert_trees_all_equal(clean.params, dirty.params)
    assert float(jax.jit(learner.loss)(state, key, batch.replace(action=garbage))) > 1e3


@pytest.mark.parametrize("place", range(H))
def test_padding_is_the_nearest_real_action_also_where_steps_have_scales_of_their_own(place):
    """Held after scaling, it would be another action at each step. The loss of this head is what it sees there."""
    linear = deterministic_head(Linear(), (H, A))
    learner = bc(Flat(), linear._replace(loss=lambda params, key, embedding, action, mask: action[place].sum()))
    one, size = jax.tree.map(lambda x: x[:1], windows(0)), jnp.arange(1.0, H + 1)[:, None] * jnp.ones(A)
    state = start(learner)
    state = dataclasses.replace(state, scales=dataclasses.replace(state.scales, action=Scale(0 * size, size)))
    garbage = one.action.copy()
    garbage[:, 0], garbage[:, 2:] = np.nan, 1e3
    mask = np.arange(H)[None] == 1  # what came before an episode is padding too
    found = jax.jit(learner.loss)(state, jax.random.key(0), one.replace(action=garbage, action_mask=mask))
    np.testing.assert_allclose(found, (one.action[0, 1] / size[place]).sum(), rtol=1e-5)


def test_every_step_of_a_batch_counts_alike(learner):
    """Also those of windows that are mostly padding."""
    mask = np.arange(H) < np.arange(N)[:, None] % H + 1
    batch, state, key = windows(0).replace(action_mask=mask), start(learner), jax.random.key(3)
    alone = jax.jit(jax.vmap(lambda one: learner.loss(state, key, jax.tree.map(lambda x: x[None], one))))(batch)
    together = jax.jit(learner.loss)(state, key, batch)
    np.testing.assert_allclose(together, np.average(alone, weights=mask.sum(axis=1)), rtol=1e-5)


def test_kernels_alone_decay():
    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, seen):
            bias = self.param("position", nn.initializers.ones, (2, 3))
            return nn.Dense(3)(seen["state"].ravel()) + bias.sum(axis=0)

    learner = bc(Encoder(), gaussian_head(Linear(), (H, A), init_std=0.3, min_std=0.02))
    state = start(learner, hyper=dataclasses.replace(HYPER, weight_decay=0.5))
    state = dataclasses.replace(state, params=jax.tree.map(lambda x: x + 1.0, state.params))
    plain = dataclasses.replace(state, hyper=dataclasses.replace(state.hyper, weight_decay=jnp.zeros(())))
    update = jax.jit(learner.update)
    (with_decay, _), (without, _) = (update(each, jax.random.key(0), windows(0)) for each in (state, plain))
    rate = float(learning_rate(state.step, state.hyper))
    for (path, before), a, b in zip(
        jax.tree_util.tree_leaves_with_path(state.params),
        jax.tree.leaves(with_decay.params),
        jax.tree.leaves(without.params),
        strict=True,
    ):
        np.testing.assert_allclose(b - a, (0.5 * rate if path[-1].key == "kernel" else 0.0) * before, atol=1e-6)


def test_the_learning_rate_rises_and_falls():
    steps = np.arange(700)
    found = np.asarray(jax.jit(jax.vmap(lambda step: learning_rate(step, HYPER)))(steps))
    # optax warms up from zero in step 0 and so is one step behind until the warm-up ends.
    expected = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 20, 600)
    expected = np.asarray(jax.jit(jax.vmap(expected))(np.r_[1:21, 20:700]))
    np.testing.assert_allclose(found[20:], expected[20:], atol=1e-8)
    np.testing.assert_allclose(found[:20], expected[:20], rtol=1e-5)


def test_the_average_starts_with_the_first_step_and_forgets_slowly(learner, update):
    assert float(ema_decay(jnp.asarray(0), HYPER)) == 0.0
    assert float(ema_decay(jnp.asarray(10_000), HYPER)) == pytest.approx(0.99)
    state = start(learner)
    parameters, average = [], None
    for step in range(4):
        state, _ = update(state, jax.random.key(step), windows(step))
        keep = min(0.99, 1 - (1 + step) ** -0.75)
        newest = state.params
        average = newest if average is None else jax.tree.map(lambda a, p, k=keep: k * a + (1 - k) * p, average, newest)
        parameters.append(newest)
    chex.assert_trees_all_close(state.average, average, rtol=1e-4, atol=1e-6)


def test_dropout_hides_what_is_seen(learner, update):
    hidden = start(learner, hyper=HYPER.replace(observation_dropout=1.0))
    shown = start(learner)
    key, batch = jax.random.key(3), windows(0)
    other = batch.replace(observation={"state": batch.observation["state"][::-1]})
    chex.assert_trees_all_equal(update(hidden, key, batch)[0].params, update(hidden, key, other)[0].params)
    assert update(shown, key, batch)[1]["loss/train"] != update(shown, key, other)[1]["loss/train"]


def test_seeds_batch_like_a_loop(learner):
    keys = jax.random.split(jax.random.key(0), 2)
    example = {"state": jnp.asarray(windows(0).observation["state"][0])}
    found = scales(windows(0, 1000))
    batch, key = windows(3), jax.random.key(7)

    def learn(k):
        return learner.update(learner.init(k, example, found, HYPER), key, batch)[0].params

    together, one = jax.jit(jax.vmap(learn))(keys), jax.jit(learn)
    alone = [one(k) for k in keys]
    chex.assert_trees_all_close(together, jax.tree.map(lambda *x: jnp.stack(x), *alone), rtol=1e-4, atol=1e-5)


def test_half_precision_keeps_parameters_whole():
    learner = bc(Flat(), gaussian_head(Linear(), (H, A), init_std=0.3, min_std=0.02), dtype="bfloat16")
    state, info = jax.jit(lambda: train(learner, start(learner), 100))()
    assert {x.dtype for x in jax.tree.leaves((state.params, state.average))} == {jnp.dtype("float32")}
    assert np.isfinite(info["loss/train"]).all() and info["loss/train"][-1] < info["loss/train"][0]


def test_a_chunk_to_continue_has_the_units_of_the_data(learner):
    """A head that returns what it was given."""
    head = gaussian_head(Linear(), (H, A))
    same = head._replace(inpaint=lambda params, embedding, noise, prefix: prefix.action * prefix.weight[:, None])
    state, seen = start(learner), {"state": jnp.asarray(windows(0).observation["state"][0])}
    action = jnp.asarray(windows(0).action[0])
    found = bc(Flat(), same).inpaint(state, jax.random.key(0), seen, Prefix(action, jnp.ones(H)))
    np.testing.assert_allclose(found, action, atol=1e-5)
    assert learner.inpaint is None


def test_it_is_traced_once(learner):
    chex.clear_trace_counter()
    update = jax.jit(chex.assert_max_traces(learner.update, n=1))
    state = start(learner)
    for step in range(3):
        state, _ = update(state, jax.random.key(step), windows(step))


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"hyper.max_ema is 2, it must lie between 0 and 1"):
        BCHyper(max_ema=2)


def test_actions_relative_to_what_was_seen_are_learnt_and_given_back():
    """A learner with a reference does as one without does with the differences; each step has a scale of its own."""
    head = gaussian_head(Linear(), (H, A), init_std=0.3, min_std=0.02)
    base = lambda seen: seen["state"][-1, :A] / 10  # noqa: E731
    relative, plain = bc(Flat(), head, reference=base), bc(Flat(), head)
    batch = windows(0)
    shift = batch.observation["state"][:, -1:, :A] / 10  # [N, 1, A]
    found = Accumulator()
    found.add((batch.action - shift).reshape(N, -1))
    scale = jax.tree.map(lambda x: x.reshape(H, A), min_max(found.result()))
    state = start(plain, batch=batch)
    state = dataclasses.replace(state, scales=dataclasses.replace(state.scales, action=scale))
    key, moved = jax.random.key(0), batch.replace(action=batch.action - shift)
    losses = jax.jit(relative.loss)(state, key, batch), jax.jit(plain.loss)(state, key, moved)
    np.testing.assert_allclose(*losses, rtol=1e-5)
    seen = jax.tree.map(lambda x: x[0], batch.observation)

    @jax.jit
    def acted(state):
        return tuple((each.mode(state, seen), each.plan(state, key, seen)) for each in (relative, plain))

    for found, expected in zip(*acted(state), strict=True):
        np.testing.assert_allclose(found, expected + shift[0], rtol=1e-5)
    assert np.ptp(scale.size, axis=0).min() > 0


def test_noise_of_observations_adds_what_it_must_to_the_error_of_a_linear_policy():
    """E (W (x + s e) - a)^2 = (W x - a)^2 + s^2 |W|^2, for each number of the action."""
    learner = bc(Flat(), deterministic_head(Linear(), (H, A)))
    batch = jax.tree.map(lambda x: np.repeat(x[:1], 4096, axis=0), windows(0))
    quiet = start(learner)
    noisy = dataclasses.replace(quiet, hyper=dataclasses.replace(quiet.hyper, observation_noise=jnp.asarray(0.3)))
    update = jax.jit(learner.update)
    plain, more = (float(update(state, jax.random.key(0), batch)[1]["loss/train"]) for state in (quiet, noisy))
    kernel = jax.tree.leaves(quiet.params["head"])[1]
    assert kernel.shape == (OBSERVATIONS * 3, H * A)
    expected = 0.09 * float((kernel**2).sum(axis=0).mean())
    assert more - plain == pytest.approx(expected, rel=0.1)
    assert float(jax.jit(learner.loss)(noisy, jax.random.key(0), batch)) == pytest.approx(plain, rel=1e-5)
