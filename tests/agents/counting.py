"""An environment that counts, in which whatever happens can be told from what is observed."""

import jax
import jax.numpy as jnp
import mujoco
from flax import struct

from mjx_policies.envs.base import EnvSpec, restart, transition
from mjx_policies.spec import ActionTable, Term

LIMIT = 5  # steps


class NoPhysics:
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    substeps = 1

    def where(self, mask, a, b):
        return jax.tree.map(lambda x, y: jnp.where(mask, x, y), a, b)

    def take(self, data, index):
        return jax.tree.map(lambda x: x[index], data)


@struct.dataclass
class Counter:
    """The data and the state at once.

    Attributes:
      qpos: [2] steps since the episode began, and a number drawn when it did.
      qvel: [1] the level of the environment when the episode began.
    """

    qpos: jax.Array
    qvel: jax.Array


@struct.dataclass
class Counting:
    """Observes its `Counter`; the reward is the action; ends when a count of three comes with a draw below a half.

    Attributes:
      level: what a curriculum may raise.
      poison: 1: a robot whose draw is above 0.8 diverges at its third step; 2: it is cut off there, where it was.
    """

    level: jax.Array | float = 0.0
    poison: jax.Array | int = 0
    physics: NoPhysics = struct.field(pytree_node=False, default=NoPhysics())

    @property
    def spec(self):
        action = ActionTable(("a",), (0.0,), (1.0,), (-99.0,), (99.0,))
        return EnvSpec(
            (Term("steps", 1, unit="1"), Term("draw", 1, unit="1")), (), action, 1.0, float(LIMIT), score="action"
        )

    def reset(self, key, dynamics):
        counter = Counter(jnp.stack([jnp.zeros(()), jax.random.uniform(key)]), jnp.asarray([self.level], jnp.float32))
        return counter, restart(self._observe(counter), dict.fromkeys(("even", "level", "action"), jnp.zeros(())))

    def step(self, state, action, applied=None):
        steps, draw = state.qpos + jnp.asarray([1.0, 0.0])
        sick = (draw > 0.8) & (steps == 3)
        after = state.replace(qpos=jnp.stack([steps, draw]))
        poisoned = jax.tree.map(lambda x: jnp.where((self.poison == 1) & sick, jnp.nan, x), after)
        after = jax.tree.map(lambda x, y: jnp.where((self.poison == 2) & sick, y, x), poisoned, state)
        reward = jnp.where(sick & (self.poison > 0), jnp.where(self.poison == 1, jnp.nan, 0.0), action[0])
        metrics = {"even": jnp.where(steps % 2 == 0, steps, jnp.nan), "level": state.qvel[0], "action": action[0]}
        timestep = transition(self._observe(after), reward, (steps == 3) & (draw < 0.5), metrics)
        return after, timestep.replace(truncated=(self.poison == 2) & sick)

    def hold(self, state):
        return jnp.zeros(1)

    def data(self, state):
        return state

    def replace_data(self, state, data):
        return data

    def _observe(self, counter):
        return {"state": counter.qpos}
