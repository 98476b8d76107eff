"""A counting environment whose every value is known. Axes: A actions."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from flax import struct

from mjx_policies.envs.base import Draw, EnvSpec, restart, transition
from mjx_policies.spec import ActionTable, Term

END, CUT, BREAK, FLY = -1.0, -2.0, -3.0, -4.0
"""Actions that end the task, cut the episode off, make the state not a number, and throw the robot far and back."""

SPEC = EnvSpec(
    observation=(Term("count", 1, unit="1", noise=0.1), Term("action", 1, unit="1"), Term("height", 1, unit="m")),
    privileged=(Term("start", 1, unit="1"),),
    action=ActionTable(("a",), (0.0,), (1.0,), (-9.0,), (9.0,)),
    control_dt=0.1,
    episode_seconds=1.0,
    score="even",
    stages=("far", "success"),
    max_speed=300.0,
)


@struct.dataclass
class Data:
    qpos: jax.Array
    qvel: jax.Array


class Physics:
    substeps = 2
    model = SimpleNamespace(opt=SimpleNamespace(timestep=0.05))

    def where(self, mask, a, b):
        return jax.tree.map(lambda x, y: jnp.where(mask, x, y), a, b)

    def take(self, data, index):
        return jax.tree.map(lambda x: x[index], data)


@struct.dataclass
class State:
    data: Data
    start: jax.Array
    applied: jax.Array


@struct.dataclass
class Counter:
    """Starts at a number of its own, goes up by one each step, and pays what it stands at times its `rate`."""

    rate: float = 1.0
    physics: Physics = struct.field(pytree_node=False, default=Physics())
    spec: EnvSpec = struct.field(pytree_node=False, default=SPEC)

    def reset(self, key, dynamics):
        start = dynamics["offset"] + jnp.floor(jax.random.uniform(key, ()) * 1e3)
        state = State(Data(jnp.stack([start, 0.0]), jnp.zeros(2)), start, jnp.zeros((2, 1)))
        zero = jnp.zeros(())
        return state, restart(self._obs(state, zero), {"even": zero, "stage/far": zero, "success": zero})

    def step(self, state, action, applied=None):
        broken = jnp.where(action[0] == BREAK, jnp.nan, 0.0)
        height = jnp.where(action[0] == FLY, 1e6, 0.0)
        data = Data(jnp.stack([state.data.qpos[0] + 1 + broken, height]), state.data.qvel)
        state = state.replace(data=data, applied=jnp.full((2, 1), action[0]) if applied is None else applied)
        count = data.qpos[0]
        age = count - state.start
        far = (age >= 2).astype(jnp.float32)
        metrics = {"even": jnp.where(age % 2 == 0, age, jnp.nan), "stage/far": far, "success": 0.0 * far}
        obs = self._obs(state, action[0])
        return state, transition(obs, count * self.rate, action[0] == END, metrics, action[0] == CUT)

    def hold(self, state):
        return state.applied[-1]

    def data(self, state):
        return state.data

    def replace_data(self, state, data):
        return state.replace(data=data)

    def _obs(self, state, action):
        height = state.data.qpos[1]
        return {"state": jnp.stack([state.data.qpos[0], action, height]), "privileged": state.start[None]}


@struct.dataclass
class Offsets:
    def __call__(self, key):
        offset = jnp.floor(jax.random.uniform(key, ()) * 1e3) * 1e3
        return Draw({"offset": offset}, offset[None] / 1e6)


@pytest.fixture(scope="session")
def counter():
    """The environment, its sampler, and what actions ask of it."""
    return SimpleNamespace(env=Counter(), dynamics=Offsets(), end=END, cut=CUT, broken=BREAK, fly=FLY)
