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
from mjx_policies.evaluation.outcomes import judge

ROBOTS = 12
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


@pytest.mark.parametrize(("name", "seconds"), [("Pendulum", 1.0), ("CartpoleSwingup", 2.0), ("Go2Getup", 2.0)])
def test_doing_nothing_succeeds_only_where_it_ends_upright(name, seconds):
    """Nobody ever falls in these tasks, so that survival would be a success of all. A Go2 may land on its feet."""
    task = load(name, "cpu", ROBOTS)
    envs = vectorize(task, ROBOTS)

    def play(key):
        zero = jnp.zeros(task.spec.action.size)
        record = lambda state, action: task.data(state.envs).qpos  # noqa: E731
        return run_episodes(envs, lambda obs: zero, key, record, task.spec.criteria)

    episodes = jax.device_get(jax.jit(play, compiler_options=FAST)(jax.random.key(0)))
    found = judge(episodes, task.spec)
    assert found.goal == "success" and not found.failed.any() and found.achieved.mean() < 0.7
    # What is recorded at the last step belongs to the next episode already.
    last = episodes.recording[-round(seconds / task.spec.control_dt) : -1]  # [T, B, nq]
    expected = [all(stands_up(task.physics.model, pose) for pose in last[:, b]) for b in range(ROBOTS)]
    np.testing.assert_array_equal(found.achieved, expected)
    assert name != "Go2Getup" or found.achieved.any(), "the check would show nothing"
