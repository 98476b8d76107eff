"""Episode boundaries, on a toy whose every number is known. Axes: T steps, B environments, P the reset pool."""

import itertools

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.envs import load, vectorize
from mjx_policies.envs.base import Draw, EnvSpec, restart, transition
from mjx_policies.envs.vectorize import largest, sound
from mjx_policies.envs.wrappers import ActionChunk, History
from mjx_policies.randomization.latency import ActionDelay, ObservationLatency
from mjx_policies.randomization.pushes import Pushes
from mjx_policies.randomization.sensor_noise import SensorNoise
from mjx_policies.spec import ActionTable, Term
from mjx_policies.types import assemble

SUBSTEPS, DT = 2, 0.01
OBSERVATION = (
    Term("clock", 1, unit="1", bias=0.1),  # steps since the episode began
    Term("tag", 1, unit="1", noise=0.1),  # drawn at reset
    Term("mass", 1, unit="kg"),  # of the dynamics
    Term("applied", SUBSTEPS, unit="1"),  # what reached the actuators
)
PRIVILEGED = (Term("clock", 1, unit="1"),)
ACTION = ActionTable(("wish",), (0.0,), (1.0,), (-99.0,), (99.0,))
WALK, TERMINATE, BAD_STATE, BAD_REWARD, BAD_OBS, TERMINATE_BAD = range(6)
"""What an action asks of the toy. After a bad one, a number is not finite."""


@struct.dataclass
class ToyData:
    qpos: jax.Array
    qvel: jax.Array


class ToyPhysics:
    """The first coordinate counts the steps."""

    def __init__(self):
        self.model = mujoco.MjModel.from_xml_string(
            f'<mujoco><option timestep="{DT}"/>'
            '<worldbody><body><freejoint/><geom size=".1"/></body></worldbody></mujoco>'
        )
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
    tag: jax.Array


@struct.dataclass
class Toy:
    """Does as it is told; the reward is the number of the step, a hundredth of the tag, and a bonus."""

    bonus: jax.Array | float = 0.0
    physics: ToyPhysics = struct.field(pytree_node=False, default_factory=ToyPhysics)

    @property
    def spec(self):
        return EnvSpec(OBSERVATION, PRIVILEGED, ACTION, SUBSTEPS * DT, 5 * SUBSTEPS * DT, score="steps")

    def reset(self, key, dynamics):
        data = self.physics.init(jnp.zeros(7), jnp.zeros(6), dynamics)
        state = ToyState(data, dynamics, jax.random.uniform(key))
        return state, restart(self._observe(state, jnp.zeros((SUBSTEPS, 1))), {"steps": jnp.zeros(())})

    def step(self, state, action, applied=None):
        wish = action[0]
        rows = jnp.broadcast_to(action, (SUBSTEPS, 1)) if applied is None else applied
        data = self.physics.step(state.data, rows, state.dynamics)
        data = data.replace(qvel=jnp.where(wish == BAD_STATE, jnp.nan, data.qvel))
        state = state.replace(data=data)
        obs = self._observe(state, rows)
        bad = (wish == BAD_OBS) | (wish == TERMINATE_BAD)
        obs["privileged"] = jnp.where(bad, jnp.inf, obs["privileged"])
        reward = data.qpos[0] + 0.01 * state.tag + self.bonus
        reward = jnp.where(wish == BAD_REWARD, jnp.nan, reward)
        terminated = (wish == TERMINATE) | (wish == TERMINATE_BAD)
        return state, transition(obs, reward, terminated, {"steps": data.qpos[0]})

    def hold(self, state):
        return jnp.zeros(1)

    def data(self, state):
        return state.data

    def replace_data(self, state, data):
        return state.replace(data=data)

    def _observe(self, state, rows):
        values = {
            "clock": state.data.qpos[:1],
            "tag": state.tag[None],
            "mass": state.dynamics.get("body_mass", jnp.zeros(2))[1:],
            "applied": rows[:, 0],
        }
        return {"state": assemble(OBSERVATION, values), "privileged": state.data.qpos[:1]}


@struct.dataclass
class RandomMass:
    """A `DynamicsSampler` whose range is a leaf."""

    low: jax.Array | float = 1.0
    high: jax.Array | float = 2.0

    def __call__(self, key):
        portion = jax.random.uniform(key)
        mass = self.low + (self.high - self.low) * portion
        return Draw({"body_mass": jnp.stack([jnp.zeros(()), mass])}, 2 * portion[None] - 1)


