"""Latency of a policy's decisions."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Latency:
    """Times of one decision each, s.

    Attributes:
      median, p95, p99, worst: quantiles.
      jitter: p99 minus median.
      overruns: portion of the decisions that took longer than the control period.
      count: decisions that were timed.
    """

    median: float
    p95: float
    p99: float
    worst: float
    jitter: float
    overruns: float
    count: int


def measure_latency(
    decide: Callable[[], Any],
    control_dt: float,
    calls: int = 300,
    warm_up: int = 10,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Times a decision, with one robot's observation as on a controller; its result is waited for.

    What else the computer does is in the figures: they say what this one would bear, now.

    Args:
      decide: one decision; the first calls, which may compile, are not counted.
      control_dt: s, what a decision may take.
      calls: how many are timed.
      warm_up: how many come before.
      clock: in s.
    """
    times = []
    for call in range(warm_up + calls):
        start = clock()
        jax.block_until_ready(decide())
        if call >= warm_up:
            times.append(clock() - start)
    return latency_of(times, control_dt)


def latency_of(times: Sequence[float], control_dt: float) -> Latency:
    """The figures of given times, s."""
    taken = np.asarray(times, float)
    median, p95, p99, worst = (float(x) for x in np.quantile(taken, [0.5, 0.95, 0.99, 1.0]))
    return Latency(median, p95, p99, worst, p99 - median, float(np.mean(taken > control_dt)), taken.size)
