"""The labels of bins, and what a head would say that had learnt them to perfection. Axes: R repetitions, N examples."""

import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.heads.bins import bin_center, bin_label, bins_head, peak
from mjx_policies.networks.mlp import MLP

BINS = 64


def test_labels_of_single_bins():
    numbers = np.array([-2.0, -1.0, -0.99, 0.0, 0.49, 1.0, 2.0])
    edges = np.linspace(-1, 1, BINS + 1)
    expected = np.zeros((len(numbers), BINS))
    for row, number in zip(expected, numbers, strict=True):
        row[max(i for i in range(BINS) if edges[i] <= max(number, -1))] = 1
    np.testing.assert_array_equal(bin_label(jnp.asarray(numbers), BINS, 0.0), expected)


def test_likeliest_of_few_examples_is_nearer_the_peak_with_spread_labels():
    """The mean label is what cross-entropy is least for. The peak is at 0.1, a standard deviation is 0.2."""
    examples = jnp.asarray(np.random.default_rng(0).normal(0.1, 0.2, (200, 30)))  # [R, N]

    def off(spread):  # -> [R]
        likeliest = bin_label(examples, BINS, spread).mean(axis=1).argmax(axis=-1)
        return np.abs(bin_center(likeliest, BINS) - 0.1)

    gain = off(0.0) - off(0.06)
    assert gain.mean() > 3 * gain.std() / np.sqrt(len(gain))


def test_peak_is_finer_than_a_bin_and_keeps_to_one_of_several():
    numbers = jnp.linspace(-0.75, 0.75, 101)
    labels = bin_label(numbers, BINS, 0.06)
    np.testing.assert_allclose(peak(labels, 6), numbers, atol=0.1 / BINS)
    edge = jnp.linspace(-1, 1, 101)
    np.testing.assert_allclose(peak(bin_label(edge, BINS, 0.06), 6), edge, atol=1.01 / BINS)
    two = 0.6 * labels[:1] + 0.4 * labels[-1:]
    np.testing.assert_allclose(peak(two, 6), numbers[:1], atol=0.1 / BINS)
    np.testing.assert_allclose(
        peak(bin_label(numbers, BINS, 0.0), 0), bin_center(bin_label(numbers, BINS, 0.0).argmax(-1), BINS)
    )


@pytest.mark.parametrize("wrong", [{"num_bins": 1}, {"smoothing": 1.0}, {"spread": -0.1}, {"spread": float("nan")}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        bins_head(MLP((8,)), 2, **wrong)
