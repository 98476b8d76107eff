"""Moments against NumPy over all samples at once."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.normalize import MIN_STD, init_normalizer, merge, moments, scale_of, without_outliers

EXAMPLE = {"state": jnp.zeros(3), "privileged": jnp.zeros((2, 2))}


def draw(seed, num):
    """Observations whose entries differ widely in place and spread."""
    rng = np.random.default_rng(seed)
    entries = {"state": (3,), "privileged": (2, 2)}
    return {
        name: (rng.normal(0, 5, shape) + rng.uniform(0.1, 4, shape) * rng.normal(0, 1, (num, *shape))).astype(
            np.float32
        )
        for name, shape in entries.items()
    }


def assert_same(a, b, rtol=1e-4, atol=1e-4):
    """Equal up to float32 rounding of moments whose entries are of order ten."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def normalize(normalizer, obs):
    """Each entry by its own scale, as networks see it."""
    return {name: scale_of(normalizer.part(name)).apply(x) for name, x in obs.items()}


def test_it_starts_as_the_identity():
    obs = {"state": jnp.asarray([1.0, -2.0, 9.0]), "privileged": jnp.ones((2, 2))}
    for x, y in zip(jax.tree.leaves(normalize(init_normalizer(EXAMPLE), obs)), jax.tree.leaves(obs), strict=True):
        np.testing.assert_array_equal(x, y)


def test_of_nothing_there_are_no_moments():
    """Where all that is observed is a picture, which has a known range."""
    nothing = moments({})
    assert float(nothing.count) == 0.0 and nothing.mean == {} == merge(init_normalizer({}), nothing).mean


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), sizes=st.lists(st.sampled_from([1, 5, 40]), min_size=1, max_size=4))
def test_merged_batches_have_the_moments_of_all_samples(seed, sizes):
    batches = [draw(seed + i, num) for i, num in enumerate(sizes)]
    normalizer = moments(batches[0])
    for batch in batches[1:]:
        normalizer = merge(normalizer, moments(batch))
    samples = jax.tree.map(lambda *parts: np.concatenate(parts).astype(float), *batches)
    assert float(normalizer.count) == sum(sizes)
    assert_same(normalizer.mean, jax.tree.map(lambda x: x.mean(axis=0), samples))
    assert_same(normalizer.variance, jax.tree.map(lambda x: x.var(axis=0), samples))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), sizes=st.tuples(*3 * [st.sampled_from([1, 5, 40])]))
def test_the_order_of_merging_does_not_matter(seed, sizes):
    a, b, c = (moments(draw(seed + i, num)) for i, num in enumerate(sizes))
    assert_same(merge(merge(a, b), c), merge(a, merge(b, c)))
    assert_same(merge(a, b), merge(b, a))


def test_the_first_batch_decides():
    batch = draw(0, 100)
    normalizer = merge(init_normalizer(EXAMPLE), moments(batch))
    # The identity it starts as weighs a millionth of a batch of a hundred, of numbers of order ten.
    assert_same(normalizer.mean, jax.tree.map(lambda x: x.mean(axis=0), batch), atol=1e-3)
    normalized = normalize(normalizer, batch)
    assert_same(jax.tree.map(lambda x: x.mean(axis=0), normalized), jax.tree.map(jnp.zeros_like, EXAMPLE), atol=1e-3)
    assert_same(jax.tree.map(lambda x: x.std(axis=0), normalized), jax.tree.map(jnp.ones_like, EXAMPLE), atol=1e-3)


def test_a_constant_entry_does_not_explode():
    batch = {"x": jnp.full((50, 1), 7.0)}
    normalizer = merge(init_normalizer({"x": jnp.zeros(1)}), moments(batch))
    # The variance of the identity weighs 1e-4 / 50: a deviation of 0.0014 plus that of the mean, so the floor counts.
    np.testing.assert_allclose(scale_of(normalizer.part("x")).size, MIN_STD)
    np.testing.assert_allclose(normalize(normalizer, {"x": jnp.asarray([7.0])})["x"], 0.0, atol=2e-3)
    np.testing.assert_allclose(normalize(normalizer, {"x": jnp.asarray([7.02])})["x"], 2.0, rtol=0.02)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.sampled_from([1e3, 1e5, 1e9, 1e20]), first=st.booleans())
def test_one_sample_far_away_does_little_to_the_moments(seed, size, first):
    samples = draw(seed, 500)
    known, batch = (
        {name: jnp.asarray(x[part]) for name, x in samples.items()} for part in (slice(100), slice(100, 500))
    )
    spoiled = jax.tree.map(lambda x: x.at[7].set(-size), batch)
    before = init_normalizer(EXAMPLE) if first else moments(known)
    after, well = (merge(before, moments(without_outliers(before, x))) for x in (spoiled, batch))
    if first:  # of what nothing is known yet, nothing is cut
        assert float(jnp.sqrt(after.variance["state"]).min()) > size / 25
        return
    assert_same(without_outliers(before, batch), batch, rtol=0, atol=0)
    for x, y, std in zip(*map(jax.tree.leaves, (after.mean, well.mean, jax.tree.map(np.std, batch))), strict=True):
        assert (np.abs(x - y) < 0.1 * std + 0.2).all()  # 30 deviations, or 3, for one in 500 samples
    for x, y in zip(*(jax.tree.leaves(n.variance) for n in (after, well)), strict=True):
        assert (np.sqrt(x) < 2 * np.sqrt(y) + 0.2).all()


def test_an_entry_that_never_moved_can_begin_to():
    still = merge(init_normalizer({"x": jnp.zeros(1)}), moments({"x": jnp.zeros((5000, 1))}))
    contact = {"x": jnp.ones((50, 1))}
    assert_same(without_outliers(still, contact), contact, rtol=0, atol=0)


def test_merging_nothing_changes_nothing():
    normalizer = moments(draw(1, 10))
    nothing = moments(draw(2, 10)).replace(count=jnp.zeros(()))
    assert_same(merge(normalizer, nothing), normalizer, rtol=0, atol=0)


def test_many_samples_do_not_drown_the_mean():
    """A count in float32 stops at 2**24 if single samples are added to it, but batches of a rollout go on."""
    normalizer = moments({"x": jnp.zeros((4, 1))}).replace(count=jnp.asarray(1e9, jnp.float32))
    batch = moments({"x": jnp.ones((4, 1))}).replace(count=jnp.asarray(2e5, jnp.float32))
    merged = merge(normalizer, batch)
    np.testing.assert_allclose(merged.mean["x"], 2e-4, rtol=1e-3)
    assert float(merged.count) > 1e9
