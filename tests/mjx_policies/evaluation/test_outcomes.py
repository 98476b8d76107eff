"""Outcomes of episodes written by hand. Axes: B episodes, T steps."""

import math

import numpy as np
import pytest

from mjx_policies.evaluation.episodes import Episodes
from mjx_policies.evaluation.outcomes import by_time, judge, summarize

DT = 0.1
STAGES = ("reached", "lifted", "placed")


def episode_of(metrics, terminated, length):
    """`Episodes` from every step of each metric [B][T]; what comes after an episode's end is not looked at."""

    def reduce(rows, how):
        return np.array([how(np.asarray(row[:n], float)) for row, n in zip(rows, length, strict=True)])

    length = np.asarray(length)
    return Episodes(
        terminated=np.asarray(terminated),
        length=length,
        reward=10.0 * length,
        metrics={name: reduce(rows, np.mean) for name, rows in metrics.items()},
        final={name: reduce(rows, lambda row: row[-1]) for name, rows in metrics.items()},
        recording=None,
    )


def latch(first, steps=8):
    """0 before step number `first`, counted from 1, and 1 from then on."""
    return [0.0] * (first - 1) + [1.0] * (steps - first + 1)


NEVER = 9


@pytest.fixture
def episodes():
    """Succeeds at once; succeeds in the last step; lifts and loses the object in step 5; does nothing."""
    success = [latch(1), latch(8), latch(NEVER), latch(NEVER)]
    metrics = {
        "success": success,
        "stage/reached": [latch(1), latch(2), latch(3), latch(NEVER)],
        "stage/lifted": [latch(1), latch(6), latch(4), latch(NEVER)],
        "stage/placed": success,
        "speed": [[0.5] * 8] * 4,
        "nan_resets": [[0.0] * 8] * 4,
    }
    return episode_of(metrics, [False, False, True, False], [8, 8, 5, 8])


def test_the_last_value_says_what_was_achieved_and_the_mean_since_when(episodes):
    found = judge(episodes, DT, STAGES)
    assert found.goal == "success"
    np.testing.assert_array_equal(found.achieved, [True, True, False, False])
    np.testing.assert_allclose(found.seconds_to_success, [0.1, 0.8, math.nan, math.nan])
    np.testing.assert_allclose(found.seconds_to_failure, [math.nan, math.nan, 0.5, math.nan])
    np.testing.assert_allclose(found.completion, [1, 1, 2 / 3, 0])
    assert tuple(found.stages) == STAGES, "in the order of the task"


def test_the_figures(episodes):
    figures = summarize(episodes, DT, STAGES)
    values = {name: figure.value for name, figure in figures.items()}
    assert values == pytest.approx(
        {
            "success": 0.5,
            "stage/reached": 0.75,
            "stage/lifted": 0.75,
            "stage/placed": 0.5,
            "completion": (1 + 1 + 2 / 3) / 4,
            "seconds_to_success": 0.45,
            "failures": 0.25,
            "seconds_to_failure": 0.5,
            "return": 72.5,
            "speed": 0.5,
        }
    )
    assert figures["seconds_to_success"].count == 2 and figures["success"].count == 4


def test_a_task_without_success_is_survived_or_not():
    episodes = episode_of({"speed": [[1.0] * 8] * 3, "nan_resets": [[0.0] * 8] * 3}, [True, False, False], [2, 8, 8])
    found = judge(episodes, DT)
    assert found.goal == "survival"
    np.testing.assert_array_equal(found.achieved, [False, True, True])
    np.testing.assert_array_equal(found.completion, [0, 1, 1])
    assert list(summarize(episodes, DT)) == ["falls", "return", "speed"]
    assert summarize(episodes, DT)["falls"].value == pytest.approx(1 / 3)


@pytest.mark.parametrize("goal", ["survival", "success"])
def test_a_robot_whose_simulation_diverged_has_failed(goal):
    """Also one that had succeeded before: its metrics are NaN in the step that ended it."""
    metrics = {"nan_resets": [[0.0] * 3 + [1.0], [0.0] * 4]}
    if goal == "success":
        metrics["success"] = [[1.0, 1.0, 1.0, math.nan], [0.0, 0.0, 1.0, 1.0]]
    found = judge(episode_of(metrics, [False, False], [4, 4]), DT)
    np.testing.assert_array_equal(found.achieved, [False, True])
    np.testing.assert_array_equal(found.failed, [True, False])
    np.testing.assert_allclose(found.seconds_to_success, [math.nan, 0.3 if goal == "success" else math.nan])


@pytest.mark.parametrize("length", [7, 200, 1000])
def test_the_time_to_success_survives_the_rounding_of_a_mean_in_float32(length):
    first = np.arange(1, length + 1)
    episodes = episode_of({"success": [latch(n, length) for n in first]}, [False] * length, [length] * length)
    episodes = episodes.replace(metrics={"success": episodes.metrics["success"].astype(np.float32)})
    np.testing.assert_allclose(judge(episodes, DT).seconds_to_success, first * DT)


def test_success_by_time_counts_those_that_never_succeed(episodes):
    times, portion = by_time(judge(episodes, DT, STAGES), horizon=0.8, points=9)
    np.testing.assert_allclose(times, 0.1 * np.arange(9))
    np.testing.assert_allclose(portion, [0, *[0.25] * 7, 0.5])