CLOCK, TAG, MASS = 0, 1, 2
TOY = Toy()  # one, because its physics is static: another one would be compiled anew


def column(obs, index):
    return np.asarray(obs["state"])[..., index]


def walk(num_envs):
    return jnp.full((num_envs, 1), float(WALK))


B, P, T, LIMIT = 5, 3, 14, 4
small = vectorize(TOY, B, RandomMass(), episode_seconds=LIMIT * SUBSTEPS * DT, pool_size=P)


@jax.jit
def run_small(key, wishes):  # [T, B]
    """The state before the first step, the first time step, and what every step returned."""
    start, first = small.init(key)
    start = small.refresh(start)

    def step(state, wish):
        state, timestep = small.step(state, wish[:, None])
        return state, (state, timestep)

    _, (states, timesteps) = jax.lax.scan(step, start, wishes.astype(jnp.float32))
    return start, first, states, timesteps


@settings(max_examples=40, deadline=None)
@given(
    wishes=st.lists(
        st.lists(st.sampled_from([WALK] * 6 + list(range(6))), min_size=B, max_size=B), min_size=T, max_size=T
    ),
    seed=st.integers(0, 2**31 - 1),
)
def test_episode_boundaries_follow_a_plain_loop(wishes, seed):
    state, first, states, timesteps = jax.device_get(run_small(jax.random.key(seed), np.array(wishes)))
    pool_obs = state.pool[1]
    steps, obs, next_reset = state.steps.copy(), jax.tree.map(np.copy, first.obs), 0
    scores: list[list[float]] = [[] for _ in range(B)]  # of each step of each episode so far, NaN where quarantined
    assert ((steps >= 0) & (steps < LIMIT)).all()
    for t, row in enumerate(wishes):
        step = jax.tree.map(lambda x, t=t: x[t], timesteps)
        for b, wish in enumerate(row):
            where = f"step {t}, environment {b}"
            clock, tag = obs["state"][b, CLOCK], obs["state"][b, TAG]
            steps[b] += 1
            if bad := wish >= BAD_STATE:
                reward, terminated, truncated = 0.0, False, True
                after = {name: value[b].copy() for name, value in obs.items()}  # the last one that was well
            else:
                reward, terminated = clock + 1 + np.float32(0.01) * tag, wish == TERMINATE
                truncated = bool(steps[b] >= LIMIT) and not terminated
                state_obs = np.concatenate([[clock + 1, tag, obs["state"][b, MASS]], [wish] * SUBSTEPS])
                after = {"state": np.float32(state_obs), "privileged": np.float32([clock + 1])}
                after["extrinsics"] = obs["extrinsics"][b].copy()  # of the episode
            assert (bool(step.terminated[b]), bool(step.truncated[b])) == (terminated, truncated), where
            np.testing.assert_allclose(step.reward[b], reward, rtol=1e-6, err_msg=where)  # one rounding of a sum
            assert step.metrics["nan_resets"][b] == bad
            assert np.isnan(step.metrics["steps"][b]) if bad else step.metrics["steps"][b] == clock + 1
            for name, value in after.items():
                np.testing.assert_array_equal(step.final_obs[name][b], value, err_msg=where)
                if terminated or truncated:
                    value = pool_obs[name][next_reset % P]
                np.testing.assert_array_equal(step.obs[name][b], value, err_msg=where)
                obs[name][b] = value
            np.testing.assert_allclose(after["extrinsics"], 2 * after["state"][[MASS]] - 3, atol=1e-6, err_msg=where)
            scores[b].append(np.nan if bad else clock + 1)
            episode = jax.tree.map(lambda x, t=t, b=b: x[t, b], states.episodes)
            assert (episode.ended, episode.length) == (terminated or truncated, len(scores[b])), where
            assert episode.cut_off == (truncated and (bad or len(scores[b]) < LIMIT)), where
            measured = [score for score in scores[b] if not np.isnan(score)]
            assert episode.measured == len(measured), where
            np.testing.assert_allclose(episode.score, np.mean(measured) if measured else np.nan, rtol=1e-6)
            assert step.metrics["reused_resets"][b] == ((terminated or truncated) and next_reset >= P), where
            if terminated or truncated:
                steps[b], next_reset, scores[b] = 0, next_reset + 1, []
        np.testing.assert_array_equal(states.steps[t], steps)
        assert states.next_reset[t] == next_reset


