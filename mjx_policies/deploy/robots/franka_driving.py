"""A policy of a Franka behind the controller: what is different for an arm whose own loop makes a way of targets.

    with ChunkedPolicy(policy, mode="asynchronous", rest=START, late=late_steps(policy.contract, latency)) as chunked:
        controller = franka_controller(chunked, robot.joint_names, goal, latency=latency)
        run(robot, controller, operator)

Axes: A joints, in the policy's order.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from mjx_policies.deploy.contract import Contract
from mjx_policies.deploy.controller import Controller, ControlPolicy, Stance
from mjx_policies.deploy.robots.franka_sensing import franka_sources
from mjx_policies.deploy.safety import SafetyLimits, limits_of

START = np.array([0.0, 0.0458985, 0.0, -2.3762899, 0.0, 2.4221884, 0.7853982, 0.04])
"""rad, and m of each finger: where episodes begin or nearly so, the TCP at x 0.5, y 0, z 0.2 m, pointing down."""

PLAUSIBLE = 6.0
"""Times the highest speed of targets, what a joint may do without its encoder being at fault: fingers that slip off an
edge, and wrists that strike the table, reach four times that in simulation."""


def franka_limits(contract: Contract, latency: float = 0.0) -> SafetyLimits:
    """`limits_of` a policy whose measurements are known to arrive `latency` s late.

    Each joint's target changes at its own highest speed, as in training. Its torque is not bounded here: a target is
    where the arm's own loop will have led it by the end of the period, not what the servo is told at once, and that
    loop bounds torques with angles that are not late.

    Raises:
      ValueError: no measurement would be young enough to act on.
    """
    timing = contract.timing
    oldest = timing.max_observation_age
    if not 0 <= latency < oldest:
        raise ValueError(
            f"latency is {latency:g} s, it must lie below {oldest:g} s, beyond which this policy may not act on a "
            "measurement"
        )
    usual = limits_of(contract)
    velocity = np.array([joint.velocity for joint in contract.joints])
    return dataclasses.replace(
        usual,
        fresh_age=min(usual.fresh_age + latency, oldest),
        lost_age=usual.lost_age + latency,
        velocity=PLAUSIBLE * velocity,
        target_step=velocity * timing.control_dt,
        effort=np.full(len(contract.joints), np.inf),
    )


def late_steps(contract: Contract, latency: float) -> int:
    """Control periods that measurements are late, for `ChunkedPolicy`."""
    return round(latency / contract.timing.control_dt)


def franka_controller(
    policy: ControlPolicy,
    joint_names: Sequence[str],
    goal: Callable[[], np.ndarray] | None = None,
    *,
    start: np.ndarray = START,
    latency: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Controller:
    """A controller that stands at `start` [A], with the policy's own gains: an arm's servos carry it as they are.

    Args:
      policy: of one action a step, such as a `ChunkedPolicy` with `start` as its `rest`.
      joint_names: of the robot.
      goal: see `franka_sources`.
      start: where the policy begins.
      latency: s, from a measurement to its arrival.
      clock: of `Controller`.

    Raises:
      ContractError: the policy is not for this robot.
      ValueError: `start` or `latency` is out of range.
    """
    return Controller(
        policy,
        joint_names,
        franka_limits(policy.contract, latency),
        sources=franka_sources(policy.contract, goal),
        stance=Stance(start, stiffness=1.0, damping=1.0, braking=1.0),
        clock=clock,
    )
