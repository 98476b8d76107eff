"""Tiny environments whose optimal values and actions are known, each isolating one ability of a learner.

A learner that fails one of them has its bug there. All have the same shapes, so that one configuration fits all:

| index | observation | meaning |
|---|---|---|
| state 0 | constant 1 | nothing to see |
| state 1 | position | what an episode is about |
| privileged 0 | secret | what only a critic may see |

A step lasts one second.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
from flax import struct

from mjx_policies.envs.base import EnvSpec, restart, transition
from mjx_policies.envs.vectorize import VectorEnv, vectorize
from mjx_policies.spec import ActionTable, Term

DISCOUNT = 0.8
SPEC = EnvSpec(
    observation=(Term("nothing", 1, unit="1"), Term("position", 1, unit="1")),
    privileged=(Term("secret", 1, unit="1"),),
    action=ActionTable(("push",), (0.0,), (1.0,), (-1.0,), (1.0,)),
    control_dt=1.0,
    episode_seconds=100.0,
)


class NoPhysics:
    """The coordinates are the position and the secret, and nothing moves them but the probe."""

    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    substeps = 1

    def where(self, mask, a, b):
        return jax.tree.map(lambda x, y: jnp.where(mask, x, y), a, b)

    def take(self, data, index):
        return jax.tree.map(lambda x: x[index], data)


@struct.dataclass
class ProbeData:
    qpos: jax.Array  # [2] position and secret
    qvel: jax.Array  # [1] always zero


@struct.dataclass
class ProbeState:
    data: ProbeData
    steps: jax.Array  # [] int32, since the episode began


class Probe(NamedTuple):
    """A problem with a known solution.

    Attributes:
      start: `key -> (position, secret)`.
      reward: `(position, secret, action) -> []`, of the step from that position.
      move: position -> the next one.
      ends: position that a step leads to -> whether the task ends there.
      value: `(position, secret) -> []`, of the best policy, or `None` where only the action matters.
      act: position -> the best action, or `None` where all are equally good.
      positions, secrets: where to check the two.
      limit: steps to the time limit.
    """

    start: Callable
    reward: Callable
    move: Callable = lambda position: position
    ends: Callable = lambda position: True
    value: Callable | None = None
    act: Callable | None = None
    positions: tuple = (0.0,)
    secrets: tuple = (0.0,)
    limit: int = 100


@struct.dataclass
class ProbeEnv:
    """The probe of a name's place in `PROBES`, which is a leaf: one compiled program trains on all of them."""

    which: jax.Array  # [] int32
    physics: NoPhysics = struct.field(pytree_node=False, default=NoPhysics())

    @property
    def spec(self) -> EnvSpec:
        return SPEC

    def reset(self, key, dynamics):
        data = ProbeData(jnp.stack(self._choose("start", key)), jnp.zeros(1))
        return ProbeState(data, jnp.zeros((), jnp.int32)), restart(observe(data), {})

    def step(self, state, action, applied=None):
        position, secret = state.data.qpos
        reward = self._choose("reward", position, secret, action[0])
        position = self._choose("move", position)
        data, steps = state.data.replace(qpos=jnp.stack([position, secret])), state.steps + 1
        terminated = self._choose("ends", position) > 0
        limit = jnp.asarray([probe.limit for probe in PROBES.values()])[self.which]
        timestep = transition(observe(data), reward, terminated, {})
        return ProbeState(data, steps), timestep.replace(truncated=(steps >= limit) & ~terminated)

    def hold(self, state):
        return jnp.zeros(1)

    def data(self, state):
        return state.data

    def replace_data(self, state, data):
        return state.replace(data=data)

    def _choose(self, attribute, *arguments):
        def as_floats(function):
            return lambda *xs: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), function(*xs))

        functions = [as_floats(getattr(probe, attribute)) for probe in PROBES.values()]
        return jax.lax.switch(self.which, functions, *arguments)


def observe(data: ProbeData) -> dict[str, jax.Array]:
    return observation(data.qpos[0], data.qpos[1])


def observation(position, secret) -> dict[str, jax.Array]:
    """The observation at a position, with what its critic may know."""
    position, secret = (jnp.asarray(x, jnp.float32) for x in (position, secret))
    return {"state": jnp.stack([jnp.ones(()), position]), "privileged": secret[None]}


def sign(key):
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)


def quadratic(action, best):
    """One at the best action, less elsewhere: the mean of a policy with any spread is best at `best`."""
    return 1.0 - jnp.square(action - best)


