"""A Franka picks up a cube and holds it at a goal in the air.

The cube lies on the table, turned anywhere; the open gripper starts above. The task is lost when the cube leaves the
table. Lengths in m in the frame of the robot's base.
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
    begin_episode,
    between,
    conclude,
    move,
    start_arm,
    weighted,
)
from mjx_policies.envs.franka.robot import OPENING
from mjx_policies.envs.franka.scenes import CUBE
from mjx_policies.envs.mocap import place
from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.envs.progress import metric_names, progress_metrics
from mjx_policies.rotations import from_yaw
from mjx_policies.types import Array, Observation, Table, Term, TimeStep, assemble

EPISODE_SECONDS = 5.0
CUBE_START = ((0.4, -0.12), (0.6, 0.12))  # x, y, corners
GOAL = ((0.4, -0.15, 0.1), (0.6, 0.15, 0.3))
GOAL_RADIUS = 0.025  # as in ManiSkill's PickCube
LIFT = 0.03  # above where the cube lies

OBSERVATION: Table = (*sensing.ARM, *sensing.object_terms("cube"), sensing.GOAL)
PRIVILEGED: Table = (
    Term("cube_velocity", 6, unit="m/s, rad/s"),
    Term("touch", 2, unit="N", frame="left and right pad", scale=0.1),
)
STAGES = ("reached", "grasped", "lifted", "placed")
METRICS = metric_names(STAGES)


@struct.dataclass
class PickCubeWeights:
    """Reward per second for one unit of each term of `reward_terms` and of `action_rate`, how much actions jump."""

    reach: float = 0.8
    grasp: float = 0.8
    lift: float = 0.6
    carry: float = 1.4
    success: float = 1.4
    action_rate: float = -0.5


DENSE = PickCubeWeights()
SPARSE = PickCubeWeights(reach=0.0, grasp=0.0, lift=0.0, carry=0.0, success=1.0, action_rate=0.0)


@struct.dataclass
class FrankaPickCube:
    """The task. Build it with `envs.load`."""

    weights: PickCubeWeights
    actions: ActionSpace = struct.field(pytree_node=False)
    physics: Physics = struct.field(pytree_node=False)
    spec: EnvSpec = struct.field(pytree_node=False)

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[FrankaState, TimeStep]:
        """The gripper open and near `READY`, the cube somewhere below it."""
        model = self.physics.model
        uniform, _ = draw_uniform(key, 13)
        cube = jnp.append(between(uniform[7:9], *CUBE_START), CUBE)
        yaw = from_yaw(jnp.pi * (2 * uniform[9] - 1))
        qpos = jnp.concatenate([start_arm(uniform[:7]), cube, yaw])
        data = self.physics.init(qpos, jnp.zeros(model.nv), dynamics)
        data = place(model, data, {"goal": between(uniform[10:13], *GOAL)})
        state = begin_episode(self.actions, data, dynamics, STAGES)
        return state, restart(self._observe(state), progress_metrics(state.progress, STAGES))

    def step(self, state: FrankaState, action: Array, applied: Array | None = None):
        """See `Env.step`."""
        model = self.physics.model
        state = move(self.actions, self.physics, state, action, applied)
        terms = reward_terms(model, state.data) | {"action_rate": action_change(action, state.last_action)}
        state = conclude(state, action, reached(model, state.data))
        metrics = progress_metrics(state.progress, STAGES)
        return state, transition(self._observe(state), weighted(self.weights, terms), lost(model, state.data), metrics)

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
            **sensing.object_values(model, data, "cube"),
            "goal": sensing.from_tcp(model, data, sensing.mocap_position(model, data, "goal")),
            "last_action": state.last_action,
        }
        privileged = {
            "cube_velocity": sensing.object_velocity(model, data, "cube"),
            "touch": sensing.touch(model, data),
        }
        return {
            "state": assemble(self.spec.observation, sensed),
            "privileged": assemble(self.spec.privileged, privileged),
        }


def succeeded(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether the cube's centre is within `GOAL_RADIUS` of the goal."""
    return _to_goal(model, data) < GOAL_RADIUS


def reached(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """The condition of each stage."""
    cube, _ = sensing.object_pose(model, data, "cube")
    held = sensing.grasped(model, data, cube)
    return {
        "reached": jnp.linalg.norm(sensing.tcp_position(model, data) - cube) < CUBE,
        "grasped": held,
        "lifted": held & (cube[2] > CUBE + LIFT),
        "placed": succeeded(model, data),
    }


def reward_terms(model: mujoco.MjModel, data: Data) -> dict[str, Array]:
    """One term a line, each from 0 to 1; `PickCubeWeights` says how much of each is wanted."""
    cube, _ = sensing.object_pose(model, data, "cube")
    held = sensing.grasped(model, data, cube)
    around = jnp.linalg.norm(sensing.tcp_position(model, data) - cube) < CUBE
    # Half of the grasp is for closing in the right place, a step on the way that both pads pressing is not.
    closing = jnp.where(around, jnp.clip((OPENING - sensing.finger_opening(data)) / (OPENING - CUBE), 0.0, 1.0), 0.0)
    return {
        "reach": sensing.closeness(jnp.linalg.norm(sensing.tcp_position(model, data) - cube)),
        "grasp": jnp.where(held, 1.0, 0.5 * closing),
        "lift": jnp.where(held, jnp.clip((cube[2] - CUBE) / LIFT, 0.0, 1.0), 0.0),
        "carry": jnp.where(held, sensing.closeness(_to_goal(model, data)), 0.0),
        "success": jnp.where(succeeded(model, data), 1.0, 0.0),
    }


def lost(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether the cube has left the table."""
    return sensing.off_table(sensing.object_pose(model, data, "cube")[0])


def _to_goal(model: mujoco.MjModel, data: Data) -> Array:  # -> []
    cube, _ = sensing.object_pose(model, data, "cube")
    return jnp.linalg.norm(cube - sensing.mocap_position(model, data, "goal"))
