import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mjx_policies.data.statistics import (
    Accumulator,
    min_max,
    quantiles,
    standard,
    statistics_of,
)

ROWS = arrays.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(-1e6, 1e6))


def of(rows, **options):
    accumulator = Accumulator(**options)
    accumulator.add(rows)
    return accumulator.result()


@given(parts=st.lists(ROWS, min_size=1, max_size=5))
def test_parts_give_what_the_whole_gives(parts):
    accumulator = Accumulator()
    for part in parts:
        accumulator.add(part)
    found, rows = accumulator.result(), np.concatenate(parts)
    assert found.count == len(rows)
    size = np.abs(rows).max() + 1e-9
    np.testing.assert_array_equal(found.minimum, rows.min(0).astype(np.float32))
    np.testing.assert_array_equal(found.maximum, rows.max(0).astype(np.float32))
    np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-6, atol=1e-6 * size)
    np.testing.assert_allclose(found.std, rows.std(0), rtol=1e-5, atol=1e-6 * size)
    np.testing.assert_allclose(found.q01, np.quantile(rows, 0.01, axis=0), rtol=1e-6, atol=1e-6 * size)
    np.testing.assert_allclose(found.q99, np.quantile(rows, 0.99, axis=0), rtol=1e-6, atol=1e-6 * size)


def test_a_mean_far_from_zero_costs_no_digits():
    rows = 1e4 + np.random.default_rng(0).normal(scale=1e-3, size=(10_000, 1))  # float32 moments would see nothing
    accumulator = Accumulator()
    for part in np.split(rows, 100):
        accumulator.add(part)
    np.testing.assert_allclose(accumulator.result().std, rows.std(0), rtol=1e-5)


def test_quantiles_of_more_rows_than_are_kept():
    """Ranks of a uniform sample of n rows are off by sqrt(q (1 - q) / n), whatever the order of the rows."""
    rows = np.sort(np.random.default_rng(1).uniform(size=(200_000, 1)), axis=0)
    accumulator = Accumulator(sample=5000)
    for part in np.array_split(rows, 77):
        accumulator.add(part)
    found = accumulator.result()
    error = np.sqrt(0.01 * 0.99 / 5000)
    assert abs(found.q01[0] - 0.01) < 4 * error and abs(found.q99[0] - 0.99) < 4 * error
    assert found.count == 200_000 and found.maximum[0] == np.float32(rows.max())


@given(rows=ROWS, row=arrays.arrays(np.float32, 3, elements=st.floats(-1e3, 1e3, width=32)))
def test_scales_are_inverted(rows, row):
    for make in (min_max, quantiles, standard):
        scale = make(of(rows))
        size = np.abs(scale.offset) + np.abs(row) + 1
        assert (np.abs(scale.invert(scale.apply(row)) - row) <= 4e-6 * size).all()


@given(rows=ROWS)
def test_min_max_keeps_everything_seen_within_one(rows):
    scaled = min_max(of(rows)).apply(rows)
    assert (np.abs(scaled) <= 1 + 1e-3 * np.maximum(1, np.abs(rows) / 1e3)).all()  # offsets are rounded to float32


def test_ends_become_one():
    rows = np.random.default_rng(2).uniform(-3, 8, (1000, 2))
    scaled = min_max(of(rows)).apply(rows)
    np.testing.assert_allclose([scaled.min(0), scaled.max(0)], [[-1, -1], [1, 1]], atol=1e-6)
    scaled = quantiles(of(rows)).apply(rows)
    np.testing.assert_allclose(np.quantile(scaled, [0.01, 0.99], axis=0), [[-1, -1], [1, 1]], atol=1e-5)
    scaled = standard(of(rows)).apply(rows)
    np.testing.assert_allclose([scaled.mean(0), scaled.std(0)], [[0, 0], [1, 1]], atol=1e-5)


def test_a_number_that_hardly_varies_cannot_explode():
    rows = np.tile([0.3, 0.3, 5.0], (100, 1)) + np.random.default_rng(3).normal(size=(100, 3)) * [0, 1e-7, 1]
    for make in (min_max, quantiles, standard):
        scale = make(of(rows))
        met = scale.apply(np.float32([0.31, 0.31, 5.0]))  # the robot meets a deviation of 0.01
        assert np.abs(met[:2]).max() <= 1.01
        np.testing.assert_allclose(scale.apply(rows[:1].astype(np.float32))[:, :2], 0, atol=1e-4)


def test_statistics_and_scales_are_pytrees(make_episode):
    episodes = [make_episode(4, n, pictures=True) for n in range(3)]
    found = statistics_of(episodes)
    assert found.keys() == {"state", "phase", "contact", "action"}  # vectors only
    scale = jax.jit(lambda statistics, x: standard_like(statistics, x))(found["action"], np.zeros(3, np.float32))
    assert scale.shape == (3,)


def standard_like(statistics, x):
    return (x - statistics.mean) / statistics.std


def test_what_means_nothing_is_refused():
    accumulator = Accumulator()
    with pytest.raises(ValueError, match="no rows"):
        accumulator.result()
    accumulator.add(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"must be \[N, 3\]"):
        accumulator.add(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="not finite"):
        accumulator.add(np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="no episodes"):
        statistics_of([])
