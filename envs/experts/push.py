"""An expert for `FrankaPush`: pushes the block with two fingers held apart, on one side and then on the next.

Two fingers are a fence that the block settles against and stays with, where it would turn away from a single one
(Lynch & Mason 1996); friction also lets it be pushed aslant. So a hand that is square to the goal squares the block.
The first approach sometimes pushes to a place beside the goal; once there, the hand pushes on to where the goal is.

World frame: the robot's base. A fence is the angle (rad) of a frame in the plane, that of the goal or that of the
block; a way is one of its four axes, along which to push. Lengths in m. Axes: K = 4 ways.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from mjx_policies.envs.experts.arm import Aim, Seen, arm_expert, come_down, nearest_yaw, yaw_of
from mjx_policies.envs.experts.base import Expert
from mjx_policies.envs.experts.human import Habits
from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.episode import FrankaState
from mjx_policies.envs.franka.kinematics import pointing_down, turn_of
from mjx_policies.envs.franka.push import FrankaPush
from mjx_policies.envs.franka.scenes import BLOCK
from mjx_policies.types import Array

STRATEGIES = ("forward first", "sideways first", "aslant", "turned last")
FORWARD_FIRST, SIDEWAYS_FIRST, ASLANT, TURNED_LAST = range(4)
HABITS = Habits(pace=0.15, slowest=0.8, mistakes=0.1)
SPREAD = 0.02  # of each finger from the middle: no corner fits between them
REACH = BLOCK[0] + 0.00875  # from the middle of the block to that of the pads on its side
LOW = 0.03  # height of the TCP that pushes
BESIDE = 0.042  # height of the TCP below which the pads push
OVER = 0.05  # height of the TCP above which the pads are free of the block
HEIGHT = 0.06  # above `LOW`, free to move about in
GAP = 0.012  # beside the block, where the hand comes down
CORNER = 0.02  # per rad, by which the fingers keep out of the way of the corner that stands out
SLOPE = 0.5  # sideways per forward that friction carries the block along
SLIPS = 0.02  # of the fingers ahead of the middle of the block, sideways, that is too far for friction
AHEAD = 0.08  # m, lookahead of a hand that pushes
STRAY = 0.03  # sideways that is put right on the way forward
THERE = 0.003  # from the goal, where a push ends
NEAR, SQUARE = 0.01, 0.08  # m and rad, that another push is not worth
COST = 0.06  # m per rad, that the block goes on while it is squared
FAR = 0.05  # to go, that is worth a push that leaves the block as it is turned
SPEED, CAREFUL, PUSH = 0.45, 0.2, 0.22  # m/s


class Work(NamedTuple):
    """The task that is left, in the plane.

    Attributes:
      block: [2] m.
      turn: [] rad, of the block from the nearest of its four equal poses.
      goal: [2] m, where this expert takes it to be.
    """

    block: Array
    turn: Array
    goal: Array


class PushPlan(NamedTuple):
    """The phase that the hand is in, and what it aims for.

    Attributes:
      fence: [] rad.
      way: [] int32.
      low: [] bool, whether it is beside the block and pushes.
      done: [] bool, whether nothing is left to do.
    """

    fence: Array
    way: Array
    low: Array
    done: Array


def push_expert(task: FrankaPush) -> Expert:
    """Builds the expert; its four ways to go about it are equally likely."""
    model = task.physics.model

    def see_work(state: FrankaState, mistake: Array) -> Work:
        block, quat = sensing.object_pose(model, state.data, "block")
        goal = sensing.mocap_position(model, state.data, "goal")[:2]
        beside = jnp.stack([mistake[0], jnp.where(goal[1] > 0, -mistake[2], mistake[2])])
        return Work(block[:2], nearest_yaw(yaw_of(quat), jnp.pi / 2), goal + beside)

    def plan(state: FrankaState, hand: Seen, strategy: Array, mistake: Array) -> Aim:
        work = see_work(state, mistake)
        push = decide(work, hand, strategy)
        forward, sideways = axes(push.fence)[:, push.way]
        turn = work.turn - push.fence
        to_goal = work.goal - work.block
        stray = jnp.dot(to_goal, sideways)
        stray = jnp.where((strategy >= ASLANT) | (jnp.abs(stray) < STRAY), stray, 0.0)

        left = jnp.dot(work.goal - hand.position[:2], forward) - REACH - short(push.fence)
        left = jnp.clip(left, jnp.where(jnp.abs(turn) > SQUARE, NEAR, 0.0), AHEAD)
        most = SLOPE * left * grip(work, hand, push, stray)
        pushed = hand.position[:2] + left * forward + jnp.clip(stray, -most, most) * sideways
        # An arm that pushes sinks or rises by what its joints give way.
        pushed = jnp.append(pushed, 2 * LOW - hand.position[2])

        slope = jnp.clip(stray / jnp.maximum(jnp.dot(to_goal, forward), NEAR), -SLOPE, SLOPE) * squareness(turn)
        start = work.block - (REACH + gap(turn)) * forward - (REACH / 2 * slope + CORNER * turn) * sideways
        rotation = across(push.fence, push.way)
        entry, error = come_down(hand, jnp.append(start, LOW), rotation, HEIGHT, slack=0.008)
        leave = jnp.append(hand.position[:2], LOW + HEIGHT)
        free = jnp.where(push.done, leave, entry) + jnp.append(retreat(work, hand), 0.0)
        hampered = (hand.position[2] < OVER) & (error > 0.02)
        return Aim(
            position=jnp.where(push.low, pushed, free),
            rotation=jnp.where(~push.low & (push.done | hampered), hand.told, rotation),
            opening=jnp.asarray(SPREAD),
            speed=jnp.where(push.low, PUSH, jnp.where(error > 0.03, SPEED, CAREFUL)),
            noticed=push.done,
        )

    def choose(state: FrankaState, hand: Seen) -> Array:
        work = see_work(state, jnp.zeros(3))
        skew = jnp.abs(misfit(hand, work.turn)) < jnp.abs(misfit(hand, jnp.zeros(()))) - SQUARE / 2
        return jnp.where(skew & (hand.position[2] < OVER), TURNED_LAST, ASLANT)

    return arm_expert(task, plan, STRATEGIES, choose, HABITS)


def decide(work: Work, hand: Seen, strategy: Array) -> PushPlan:
    """The next step of the plan: a push that is not finished goes on, or the one that the strategy asks for begins."""
    square = jnp.zeros(())
    # A hand that is low goes on with the fence that it is parallel to.
    skew = (strategy == TURNED_LAST) & (jnp.abs(misfit(hand, work.turn)) < jnp.abs(misfit(hand, square)))
    fence = jnp.where(skew, misfit(hand, square), square)
    need = needs(work, fence)
    goes_on = (need > THERE) | ((need > -2 * NEAR) & (jnp.abs(work.turn - fence) > SQUARE))
    going = beside(work, hand, fence) & goes_on

    skew = (strategy == TURNED_LAST) & (jnp.max(needs(work, work.turn)) > FAR)
    next_fence = jnp.where(skew, work.turn, square)
    need = needs(work, next_fence)
    first = jnp.asarray([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1]], bool)[strategy]
    preferred = first & (need > NEAR + COST * jnp.abs(work.turn - next_fence))
    next_way = jnp.argmax(jnp.where(jnp.any(preferred), jnp.where(preferred, need, -1.0), need))
    done = (jnp.max(need) < NEAR) & (jnp.abs(work.turn) < SQUARE)
    low = jnp.any(going)
    return PushPlan(
        fence=jnp.where(low, fence, next_fence),
        way=jnp.where(low, jnp.argmax(going), next_way),
        low=low,
        done=done & ~low,
    )


def axes(fence: Array) -> Array:  # [] -> [2, K, 2]
    """The direction of each way, and that to its left."""
    angle = fence + jnp.pi / 2 * jnp.arange(5)
    directions = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    return jnp.stack([directions[:4], directions[1:]])


def across(fence: Array, way: Array) -> Array:  # [], [] -> [3, 3]
    """A hand that points down, its fingers side by side across the way; of the two, the one that the wrist prefers."""
    return pointing_down(jnp.pi / 4 + nearest_yaw(fence + jnp.pi / 2 * way - jnp.pi / 4, jnp.pi))


def misfit(hand: Seen, fence: Array) -> Array:  # [] -> []
    """The angle from the hand to the nearest axis of a fence."""
    return nearest_yaw(hand_yaw(hand) - fence, jnp.pi / 2)


def hand_yaw(hand: Seen) -> Array:  # -> []
    """The yaw that the hand was told to have: what it is turned to, the block has a part in."""
    return turn_of(hand.told)


def short(fence: Array) -> Array:  # [] -> []
    """The distance before the goal at which a push is to stop, for the squaring that is still to come."""
    return COST * jnp.abs(fence)


def needs(work: Work, fence: Array) -> Array:  # [] -> [K]
    """The distances that the block is to go along each way."""
    return axes(fence)[0] @ (work.goal - work.block) - short(fence)


def beside(work: Work, hand: Seen, fence: Array) -> Array:  # [] -> [K] bool
    """Whether the hand is where it pushes along each way, its fingers across it."""
    forward, sideways = axes(fence) @ (hand.position[:2] - work.block)  # [K], [K]
    parallel = jnp.abs(nearest_yaw(hand_yaw(hand) - fence - jnp.pi / 2 * jnp.arange(4), jnp.pi)) < 0.2
    turn = work.turn - fence
    # Fingers beyond the middle of a block that is not square turn it further.
    turns = (jnp.abs(turn) < SQUARE) | (jnp.sign(turn) * sideways > -SLIPS)
    near = (-forward > REACH - 0.02) & (-forward < REACH + 0.045) & (jnp.abs(sideways) < 0.04)
    return near & parallel & turns & (hand.position[2] < BESIDE)


def grip(work: Work, hand: Seen, push: PushPlan, stray: Array) -> Array:  # [] -> []
    """A factor from 1, where the block goes along sideways, to 0, where the fingers would slip along it or turn it.

    So they do while it is not square to them, and when they are ahead of its middle.
    """
    sideways = axes(push.fence)[1, push.way]
    ahead = jnp.dot(hand.position[:2] - work.block, sideways) * jnp.sign(stray)
    return jnp.clip(1 - ahead / SLIPS, 0.0, 1.0) * squareness(work.turn - push.fence)


def squareness(turn: Array) -> Array:  # [] -> []
    """A factor from 1 for a block that is square to the fingers to 0 for one that is to be squared first."""
    return jnp.clip(2 - jnp.abs(turn) / SQUARE, 0.0, 1.0)


def gap(turn: Array) -> Array:  # [] -> []
    """The distance from the block's side at which to come down, the more the further its corner stands out."""
    return GAP + BLOCK[0] * (jnp.abs(jnp.cos(turn)) + jnp.abs(jnp.sin(turn)) - 1)


def retreat(work: Work, hand: Seen) -> Array:  # -> [2]
    """A little away from the block for a hand that touches it: it would lift it on its way up."""
    forward, sideways = axes(work.turn)[:, 0]
    away = hand.position[:2] - work.block
    along = jnp.stack([jnp.dot(away, forward), jnp.dot(away, sideways)])
    touches = (jnp.max(jnp.abs(along)) < REACH + 0.006) & (hand.position[2] < OVER)
    return jnp.where(touches, 0.3 * away, 0.0)
