"""Laws that every task keeps."""

import sys
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.envs.compat import to_gymnasium
from mjx_policies.envs.quadruped.joystick import BRAKING_STEPS, FOOT_RADIUS, SWING_HEIGHT, steps_out, swing_height
from mjx_policies.envs.registry import TASKS, load
from mjx_policies.spec import table_size
from mjx_policies.types import actuator_targets

FAST = {"xla_backend_optimization_level": 0}  # quickly compiled: these programs run for an instant


def jit(function):
    return jax.jit(function, compiler_options=FAST)


@pytest.fixture(scope="module", params=TASKS)
def task(request):
    env = load(request.param, "cpu", num_envs=1)
    return env, jit(jax.vmap(env.reset, in_axes=(0, None))), jit(jax.vmap(env.step))


def test_a_task_matches_its_tables_and_stays_finite(task):
    env, reset, step = task
    state, timestep = reset(jax.random.split(jax.random.key(0), 4), {})
    names = set(sys.modules[type(env).__module__].METRICS)
    assert set(timestep.metrics) == names
    rng = np.random.default_rng(0)
    for _ in range(50):
        state, timestep = step(state, jnp.asarray(rng.normal(size=(4, env.spec.action.size)), jnp.float32))
        assert timestep.obs["state"].shape == (4, table_size(env.spec.observation))
        assert ("privileged" in timestep.obs) == bool(env.spec.privileged)
        if env.spec.privileged:
            assert timestep.obs["privileged"].shape == (4, table_size(env.spec.privileged))
        chex.assert_tree_all_finite((timestep.obs, timestep.reward))
        assert set(timestep.metrics) == names
        assert not timestep.truncated.any()  # time limits are not the task's business


def test_a_task_says_what_success_is(task):
    """By stages or by criteria on what it measures; to survive is none, for doing nothing survives."""
    spec, names = task[0].spec, sys.modules[type(task[0]).__module__].METRICS
    assert bool(spec.stages) != bool(spec.criteria) and ("success" in names) == bool(spec.stages)
    assert {criterion.metric for criterion in spec.criteria} | set(spec.bounded_metrics) <= set(names)
    lasting = all(criterion.seconds is not None for criterion in spec.criteria)
    assert lasting or spec.commands, "commands are tracked on average; what is to be reached has to last"


def test_a_task_starts_alike_from_one_key_and_leaves_its_input_alone(task):
    env, reset, step = task
    keys = jax.random.split(jax.random.key(1), 4)
    state, timestep = reset(keys, {})
    again, _ = reset(keys, {})
    chex.assert_trees_all_equal(state, again)
    assert len(np.unique(np.asarray(timestep.obs["state"]), axis=0)) == 4
    first = step(state, jnp.ones((4, env.spec.action.size)))
    chex.assert_trees_all_equal(state, again)
    chex.assert_trees_all_equal(first, step(state, jnp.ones((4, env.spec.action.size))))


@pytest.mark.filterwarnings("ignore:.*A Box observation space m:UserWarning")  # no sensor has a bound that is known
@pytest.mark.filterwarnings("ignore:.*For Box action spaces, we recommend:UserWarning")  # ours end at joint limits
def test_what_a_task_returns_is_what_gymnasium_expects(task):
    """Its checker sees a reset and a step of the task as they were: to compile the adapter for each takes minutes."""
    pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    env, reset, step = task
    state, first = reset(jax.random.split(jax.random.key(0), 4), {})
    recorded = (state, first), step(state, jnp.zeros((4, env.spec.action.size)))
    start, after = jax.tree.map(lambda x: x[0], recorded)
    told = SimpleNamespace(
        spec=env.spec, physics=env.physics, data=env.data, reset=lambda *_: start, step=lambda *_: after
    )
    adapted = to_gymnasium(told)
    check_env(adapted, skip_render_check=True)
    adapted.reset()
    info = adapted.step(np.zeros(env.spec.action.size, np.float32))[4]
    assert info == {name: value for name, value in after[1].metrics.items() if not np.isnan(value)}


