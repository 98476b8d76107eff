import time

import numpy as np
import pytest

from mjx_policies.evaluation.latency import latency_of, measure_latency


def test_the_figures_are_quantiles():
    times = np.arange(1, 101) / 1000  # 1 to 100 ms
    found = latency_of(times, control_dt=0.0905)
    assert found.median == pytest.approx(0.0505) and found.worst == 0.1
    assert found.p95 == pytest.approx(np.quantile(times, 0.95)) and found.p99 == pytest.approx(np.quantile(times, 0.99))
    assert found.jitter == pytest.approx(found.p99 - found.median)
    assert found.overruns == 0.1 and found.count == 100


def test_a_clock_of_ours_counts_only_what_comes_after_the_warm_up():
    now = 0.0
    taken = iter([5.0, 4.0, 0.010, 0.020, 0.030])  # compiling, warming up, then three decisions

    def decide():
        nonlocal now
        now += next(taken)

    found = measure_latency(decide, control_dt=0.025, calls=3, warm_up=2, clock=lambda: now)
    assert found.median == pytest.approx(0.02) and found.worst == pytest.approx(0.03) and found.count == 3
    assert found.overruns == pytest.approx(1 / 3)


def test_a_pause_is_seen():
    found = measure_latency(lambda: time.sleep(0.002), control_dt=1.0, calls=5, warm_up=0)
    assert 0.002 <= found.median <= found.worst and found.overruns == 0.0
