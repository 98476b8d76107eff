"""Randomized robots: dynamics, latency, sensors, pushes.

`terms` samples model fields, `dynamics` holds the kinds of terms, `presets` the ranges of known robots; the rest are
wrappers of environments.
"""

from mjx_policies.randomization.latency import ActionDelay, ObservationLatency
from mjx_policies.randomization.pushes import Pushes
from mjx_policies.randomization.sensor_noise import SensorNoise
from mjx_policies.randomization.terms import Randomization, RandomizationTerm, apply, check, draw, extrinsics, sample

__all__ = [
    "ActionDelay",
    "ObservationLatency",
    "Pushes",
    "Randomization",
    "RandomizationTerm",
    "SensorNoise",
    "apply",
    "check",
    "draw",
    "extrinsics",
    "sample",
]