def test_first_episodes_end_spread_out_and_later_ones_at_the_limit():
    envs = vectorize(TOY, 400, episode_seconds=10 * SUBSTEPS * DT)
    assert envs.episode_steps == 10
    state, _ = envs.init(jax.random.key(0))
    step = jax.jit(envs.step)
    ends = []
    for _ in range(40):
        state, timestep = step(state, walk(400))
        assert not timestep.terminated.any()
        ends.append(np.asarray(timestep.truncated))
    ends = np.stack(ends)  # [T, B]
    first = ends.argmax(axis=0)
    # 40 of 400 at each of ten times; 6.0 is one standard deviation.
    assert np.abs(np.bincount(first, minlength=10) - 40).max() < 24 and first.max() == 9
    for b in range(400):
        assert np.diff(np.flatnonzero(ends[:, b])).tolist() == [10] * (len(np.flatnonzero(ends[:, b])) - 1)


def test_without_stagger_all_episodes_end_together():
    envs = vectorize(TOY, 3)  # five steps, the task's own limit
    state, timestep = envs.init(jax.random.key(0), stagger=False)
    for t in range(1, 12):
        state, timestep = envs.step(state, walk(3))
        assert timestep.truncated.tolist() == [t % 5 == 0] * 3
        np.testing.assert_array_equal(column(timestep.final_obs, CLOCK), [(t - 1) % 5 + 1] * 3)
        np.testing.assert_array_equal(column(timestep.obs, CLOCK), [t % 5] * 3)


def test_init_returns_what_step_returns():
    envs = vectorize(TOY, 4, RandomMass())
    state, first = envs.init(jax.random.key(0))
    _, later = envs.step(state, walk(4))
    chex.assert_trees_all_equal_shapes_and_dtypes(first, later)
    chex.assert_trees_all_equal(first.obs, first.final_obs)
    assert not first.terminated.any() and not first.truncated.any() and not first.reward.any()


def test_every_episode_is_another_robot_until_the_pool_is_exhausted():
    envs = vectorize(TOY, 4, RandomMass(), pool_size=6)
    state, timestep = envs.init(jax.random.key(0), stagger=False)
    state = envs.refresh(state)
    masses, tags = [*column(timestep.obs, MASS)], [*column(timestep.obs, TAG)]
    one = jnp.zeros((4, 1)).at[2].set(TERMINATE)
    for action in (one, one, jnp.full((4, 1), TERMINATE)):
        state, timestep = envs.step(state, action)
        ended = np.asarray(timestep.terminated)
        masses += [*column(timestep.obs, MASS)[ended]]
        tags += [*column(timestep.obs, TAG)[ended]]
    assert len(masses) == 4 + 6 == len(set(masses)) == len(set(tags))
    np.testing.assert_array_equal(masses[4:], column(state.pool[1], MASS))  # in order
    state, timestep = envs.step(state, jnp.full((4, 1), TERMINATE))
    np.testing.assert_array_equal(column(timestep.obs, MASS), masses[4:8])  # from the front again
    assert timestep.metrics["reused_resets"].tolist() == [1, 1, 1, 1]

    state = envs.refresh(state)
    state, timestep = envs.step(state, jnp.full((4, 1), TERMINATE))
    assert not set(column(timestep.obs, MASS)) & set(masses)
    # The state agrees with what is observed, and goes on being that robot.
    np.testing.assert_array_equal(state.envs.dynamics["body_mass"][:, 1], column(timestep.obs, MASS))
    _, after = envs.step(state, walk(4))
    np.testing.assert_array_equal(column(after.obs, MASS), column(timestep.obs, MASS))


