"""The recorder on the smallest task with an expert."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.chunking import receding_horizon
from mjx_policies.envs.experts.obstacle2d import obstacle2d_expert
from mjx_policies.envs.registry import load
from mjx_policies.experiments.collection.demonstrators import (
    dagger_demonstrator,
    expert_demonstrator,
    takeover_demonstrator,
)
from mjx_policies.experiments.collection.rollouts import make_recorder, to_episodes

SEEDS = np.arange(100, 164)


@pytest.fixture(scope="module")
def task():
    return load("Obstacle2D", "cpu", num_envs=64)


@pytest.fixture(scope="module")
def expert(task):
    return obstacle2d_expert(task)


@pytest.fixture(scope="module")
def record(task, expert):
    return make_recorder(task, expert_demonstrator(expert))


@pytest.fixture(scope="module")
def rollouts(record):
    return jax.device_get(record(SEEDS))


@pytest.fixture(scope="module")
def episodes(task, expert, rollouts):
    return to_episodes(rollouts, "Obstacle2D")


def test_an_episode_goes_on_for_half_a_second_after_success(task, rollouts):
    """The time of success, taken from the positions alone."""
    goal = rollouts.observation["state"][0, :, -2:]
    near = np.linalg.norm(rollouts.qpos - goal, axis=-1) < 0.1
    for b in np.flatnonzero(rollouts.success):
        held = np.convolve(near[1:, b], np.ones(5))[4:] == 5  # five periods of 0.1 s in a row
        solved = np.flatnonzero(held)[0] + 5
        assert rollouts.length[b] == min(solved + 5, 40)


def test_an_episode_is_what_happens_when_its_actions_are_executed_again(task, episodes):
    episode = episodes[0]
    reset = jax.random.split(jax.random.key(episode.seed), 4)[1]
    state, timestep = task.reset(reset, {})
    step = jax.jit(task.step)
    for t, action in enumerate(episode.action):
        np.testing.assert_allclose(timestep.obs["state"], episode.observation["state"][t], atol=1e-5)
        state, timestep = step(state, action)
        assert timestep.reward == pytest.approx(episode.reward[t], abs=1e-5)
    np.testing.assert_allclose(timestep.obs["state"], episode.final_observation["state"], atol=1e-5)
    assert timestep.metrics["success"] == 1 and episode.success and not episode.terminated


def test_a_rollout_depends_on_its_seed_alone(record, rollouts):
    other = jax.device_get(record(SEEDS[5:8]))
    np.testing.assert_array_equal(other.length, rollouts.length[5:8])
    for b in range(3):
        steps = other.length[b]
        np.testing.assert_allclose(other.action[:steps, b], rollouts.action[:steps, 5 + b], atol=1e-5)


def test_only_successes_are_kept_unless_failures_are_asked_for(expert, rollouts):
    lost = dataclasses.replace(
        rollouts,
        success=np.where(np.arange(64) == 3, False, rollouts.success),
        diverged=np.arange(64) == 4,
    )
    kept = to_episodes(lost, "task")
    assert {103, 104}.isdisjoint(e.seed for e in kept) and all(e.success for e in kept)
    every = to_episodes(lost, "task", failures=True)
    assert len(every) == 63 and not next(e for e in every if e.seed == 103).success


def test_labels_are_what_was_meant(expert, rollouts):
    executed = to_episodes(rollouts, "task")[0]
    meant = to_episodes(rollouts, "task", labels=True)[0]
    difference = np.abs(executed.action - meant.action)
    assert 0 < difference.mean() < 0.1


def test_a_diverged_rollout_is_nobodys(task, expert):
    """A state that is not finite ends its own rollout, and no other."""
    demonstrator = expert_demonstrator(expert)

    def act(carry, state, obs, key, step):
        action, label, carry = demonstrator.act(carry, state, obs, key, step)
        return jnp.where(state.data.qpos[1] > 0.3, jnp.nan, action), label, carry

    rollouts = jax.device_get(make_recorder(task, demonstrator._replace(act=act))(SEEDS[:16]))
    left = rollouts.strategy == 0
    np.testing.assert_array_equal(rollouts.diverged, left)
    assert rollouts.success[~left].all() and not rollouts.success[left].any()
    assert len(to_episodes(rollouts, "task", failures=True)) == (~left).sum()


def test_a_task_without_success_has_no_demonstrations(expert):
    with pytest.raises(ValueError, match="task with stages"):
        make_recorder(load("Pendulum", "cpu", num_envs=1), expert_demonstrator(expert))


def test_dagger_records_labels_where_the_policy_went(task, expert):
    """A policy that always drives right, to the wall: the labels lead back to the goal."""
    policy = lambda obs: jnp.asarray([0.0, -1.0])  # noqa: E731
    rollouts = jax.device_get(make_recorder(task, dagger_demonstrator(expert, policy))(SEEDS[:8]))
    assert not rollouts.success.any() and (rollouts.action == policy(None)).all()
    assert rollouts.qpos[-1, :, 1].max() < -0.9
    assert (rollouts.label[20:, :, 0] > 0.3).all()  # the way to the goal is free


def test_a_policy_that_plans_acts_as_in_its_evaluation(task, expert):
    """Chunks of three: the observation of the third step before, told apart by its position."""

    def plan(key, seen):
        del key
        return jnp.tile(seen["state"][-1, :2], (3, 1))

    policy = receding_horizon(plan, (3, 2), n_action_steps=3)
    rollouts = jax.device_get(make_recorder(task, dagger_demonstrator(expert, policy))(SEEDS[:4]))
    seen = rollouts.observation["state"][:-1, :, :2]
    for b, length in enumerate(rollouts.length):
        when = np.arange(length) // 3 * 3
        np.testing.assert_allclose(rollouts.action[:length, b], seen[when, b], atol=1e-6)


def test_following_the_labels_succeeds_from_where_a_poor_policy_led(task, expert):
    """A policy that errs at random for a second, then does what the labels say."""

    def act(carry, state, obs, key, step):
        label = expert.label(state)
        astray = carry < 10
        return jnp.where(astray, jax.random.uniform(key, (2,), minval=-1.0), label), label, carry + 1

    demonstrator = expert_demonstrator(expert)._replace(
        init=lambda key, state, obs: jnp.zeros((), jnp.int32), act=act, strategy=lambda carry: jnp.zeros((), jnp.int32)
    )
    rollouts = make_recorder(task, demonstrator, seconds=6.0)(SEEDS)
    assert rollouts.success.mean() == 1.0 and not rollouts.terminated.any()


def test_mixing_lets_the_expert_act_in_a_portion_of_the_episodes(task, expert):
    policy = lambda obs: jnp.zeros(2)  # noqa: E731
    rollouts = make_recorder(task, dagger_demonstrator(expert, policy, mixing=0.5))(SEEDS)
    assert 0.3 < rollouts.success.mean() < 0.7
    with pytest.raises(ValueError, match="mixing is"):
        dagger_demonstrator(expert, policy, 1.5)


def test_an_expert_takes_over_and_shows_how_to_go_on(task, expert):
    """From where a policy that always drives left had led, at steps all over the first second and a half."""
    policy = lambda obs: jnp.asarray([0.0, 0.5])  # noqa: E731
    rollouts = jax.device_get(make_recorder(task, takeover_demonstrator(expert, policy, 15), seconds=6.0)(SEEDS))
    assert rollouts.begin.min() < 3 and rollouts.begin.max() == 14 and rollouts.success.mean() > 0.9
    for b, begin in enumerate(rollouts.begin):
        assert (rollouts.action[:begin, b] == policy(None)).all()
        after = slice(begin, rollouts.length[b])
        np.testing.assert_array_equal(rollouts.action[after, b], rollouts.label[after, b])
    episodes = to_episodes(rollouts, "Obstacle2D")
    kept = np.flatnonzero(rollouts.success)
    assert [len(episode) for episode in episodes] == list((rollouts.length - rollouts.begin)[kept])
    first, b = episodes[0], kept[0]
    np.testing.assert_array_equal(first.observation["state"][0], rollouts.observation["state"][rollouts.begin[b], b])
    with pytest.raises(ValueError, match="steps is 0"):
        takeover_demonstrator(expert, policy, 0)
