"""Rollouts of the on-policy runner, on an environment that counts. Axes: T time, B environments."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.actor import actor
from mjx_policies.agents.base import Curriculum, Learner
from mjx_policies.agents.critic import critic
from mjx_policies.agents.on_policy import on_policy
from mjx_policies.agents.ppo import ppo
from mjx_policies.agents.ppo_config import PPOConfig, PPOHyper
from mjx_policies.envs.vectorize import vectorize
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.networks.flat import Flat
from mjx_policies.networks.mlp import MLP
from mjx_policies.policy import Policy, stateless
from mjx_policies.training.trees import from_host, to_host

T, B = 6, 4
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # programs that run a few times


def recorder():
    """A learner whose state becomes the rollout that it is given; it acts with what it observes, times ten."""

    def act(memory, key, obs, clock):
        return (10 * obs["state"][:1] + obs["state"][1:], {"draw": jax.random.uniform(key)}), memory

    return Learner(
        init=lambda key, obs, hyper: {"example": obs, "hyper": hyper},
        act=lambda state: Policy(lambda key, obs: (), act),
        update=lambda state, key, rollout: ({"rollout": rollout, "key": key}, {"known": jnp.ones(())}),
        policy=lambda state: stateless(lambda obs: obs["state"]),
    )


@pytest.fixture(scope="module")
def recorded(counting):
    """The runner's state before and after one step, and what was reported."""
    runner = on_policy(recorder(), vectorize(counting.Counting(), B), T)
    state = jit(runner.init)(jax.random.key(0), 7.0)
    after, info = jit(runner.step)(state)
    assert runner.steps_per_iteration == T * B
    return state, after, info


@pytest.fixture(scope="module")
def rollout(recorded):
    return jax.tree.map(np.asarray, recorded[1].learner["rollout"])


def test_the_learner_begins_with_one_example(recorded):
    state, _, _ = recorded
    assert state.learner["example"]["state"].shape == (2,) and float(state.learner["hyper"]) == 7.0


def test_actions_belong_to_the_observation_they_stand_beside(recorded, rollout):
    state, _, _ = recorded
    np.testing.assert_array_equal(rollout.obs["state"][0], state.envs.obs["state"])
    steps, draw = np.moveaxis(rollout.obs["state"], -1, 0)
    np.testing.assert_allclose(rollout.action[..., 0], 10 * steps + draw, rtol=1e-6)
    np.testing.assert_array_equal(rollout.reward, rollout.action[..., 0])
    assert rollout.action.shape == (T, B, 1) and rollout.reward.dtype == np.float32


def test_each_step_leads_to_its_final_observation(rollout):
    steps, draw = np.moveaxis(rollout.obs["state"], -1, 0)
    final_steps, final_draw = np.moveaxis(rollout.final_obs["state"], -1, 0)
    np.testing.assert_array_equal(final_steps, steps + 1)
    np.testing.assert_array_equal(final_draw, draw)
    ended = rollout.terminated | rollout.truncated
    after = rollout.obs["state"][1:]
    np.testing.assert_array_equal(after[~ended[:-1]], rollout.final_obs["state"][:-1][~ended[:-1]])
    fresh = after[ended[:-1]]
    assert len(fresh) and (fresh[:, 0] == 0).all() and not np.isin(fresh[:, 1], draw[0]).any(), "no new episode began"
    assert len(np.unique(fresh[:, 1])) == len(fresh), "a reset was assigned twice"


def test_episodes_end_as_the_task_or_the_clock_says(rollout, recorded, counting):
    steps, draw = np.moveaxis(rollout.final_obs["state"], -1, 0)
    np.testing.assert_array_equal(rollout.terminated, (steps == 3) & (draw < 0.5))
    assert not (rollout.terminated & rollout.truncated).any()
    age = np.asarray(recorded[0].envs.steps)  # the first episodes are staggered
    for t in range(T):
        age = age + 1
        np.testing.assert_array_equal(rollout.truncated[t], (age >= counting.LIMIT) & ~rollout.terminated[t])
        age = np.where(rollout.terminated[t] | rollout.truncated[t], 0, age)
    assert rollout.terminated.any() and rollout.truncated.any()