def test_draws_are_independent():
    envs = vectorize(TOY, 2000, RandomMass(0.0, 1.0), pool_size=2000)
    state, first = envs.init(jax.random.key(0))
    state = envs.refresh(state)
    again = envs.refresh(state)
    assert not (jax.random.key_data(state.key) == jax.random.key_data(again.key)).all()
    draws = [column(obs, index) for obs in (first.obs, state.pool[1], again.pool[1]) for index in (TAG, MASS)] + [
        np.asarray(state.steps) / envs.episode_steps
    ]
    for x, y in itertools.combinations(draws, 2):
        assert abs(np.corrcoef(x, y)[0, 1]) < 0.09  # four standard errors of 2000 pairs
    other, _ = envs.init(jax.random.key(1))
    assert not set(np.asarray(other.envs.tag)) & set(np.asarray(state.envs.tag))


def test_initial_states_depend_on_the_key_alone():
    envs = vectorize(TOY, 4, RandomMass())
    first, again = (envs.refresh(envs.init(jax.random.key(7))[0]) for _ in range(2))
    chex.assert_trees_all_equal(first, again)


def test_repeated_episodes_begin_with_the_same_robot_in_the_same_state():
    state, timestep = vectorize(TOY, 6, RandomMass(), repeats=3).init(jax.random.key(7))
    for leaf in jax.tree.leaves((state.envs, timestep)):
        chex.assert_trees_all_equal(leaf, leaf[jnp.array([0, 0, 0, 3, 3, 3])])
    assert np.unique(column(timestep.obs, MASS)).size == 2
    with pytest.raises(ValueError, match="num_envs is 4, it must be a multiple of repeats, 3"):
        vectorize(TOY, 4, repeats=3)


@pytest.fixture(scope="module", params=[0, 2], ids=["actions", "chunks"])
def wrapped(request):
    """Everything with a memory that a robot may be wrapped in, and rows of an action -> what a step takes."""
    env = Pushes(TOY, low=0.01, high=0.05, velocity=1.0)
    env = ActionDelay(env, low=0.005, high=0.05, jitter=0.003)
    env = ObservationLatency(env, low=0.01, high=0.05)
    env = History(SensorNoise(env), 2)
    if request.param:
        return ActionChunk(env, request.param), lambda row: jnp.repeat(jnp.asarray(row)[:, None], request.param, axis=1)
    return env, jnp.asarray


def test_no_memory_of_a_wrapper_crosses_a_reset(wrapped):
    env, act = wrapped
    envs = vectorize(env, 3, RandomMass(), episode_seconds=1.0, pool_size=4)
    state = jax.jit(lambda key: envs.refresh(envs.init(key, stagger=False)[0]))(jax.random.key(0))
    fresh, fresh_obs = state.pool
    step = jax.jit(envs.step)
    for _ in range(3):  # fill the buffers with something that is not zero
        state, _ = step(state, act(np.full((3, 1), 0.25)))
    state, timestep = step(state, act([[0.25], [TERMINATE], [BAD_STATE]]))
    assert timestep.terminated.tolist() == [False, True, False] and timestep.truncated.tolist() == [False, False, True]
    for row, start in ((1, 0), (2, 1)):
        expected = jax.tree.map(lambda x, start=start: x[start], (fresh, fresh_obs))
        got = jax.tree.map(lambda x, row=row: x[row], (state.envs, timestep.obs))
        chex.assert_trees_all_equal(*jax.tree.map(raw, (got, expected)))
    assert (np.asarray(state.envs.inner.inner.inner.rows[0]) != 0).any()  # the one that went on has a history

    # And the episode that follows is the one that this start leads to.
    alone, step_alone = jax.tree.map(lambda x: x[:2], fresh), jax.jit(jax.vmap(env.step))
    for _ in range(4):
        state, timestep = step(state, act(np.full((3, 1), -0.5)))
        alone, expected = step_alone(alone, act(np.full((2, 1), -0.5)))
        # The compiled program may add in another order: one rounding of numbers near one.
        np.testing.assert_allclose(timestep.final_obs["state"][1:], expected.obs["state"], rtol=0, atol=1e-6)


