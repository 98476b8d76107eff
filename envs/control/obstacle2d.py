"""A point robot drives to a goal around an obstacle in its way: left or right of it, equally well.

The smallest multimodal task. A policy that commits to either side arrives; the mean of the two drives into
the obstacle, which ends the episode. Start, obstacle and goal lie along x, each a little off, so that no side is
favoured on average. Velocity commands at 10 Hz; world frame, m.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import mujoco
from flax import struct

from mjx_policies.draws import draw_uniform
from mjx_policies.envs.base import EnvSpec, restart, transition
from mjx_policies.envs.mocap import mocap_id, place
from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.envs.progress import Progress, advance, begin, metric_names, progress_metrics
from mjx_policies.spec import ActionTable, Term
from mjx_policies.types import Array, Observation, TimeStep, actuator_targets, assemble

CONTROL_DT = 0.1
ROBOT_RADIUS, OBSTACLE_RADIUS, GOAL_RADIUS = 0.06, 0.3, 0.1  # m, as in the model
START, GOAL = (-1.0, 0.0), (1.0, 0.0)
SPREAD = 0.05  # m, half-width of the square that start, obstacle and goal are each drawn from

ACTION = ActionTable(names=("x", "y"), default=(0.0,) * 2, scale=(1.0,) * 2, lower=(-1.0,) * 2, upper=(1.0,) * 2)  # m/s
OBSERVATION = (
    Term("position", 2, unit="m", frame="world", noise=0.005),
    Term("velocity", 2, unit="m/s", frame="world", noise=0.02),
    Term("obstacle", 2, unit="m", frame="world", noise=0.005),
    Term("goal", 2, unit="m", frame="world", measured=False),
)
STAGES = ("passed", "arrived")
METRICS = (*metric_names(STAGES), "side")
SPEC = EnvSpec(
    observation=OBSERVATION,
    privileged=(),
    action=ACTION,
    control_dt=CONTROL_DT,
    episode_seconds=4.0,
    stages=STAGES,
    max_speed=100.0,
)


@struct.dataclass
class Obstacle2DWeights:
    """Reward per second for one unit of each term of `reward_terms`."""

    near: float = 1.0
    success: float = 1.0
    collision: float = -20.0
    effort: float = -0.01


DENSE = Obstacle2DWeights()
SPARSE = Obstacle2DWeights(near=0.0, collision=0.0, effort=0.0)


@struct.dataclass
class Obstacle2DState:
    """The state of an episode.

    Attributes:
      data: physics; its mocap bodies are the obstacle and the goal.
      dynamics: replaced model fields.
      progress: what has been achieved.
      side: [] 1 once the obstacle was passed on the left (greater y), -1 on the right, NaN before.
    """

    data: Data
    dynamics: Dynamics
    progress: Progress
    side: Array


@struct.dataclass
class Obstacle2D:
    """The task of going past an obstacle in the plane. Build it with `envs.load`."""

    weights: Obstacle2DWeights
    physics: Physics = struct.field(pytree_node=False)
    spec: EnvSpec = struct.field(pytree_node=False, default=SPEC)

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[Obstacle2DState, TimeStep]:
        """Starts at rest on one side of the obstacle, the goal on the other."""
        uniform, _ = draw_uniform(key, 6)
        start, obstacle, goal = jnp.asarray([START, (0.0, 0.0), GOAL]) + SPREAD * (2 * uniform.reshape(3, 2) - 1)
        data = self.physics.init(start, jnp.zeros(2), dynamics)
        data = place(self.physics.model, data, {"obstacle": jnp.append(obstacle, 0.0), "goal": jnp.append(goal, 0.0)})
        state = Obstacle2DState(data, dynamics, begin(STAGES), side=jnp.asarray(jnp.nan))
        return state, restart(self._observe(data), self._metrics(state))

    def step(self, state: Obstacle2DState, action: Array, applied: Array | None = None):
        """See `Env.step`."""
        rows = jnp.broadcast_to(action, (self.physics.substeps, 2)) if applied is None else applied
        data = self.physics.step(state.data, actuator_targets(self.spec.action, rows), state.dynamics)
        model = self.physics.model
        obstacle, _ = places(model, data)
        collided = distance_to_segment(obstacle, state.data.qpos, data.qpos) < OBSTACLE_RADIUS + ROBOT_RADIUS
        passed = data.qpos[0] > obstacle[0]
        reached = {"passed": passed & ~collided, "arrived": succeeded(model, data) & ~collided}
        progress = advance(state.progress, reached, CONTROL_DT)
        side = jnp.where(jnp.isnan(state.side) & passed, jnp.sign(data.qpos[1] - obstacle[1]), state.side)
        terms = reward_terms(model, data, action, collided)
        reward = sum(getattr(self.weights, name) * term for name, term in terms.items()) * CONTROL_DT
        state = dataclasses.replace(state, data=data, progress=progress, side=side)
        return state, transition(self._observe(data), reward, collided, self._metrics(state))

    def hold(self, state: Obstacle2DState) -> Array:
        """See `Env.hold`: no speed."""
        return jnp.zeros(2)

    def data(self, state: Obstacle2DState) -> Data:
        """See `Env.data`."""
        return state.data

    def replace_data(self, state: Obstacle2DState, data: Data) -> Obstacle2DState:
        """See `Env.replace_data`."""
        return dataclasses.replace(state, data=data)

    def _observe(self, data: Data) -> Observation:
        obstacle, goal = places(self.physics.model, data)
        values = {"position": data.qpos, "velocity": data.qvel, "obstacle": obstacle, "goal": goal}
        return {"state": assemble(OBSERVATION, values)}

    def _metrics(self, state: Obstacle2DState) -> dict[str, Array]:
        return progress_metrics(state.progress, STAGES) | {"side": state.side}


def places(model: mujoco.MjModel, data: Data) -> tuple[Array, Array]:  # -> [2], [2]
    """The positions of the obstacle and of the goal."""
    obstacle, goal = (data.mocap_pos[mocap_id(model, name), :2] for name in ("obstacle", "goal"))
    return obstacle, goal


def succeeded(model: mujoco.MjModel, data: Data) -> Array:  # -> [] bool
    """Whether the robot is within `GOAL_RADIUS` of the goal."""
    _, goal = places(model, data)
    return jnp.linalg.norm(data.qpos - goal) < GOAL_RADIUS


def reward_terms(model: mujoco.MjModel, data: Data, action: Array, collided: Array) -> dict[str, Array]:
    """The terms of the reward, each a scalar; `Obstacle2DWeights` holds their weights."""
    _, goal = places(model, data)
    return {
        "near": 1 - jnp.tanh(jnp.linalg.norm(data.qpos - goal)),
        "success": succeeded(model, data).astype(jnp.float32),
        "collision": collided.astype(jnp.float32),
        "effort": jnp.sum(jnp.square(jnp.clip(action, -1.0, 1.0))),
    }


def distance_to_segment(point: Array, a: Array, b: Array) -> Array:  # [2], [2], [2] -> []
    """The distance from a point to the segment from `a` to `b`: a robot must not jump a corner between two periods."""
    along = b - a
    portion = jnp.clip(jnp.dot(point - a, along) / jnp.maximum(jnp.dot(along, along), 1e-12), 0.0, 1.0)
    return jnp.linalg.norm(point - a - portion * along)
