"""Beginnings and ends of episodes: a counting environment whose every value is known.

A robot starts at a number of its own, its state goes up by one each step, and it pays what its state is. Actions below
zero end the task; actions above 100 break the simulation.
"""

from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.envs.base import Draw, EnvSpec, restart, transition
from mjx_policies.envs.vectorize import vectorize
from mjx_policies.randomization.latency import ActionDelay
from mjx_policies.spec import ActionTable, Term

SPEC = EnvSpec(
    observation=(Term("state", 1, unit="1"),),
    privileged=(),
    action=ActionTable(("a",), (0.0,), (1.0,), (-1e9,), (1e9,)),
    control_dt=0.1,
    episode_seconds=1.0,
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
    robot: jax.Array  # which robot it is, of its dynamics
    start: jax.Array
    applied: jax.Array


@struct.dataclass
class Counter:
    bonus: float = 0.0
    physics: Physics = struct.field(pytree_node=False, default=Physics())
    spec: EnvSpec = struct.field(pytree_node=False, default=SPEC)

    def reset(self, key, dynamics):
        start = jnp.floor(jax.random.uniform(key, ()) * 1e6)
        state = State(Data(start[None], jnp.zeros(1)), dynamics["robot"], start, jnp.zeros((2, 1)))
        return state, restart({"state": state.data.qpos}, {"value": jnp.zeros(())})

    def step(self, state, action, applied=None):
        broken = jnp.where(action[0] > 100, jnp.nan, 0.0)
        data = Data(state.data.qpos + 1 + broken, state.data.qvel)
        state = state.replace(data=data, applied=jnp.zeros((2, 1)) if applied is None else applied)
        reward = data.qpos[0] + self.bonus
        return state, transition({"state": data.qpos}, reward, action[0] < 0, {"value": reward})

    def hold(self, state):
        return jnp.zeros(1)

    def data(self, state):
        return state.data

    def replace_data(self, state, data):
        return state.replace(data=data)


@struct.dataclass
class Robots:
    """Every episode another robot."""

    def __call__(self, key):
        return Draw({"robot": jax.random.uniform(key, ())})


def make(num_envs=4, **kwargs):
    return vectorize(Counter(), num_envs, Robots(), pool_size=16, **kwargs)


def begin(envs, seed=0, stagger=False):
    state, timestep = envs.init(jax.random.key(seed), stagger)
    return envs.refresh(state), timestep


def test_a_time_limit_truncates_and_returns_the_true_final_observation():
    envs = make()
    state, timestep = begin(envs)
    first = timestep.obs["state"]
    step = jax.jit(envs.step)
    for i in range(1, 11):
        state, timestep = step(state, jnp.zeros((4, 1)))
        np.testing.assert_array_equal(timestep.final_obs["state"], first + i)
        np.testing.assert_array_equal(timestep.reward, first[:, 0] + i)
        np.testing.assert_array_equal(timestep.truncated, [i == 10] * 4)
        assert not timestep.terminated.any()
    first_obs = np.asarray(state.pool[1]["state"][:4])
    np.testing.assert_array_equal(timestep.obs["state"], first_obs)  # the next episode's first
    np.testing.assert_array_equal(state.steps, 0)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["go", "end", "break"]), min_size=4, max_size=4), st.integers(0, 9))
def test_each_environment_ends_for_its_own_reason(actions, steps):
    envs = make()
    state, timestep = begin(envs)
    for _ in range(steps):
        state, timestep = STEP(state, jnp.zeros((4, 1)))
    before = np.asarray(timestep.obs["state"])
    state, timestep = STEP(state, jnp.asarray([[{"go": 0.0, "end": -1.0, "break": 101.0}[a]] for a in actions]))
    for i, action in enumerate(actions):
        limit = steps == 9
        assert timestep.terminated[i] == (action == "end")
        assert timestep.truncated[i] == (action == "break" or (limit and action == "go"))
        assert timestep.metrics["nan_resets"][i] == (action == "break")
        # Quarantined robots pay nothing, and are cut off where they were last well.
        moved = 0 if action == "break" else 1
        assert timestep.final_obs["state"][i] == before[i] + moved
        assert timestep.reward[i] == (0 if action == "break" else before[i, 0] + 1)
        fresh = action != "go" or limit
        assert (timestep.obs["state"][i] == before[i] + 1) == (not fresh)
        assert np.isfinite(timestep.obs["state"][i]).all()
    chex.assert_tree_all_finite(state.envs.data)


