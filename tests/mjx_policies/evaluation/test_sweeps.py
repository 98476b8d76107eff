import pytest
from rich.console import Console

from mjx_policies.evaluation.aggregate import aggregate
from mjx_policies.evaluation.statistics import Estimate, proportion
from mjx_policies.evaluation.sweeps import compare_points, sweep_table

NAN = float("nan")


def evaluation(successes, reward=1.0, seconds=NAN):
    figures = {
        "success": proportion(successes, 100),
        "return": Estimate(reward, reward - 1, reward + 1, 100),
        "seconds_to_success": Estimate(seconds, seconds, seconds, 100),
    }
    return {"nominal": figures, "randomized": {**figures, "success": proportion(successes // 2, 100)}}


RUNS = {
    "slow": [evaluation(10), evaluation(30), evaluation(20, seconds=4.0)],
    "fast": [evaluation(90), {}, evaluation(96, seconds=2.0)],
    "wild": [{}, {}, {}],
    "tied": [evaluation(20, reward=3.0), evaluation(10, reward=3.0), evaluation(30, reward=3.0)],
}
NAMES = [name for name, runs in RUNS.items() for _ in runs]


@pytest.fixture(scope="module")
def points():
    return compare_points(NAMES, [run for runs in RUNS.values() for run in runs], "nominal")


def test_points_are_sorted_by_what_decides_and_then_by_the_return(points):
    assert [point.name for point in points] == ["fast", "tied", "slow", "wild"]
    fast, tied, slow, wild = points
    assert (fast.runs, fast.diverged, fast.best) == ((3, 4, 5), (4,), 5)
    assert (slow.best, tied.best) == (1, 11) and wild.best is None and wild.diverged == wild.runs


def test_figures_are_interquartile_means_over_the_runs_that_did_not_diverge(points):
    fast, _, slow, wild = points
    assert slow.evaluation["nominal"]["success"] == aggregate([0.1, 0.3, 0.2], lowest=0.0, highest=1.0)
    assert fast.evaluation["randomized"]["success"].value == pytest.approx((0.45 + 0.48) / 2)
    assert fast.evaluation["nominal"]["success"].count == 2 and wild.evaluation == {}
    assert slow.evaluation["nominal"]["seconds_to_success"].value == 4.0, "of the runs that measured it"


def test_one_run_has_its_own_figures():
    alone = evaluation(50, seconds=3.0)
    (point,) = compare_points(["alone"], [alone], "nominal")
    assert point.evaluation == alone and point.best == 0


def test_the_table_has_a_row_for_each_point(points):
    console = Console(width=80)
    with console.capture() as capture:
        console.print(sweep_table(points, "Task", "nominal"))
    lines = capture.get().splitlines()
    rows = {name: next(line for line in lines if f" {name} " in line) for name in RUNS}
    assert "1 of 3" in rows["fast"] and "0.930" in rows["fast"] and " 5 " in rows["fast"]
    assert "3 of 3" in rows["wild"] and "0.200 [0.000, 0.4" in rows["slow"]
    head = next(line for line in lines if "[95 %]" in line)
    assert all(words in head for words in ("nominal success", "randomized success", "diverged"))
