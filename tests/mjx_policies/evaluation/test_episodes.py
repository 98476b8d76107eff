"""Whole episodes of environments whose lengths and rewards are known. Axes: T time, B environments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from mjx_policies.evaluation.episodes import run_episodes
from mjx_policies.policy import Policy
from mjx_policies.spec import Criterion
from mjx_policies.types import TimeStep

LIMIT = 6


@struct.dataclass
class ClockState:
    steps: jax.Array  # [B] since the episode began
    total: jax.Array  # [B] since the start


class Clocks:
    """Environment b ends after `lengths[b]` steps, or at the limit; a step gives its number as reward.

    The metric `even` is measured in even steps only, `never` in none, and `late` only in episodes after the first.
    """

    def __init__(self, lengths, leaves=False):
        self.leaves = leaves  # episodes are cut off instead of terminated
        self.lengths = jnp.asarray(lengths)
        self.num_envs = len(lengths)
        self.episode_steps = LIMIT

    def init(self, key, stagger=True):
        assert not stagger, "evaluation needs episodes that begin at their beginning"
        zeros = jnp.zeros(self.num_envs, jnp.int32)
        return ClockState(zeros, zeros), self._timestep(
            zeros, zeros, zeros > 0, zeros > 0, jnp.zeros((self.num_envs, 1))
        )

    def step(self, state, action):
        steps, total = state.steps + 1, state.total + 1
        ended = steps == self.lengths
        terminated = ended & ~jnp.asarray(self.leaves)
        truncated = (ended | (steps == LIMIT)) & ~terminated
        timestep = self._timestep(steps, total, terminated, truncated, action)
        return ClockState(jnp.where(terminated | truncated, 0, steps), total), timestep

    def _timestep(self, steps, total, terminated, truncated, action):
        number = steps.astype(jnp.float32)
        metrics = {
            "even": jnp.where(steps % 2 == 0, number, jnp.nan),
            "never": jnp.full(self.num_envs, jnp.nan),
            "late": jnp.where(total > steps, 1.0, jnp.nan),
            "action": action[:, 0],
        }
        return TimeStep({"state": number[:, None]}, number, terminated, truncated, metrics)


@pytest.fixture(scope="module")
def episodes():
    return run_episodes(
        Clocks([1, 2, 4, 5, 99]),
        lambda obs: 10 * obs["state"],
        jax.random.key(0),
        record=lambda state, action: state.total[0],
        criteria=(Criterion("", "action", 20.0, seconds=1.0), Criterion("", "even", 0.0)),
    )


def test_each_environment_counts_once(episodes):
    """The first environment ends six times while the last ends once: short episodes must not be over-counted."""
    np.testing.assert_array_equal(episodes.length, [1, 2, 4, 5, LIMIT])
    np.testing.assert_array_equal(episodes.terminated, [True, True, True, True, False])
    assert episodes.length.dtype == jnp.int32 and episodes.terminated.dtype == bool


def test_rewards_are_those_of_the_first_episode(episodes):
    np.testing.assert_array_equal(episodes.reward, [n * (n + 1) / 2 for n in (1, 2, 4, 5, LIMIT)])


def test_metrics_are_means_over_the_steps_that_measured_them(episodes):
    np.testing.assert_array_equal(episodes.metrics["even"], [np.nan, 2, 3, 3, 4])
    assert np.isnan(episodes.metrics["never"]).all()
    assert np.isnan(episodes.metrics["late"]).all(), "a later episode was measured"


def test_the_policy_acts_on_the_observation_before_the_step(episodes):
    # Steps 1 to n are taken on the observations 0 to n - 1, of which the action is ten times.
    np.testing.assert_allclose(episodes.metrics["action"], [10 * (n - 1) / 2 for n in (1, 2, 4, 5, LIMIT)])


def test_the_last_value_is_that_of_the_last_step_of_the_first_episode(episodes):
    np.testing.assert_array_equal(episodes.final["even"], [np.nan, 2, 4, np.nan, 6])
    np.testing.assert_array_equal(episodes.final["action"], [0, 10, 30, 40, 50])
    assert np.isnan(episodes.final["late"]).all(), "a later episode was measured"


def test_a_criterion_counts_the_steps_in_a_row_up_to_the_last(episodes):
    assert list(episodes.held) == ["action"], "the other counts on average"
    np.testing.assert_array_equal(episodes.held["action"], [0, 0, 2, 3, 4])
    # In reverse it is broken at the end; a metric that is not measured does not hold.
    falling = (Criterion("", "action", -25.0, seconds=1.0), Criterion("", "never", -1.0, seconds=1.0))
    broken = run_episodes(Clocks([1, 4, 99]), lambda obs: -10 * obs["state"], jax.random.key(0), criteria=falling)
    np.testing.assert_array_equal(broken.held["action"], [1, 0, 0])
    np.testing.assert_array_equal(broken.held["never"], [0, 0, 0])


def test_a_criterion_on_what_is_not_measured_is_refused():
    with pytest.raises(ValueError, match="no metric 'height' to evaluate episodes by; there are even, never, late"):
        run_episodes(Clocks([1]), lambda obs: obs["state"], jax.random.key(0), criteria=(Criterion("", "height", 0.0),))


def test_what_ends_before_its_time_without_the_task_is_cut_off(episodes):
    assert not np.asarray(episodes.cut_off).any(), "terminated, or out of time"
    leaving = run_episodes(Clocks([1, 5, 99], leaves=True), lambda obs: obs["state"], jax.random.key(0))
    np.testing.assert_array_equal(leaving.cut_off, [True, True, False])
    np.testing.assert_array_equal(leaving.terminated, [False, False, False])


def test_the_recording_goes_to_the_time_limit(episodes):
    np.testing.assert_array_equal(episodes.recording, np.arange(1, LIMIT + 1))


# Policies with a memory and samples

HORIZON, N_ACTION_STEPS = 4, 3


def replanning(plan):
    """Executes the first steps of each plan, which counts up from the observation it was made on."""

    def act(plan_now, key, obs, clock):
        plan_now = jax.lax.cond(clock % N_ACTION_STEPS == 0, lambda: plan(obs), lambda: plan_now)
        return plan_now[clock % N_ACTION_STEPS], plan_now

    return Policy(lambda key, obs: jnp.full((HORIZON, 1), jnp.nan), act, N_ACTION_STEPS)


def test_a_plan_is_executed_and_replaced():
    def plan(obs):
        return 100.0 * obs["state"] + jnp.arange(HORIZON)[:, None]

    def record(state, action):
        return action

    ran = run_episodes(Clocks([99, 2]), replanning(plan), jax.random.key(0), record)
    # On the observations 0 and 3 the long episode plans 0, 1, 2 and 300, 301, 302.
    np.testing.assert_array_equal(ran.recording[:, 0, 0], [0, 1, 2, 300, 301, 302])


def test_all_robots_plan_in_the_same_steps_only():
    """Where a plan costs a hundred times a step, planning in every step and throwing plans away would show."""
    plans = []

    def plan(obs):
        jax.debug.callback(lambda: plans.append(1))
        return jnp.zeros((HORIZON, 1))

    jax.block_until_ready(run_episodes(Clocks([99, 2, 5]), replanning(plan), jax.random.key(0)))
    jax.effects_barrier()
    assert len(plans) <= 3 * -(-LIMIT // N_ACTION_STEPS), f"planned {len(plans)} times"


def test_draws_differ_between_steps_and_robots_and_repeat_with_the_key():
    def act(memory, key, obs, clock):
        return memory + jax.random.uniform(key, (1,)), memory

    policy = Policy(lambda key, obs: 10.0 * jax.random.randint(key, (1,), 0, 9), act)
    first, again, other = (
        np.asarray(run_episodes(Clocks([99, 99]), policy, jax.random.key(seed), lambda state, action: action).recording)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other).any()
    assert np.unique(first).size == first.size
    assert (np.ptp(first // 10, axis=0) == 0).all(), "what was drawn at the start of the episode was kept"


def test_a_memory_begins_with_the_first_observation_and_the_clock_with_zero():
    policy = Policy(lambda key, obs: obs["state"] + 7.0, lambda memory, key, obs, clock: (memory + clock, memory + 100))
    ran = run_episodes(Clocks([99, 99]), policy, jax.random.key(0), lambda state, action: action)
    np.testing.assert_array_equal(ran.recording[:, :, 0], np.arange(LIMIT)[:, None] * 101 + np.full(2, 7.0))


def test_without_a_recording_there_is_none():
    assert run_episodes(Clocks([2]), lambda obs: obs["state"], jax.random.key(0)).recording is None
