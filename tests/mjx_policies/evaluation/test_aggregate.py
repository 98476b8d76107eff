import math

import numpy as np
import pytest
from scipy import stats

from mjx_policies.evaluation.aggregate import aggregate, interquartile_mean


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 4), (10, 7)])
def test_the_interquartile_mean_is_a_trimmed_mean(shape):
    scores = np.random.default_rng(0).normal(size=shape)
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None))


def test_by_hand():
    assert interquartile_mean([0.0, 1.0, 2.0, 100.0]) == 1.5


def test_runs_are_drawn_within_their_task():
    """Tasks of different difficulty: a bootstrap over all scores alike would be as wide as the tasks differ."""
    tasks = np.linspace(0.0, 1.0, 8)
    scores = np.tile(tasks, (5, 1))  # five runs that achieve almost the same
    scores[0] += 1e-3
    estimate = aggregate(scores)
    assert estimate.value == pytest.approx(interquartile_mean(tasks), abs=1e-3) and estimate.count == 5
    assert 0 < estimate.high - estimate.low < 2e-3


@pytest.mark.parametrize("scores", [[0.8, 0.8], [0.8], np.full((3, 4), 0.5)])
def test_runs_that_do_not_differ_say_nothing_of_the_spread(scores):
    estimate = aggregate(scores)
    assert (estimate.low, estimate.high, estimate.count) == (-math.inf, math.inf, len(scores))
    assert str(estimate) == f"{estimate.value:.3f}"


def test_of_one_task_it_is_students_interval_and_stays_among_what_can_be():
    scores = [0.7, 0.95, 0.9]
    estimate, bounded = aggregate(scores, resamples=200_000), aggregate(scores, lowest=0.0, highest=1.0)
    low, high = stats.t.interval(0.95, 2, np.mean(scores), stats.sem(scores))
    np.testing.assert_allclose((estimate.low, estimate.high), (low, high), atol=0.003)
    assert high > 1.0 and (bounded.low, bounded.high) == (pytest.approx(low, abs=0.01), 1.0)


@pytest.mark.parametrize(("runs", "tasks"), [(3, 1), (3, 4), (5, 1), (10, 4)])
def test_the_interval_covers_what_it_promises(runs, tasks):
    """The truth is the interquartile mean of the same number of runs, over many experiments."""
    rng = np.random.default_rng(0)
    experiments = rng.beta(4.0, 2.0, size=(300, runs, tasks))
    truth = np.mean([interquartile_mean(scores) for scores in rng.beta(4.0, 2.0, size=(4000, runs, tasks))])
    intervals = [aggregate(scores, resamples=300, seed=seed) for seed, scores in enumerate(experiments)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.91 < covered < 0.99


def test_one_task_needs_no_second_axis():
    scores = np.random.default_rng(0).uniform(size=6)
    assert aggregate(scores) == aggregate(scores[:, None])


@pytest.mark.parametrize("scores", [[], np.zeros((2, 2, 2)), [0.5, np.nan]])
def test_what_is_no_table_of_scores_is_refused(scores):
    with pytest.raises(ValueError, match="need a finite number for each run"):
        aggregate(scores)
