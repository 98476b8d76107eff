"""Success in the tasks that only their time limit ends, against C MuJoCo. Axes: T steps, B robots."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.envs.quadruped.getup import LEAST_HEIGHT, STANDING_HEIGHT
from mjx_policies.envs.registry import load
from mjx_policies.envs.vectorize import vectorize
from mjx_policies.evaluation.episodes import run_episodes
from mjx_policies.evaluation.outcomes import episode_outcomes

ROBOTS = 24
FAST = {"xla_backend_optimization_level": 0}


def stands_up(model, qpos):
    """Whether a pose counts, in the words of the task."""
    if model.nq <= 2:
        return np.cos(qpos[-1]) > np.cos(0.2)
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    imu = data.site("imu")
    return (0.5 * (1 + imu.xmat[8])) ** 2 > 0.95 and imu.xpos[2] > LEAST_HEIGHT * STANDING_HEIGHT


def evaluate(name, seconds):
    """Builds `gain -> whether each robot succeeded, and whether C MuJoCo says so`. A gain catches pendulums."""
    task = load(name, "cpu", ROBOTS)
    envs = vectorize(task, ROBOTS)

    def play(key, gain):
        def act(obs):
            if name != "Pendulum":
                return jnp.zeros(task.spec.action.size)
            cos, sin, velocity = obs["state"]
            return -gain * (5.0 * jnp.arctan2(sin, cos) + 5.0 * velocity)[None]

        return run_episodes(envs, act, key, lambda state, _: task.data(state.envs).qpos, task.spec.criteria)

    play = jax.jit(play, compiler_options=FAST)

    def run(gain=0.0):
        episodes = jax.device_get(play(jax.random.key(0), gain))
        found = episode_outcomes(episodes, task.spec)
        assert found.goal == "success" and not found.failed.any() and not found.cut_off.any()
        # What is recorded at the last step belongs to the next episode already.
        last = episodes.recording[-round(seconds / task.spec.control_dt) : -1]  # [T, B, nq]
        return found.achieved, [all(stands_up(task.physics.model, pose) for pose in last[:, b]) for b in range(ROBOTS)]

    return run


@pytest.mark.parametrize(("name", "seconds"), [("Pendulum", 1.0), ("CartpoleSwingup", 2.0), ("Go2Getup", 2.0)])
def test_doing_nothing_is_no_success(name, seconds):
    """Nobody ever falls in these tasks, so that all of them would survive."""
    run = evaluate(name, seconds)
    achieved, expected = run()
    np.testing.assert_array_equal(achieved, expected)
    assert not achieved.any()
    if name == "Pendulum":
        achieved, expected = run(1.0)
        np.testing.assert_array_equal(achieved, expected)
        assert 0 < achieved.sum() < ROBOTS, "some are caught near the top"
