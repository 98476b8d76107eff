"""Parity of an exported policy with the one that was trained, and its speed. Axes: N observations, D observation."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np

from mjx_policies.deploy.policy import ExportedPolicy
from mjx_policies.types import Array

BATCH = 1000
EXTREME = 10.0  # deviations from the mean, beyond which normalizers cut what they are given


@dataclasses.dataclass(frozen=True)
class Parity:
    """The differences between JAX and onnxruntime.

    Attributes:
      observations: N.
      max_error, mean_error: absolute, of the action.
      scaled_error: the largest, each divided by its row's largest action where that is above one.
      latency_p50, latency_p99: s, of one `ExportedPolicy.step` on one thread, checks included.
    """

    observations: int
    max_error: float
    mean_error: float
    scaled_error: float
    latency_p50: float
    latency_p99: float


def extremes(observations: np.ndarray, num: int, seed: int = 0) -> np.ndarray:  # [N, D] -> [num, D]
    """Observations that no robot makes: each entry anywhere within ten deviations of the mean of those met.

    Deviations, since a policy scales what it observes by them: one raw unit can be a thousand, where the rounding of
    any sound network shows. An entry that never changed stays as it was.
    """
    mean, reach = spread(observations)
    return np.random.default_rng(seed).uniform(mean - reach, mean + reach, (num, len(mean))).astype(np.float32)


def spread(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [N, D] -> [D], [D]
    """The mean of observations and ten of their standard deviations, in float64."""
    return observations.mean(axis=0, dtype=np.float64), EXTREME * observations.std(axis=0, dtype=np.float64)


def measure_parity(act: Callable[[Array], Array], policy: ExportedPolicy, observations: np.ndarray) -> Parity:
    """Compares a policy without state or noise on observations [N, D], and times it on those that fit in 2 s."""
    trained = jax.jit(jax.vmap(act))
    errors, scaled = [], []
    for start in range(0, len(observations), BATCH):
        batch = observations[start : start + BATCH]
        exported = policy.step(batch, policy.initial_state(len(batch)))
        errors.append(np.abs(np.asarray(trained(batch)) - exported.action))
        scaled.append(errors[-1] / np.maximum(np.abs(exported.action).max(axis=1, keepdims=True), 1.0))
    error = np.concatenate(errors)
    state, seconds = policy.initial_state(), []
    end = time.perf_counter() + 2.0
    for observation in observations:
        start_time = time.perf_counter()
        policy.step(observation, state)
        seconds.append(time.perf_counter() - start_time)
        if time.perf_counter() > end:
            break
    p50, p99 = np.percentile(seconds[len(seconds) // 10 :], [50, 99])
    return Parity(
        len(observations),
        float(error.max()),
        float(error.mean()),
        float(np.max(np.concatenate(scaled))),
        float(p50),
        float(p99),
    )