def test_what_reaches_the_motors_is_what_was_applied(task):
    env, reset, _ = task
    state, _ = reset(jax.random.split(jax.random.key(2), 4), {})
    one = jax.tree.map(lambda x: x[0], state)
    action = 0.5 * jnp.ones(env.spec.action.size)
    rows = jnp.broadcast_to(-action, (env.physics.substeps, env.spec.action.size))
    step = jit(env.step)
    applied, _ = step(one, action, rows)
    other, _ = step(one, -action)
    # Two programs may differ in the last bit.
    np.testing.assert_allclose(env.data(applied).qpos, env.data(other).qpos, atol=1e-6)


def test_until_the_first_command_a_robot_keeps_the_targets_it_was_told(task):
    env, reset, _ = task
    state, _ = reset(jax.random.split(jax.random.key(3), 4), {})
    one, table = jax.tree.map(lambda x: x[0], state), env.spec.action
    action = env.hold(one)
    assert action.shape == (table.size,)
    if env.spec.robot == "franka":  # all use the same action space; a hand with a peg is told to close
        told = np.asarray(one.target)
        np.testing.assert_allclose(actuator_targets(table, action), told, atol=1e-6)
        assert np.abs(told - table.default).max() > 0.05, "a zero action would move the arm"
    elif type(env).__name__ == "Go2Getup":
        np.testing.assert_allclose(actuator_targets(table, action), env.data(one).qpos[7:], atol=1e-5)
    else:  # at rest in the default pose, or without any force
        np.testing.assert_array_equal(actuator_targets(table, action), np.float32(table.default))


def test_an_unknown_task_lists_those_there_are():
    with pytest.raises(ValueError, match="unknown task 'Go3'; known tasks: Go2JoystickFlat, Go2JoystickRough"):
        load("Go3")


def test_swinging_feet_follow_half_a_sine_and_diagonals_go_together():
    heights = np.stack([swing_height(jnp.asarray(phase), jnp.asarray(True)) for phase in (0.0, 0.25, 0.5, 0.75)])
    up, down = FOOT_RADIUS + SWING_HEIGHT, FOOT_RADIUS
    expected = [[down] * 4, [up, down, down, up], [down] * 4, [down, up, up, down]]
    np.testing.assert_allclose(heights, expected, atol=1e-6)
    np.testing.assert_allclose(swing_height(jnp.asarray(0.25), jnp.asarray(False)), FOOT_RADIUS)


def test_a_robot_told_to_stand_steps_for_a_second_and_then_stands():
    env = load("Go2JoystickFlat", "cpu", num_envs=1)
    state, _ = jit(env.reset)(jax.random.key(0), {})
    stand = state.replace(command=jnp.zeros(3), command_age=jnp.asarray(BRAKING_STEPS))
    assert not steps_out(stand)
    assert steps_out(stand.replace(command_age=jnp.asarray(BRAKING_STEPS - 1)))
    assert steps_out(stand.replace(command=jnp.asarray([0.1, 0.0, 0.0])))
    held = stand.replace(command_steps=jnp.asarray(1000))
    step, after = jit(env.step), held
    for _ in range(100):  # two seconds, in which this disturbed start comes to rest
        after, timestep = step(after, jnp.zeros(12))
    assert after.phase == held.phase
    np.testing.assert_array_equal(timestep.obs["state"][-2:], 0.0)
    # Standing still as told: both tracking terms are at their maximum of one.
    assert timestep.metrics["track_linear"] > 0.99 and timestep.metrics["track_yaw"] > 0.99


def test_actions_are_chosen_only_where_there_is_a_choice():
    with pytest.raises(ValueError, match="Pendulum has actions of its own; actions can be chosen for FrankaReach, "):
        load("Pendulum", "cpu", actions="pose_delta")
    with pytest.raises(ValueError, match="unknown action space 'torque'; known: joint_target, joint_delta, pose_"):
        load("FrankaReach", "cpu", actions="torque")
