"""A small articulated robot, and a toy environment whose observation shows what reached it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from flax import struct

from mjx_policies.envs.base import EnvSpec, restart, transition
from mjx_policies.spec import ActionTable, Term
from mjx_policies.types import assemble

ROBOT = """
<mujoco>
  <compiler autolimits="true"/>
  <option timestep="0.004"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 .1"/>
    <body name="trunk" pos="0 0 .4">
      <freejoint name="base"/>
      <inertial pos=".01 0 -0.0" mass="6" fullinertia=".02 .06 .07 .001 .002 .0005"/>
      <geom name="box" type="box" size=".2 .1 .05"/>
      <site name="imu"/>
      <camera name="chase" mode="track" pos="-1 0 .5"/>
      <body name="L_thigh" pos=".2 .1 0">
        <joint name="L_hip" axis="0 1 0" damping=".5" armature=".01" frictionloss=".1"/>
        <geom name="L_thigh" type="capsule" fromto="0 0 0 .01 0 -.2" size=".02"/>
        <body name="L_calf" pos="0 0 -.2">
          <joint name="L_knee" axis="0 1 0" damping=".4" armature=".02" frictionloss=".2"/>
          <geom name="L_foot" size=".02" pos=".01 0 -.2" priority="1" friction=".8"/>
        </body>
      </body>
      <body name="R_thigh" pos=".2 -.1 0">
        <joint name="R_hip" axis="0 1 0" damping=".5" armature=".01" frictionloss=".1"/>
        <geom name="R_thigh" type="capsule" fromto="0 0 0 .01 0 -.2" size=".02"/>
        <body name="R_calf" pos="0 0 -.2">
          <joint name="R_knee" axis="0 1 0" damping=".4" armature=".02" frictionloss=".2"/>
          <geom name="R_foot" size=".02" pos=".01 0 -.2" priority="1" friction=".8"/>
        </body>
      </body>
    </body>
  </worldbody>
  <tendon>
    <fixed name="coupling"><joint joint="L_hip" coef="1"/><joint joint="R_hip" coef="-1"/></fixed>
  </tendon>
  <actuator>
    <position name="L_hip" joint="L_hip" kp="20" kv="1" forcerange="-20 20"/>
    <position name="L_knee" joint="L_knee" kp="30" kv="2" forcerange="-30 30"/>
    <position name="R_hip" joint="R_hip" kp="20" kv="1" forcerange="-20 20"/>
    <motor name="R_knee" joint="R_knee"/>
  </actuator>
</mujoco>
"""


@pytest.fixture
def robot():
    return mujoco.MjModel.from_xml_string(ROBOT)


SUBSTEPS, ACTIONS = 4, 2
HOLD = (-3.0, 5.0)

OBSERVATION = (
    Term("clock", 1, unit="s", scale=2.0, noise=0.1, bias=0.05),
    Term("applied", SUBSTEPS * ACTIONS, unit="1"),
    Term("last_action", ACTIONS, unit="1", noise=1.0, measured=False),
)


@struct.dataclass
class ToyData:
    qpos: jax.Array
    qvel: jax.Array


class ToyPhysics:
    """Goes nowhere: positions count the steps, velocities stay as they are written."""

    def __init__(self):
        self.model = mujoco.MjModel.from_xml_string(ROBOT)
        self.substeps = SUBSTEPS

    def init(self, qpos, qvel, dynamics):
        return ToyData(qpos, qvel)

    def step(self, data, ctrl, dynamics):
        return data.replace(qpos=data.qpos + 1.0)

    def where(self, mask, a, b):
        return jax.tree.map(lambda x, y: jnp.where(mask, x, y), a, b)

    def take(self, data, index):
        return jax.tree.map(lambda x: x[index], data)


@struct.dataclass
class ToyState:
    data: ToyData
    dynamics: dict


@struct.dataclass
class ToyEnv:
    """Observes the number of steps in this episode, the rows that reached the actuators, and the action."""

    physics: ToyPhysics = struct.field(pytree_node=False, default_factory=ToyPhysics)

    @property
    def spec(self):
        action = ActionTable(("a", "b"), (0.0, 0.0), (1.0, 1.0), (-9.0, -9.0), (9.0, 9.0))
        return EnvSpec(OBSERVATION, (Term("clock", 1, unit="s"),), action, SUBSTEPS * 0.004, 10.0)

    def reset(self, key, dynamics):
        model = self.physics.model
        data = self.physics.init(jnp.zeros(model.nq), jnp.zeros(model.nv), dynamics)
        rows = jnp.zeros((SUBSTEPS, ACTIONS))
        return ToyState(data, dynamics), restart(self._observe(data, rows, rows[0]), {})

    def step(self, state, action, applied=None):
        rows = jnp.broadcast_to(action, (SUBSTEPS, ACTIONS)) if applied is None else applied
        data = self.physics.step(state.data, rows, state.dynamics)
        obs = self._observe(data, rows, action)
        return state.replace(data=data), transition(obs, jnp.zeros(()), jnp.zeros((), bool), {})

    def hold(self, state):
        return jnp.asarray(HOLD)

    def data(self, state):
        return state.data

    def replace_data(self, state, data):
        return state.replace(data=data)

    def _observe(self, data, rows, action):
        values = {"clock": data.qpos[:1], "applied": rows.ravel(), "last_action": action}
        return {"state": assemble(OBSERVATION, values), "privileged": data.qpos[:1]}


@pytest.fixture(scope="session")
def toy():
    """The environment, and what reads its observations: arrays with any leading axes."""

    def applied(timestep):
        rows = np.asarray(timestep.obs["state"])[..., 1 : 1 + SUBSTEPS * ACTIONS]
        return rows.reshape(*rows.shape[:-1], SUBSTEPS, ACTIONS)

    return SimpleNamespace(
        env=ToyEnv(),
        hold=np.array(HOLD, np.float32),
        substeps=SUBSTEPS,
        dt=0.004,
        control_dt=SUBSTEPS * 0.004,
        applied=applied,
        clock=lambda timestep: np.asarray(timestep.obs["state"])[..., 0],
        last_action=lambda timestep: np.asarray(timestep.obs["state"])[..., -ACTIONS:],
    )
