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
    scores = np.tile(tasks, (5, 1))  # five runs that achieve the same
    estimate = aggregate(scores)
    assert estimate.value == estimate.low == estimate.high == pytest.approx(interquartile_mean(tasks))
    assert estimate.count == 5


def test_the_interval_covers_what_it_promises():
    """The truth is the interquartile mean of the same number of runs, over many experiments; 10 runs of 4 tasks."""
    rng = np.random.default_rng(0)
    experiments = rng.beta(4.0, 2.0, size=(400, 10, 4))
    truth = np.mean([interquartile_mean(scores) for scores in rng.beta(4.0, 2.0, size=(4000, 10, 4))])
    intervals = [aggregate(scores, resamples=400, seed=seed) for seed, scores in enumerate(experiments)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.89 < covered < 0.98


def test_one_task_needs_no_second_axis():
    scores = np.random.default_rng(0).uniform(size=6)
    assert aggregate(scores) == aggregate(scores[:, None])


@pytest.mark.parametrize("scores", [[], np.zeros((2, 2, 2)), [0.5, np.nan]])
def test_what_is_no_table_of_scores_is_refused(scores):
    with pytest.raises(ValueError, match="need a finite number for each run"):
        aggregate(scores)
