"""An expert for `Obstacle2D`: along the tangent of a wide circle around the obstacle, on the left or on the right."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mjx_policies.envs.control.obstacle2d import OBSTACLE_RADIUS, ROBOT_RADIUS, Obstacle2D, Obstacle2DState, places
from mjx_policies.envs.experts.base import Expert, ExpertState
from mjx_policies.envs.experts.human import (
    Habits,
    HumanMotion,
    approach,
    draw_manner,
    misaim,
    move,
    rest,
    take_pause,
    wander,
)
from mjx_policies.types import Array

STRATEGIES = ("left", "right")
MARGIN = 0.12  # m, kept from the obstacle
SPEED = 0.9  # m/s
LOOKAHEAD = 0.3  # s, of where the robot is going, which says on which side it will pass
MOTION = HumanMotion(acceleration=4.0, jerk=8.0)
HABITS = Habits(pace=0.08, slowest=0.9, fastest=1.15, aim=0.04, noise=0.1, pause=0.15)


def obstacle2d_expert(task: Obstacle2D) -> Expert:
    """Builds the expert; both sides are equally likely."""
    dt = task.spec.control_dt
    scale = jnp.asarray(task.spec.action.scale)

    def seen(state: Obstacle2DState) -> tuple[Array, Array, Array]:
        return state.data.qpos, *places(task.physics.model, state.data)

    def init(key: Array, state: Obstacle2DState) -> ExpertState:
        del state
        return ExpertState(draw_manner(key, len(STRATEGIES), HABITS), rest(2), jnp.zeros(2))

    def act(expert: ExpertState, state: Obstacle2DState, key: Array) -> tuple[Array, ExpertState]:
        manner, hand = expert.manner, expert.hand
        key_noise, key_pause = jax.random.split(key)
        noise = wander(hand.noise, jax.random.normal(key_noise, (2,)), dt, HABITS)
        pause = take_pause(hand.pause, jax.random.uniform(key_pause, (2,)), dt, HABITS)
        offset = misaim(way(*seen(state), side=1.0 - 2.0 * manner.strategy), manner.aim[:2])
        speed = jnp.where(pause > 0, 0.0, SPEED)
        meant, managed = move(hand.velocity, noise, offset, speed, MOTION, manner.pace, dt, HABITS)
        hand = dataclasses.replace(hand, velocity=meant, noise=noise, pause=pause)
        return jnp.clip(managed / scale, -1.0, 1.0), ExpertState(manner, hand, jnp.clip(meant / scale, -1.0, 1.0))

    def label(state: Obstacle2DState) -> Array:
        position, obstacle, goal = seen(state)
        side = nearer_side(position + LOOKAHEAD * state.data.qvel, obstacle, goal)
        velocity = approach(way(position, obstacle, goal, side), SPEED, MOTION.jerk, dt)
        return jnp.clip(velocity / scale, -1.0, 1.0)

    return Expert(init, act, label, STRATEGIES)


def way(position: Array, obstacle: Array, goal: Array, side: Array) -> Array:  # [2], [2], [2], [] -> [2]
    """A vector to the next point, as long as the way to the goal: straight, or past the obstacle on `side` (1 left)."""
    to_goal, to_obstacle = goal - position, obstacle - position
    distance = jnp.linalg.norm(to_obstacle)
    wide = OBSTACLE_RADIUS + ROBOT_RADIUS + MARGIN
    tangent = jnp.arcsin(jnp.minimum(wide / jnp.maximum(distance, wide), 1.0))  # rad, from the obstacle's direction
    # Within the circle, out of it as well as around.
    tangent = tangent + jnp.clip((wide - distance) / MARGIN, 0.0, 1.0) * 0.5
    bearing = side * signed_angle(to_obstacle, to_goal)
    free = (
        (bearing >= tangent)
        | (jnp.dot(to_obstacle, to_goal) <= 0)
        | (jnp.dot(to_goal, to_goal) < distance**2 - wide**2)
    )
    c, s = jnp.cos(side * tangent), jnp.sin(side * tangent)
    around = jnp.stack([c * to_obstacle[0] - s * to_obstacle[1], s * to_obstacle[0] + c * to_obstacle[1]])
    around = around / jnp.maximum(distance, 1e-6) * jnp.linalg.norm(to_goal)
    return jnp.where(free, to_goal, around)


def nearer_side(position: Array, obstacle: Array, goal: Array) -> Array:  # [2], [2], [2] -> []
    """1 where the way past the obstacle is shorter on the left, else -1."""
    return jnp.where(signed_angle(obstacle - position, goal - position) >= 0, 1.0, -1.0)


def signed_angle(a: Array, b: Array) -> Array:  # [2], [2] -> []
    """The angle from `a` to `b`, rad, in (-pi, pi]; counterclockwise is positive."""
    return jnp.arctan2(a[0] * b[1] - a[1] * b[0], jnp.dot(a, b))
