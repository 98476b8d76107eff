"""Curricula: what they read of a rollout, and what they make of it. Axes: T steps, B robots."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from flax import struct

from mjx_policies.agents.base import Curriculum, Learner
from mjx_policies.agents.curriculum import INCREMENT, randomization_curriculum
from mjx_policies.agents.on_policy import on_policy
from mjx_policies.agents.rollout import EndedEpisodes, collect, start
from mjx_policies.envs.base import Draw, DynamicsSampler, Env, EnvSpec, restart, transition
from mjx_policies.envs.registry import load
from mjx_policies.envs.vectorize import vectorize
from mjx_policies.policy import Policy
from mjx_policies.randomization.domain import DomainRandomization, randomize
from mjx_policies.spec import ActionTable, Term

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # programs that run a few times
LIMIT = 5  # steps of an episode


def scores(step_score):
    """Outcomes of which a curriculum reads this alone."""
    step_score = jnp.asarray(step_score)
    none = jnp.zeros(step_score.shape)
    return EndedEpisodes(none > 0, none > 0, none, none, step_score, none[..., None])


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
def test_ranges_grow_with_the_score():
    go2 = load("Go2JoystickFlat", "cpu", 1)
    curriculum = randomization_curriculum(go2, DomainRandomization(), threshold=0.8)
    draw = jit(lambda dynamics: dynamics(jax.random.key(1)).dynamics)

    @dataclasses.dataclass
    class Holder:
        """The part of environments that a curriculum replaces, without the robots."""

        env: Env
        dynamics: DynamicsSampler

    def widths(holder):
        noise = holder.env
        late = noise.env
        push = late.env
        ranges = (noise.level, late.high, push.velocity, push.env.high)
        return [float(jnp.max(jnp.asarray(x))) for x in ranges], draw(holder.dynamics)

    full = [1.0, 0.01, 0.3, 0.02]
    level, holder = curriculum.init(Holder(*randomize(go2, DomainRandomization())))
    nominal = widths(holder)[1]
    assert float(level) == 0.0 and widths(holder)[0] == [0.0] * 4
    level, same = curriculum.update(level, holder, scores([[0.9, 0.68]]))
    assert float(level) == 0.0 and widths(same)[0] == [0.0] * 4
    level, grown = curriculum.update(level, holder, scores([[0.9, jnp.nan], [0.71, jnp.nan]]))
    np.testing.assert_allclose(float(level), INCREMENT)
    np.testing.assert_allclose(widths(grown)[0], INCREMENT * np.array(full), rtol=1e-5)
    level, grown = curriculum.update(level, grown, scores([[jnp.nan]]))
    np.testing.assert_allclose(float(level), INCREMENT)
    _, whole = curriculum.update(jnp.asarray(1.0), grown, scores([[0.9]]))
    np.testing.assert_allclose(widths(whole)[0], full, rtol=1e-6)

    expected = draw(randomize(go2, DomainRandomization())[1])
    assert set(expected) == set(nominal)
    assert any((expected[name] != nominal[name]).any() for name in expected)
    for name, value in widths(whole)[1].items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6)


# A robot of two unknowns


class NoPhysics:
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    substeps = 1

    def where(self, mask, a, b):
        return jax.tree.map(lambda x, y: jnp.where(mask, x, y), a, b)

    def take(self, data, index):
        return jax.tree.map(lambda x: x[index], data)


@struct.dataclass
class Robot:
    """The data and the state at once: `qpos` [2] is its wind and its load, `qvel` [1] the steps of the episode."""

    qpos: jax.Array
    qvel: jax.Array


@struct.dataclass
class Windy:
    """The score is 1 less the wind that the action leaves and less the load. Falls at the second step below zero."""

    physics: NoPhysics = struct.field(pytree_node=False, default=NoPhysics())

    @property
    def spec(self):
        action = ActionTable(("a",), (0.0,), (1.0,), (-9.0,), (9.0,))
        return EnvSpec((Term("wind", 1, unit="1"),), (), action, 1.0, float(LIMIT), score="upright")

    def reset(self, key, dynamics):
        state = Robot(dynamics["unknown"], jnp.zeros(1))
        return state, restart({"state": state.qpos[:1]}, {"upright": jnp.zeros(())})

    def step(self, state, action, applied=None):
        wind, load = state.qpos
        score = 1 - jnp.abs(wind + action[0]) - jnp.abs(load)
        state = state.replace(qvel=state.qvel + 1)
        fell = (score < 0) & (state.qvel[0] == 2)
        return state, transition({"state": state.qpos[:1]}, score, fell, {"upright": score})

    def data(self, state):
        return state

    def replace_data(self, state, data):
        return data


@struct.dataclass
class Unknowns:
    """Wind and load within plus and minus `width` [2]."""

    width: jax.Array

    def __call__(self, key):
        draw = jax.random.uniform(key, (2,), minval=-1.0)
        return Draw({"unknown": self.width * draw}, draw)


def against_the_wind():
    """A learner that has learned all it can: it leans against the wind that it observes."""
    policy = Policy(lambda key, obs: (), lambda memory, key, obs, clock: ((-obs["state"], ()), memory))
    return Learner(lambda key, obs, hyper: (), lambda state: policy, lambda state, key, batch: (state, {}), None)


def range_curriculum(threshold, increment):
    """Each range grows where the episodes in its outer half scored well. Its level is [2]."""

    def apply(level, envs):
        return level, envs.replace(dynamics=Unknowns(level))

    def update(level, envs, outcomes):
        whole = (outcomes.ended & ~outcomes.cut_off)[..., None]
        outer = whole & (jnp.abs(outcomes.extrinsics) > 0.5)  # [T, B, 2]
        mean = jnp.sum(jnp.where(outer, outcomes.score[..., None], 0.0), axis=(0, 1)) / jnp.sum(outer, axis=(0, 1))
        return apply(jnp.where(mean > threshold, jnp.minimum(level + increment, 1.0), level), envs)

    return Curriculum(lambda envs: apply(jnp.full(2, 0.1), envs), update)


def test_what_ended_is_told_one_by_one_with_its_draw_and_its_score():
    """Against a plain loop over the steps."""
    envs, policy = vectorize(Windy(), 8, Unknowns(jnp.asarray([0.5, 1.6])), pool_size=64), against_the_wind().act(())

    @jit
    def run(key):
        acting = start(policy, envs.init(key)[0], key)
        acting, *_ = collect(policy, envs, acting, key, LIMIT)
        return collect(policy, envs, acting, jax.random.fold_in(key, 1), 12)

    _, rollout, _, outcomes = jax.device_get(run(jax.random.key(0)))
    np.testing.assert_array_equal(outcomes.ended, rollout.terminated | rollout.truncated)
    np.testing.assert_array_equal(outcomes.step_score, rollout.reward)
    np.testing.assert_array_equal(outcomes.extrinsics, rollout.obs["extrinsics"])
    assert rollout.terminated.any() and rollout.truncated.any()
    # After the first five steps all first episodes, which are staggered, have ended.
    for b in range(8):
        ends = np.flatnonzero(outcomes.ended[:, b])
        assert not outcomes.cut_off[ends[1:], b].any()
        for begin, end in zip(ends[:-1] + 1, ends[1:], strict=True):
            steps = slice(begin, end + 1)
            assert outcomes.length[end, b] == end + 1 - begin == (2 if rollout.terminated[end, b] else LIMIT)
            np.testing.assert_allclose(outcomes.score[end, b], rollout.reward[steps, b].mean(), rtol=1e-5, atol=1e-6)
            load = 1.6 * outcomes.extrinsics[end, b, 1]
            np.testing.assert_allclose(outcomes.score[end, b], 1 - abs(load), rtol=1e-5, atol=1e-6)


def test_first_episodes_are_marked_as_cut_off():
    envs, policy = vectorize(Windy(), 32, Unknowns(jnp.zeros(2))), against_the_wind().act(())
    acting = start(policy, envs.init(jax.random.key(0))[0], jax.random.key(0))
    *_, outcomes = jit(lambda acting: collect(policy, envs, acting, jax.random.key(1), LIMIT))(acting)
    ended, cut_off, length = (np.asarray(x) for x in (outcomes.ended, outcomes.cut_off, outcomes.length))
    assert (ended.sum(axis=0) == 1).all()
    np.testing.assert_array_equal(cut_off[ended], length[ended] < LIMIT)
    assert 0 < cut_off.sum() < 32


def test_a_curriculum_raises_only_levels_above_the_threshold():
    """The policy bears any wind, and a load of a quarter."""
    curriculum = range_curriculum(threshold=0.8, increment=0.05)
    envs = vectorize(Windy(), 128, Unknowns(jnp.zeros(2)), pool_size=128)
    runner = on_policy(against_the_wind(), envs, LIMIT, curriculum)
    state, step = jit(runner.init)(jax.random.key(0), ()), jit(runner.step)
    for _ in range(40):
        state, _ = step(state)
    wind, load = np.asarray(state.curriculum)
    # Loads in the outer half of a range of w are 0.75 w on average, which costs 0.2 at 0.27.
    assert wind == 1.0 and 0.2 < load < 0.4
    np.testing.assert_array_equal(state.envs.dynamics.width, state.curriculum)
    assert step._cache_size() == 1
