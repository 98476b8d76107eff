"""All that sets a robot apart from its model, as one set of numbers around a task."""

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
    """What sets a robot apart from its model, drawn anew for each episode."""

    dynamics: Number = 1.0  # times the ranges of the robot's preset of masses, friction, motors, ...
    noise: Number = 1.0  # times the noise and bias of the observation table
    delay: tuple[Number, Number] = (0.0, 0.02)  # s, from an action to the motors
    delay_jitter: Number = 0.002  # s, from one action to the next
    latency: tuple[Number, Number] = (0.0, 0.01)  # s, from a measurement to the policy
    push_velocity: Number = 0.3  # m/s, sudden change of the trunk's velocity
    push_seconds: tuple[float, float] = (4.0, 8.0)  # s, from one push to the next

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
