"""An expert for `FrankaPegInsert`: straight into the hole, at a slant and then upright, or feeling for it on the top.

The first approach sometimes comes down beside the hole or stops short of it; then the hand repeats it.
What is led is the centre of the peg's round tip: turning about it moves the tip nowhere. Its place is said relative to
the mouth of the hole, where the tip would just touch a lid. Lengths in m, angles in rad.
"""

from __future__ import annotations

import jax.numpy as jnp

from mjx_policies.envs.experts.arm import Aim, Seen, arm_expert
from mjx_policies.envs.experts.base import Expert
from mjx_policies.envs.experts.human import TINY, Habits, length
from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.episode import FrankaState
from mjx_policies.envs.franka.peg_insert import FrankaPegInsert, tip
from mjx_policies.envs.franka.scenes import HOLE_DEPTH, HOLE_WIDTH, PEG_RADIUS
from mjx_policies.rotations import from_rotation_vector, to_matrix
from mjx_policies.types import Array

STRATEGIES = ("straight", "slanted", "searching")
STRAIGHT, SLANTED, SEARCHING = range(3)
HABITS = Habits(mistakes=0.15, mistake=(0.006, 0.01))
SLANT = 0.25  # by which the peg leans towards the robot
HOVER = 0.015  # above the socket, free to move about in
SLACK = 0.0015  # sideways, within which the round tip is sure to slide in
CAUGHT = 0.003  # below the mouth, from where on the hole holds the tip
UPRIGHT = 0.04  # from the vertical, that lets the peg be pushed on
FLOOR = 0.001 - HOLE_DEPTH  # to push the tip to, just above the ground of the hole
BESIDE = 0.007  # from the middle of the hole to where a search begins
TOUCH = 0.002  # above the mouth, below which the peg may touch the top of the socket
PRESS = 0.001  # below the surface, to aim at while feeling for the hole
STEP = 0.002  # to aim ahead on the surface: a peg that sticks does not leap
PUSH = 0.008  # to aim ahead on the way down: a peg that jams is not pushed out of the hand
SPEED, CAREFUL, FINE, SEARCH = 0.3, 0.07, 0.05, 0.03  # m/s


def peg_insert_expert(task: FrankaPegInsert) -> Expert:
    """Builds the expert; the three ways in are equally likely."""
    model = task.physics.model

    def see_peg(state: FrankaState) -> tuple[Array, Array, Array]:  # -> [3], [3], [3]
        """Centre of the round tip, the same relative to the mouth, and the direction of the peg."""
        _, quat = sensing.object_pose(model, state.data, "peg")
        axis = to_matrix(quat)[:, 2]
        ball = tip(model, state.data) + PEG_RADIUS * axis
        socket = sensing.mocap_position(model, state.data, "socket")
        return ball, ball - socket - jnp.asarray([0.0, 0.0, HOLE_DEPTH + PEG_RADIUS]), axis

    def plan(state: FrankaState, hand: Seen, strategy: Array, mistake: Array) -> Aim:
        ball, place, axis = see_peg(state)
        caught = is_inside(place) & (place[2] < -CAUGHT)
        slant = jnp.where((strategy == SLANTED) & ~caught, SLANT, 0.0)
        # The hole turns a peg in it: a hand that went after the peg alone would turn about it.
        turn = turn_to(jnp.where(caught, direction(2 * axis - hand.rotation[:, 2]), axis), slant)
        miss = hand.told @ mistake
        wanted, speed = next_place(place, length(turn), strategy, miss, caught)
        short = (miss[2] > 0.001) & (length(place - miss) < 0.003)
        blocked = (place[2] < 0.001) & ~is_inside(place)
        rotate = to_matrix(from_rotation_vector(turn))
        return Aim(
            position=ball + wanted - place + rotate @ (hand.position - ball),
            rotation=rotate @ hand.rotation,
            opening=jnp.zeros(()),
            speed=speed,
            noticed=short | blocked | caught,
        )

    def choose(state: FrankaState, hand: Seen) -> Array:
        _, place, axis = see_peg(state)
        feels = (place[2] < 0.001) & ~is_inside(place) & (length(place[:2]) < 2 * BESIDE)
        leans = length(turn_to(axis, jnp.zeros(()))) > SLANT / 2
        return jnp.where(leans, SLANTED, jnp.where(feels, SEARCHING, STRAIGHT))

    return arm_expert(task, plan, STRATEGIES, choose, HABITS)


