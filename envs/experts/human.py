"""Movements of a person's hand: bell-shaped speeds, aiming errors, tremor, pauses and mistakes. Axes: D dimensions.

A movement lands with constant jerk: with time t to go, the distance is j t³ / 6 and the speed j t² / 2, as at the end
of a minimum-jerk movement (Flash & Hogan 1985). Written as a speed for each distance, (9 j d² / 2)^(1/3), it needs no
schedule: a hand that was pushed away lands all the same. Its noise grows with its speed (Harris & Wolpert 1998) and is
correlated in time, so it bends the path instead of shaking the hand. The first movement is aimed wrong by a part of
the way, and corrected while it goes on (Meyer et al. 1988).
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.types import Array

TINY = 1e-9  # below which a length is no direction


@dataclasses.dataclass(frozen=True)
class Habits:
    """Differences between people. The numbers are for movements of a hand's width to an arm's length."""

    pace: float = 0.2  # standard deviation of the logarithm of an episode's pace
    slowest: float = 0.65  # of all paces
    fastest: float = 1.5
    aim: float = 0.1  # standard deviation of the sideways miss, per length of the way
    noise: float = 0.12  # standard deviation of the velocity, per speed
    tremor: float = 0.002  # unit/s, standard deviation of the velocity of a hand at rest
    correlation: float = 0.15  # s, over which the noise is forgotten
    pauses: float = 0.12  # per second
    pause: float = 0.25  # s, mean length of one
    mistakes: float = 0.12  # portion of episodes whose first approach misses
    mistake: tuple[float, float] = (0.03, 0.045)  # unit, by how much


HABITS = Habits()


class HumanMotion(NamedTuple):
    """The limits of a movement at pace 1. Units are those of what moves: m, or rad."""

    acceleration: float  # unit/s^2, but that a landing may brake harder
    jerk: float  # unit/s^3, of the landing


@struct.dataclass
class Manner:
    """The manner in which one episode is performed.

    Attributes:
      strategy: [] int32, see `Expert.strategies`.
      pace: [] factor of all speeds.
      aim: [3] sideways miss per length of the way.
      mistake: [3] by how much the first approach misses the object, m in the frame of the hand that grasps: along its x
        axis, or short of it; zero in most episodes.
    """

    strategy: Array
    pace: Array
    aim: Array
    mistake: Array


@struct.dataclass
class Hand:
    """The movement that a hand is in the middle of.

    Attributes:
      velocity: [D] that it means to have, unit/s.
      noise: [D] of the velocity, in standard deviations.
      pause: [] s, still to rest.
      fooled: [] bool, whether it is still in its first approach.
    """

    velocity: Array
    noise: Array
    pause: Array
    fooled: Array


def draw_manner(key: Array, strategies: int, habits: Habits = HABITS) -> Manner:
    """A person, and one of `strategies` equally likely ways to solve the task."""
    key_choice, key_habits = jax.random.split(key)
    normal = jax.random.normal(key_habits, (4,))
    uniform = jax.random.uniform(key_choice, (4,))
    least, most = habits.mistake
    directions = jnp.asarray([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 0.0, -1.0]])
    size = jnp.where(uniform[1] < habits.mistakes, least + uniform[2] * (most - least), 0.0)
    return Manner(
        strategy=jnp.minimum((strategies * uniform[0]).astype(jnp.int32), strategies - 1),
        pace=jnp.clip(jnp.exp(habits.pace * normal[0]), habits.slowest, habits.fastest),
        aim=habits.aim * normal[1:],
        mistake=size * directions[(4 * uniform[3]).astype(jnp.int32)],
    )


def rest(dimensions: int) -> Hand:
    """A hand at rest, about to make its first approach."""
    zeros = jnp.zeros(dimensions)
    return Hand(velocity=zeros, noise=zeros, pause=jnp.zeros(()), fooled=jnp.ones((), bool))


def landing_speed(distance: Array, jerk: Array | float) -> Array:  # [], [] -> []
    """The speed from which a constant jerk brings both speed and acceleration to zero after `distance`."""
    return jnp.cbrt(4.5 * jerk * jnp.square(distance))


def approach(offset: Array, speed: Array | float, jerk: Array | float, dt: float) -> Array:  # [D] -> [D]
    """The velocity of a hand that has `offset` to go, that hurries no more than `speed` and that arrives, at rest."""
    distance = length(offset)
    wanted = jnp.minimum(jnp.minimum(speed, landing_speed(distance, jerk)), distance / dt)
    return wanted * offset / jnp.maximum(distance, TINY)


def accelerate(velocity: Array, wanted: Array, change: Array | float) -> Array:  # [D], [D] -> [D]
    """The velocity wanted, or as near to it as a `change` [] of speed comes."""
    missing = wanted - velocity
    return velocity + missing * jnp.minimum(1.0, change / jnp.maximum(length(missing), TINY))


def misaim(offset: Array, aim: Array) -> Array:  # [D], [D] -> [D]
    """A direction that misses sideways by `aim` per length of the way, and less and less on the last centimetres."""
    distance = length(offset)
    along = offset / jnp.maximum(distance, TINY)
    sideways = aim - jnp.dot(aim, along) * along
    return offset + sideways * jnp.square(distance) / (distance + 0.05)


def move(
    velocity: Array,
    noise: Array,
    offset: Array,
    speed: Array,
    motion: HumanMotion,
    pace: Array,
    dt: float,
    habits: Habits,
) -> tuple[Array, Array]:  # [D], [D], [D], [], ... -> [D], [D]
    """One period of a movement: the velocity that is meant, and the velocity that a hand manages.

    Args:
      velocity: meant in the period before.
      noise: correlated, of unit variance.
      offset: what is to go; its length bounds the step.
      speed: not to be exceeded; zero to come to rest.
      motion, pace: limits at pace 1, and the pace: twice the pace is the same path in half the time.
      dt: s, one period.
      habits: how much noise.
    """
    wanted = approach(offset, speed * pace, motion.jerk * pace**3, dt)
    # A landing from speed v brakes with up to sqrt(2 jerk v): a hand that may not would go beyond, and come back.
    landing = jnp.sqrt(2 * motion.jerk * speed)
    braking = jnp.where(
        length(wanted) < length(velocity), jnp.maximum(motion.acceleration, landing), motion.acceleration
    )
    meant = accelerate(velocity, wanted, braking * pace**2 * dt)
    return meant, meant + (habits.noise * length(meant) + habits.tremor) * noise


def wander(noise: Array, normal: Array, dt: float, habits: Habits = HABITS) -> Array:  # [D], [D] -> [D]
    """The next value of an Ornstein-Uhlenbeck process of unit variance (exact for any `dt`)."""
    kept = math.exp(-dt / habits.correlation)
    return kept * noise + math.sqrt(1 - kept**2) * normal


def take_pause(pause: Array, uniform: Array, dt: float, habits: Habits = HABITS) -> Array:  # [], [2] -> []
    """The seconds still to rest: those of a pause goes by, or a new one begins now and then."""
    begins = uniform[0] < habits.pauses * dt
    drawn = jnp.minimum(-habits.pause * jnp.log1p(-uniform[1]), 4 * habits.pause)
    return jnp.where(pause > 0, pause - dt, jnp.where(begins, drawn, 0.0))


def length(vector: Array) -> Array:  # [D] -> []
    """Euclidean norm, with a gradient of zero at zero."""
    squared = jnp.sum(jnp.square(vector))
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
