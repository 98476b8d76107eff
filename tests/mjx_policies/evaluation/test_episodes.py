"""Whole episodes of environments whose lengths and rewards are known. Axes: T time, B environments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from mjx_policies.evaluation.episodes import run_episodes
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

    def __init__(self, lengths):
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
        terminated = steps == self.lengths
        truncated = (steps == LIMIT) & ~terminated
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
        Clocks([1, 2, 4, 5, 99]), lambda obs: 10 * obs["state"], jax.random.key(0), record=lambda state: state.total[0]
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


def test_the_recording_goes_to_the_time_limit(episodes):
    np.testing.assert_array_equal(episodes.recording, np.arange(1, LIMIT + 1))


def test_without_a_recording_there_is_none():
    assert run_episodes(Clocks([2]), lambda obs: obs["state"], jax.random.key(0)).recording is None
