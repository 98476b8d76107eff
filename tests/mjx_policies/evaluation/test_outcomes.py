"""Outcomes of episodes written by hand. Axes: B episodes, T steps."""

import dataclasses
import math

import numpy as np
import pytest

from mjx_policies.evaluation.episodes import Episodes
from mjx_policies.evaluation.outcomes import by_time, episode_outcomes, goal_in_words, summarize
from mjx_policies.spec import Criterion

DT = 0.1
STAGES = ("reached", "lifted", "placed")


@dataclasses.dataclass(frozen=True)
class Task:
    """The part of a task that `episode_outcomes` needs."""

    control_dt: float = DT
    stages: tuple = ()
    criteria: tuple = ()
    bounded_metrics: tuple = ()


STAGED = Task(stages=STAGES)
STANDS = Task(criteria=(Criterion("upright", "height", 0.5, seconds=0.3),))
TRACKS = Task(criteria=(Criterion("x at least 0.8", "x", 0.8), Criterion("yaw at least 0.6", "yaw", 0.6)))


def episode_of(metrics, terminated, length, criteria=(), limit=8):
    """`Episodes` from every step of each metric [B][T]; what comes after an episode's end is ignored."""

    def reduce(rows, how):
        return np.array([how(np.asarray(row[:n], float)) for row, n in zip(rows, length, strict=True)])

    def held(metric, least):
        """Steps in a row at the end, counted backwards."""
        rows = [list(row[:n])[::-1] for row, n in zip(metrics[metric], length, strict=True)]
        return np.array([next((i for i, value in enumerate(row) if value < least), len(row)) for row in rows])

    length = np.asarray(length)
    return Episodes(
        terminated=np.asarray(terminated),
        length=length,
        reward=10.0 * length,
        metrics={name: reduce(rows, np.mean) for name, rows in metrics.items()},
        final={name: reduce(rows, lambda row: row[-1]) for name, rows in metrics.items()},
        held={c.metric: held(c.metric, c.least) for c in criteria if c.seconds},
        cut_off=~np.asarray(terminated) & (length < limit),
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
    found = episode_outcomes(episodes, STAGED)
    assert found.goal == "success"
    np.testing.assert_array_equal(found.achieved, [True, True, False, False])
    np.testing.assert_allclose(found.seconds_to_success, [0.1, 0.8, math.nan, math.nan])
    np.testing.assert_allclose(found.seconds_to_failure, [math.nan, math.nan, 0.5, math.nan])
    np.testing.assert_allclose(found.completion, [1, 1, 2 / 3, 0])
    assert tuple(found.stages) == STAGES, "in the order of the task"


def test_the_figures(episodes):
    figures = summarize(episodes, STAGED)
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
    found = episode_outcomes(episodes, Task())
    assert found.goal == "survival"
    np.testing.assert_array_equal(found.achieved, [False, True, True])
    np.testing.assert_array_equal(found.completion, [0, 1, 1])
    assert list(summarize(episodes, Task())) == ["falls", "return", "speed"]
    assert summarize(episodes, Task())["falls"].value == pytest.approx(1 / 3)


@pytest.mark.parametrize("goal", ["survival", "success"])
def test_a_robot_whose_simulation_diverged_has_failed(goal):
    """Also one that had succeeded before: its metrics are NaN in the step that ended it."""
    metrics = {"nan_resets": [[0.0] * 3 + [1.0], [0.0] * 4]}
    if goal == "success":
        metrics["success"] = [[1.0, 1.0, 1.0, math.nan], [0.0, 0.0, 1.0, 1.0]]
    found = episode_outcomes(episode_of(metrics, [False, False], [4, 4], limit=4), Task())
    np.testing.assert_array_equal(found.achieved, [False, True])
    np.testing.assert_array_equal(found.failed, [True, False])
    np.testing.assert_allclose(found.seconds_to_success, [math.nan, 0.3 if goal == "success" else math.nan])


@pytest.mark.parametrize("length", [7, 200, 1000])
def test_the_time_to_success_survives_the_rounding_of_a_mean_in_float32(length):
    first = np.arange(1, length + 1)
    episodes = episode_of(
        {"success": [latch(n, length) for n in first]}, [False] * length, [length] * length, limit=length
    )
    episodes = episodes.replace(metrics={"success": episodes.metrics["success"].astype(np.float32)})
    np.testing.assert_allclose(episode_outcomes(episodes, Task()).seconds_to_success, first * DT)


def test_success_by_time_counts_those_that_never_succeed(episodes):
    times, portion = by_time(episode_outcomes(episodes, STAGED), horizon=0.8, points=9)
    np.testing.assert_allclose(times, 0.1 * np.arange(9))
    np.testing.assert_allclose(portion, [0, *[0.25] * 7, 0.5])


# Tasks that state criteria


def test_success_is_what_lasts_to_the_end():
    """Stands throughout; from step 6 on, which is just long enough; a step too late; and early, but not at the end."""
    heights = [[1.0] * 8, [0.0] * 5 + [1.0] * 3, [0.0] * 6 + [1.0] * 2, [1.0] * 7 + [0.0]]
    episodes = episode_of({"height": heights}, [False] * 4, [8] * 4, STANDS.criteria)
    found = episode_outcomes(episodes, STANDS)
    assert (
        found.goal == "success"
        and goal_in_words(STANDS.criteria) == "success of an episode: upright throughout the last 0.3 s"
    )
    np.testing.assert_array_equal(found.achieved, [True, True, False, False])
    np.testing.assert_allclose(found.seconds_to_success, [0.3, 0.8, math.nan, math.nan])
    figures = summarize(episodes, STANDS)
    assert figures["success"].value == 0.5 and figures["failures"].value == 0.0
    assert "completion" not in figures and "cut_off" not in figures and figures["height"].count == 4


def test_tracking_takes_staying_up_and_following_every_command():
    """Follows both; only in x; both, but falls; stands still; and both, but walks off the terrain."""
    x, yaw = ([[value] * 8 for value in values] for values in ([0.9, 0.9, 0.9, 0.4, 0.9], [0.7, 0.5, 0.7, 0.7, 0.7]))
    episodes = episode_of({"x": x, "yaw": yaw}, [False, False, True, False, False], [8, 8, 6, 8, 7], TRACKS.criteria)
    found = episode_outcomes(episodes, TRACKS)
    assert found.goal == "tracking"
    words = "no fall and x at least 0.8 on average over the episode and yaw at least 0.6 on average over the episode"
    assert goal_in_words(TRACKS.criteria) == f"tracking of an episode: {words}" and goal_in_words(()) == ""
    np.testing.assert_array_equal(found.achieved, [True, False, False, False, False])
    np.testing.assert_array_equal(found.cut_off, [False] * 4 + [True])
    assert np.isnan(found.seconds_to_success).all()
    figures = summarize(episodes, TRACKS)
    assert list(figures) == ["tracking", "falls", "cut_off", "return", "x", "yaw"]
    assert (figures["tracking"].value, figures["falls"].value, figures["tracking"].count) == (0.25, 0.25, 4)
    assert (figures["cut_off"].value, figures["cut_off"].count) == (0.2, 5)


@pytest.mark.parametrize("task", [Task(), TRACKS, STANDS], ids=["survival", "tracking", "success"])
def test_an_episode_that_was_cut_off_counts_neither_way(task):
    metrics = {name: [[1.0] * 8] * 3 for name in ("x", "yaw", "height")}
    episodes = episode_of(metrics, [False, True, False], [8, 3, 5], task.criteria)
    found, figures = episode_outcomes(episodes, task), summarize(episodes, task)
    np.testing.assert_array_equal(found.achieved, [True, False, False])
    np.testing.assert_array_equal(found.failed, [False, True, False])
    failures = figures["failures" if found.goal == "success" else "falls"]
    assert (found.rate.value, found.rate.count) == (0.5, 2) and (failures.value, failures.count) == (0.5, 2)
    assert figures["cut_off"].value == pytest.approx(1 / 3)
    alone = episode_of({name: rows[:1] for name, rows in metrics.items()}, [False], [5], task.criteria)
    assert episode_outcomes(alone, task).rate.count == 0 and str(episode_outcomes(alone, task).rate) == "–"


def test_metrics_from_zero_to_one_have_intervals_among_them():
    values = {"x": [[1.0] * 8, [1.0] * 8, [0.9] * 8]}
    episodes = episode_of(values, [False] * 3, [8] * 3)
    assert summarize(episodes, Task())["x"].high > 1.0
    assert summarize(episodes, Task(bounded_metrics=("x",)))["x"].high == 1.0