def test_every_action_has_its_own_key(rollout, recorded):
    assert len(np.unique(rollout.extras["draw"])) == T * B
    before, after, _ = recorded
    keys = [jax.random.key_data(key).tolist() for key in (before.key, after.key, after.learner["key"])]
    assert len({tuple(key) for key in keys}) == 3


def test_metrics_are_means_of_what_was_measured(rollout, recorded):
    _, _, info = recorded
    steps = rollout.final_obs["state"][..., 0]
    np.testing.assert_allclose(info["env/even"], steps[steps % 2 == 0].mean(), rtol=1e-6)
    np.testing.assert_allclose(info["env/reward"], rollout.reward.mean(), rtol=1e-6)
    np.testing.assert_allclose(info["env/terminations"], rollout.terminated.mean(), rtol=1e-6)
    assert float(info["env/nan_resets"]) == 0.0 and float(info["known"]) == 1.0


def test_a_curriculum_changes_the_environments_between_rollouts(counting):
    """Its level rises while the policy scores above zero; episodes that begin then are of that level."""

    def apply(level, envs):
        return level, envs.replace(env=envs.env.replace(level=level))

    def raised(level, envs, outcomes):
        return apply(jnp.where(jnp.mean(outcomes.step_score) > 0, level + 1, level), envs)

    curriculum = Curriculum(init=lambda envs: apply(jnp.zeros(()), envs), update=raised)
    learner = recorder()._replace(init=lambda key, obs, hyper: hyper, update=lambda state, key, rollout: (state, {}))
    learner = learner._replace(act=lambda state: stateless(lambda obs: (state[None], ())))
    runner = on_policy(learner, vectorize(counting.Counting(), B), T, curriculum)
    step = jit(runner.step)
    for reward in (1.0, -1.0):
        state = jit(runner.init)(jax.random.key(0), jnp.asarray(reward))
        levels = []
        for _ in range(3):
            state, info = step(state)
            levels.append(float(info["env/level"]))
        assert float(state.curriculum) == float(state.envs.env.level) == (3.0 if reward > 0 else 0.0)
        # Episodes last five steps at most, so that all of the second rollout's end within the third.
        assert levels[0] == 0.0 and (1.0 < levels[2] <= 2.0 if reward > 0 else levels[2] == 0.0)


@pytest.fixture(scope="module")
def trained(counting):
    """A runner of PPO, compiled: `init(key, poison)` and `step`."""
    network = actor(Flat(), gaussian_head(MLP((4, 1)), 1))
    learner = ppo(network, critic(MLP((4, 1))), PPOConfig(num_epochs=1, num_minibatches=2))
    runner = on_policy(learner, vectorize(counting.Counting(), B), T)

    def init(key, poison):
        state = runner.init(key, PPOHyper())
        return state.replace(envs=state.envs.replace(env=counting.Counting(level=jnp.zeros(()), poison=poison)))

    return jit(init), jit(runner.step)


def test_a_run_resumes_bit_for_bit(trained):
    init, step = trained
    state = init(jax.random.key(3), jnp.asarray(0))
    for i in range(4):
        if i == 2:
            saved = {name: array.copy() for name, array in to_host(state).items()}
        state, info = step(state)
    resumed = from_host(jax.eval_shape(init, jax.random.key(9), jnp.asarray(0)), saved)
    for _ in range(2):
        resumed, info_resumed = step(resumed)
    for name, array in to_host(state).items():
        assert array.tobytes() == to_host(resumed)[name].tobytes(), name
    assert all(float(info[name]) == float(info_resumed[name]) for name in info if not np.isnan(info[name]))


def test_a_robot_that_diverges_teaches_nothing(trained):
    """It leaves the learner as if it had been cut off where it was last well, with no reward."""
    init, step = trained
    learners, resets = [], []
    for poison in (1, 2):
        state = init(jax.random.key(4), jnp.asarray(poison))
        for _ in range(3):
            state, info = step(state)
            resets.append(float(info["env/nan_resets"]))
        learners.append(to_host(state.learner))
    assert sum(resets[:3]) > 0 and sum(resets[3:]) == 0
    for name, array in learners[0].items():
        assert np.isfinite(array).all(), name
        assert array.tobytes() == learners[1][name].tobytes(), name


def test_a_rollout_of_no_steps_is_refused(counting):
    with pytest.raises(ValueError, match="rollout_length is 0, it must be at least 1"):
        on_policy(recorder(), vectorize(counting.Counting(), B), 0)