def raw(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


@pytest.mark.parametrize("wish", [BAD_STATE, BAD_REWARD, BAD_OBS, TERMINATE_BAD])
def test_a_quarantined_robot_leaves_the_others_bit_identical(wish):
    envs = vectorize(TOY, 4, RandomMass())
    state, _ = envs.init(jax.random.key(0), stagger=False)
    state, before = envs.step(envs.refresh(state), walk(4))
    well_state, well = envs.step(state, walk(4))
    sick_state, sick = envs.step(state, walk(4).at[1, 0].set(wish))

    def others(tree):
        return jax.tree.map(lambda x: np.delete(np.asarray(raw(x)), 1, axis=0), tree)

    chex.assert_trees_all_equal(others(sick), others(well))
    chex.assert_trees_all_equal(others(sick_state.envs), others(well_state.envs))
    assert sick.metrics["nan_resets"].tolist() == [0, 1, 0, 0]
    assert sick.reward[1] == 0 and sick.truncated[1] and not sick.terminated[1] and np.isnan(sick.metrics["steps"][1])
    np.testing.assert_array_equal(sick.final_obs["state"][1], before.obs["state"][1])
    for tree in (sick.obs, sick.final_obs, sick.reward, sick_state.envs.data):
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(tree))
    assert column(sick.obs, CLOCK)[1] == 0 and sick_state.steps.tolist() == [2, 0, 2, 2]


def test_quarantine_on_the_c_engine(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where the engine writes its warnings
    envs = vectorize(load("Pendulum", "cpu"), 4)
    state, first = envs.init(jax.random.key(0), stagger=False)
    step = jax.jit(envs.step)
    action = jnp.full((4, 1), 0.5)
    well_state, well = step(state, action)
    data = state.envs.data
    spoiled = state.replace(envs=state.envs.replace(data=data.replace(qvel=data.qvel.at[2].set(jnp.nan))))
    sick_state, sick = step(spoiled, action)
    assert sick.metrics["nan_resets"].tolist() == [0, 0, 1, 0]
    others = np.array([0, 1, 3])
    for got, expected in ((sick, well), (sick_state.envs, well_state.envs)):
        chex.assert_trees_all_equal(*(jax.tree.map(lambda x: np.asarray(x)[others], tree) for tree in (got, expected)))
    np.testing.assert_array_equal(sick.final_obs["state"][2], first.obs["state"][2])
    _, next_one = step(sick_state, action)
    assert np.isfinite(next_one.obs["state"]).all() and not next_one.metrics["nan_resets"].any()


@pytest.fixture(scope="module")
def pendulums():
    """Four of them on the C engine, and one step: after it, what is returned, and what the others keep."""
    envs = vectorize(load("Pendulum", "cpu"), 4)
    state, _ = envs.init(jax.random.key(0), stagger=False)
    step = jax.jit(envs.step)

    def after(speed=None, angle=None):
        data = state.envs.data
        qvel = data.qvel if speed is None else data.qvel.at[2].set(speed)
        qpos = data.qpos if angle is None else data.qpos.at[2].set(angle)
        return step(state.replace(envs=state.envs.replace(data=data.replace(qpos=qpos, qvel=qvel))), walk(4))

    return state, after


@settings(max_examples=25, deadline=None)
@given(exponent=st.floats(2.1, 37), sign=st.sampled_from([-1, 1]))
def test_a_speed_beyond_physics_is_quarantined_however_finite(pendulums, tmp_path_factory, exponent, sign):
    state, after = pendulums
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("warnings"))  # the engine writes some where it is
        sick_state, sick = after(speed=sign * 10**exponent)
    well_state, well = after()
    assert sick.metrics["nan_resets"].tolist() == [0, 0, 1, 0]
    assert sick.reward[2] == 0 and sick.truncated[2] and not sick.terminated[2]
    np.testing.assert_array_equal(sick.final_obs["state"][2], state.obs["state"][2])  # where it was last well
    assert np.abs(sick.obs["state"]).max() < 10 and np.abs(sick_state.envs.data.qvel).max() < 10
    others = np.array([0, 1, 3])
    for got, expected in ((sick, well), (sick_state.envs, well_state.envs)):
        chex.assert_trees_all_equal(*(jax.tree.map(lambda x: np.asarray(x)[others], tree) for tree in (got, expected)))


def test_speeds_that_physics_knows_are_left_alone(pendulums):
    for speed in (0.0, 9.0, -60.0):
        _, timestep = pendulums[1](speed=speed)
        assert not timestep.metrics["nan_resets"].any() and timestep.final_obs["state"][2, 2] != 0


