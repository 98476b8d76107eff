"""Times as waves of many periods, against a loop. Axes: T times, F features of one."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.networks.time_embedding import TimeEmbedding


@pytest.mark.parametrize(("features", "shortest", "longest"), [(6, 0.01, 1.0), (2, 0.5, 7.0), (32, 4e-3, 4.0)])
@pytest.mark.parametrize("times", [0.37, [0.0, 0.25, 1.0]])
def test_times_are_told_by_waves_of_growing_periods(features, shortest, longest, times):
    waves, expected = features // 2, []
    for time in np.atleast_1d(times):
        periods = [shortest * (longest / shortest) ** (i / max(1, waves - 1)) for i in range(waves)]
        expected += [math.sin(2 * math.pi * time / period) for period in periods]
        expected += [math.cos(2 * math.pi * time / period) for period in periods]
    found = TimeEmbedding(features, shortest, longest).apply({}, jnp.asarray(times))
    np.testing.assert_allclose(found, expected, atol=3e-4)  # float32 of angles up to 1571


def test_its_periods_are_those_of_the_paper():
    """Two fifths of a step between a hundred levels, and four times the whole range, as its docstring says."""
    embedding = TimeEmbedding()
    assert embedding.min_period / (1 / 100) == pytest.approx(0.4) and embedding.max_period == 4.0
    levels = np.linspace(0, 1, 101, dtype=np.float32)
    told = np.asarray(embedding.apply({}, levels)).reshape(101, -1)
    apart = np.linalg.norm(told[:, None] - told, axis=-1) + 9 * np.eye(101)
    assert apart.min() > 1.5, "two levels are told alike"  # vectors of length 4


@pytest.mark.parametrize("features", [-2, 0, 1, 5])
def test_sines_and_cosines_come_in_pairs(features):
    with pytest.raises(ValueError, match=f"features is {features}, it must be even and at least 2"):
        TimeEmbedding(features).apply({}, 0.1)
