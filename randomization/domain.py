"""Domain randomization of a task, as one set of numbers around it."""

from __future__ import annotations

import dataclasses
import math

import mujoco

from mjx_policies.envs.base import DynamicsSampler, Env, Nominal
from mjx_policies.randomization import presets
from mjx_policies.randomization.latency import ActionDelay, ObservationLatency
from mjx_policies.randomization.pushes import Pushes
from mjx_policies.randomization.sensor_noise import SensorNoise
from mjx_policies.randomization.terms import Randomization, check, scale_ranges
from mjx_policies.types import Array, Number


@dataclasses.dataclass(frozen=True)
class DomainRandomization:
    """Domain randomization, drawn anew for each episode."""

    dynamics: Number = 1.0  # scale of the ranges of masses, friction, motors, ... in the robot's preset
    noise: Number = 1.0  # scale of the noise and bias in the observation table
    delay: tuple[Number, Number] = (0.0, 0.02)  # range of the delay from an action to the motors (s)
    delay_jitter: Number = 0.002  # jitter of that delay from one action to the next (s)
    latency: tuple[Number, Number] = (0.0, 0.01)  # range of the latency of measurements (s)
    push_velocity: Number = 0.3  # change of the trunk's velocity by a push (m/s)
    push_seconds: tuple[float, float] = (4.0, 8.0)  # range of the time between pushes (s)

    def __post_init__(self) -> None:
        for name in ("dynamics", "noise", "delay_jitter", "push_velocity"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not 0 <= value < math.inf:  # anything else is traced or batched
                raise ValueError(f"randomization.{name} is {value:g}, it must be a number from 0 on")
        if not 0 < self.push_seconds[0] <= self.push_seconds[1] < math.inf:
            raise ValueError(f"randomization.push_seconds is {self.push_seconds}, it must rise from above 0")

    def scaled(self, factor: Array | float) -> DomainRandomization:
        """All ranges times `factor`, except for the time between pushes: 0 is the robot as its model says."""
        return DomainRandomization(
            dynamics=self.dynamics * factor,
            noise=self.noise * factor,
            delay=(self.delay[0] * factor, self.delay[1] * factor),
            delay_jitter=self.delay_jitter * factor,
            latency=(self.latency[0] * factor, self.latency[1] * factor),
            push_velocity=self.push_velocity * factor,
            push_seconds=self.push_seconds,
        )


def randomize(env: Env, randomization: DomainRandomization) -> tuple[Env, DynamicsSampler]:
    """Wraps a task, and says what robots to draw.

    Raises:
      ValueError: a range that makes no sense for this robot, such as masses below zero.
    """
    env = ActionDelay(env, *randomization.delay, jitter=randomization.delay_jitter, max_delay=0.06)
    preset = presets.PRESETS.get(env.spec.robot)
    if env.physics.model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE:
        env = Pushes(env, *randomization.push_seconds, velocity=randomization.push_velocity)
    env = SensorNoise(ObservationLatency(env, *randomization.latency, max_latency=0.04), randomization.noise)
    if preset is None:
        return env, Nominal()
    terms = scale_ranges(preset(env.physics.model), randomization.dynamics)
    try:
        check(terms, env.physics.model)
    except ValueError as error:
        raise ValueError(f"randomization.dynamics does not suit this robot: {error}; 1 is its preset") from None
    return env, Randomization(terms, env.physics.model)