STEP = jax.jit(make().step)


def test_a_broken_robot_leaves_the_others_alone():
    envs = make()
    state, _ = begin(envs)
    well, timestep = STEP(state, jnp.zeros((4, 1)))
    hurt, hurt_timestep = STEP(state, jnp.zeros((4, 1)).at[2].set(101.0))
    others = jnp.asarray([0, 1, 3])
    for a, b in ((well.envs, hurt.envs), (timestep.obs, hurt_timestep.obs), (timestep.reward, hurt_timestep.reward)):
        chex.assert_trees_all_equal(jax.tree.map(lambda x: x[others], a), jax.tree.map(lambda x: x[others], b))


def test_every_episode_has_its_own_start_and_its_own_robot():
    envs = make(num_envs=4)
    state, _ = begin(envs)
    starts_of_episodes, robots_of_episodes = [np.asarray(state.envs.start)], [np.asarray(state.envs.robot)]
    for _ in range(4):  # 16 episodes end, as many as wait in the pool
        state, _ = STEP(state, -jnp.ones((4, 1)))
        starts_of_episodes.append(np.asarray(state.envs.start))
        robots_of_episodes.append(np.asarray(state.envs.robot))
    assert len(np.unique(np.concatenate(starts_of_episodes))) == 20
    assert len(np.unique(np.concatenate(robots_of_episodes))) == 20
    redrawn = envs.refresh(state)
    assert not np.isin(redrawn.pool[0].robot, np.concatenate(robots_of_episodes)).any()
    assert redrawn.next_reset == 0


def test_commands_on_their_way_do_not_cross_a_reset():
    envs = vectorize(ActionDelay(Counter(), 0.1, 0.1), 2, Robots(), pool_size=16)
    state, _ = begin(envs)
    step = jax.jit(envs.step)
    for _ in range(3):
        state, _ = step(state, jnp.asarray([[7.0], [7.0]]))
    np.testing.assert_array_equal(state.envs.inner.applied, 7.0)
    state, _ = step(state, jnp.asarray([[-5.0], [7.0]]))  # the first one ends
    np.testing.assert_array_equal(state.envs.rows[0], 0.0)
    state, _ = step(state, jnp.asarray([[7.0], [7.0]]))
    np.testing.assert_array_equal(state.envs.inner.applied[:, 0, 0], [0.0, 7.0])


def test_first_episodes_end_spread_out():
    envs = make(num_envs=512, episode_seconds=10.0)
    state, _ = begin(envs, stagger=True)
    assert state.steps.min() >= 0 and state.steps.max() < 100
    assert len(np.unique(state.steps)) > 80  # 512 draws of 100: about 99.4 expected
    np.testing.assert_array_equal(begin(envs)[0].steps, 0)


def test_leaves_of_the_task_change_without_a_second_trace():
    envs = vectorize(Counter(bonus=jnp.zeros(())), 4, Robots(), pool_size=16)
    step = jax.jit(envs.step)
    state, _ = step(begin(envs)[0], jnp.zeros((4, 1)))  # types are now as a jitted step leaves them
    state, timestep = step(state, jnp.zeros((4, 1)))
    traced = step._cache_size()
    state = state.replace(env=state.env.replace(bonus=state.env.bonus + 0.5))
    state, richer = step(state, jnp.zeros((4, 1)))
    np.testing.assert_array_equal(richer.reward, timestep.reward + 1.5)
    assert step._cache_size() == traced


def test_seeds_vmap_and_jit_equals_eager():
    envs = make()

    def run(key):
        state, _ = envs.init(key)
        state = envs.refresh(state)
        for _ in range(3):
            state, timestep = envs.step(state, jnp.zeros((4, 1)).at[1].set(-1.0))
        return timestep

    keys = jax.random.split(jax.random.key(1), 3)
    batched = jax.jit(jax.vmap(run))(keys)
    for i, key in enumerate(keys):
        chex.assert_trees_all_equal(jax.tree.map(lambda x, i=i: x[i], batched), run(key))


@pytest.mark.parametrize("sizes", [{"num_envs": 0}, {"num_envs": -2}, {"episode_seconds": 0.0}, {"pool_size": 0}])
def test_sizes_must_be_positive(sizes):
    arguments = {"num_envs": 4, "pool_size": 16} | sizes
    with pytest.raises(ValueError, match=f"{next(iter(sizes))} is .*, it must be positive"):
        vectorize(Counter(), dynamics=Robots(), **arguments)