PROBES = {
    # One step, reward one: the critic learns a constant.
    "value": Probe(
        start=lambda key: (0.0, 0.0),
        reward=lambda position, secret, action: 1.0,
        value=lambda position, secret: 1.0,
    ),
    # One step, and the reward can be seen beforehand.
    "observed value": Probe(
        start=lambda key: (sign(key), 0.0),
        reward=lambda position, secret, action: position,
        value=lambda position, secret: position,
        positions=(-1.0, 1.0),
    ),
    # Two steps, the reward in the second.
    "discounting": Probe(
        start=lambda key: (0.0, 0.0),
        reward=lambda position, secret, action: position,
        move=lambda position: position + 1,
        ends=lambda position: position == 2,
        value=lambda position, secret: DISCOUNT ** (1 - position),
        positions=(0.0, 1.0),
    ),
    # Three steps with reward one: nothing is worth anything after a termination.
    "termination": Probe(
        start=lambda key: (0.0, 0.0),
        reward=lambda position, secret, action: 1.0,
        move=lambda position: position + 1,
        ends=lambda position: position == 3,
        value=lambda position, secret: (1 - DISCOUNT ** (3 - position)) / (1 - DISCOUNT),
        positions=(0.0, 1.0, 2.0),
    ),
    # Reward one for ever, cut off after three steps: 5, and not the 2.4 of three steps.
    "truncation": Probe(
        start=lambda key: (0.0, 0.0),
        reward=lambda position, secret, action: 1.0,
        ends=lambda position: False,
        value=lambda position, secret: 1 / (1 - DISCOUNT),
        limit=3,
    ),
    # Cut off after two steps, where the place reached is worth more than the next start: 4 and 5, where a learner that
    # takes the observation after the reset for the one before it finds 2.2 and 2.8.
    "final observation": Probe(
        start=lambda key: (0.0, 0.0),
        reward=lambda position, secret, action: position,
        move=lambda position: jnp.ones(()),
        ends=lambda position: False,
        value=lambda position, secret: jnp.where(position == 1, 1.0, DISCOUNT) / (1 - DISCOUNT),
        positions=(0.0, 1.0),
        limit=2,
    ),
    # One step with one best action.
    "action": Probe(
        start=lambda key: (0.0, 0.0),
        reward=lambda position, secret, action: quadratic(action, 0.5),
        act=lambda position: 0.5,
    ),
    # One step, the best action depends on what is seen.
    "observed action": Probe(
        start=lambda key: (sign(key), 0.0),
        reward=lambda position, secret, action: quadratic(action, 0.5 * position),
        act=lambda position: 0.5 * position,
        positions=(-1.0, 1.0),
    ),
    # What only the critic sees decides most of the reward, and nothing of what is best.
    "asymmetric critic": Probe(
        start=lambda key: (0.0, 3.0 * sign(key)),
        reward=lambda position, secret, action: secret + 0.1 * quadratic(action, 0.5),
        value=lambda position, secret: secret + 0.1,
        act=lambda position: 0.5,
        secrets=(-3.0, 3.0),
    ),
}


def vectorized(name_or_index, num_envs: int = 8) -> VectorEnv:
    which = list(PROBES).index(name_or_index) if isinstance(name_or_index, str) else name_or_index
    return vectorize(ProbeEnv(jnp.asarray(which)), num_envs, pool_size=16)


def demonstration(which, key) -> tuple[dict[str, jax.Array], jax.Array]:
    """An observation of the probe of this place, and the best action there [1]; zero where all are equally good."""
    env = ProbeEnv(which)
    _, timestep = env.reset(key, {})
    acts = [probe.act or (lambda position: 0.0) for probe in PROBES.values()]
    best = [lambda position, act=act: jnp.asarray(act(position), jnp.float32) for act in acts]
    return timestep.obs, jax.lax.switch(which, best, timestep.obs["state"][1])[None]


def check(
    probe: Probe, value: Callable | None, act: Callable, value_error: float = 0.1, action_error: float = 0.1
) -> None:
    """Compares `value(obs) -> []`, if it has one, and `act(obs) -> [1]` with what is best, everywhere."""
    for position, secret in itertools.product(probe.positions, probe.secrets):
        obs = observation(position, secret)
        where = f"at position {position:g} with secret {secret:g}"
        if probe.value is not None and value is not None:
            found, best = float(value(obs)), float(probe.value(position, secret))
            assert abs(found - best) < value_error, f"the value {where} is {best:.2f}, learned {found:.2f}"
        if probe.act is not None:
            found, best = float(act(obs)[0]), float(probe.act(position))
            assert abs(found - best) < action_error, f"the best action {where} is {best:.2f}, learned {found:.2f}"