def next_place(place: Array, tilt: Array, strategy: Array, miss: Array, caught: Array) -> tuple[Array, Array]:
    """The next position of the tip.

    Args:
      place: [3] where it is.
      tilt: [] of hand and peg from the direction that they should have.
      strategy: [] int32.
      miss: [3] by how much this approach misses the mouth.
      caught: [] bool, whether the hole holds the tip.

    Returns:
      The place [3], and the speed [].
    """
    aside, height = place[:2], place[2]
    distance, inside = length(aside), is_inside(place)
    low = height < TOUCH
    searches = (strategy == SEARCHING) & ~inside & (distance > jnp.where(low, 2 * SLACK, BESIDE / 2))
    feels = searches & low & (distance < 2 * BESIDE)
    goal = jnp.where(searches, BESIDE * direction(aside), miss[:2])
    error = length(aside - goal)
    aligned = feels | inside | ((error < jnp.where(low, 2 * SLACK, SLACK)) & (tilt < UPRIGHT))
    deep = jnp.where((tilt < UPRIGHT) & (caught | (strategy != SLANTED)), FLOOR, jnp.minimum(height, -2 * CAUGHT))
    deep = jnp.where(searches, -PRESS, jnp.where(miss[2] > 0, miss[2], deep))
    down = aligned | caught
    # Sideways only as far as the height allows.
    free = jnp.where(inside | (error < 2 * SLACK), 1.0, jnp.clip(2 * height / HOVER, 0.0, 1.0))
    sideways = jnp.where(feels, spiral(aside), aside + free * (goal - aside))
    ahead = jnp.where(low & ~caught, 2 * PRESS, PUSH)
    wanted = jnp.append(jnp.where(caught, 0.0, sideways), jnp.where(down, jnp.maximum(deep, height - ahead), HOVER))
    slow = jnp.where(feels, SEARCH, jnp.where(inside, CAREFUL, FINE))
    return wanted, jnp.where(down, slow, SPEED)


def is_inside(place: Array) -> Array:  # [3] -> [] bool
    """Whether the tip is in the hole."""
    return (place[2] < 0) & jnp.all(jnp.abs(place[:2]) < HOLE_WIDTH / 2)


def spiral(aside: Array) -> Array:  # [2] -> [2]
    """The next point, `STEP` on, of a spiral about the hole that shrinks by 1.5 mm a radian."""
    distance = jnp.maximum(length(aside), TINY)
    angle = jnp.minimum(STEP / distance, 1.0)
    c, s = jnp.cos(angle), jnp.sin(angle)
    turned = jnp.stack([c * aside[0] - s * aside[1], s * aside[0] + c * aside[1]])
    return turned * jnp.maximum(1 - 0.0015 * angle / distance, 0.0)


def direction(vector: Array) -> Array:  # [D] -> [D]
    """The vector at length 1, or zero."""
    return vector / jnp.maximum(length(vector), TINY)


def turn_to(axis: Array, slant: Array) -> Array:  # [3], [] -> [3]
    """The shortest rotation vector that makes a peg along `axis` lean back by `slant`."""
    wanted = jnp.stack([-jnp.sin(slant), jnp.zeros_like(slant), jnp.cos(slant)])
    cross = jnp.cross(axis, wanted)
    return direction(cross) * jnp.arctan2(length(cross), jnp.dot(axis, wanted))