def test_what_is_observed_is_bounded_by_its_unit():
    table = (
        Term("height", 1, unit="m", scale=5.0),
        Term("wish", 1, unit="1"),
        Term("spin", 2, unit="rad/s", scale=-0.1),
        Term("push", 1, unit="N"),
    )
    np.testing.assert_allclose(largest(table, 70.0), [5e3, np.inf, 7, 7, 1e4])
    assert largest((), 70.0).shape == (0,)


def test_a_jump_is_no_physics_either():
    """A coordinate that jumped far within a step, and stopped there, by a limit of its joint for example."""
    _, timestep = TOY.reset(jax.random.key(0), {})
    before = ToyState(ToyData(jnp.zeros(7), jnp.zeros(6)), {}, jnp.zeros(()))
    for jump, expected in ((1.0, True), (5.9, True), (6.1, False), (-1e5, False)):  # 300 /s for 0.02 s
        after = before.replace(data=ToyData(jnp.zeros(7).at[3].set(jump), jnp.zeros(6)))
        assert bool(sound(TOY, before, after, timestep)) == expected


def episode(envs, key, steps=7):
    """Observations, rewards and ends of a few steps in which some episodes end."""
    state, first = envs.init(key)
    state = envs.refresh(state)

    def step(state, t):
        action = jnp.where((jnp.arange(envs.num_envs) + t) % 4 == 0, TERMINATE, WALK)[:, None]
        return envs.step(state, action.astype(jnp.float32))

    state, timesteps = jax.lax.scan(step, state, jnp.arange(steps))
    return jax.tree.map(raw, state.envs), first, timesteps


def test_jit_equals_eager():
    envs = vectorize(TOY, 3, RandomMass(), pool_size=4)
    actions = jnp.asarray([WALK, TERMINATE, BAD_STATE], jnp.float32)[:, None]

    def two_steps(key):
        state, first = envs.init(key)
        state, second = envs.step(envs.refresh(state), actions)
        state, third = envs.step(state, actions[::-1])
        return jax.tree.map(raw, state.envs), first, second, third

    # A fused multiply-add rounds once where eager operations round twice.
    compiled = jax.jit(two_steps)(jax.random.key(0))
    chex.assert_trees_all_close(compiled, two_steps(jax.random.key(0)), rtol=1e-6, atol=1e-6)


def test_vmap_over_seeds_equals_a_loop():
    envs = vectorize(TOY, 3, RandomMass(), pool_size=4)
    keys = jax.random.split(jax.random.key(0), 3)
    batched = jax.jit(jax.vmap(lambda key: episode(envs, key)))(keys)
    single = jax.jit(lambda key: episode(envs, key))
    looped = jax.tree.map(lambda *rows: np.stack(rows), *(single(key) for key in keys))
    chex.assert_trees_all_equal(batched, looped)


def test_numbers_of_the_task_may_change_without_a_new_trace():
    envs = vectorize(
        Toy(bonus=jnp.asarray(0.0), physics=TOY.physics), 2, RandomMass(jnp.asarray(1.0), jnp.asarray(2.0))
    )
    step = jax.jit(chex.assert_max_traces(envs.step, n=1))
    refresh = jax.jit(chex.assert_max_traces(envs.refresh, n=1))
    state, _ = envs.init(jax.random.key(0), stagger=False)
    _, timestep = step(refresh(state), walk(2))
    generous = state.replace(
        env=state.env.replace(bonus=jnp.asarray(7.0)),
        dynamics=state.dynamics.replace(low=jnp.asarray(5.0), high=jnp.asarray(6.0)),
    )
    after, generous_timestep = step(refresh(generous), walk(2))
    np.testing.assert_allclose(generous_timestep.reward, timestep.reward + 7.0, rtol=1e-6)  # one rounding
    after, timestep = step(after, jnp.full((2, 1), float(TERMINATE)))
    assert (column(timestep.obs, MASS) >= 5).all()
    assert after.env.bonus == 7.0, "it stays until it is changed again"


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", ["num_envs", "episode_seconds", "pool_size", "repeats"])
def test_sizes_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}, it must be positive"):
        vectorize(TOY, **{"num_envs": 4, name: value})


def test_defaults():
    assert vectorize(TOY, 8).pool_size == 16 and vectorize(TOY, 4096).pool_size == 1024
    envs = vectorize(TOY, 8, episode_seconds=0.001)
    assert envs.episode_steps == 1 and envs.spec == TOY.spec and envs.model is TOY.physics.model
