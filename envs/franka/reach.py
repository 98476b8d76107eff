"""A Franka reaches a point in front of it with its gripper, pointing down if it can.

Nothing is touched and nothing can be lost. Lengths in m in the frame of the robot's base.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import mujoco
from flax import struct

from mjx_policies.draws import draw_uniform
from mjx_policies.envs.base import EnvSpec, restart, transition
from mjx_policies.envs.franka import sensing
from mjx_policies.envs.franka.actions import ActionSpace
from mjx_policies.envs.franka.episode import (
    FrankaState,
    action_change,
    away_from,
    begin_episode,
    conclude,
    move,
    start_arm,
    weighted,
)
from mjx_policies.envs.franka.kinematics import tcp_pose
from mjx_policies.envs.mocap import place
from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.envs.progress import metric_names, progress_metrics
from mjx_policies.types import Array, Observation, Table, TimeStep, assemble

EPISODE_SECONDS = 3.0
GOAL = ((0.35, -0.25, 0.1), (0.65, 0.25, 0.45))  # x, y, z, corners
NEAR, AT_GOAL = 0.05, 0.02
APART = 1.5 * NEAR  # of gripper and goal at the start

OBSERVATION: Table = (*sensing.ARM, sensing.GOAL)
PRIVILEGED: Table = ()
STAGES = ("near", "arrived")
METRICS = metric_names(STAGES)


@struct.dataclass
class ReachWeights:
    """Reward per second for one unit of each term of `reward_terms` and of `action_rate`, how much actions jump."""

    reach: float = 1.0
    close: float = 1.0
    point_down: float = 0.5
    success: float = 2.0
    action_rate: float = -1.0


DENSE = ReachWeights()
SPARSE = ReachWeights(reach=0.0, close=0.0, point_down=0.0, success=1.0, action_rate=0.0)


@struct.dataclass
class FrankaReach:
    """The task. Build it with `envs.load`."""

    weights: ReachWeights
    actions: ActionSpace = struct.field(pytree_node=False)
    physics: Physics = struct.field(pytree_node=False)
    spec: EnvSpec = struct.field(pytree_node=False)

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[FrankaState, TimeStep]:
        """The gripper near `READY`, the goal anywhere in front that is at least `APART` away."""
        model = self.physics.model
        uniform, _ = draw_uniform(key, 10)
        arm = start_arm(uniform[:7])
        data = self.physics.init(arm, jnp.zeros(model.nv), dynamics)
        goal = away_from(tcp_pose(arm[:7])[0], APART, uniform[7:10], *GOAL)
        data = place(model, data, {"goal": goal})
        state = begin_episode(self.actions, data, dynamics, STAGES)
        return state, restart(self._observe(state), progress_metrics(state.progress, STAGES))

    def step(self, state: FrankaState, action: Array, applied: Array | None = None):
        """See `Env.step`."""
        model = self.physics.model
        state = move(self.actions, self.physics, state, action, applied)
        terms = reward_terms(model, state.data) | {"action_rate": action_change(action, state.last_action)}
        state = conclude(state, action, reached(model, state.data))
        metrics = progress_metrics(state.progress, STAGES)
        never = jnp.zeros((), bool)
        return state, transition(self._observe(state), weighted(self.weights, terms), never, metrics)

    def hold(self, state: FrankaState) -> Array:
        """See `Env.hold`."""
        return self.actions.hold(state.target)

    def data(self, state: FrankaState) -> Data:
        """See `Env.data`."""
        return state.data

    def replace_data(self, state: FrankaState, data: Data) -> FrankaState:
        """See `Env.replace_data`."""
        return dataclasses.replace(state, data=data)

    def _observe(self, state: FrankaState) -> Observation:
        model, data = self.physics.model, state.data
        sensed = {
            **sensing.arm_values(model, data),
            "goal": sensing.from_tcp(model, data, sensing.mocap_position(model, data, "goal")),
            "last_action": state.last_action,
        }
        return {"state": assemble(self.spec.observation, sensed)}


def succeeded(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether the tool centre point is within `AT_GOAL` of the goal."""
    return _to_goal(model, data) < AT_GOAL


def reached(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """The condition of each stage."""
    return {"near": _to_goal(model, data) < NEAR, "arrived": succeeded(model, data)}


def reward_terms(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """One term a line, each from 0 to 1; `ReachWeights` says how much of each is wanted."""
    distance = _to_goal(model, data)
    down = -tcp_pose(data.qpos[: sensing.NUM_JOINTS])[1][2, 2]
    return {
        "reach": sensing.closeness(distance),
        "close": sensing.closeness(distance, scale=AT_GOAL),
        "point_down": 0.5 * (1 + down),
        "success": jnp.where(succeeded(model, data), 1.0, 0.0),
    }


def _to_goal(model: mujoco.MjModel, data: Data) -> Array:  # -> []
    return jnp.linalg.norm(sensing.tcp_position(model, data) - sensing.mocap_position(model, data, "goal"))
