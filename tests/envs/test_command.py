import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.envs.command import innermost, measured_twist, takes_commands, with_command
from mjx_policies.envs.registry import load
from mjx_policies.randomization import ActionDelay, SensorNoise
from mjx_policies.spec import table_slices


def test_a_command_reaches_the_task_through_its_wrappers_and_stays():
    task = load("Go2JoystickFlat", "cpu", num_envs=1)
    env = SensorNoise(ActionDelay(task, 0.0, 0.02))
    state, _ = jax.jit(env.reset)(jax.random.key(0), {})
    assert takes_commands(state)
    command = jnp.asarray([0.3, -0.1, 0.5])
    state = with_command(state, command)
    step = jax.jit(env.step)
    for _ in range(3):
        state, timestep = step(state, jnp.zeros(12))
        np.testing.assert_array_equal(innermost(state).command, command)
    np.testing.assert_array_equal(timestep.obs["state"][table_slices(task.spec.observation)["command"]], command)
    velocity = timestep.obs["privileged"][table_slices(task.spec.privileged)["linear_velocity"]]
    np.testing.assert_allclose(measured_twist(env, state)[:2], velocity[:2], atol=1e-6)  # one compiled, one not


def test_a_task_without_commands_says_so():
    env = ActionDelay(load("Pendulum", "cpu", num_envs=1), 0.0, 0.0)
    state, _ = env.reset(jax.random.key(0), {})
    assert not takes_commands(state)
    with pytest.raises(ValueError, match="PendulumState has no command"):
        with_command(state, jnp.zeros(3))
