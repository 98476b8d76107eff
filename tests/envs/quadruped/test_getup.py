"""The getup task: starts anywhere, is never over, and pays for standing."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.envs.quadruped.getup import CONTROL_DT, STANDING_HEIGHT, reward_terms
from mjx_policies.envs.quadruped.robot import SOFT_LIMIT, joint_limits
from mjx_policies.envs.registry import load

FAST = {"xla_backend_optimization_level": 0}  # quickly compiled: these programs run for an instant


@pytest.fixture(scope="module")
def task():
    return load("Go2Getup", "cpu", num_envs=1)


@pytest.fixture(scope="module")
def started(task):
    return jax.jit(jax.vmap(lambda key: task.reset(key, {})), compiler_options=FAST)(
        jax.random.split(jax.random.key(0), 300)
    )


def test_robots_start_in_any_orientation_with_joints_within_limits(task, started):
    state, timestep = started
    gravity = np.asarray(timestep.obs["state"])[:, 3:6]
    np.testing.assert_allclose(np.linalg.norm(gravity, axis=1), 1.0, atol=1e-5)
    # On the sphere the mean is zero and each coordinate has variance 1/3: four standard errors of 300 draws.
    np.testing.assert_allclose(gravity.mean(axis=0), np.zeros(3), atol=4 / np.sqrt(3 * 300))
    lower, upper = joint_limits(task.physics.model, SOFT_LIMIT)
    joints = np.asarray(state.data.qpos)[:, 7:]
    assert (joints >= lower).all() and (joints <= upper).all()
    assert (joints.max(axis=0) - joints.min(axis=0) > 0.9 * (upper - lower)).all()


def test_no_robot_starts_in_the_ground(task):
    model = task.physics.model
    draw = jax.jit(jax.vmap(lambda key: task.reset(key, {})[0].data.qpos), compiler_options=FAST)
    stretched = joint_limits(model, SOFT_LIMIT)[1][2]  # a calf at this limit makes its leg longest
    lowest = []
    for qpos in np.asarray(draw(jax.random.split(jax.random.key(1), 3000))):
        data = mujoco.MjData(model)
        data.qpos[:] = qpos
        data.qpos[9::3] = stretched
        mujoco.mj_kinematics(model, data)
        lowest.append(min(lowest_of(model, data, geom) for geom in range(model.ngeom) if model.geom_bodyid[geom]))
    assert 0 <= min(lowest) < 0.03, "no higher than it must be"


def lowest_of(model, data, geom):
    """Height of the lowest point of a geometry."""
    kind, size, z = model.geom_type[geom], model.geom_size[geom], data.geom_xpos[geom][2]
    down = np.abs(data.geom_xmat[geom].reshape(3, 3)[2])
    match mujoco.mjtGeom(kind):
        case mujoco.mjtGeom.mjGEOM_SPHERE:
            return z - size[0]
        case mujoco.mjtGeom.mjGEOM_CAPSULE:
            return z - size[0] - size[1] * down[2]
        case mujoco.mjtGeom.mjGEOM_BOX:
            return z - size @ down
    raise AssertionError(f"no rule for a geometry of type {kind}")


def test_it_is_never_over(task, started):
    state, _ = jax.tree.map(lambda x: x[:20], started)
    step = jax.jit(jax.vmap(task.step), compiler_options=FAST)
    rng = np.random.default_rng(0)
    for _ in range(25):
        state, timestep = step(state, jnp.asarray(rng.normal(size=(20, 12)), jnp.float32))
        assert not timestep.terminated.any() and not timestep.truncated.any()
    assert (np.asarray(timestep.metrics["upright"]) < 0.3).any(), "some of them lie on their backs"


def test_reward_terms_by_hand(task, started):
    state, _ = jax.tree.map(lambda x: x[0], started)
    home = jnp.asarray(task.physics.model.key("home").qpos, jnp.float32)
    data = state.data.replace(qpos=home, qvel=jnp.zeros(18), actuator_force=jnp.zeros(12))
    upright = {"gravity": jnp.asarray([0.0, 0.0, -1.0]), "height": jnp.asarray(STANDING_HEIGHT)}
    terms = reward_terms(task, state, upright, data, jnp.zeros(12))
    best = {"upright": 1, "height": 1, "posture": 1, "still": 1, "action_rate": 0, "torque": 0, "joint_limit": 0}
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(best, abs=1e-6)

    moving = data.replace(
        qpos=home.at[7].add(0.5), qvel=jnp.zeros(18).at[6:8].set(2.0), actuator_force=jnp.full(12, 3.0)
    )
    low = upright | {"height": jnp.asarray(STANDING_HEIGHT / 2)}
    terms = reward_terms(task, state, low, moving, jnp.full(12, 0.5))
    expected = {
        "upright": 1.0,
        "height": 0.5,
        "posture": np.exp(-0.125),
        "still": np.exp(-0.8),
        "action_rate": 3.0,
        "torque": 108.0,
        "joint_limit": 0.0,
    }
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(expected, rel=1e-5)

    # A robot on its side has half of what is upright, squared, and nothing for how high it is or how it holds its legs.
    side = upright | {"gravity": jnp.asarray([0.0, 1.0, 0.0])}
    terms = reward_terms(task, state, side, data, jnp.zeros(12))
    assert terms["upright"] == 0.25 and [float(terms[x]) for x in ("height", "posture", "still")] == [0, 0, 0]


def test_standing_is_counted_and_paid(task):
    home = jnp.asarray(task.physics.model.key("home").qpos, jnp.float32)
    state, _ = task.reset(jax.random.key(0), {})
    step = jax.jit(task.step, compiler_options=FAST)
    state = state.replace(data=task.physics.init(home, jnp.zeros(18), {}))
    for _ in range(10):
        state, timestep = step(state, jnp.zeros(12))
    assert timestep.metrics["standing"] == 1 and timestep.metrics["upright"] > 0.99
    weights = task.weights
    best = CONTROL_DT * (weights.upright + weights.height + weights.posture + weights.still)
    assert 0.9 * best < timestep.reward < best

    turned = home.at[3:7].set(jnp.asarray([0.0, 1.0, 0.0, 0.0]))
    _, timestep = step(state.replace(data=task.physics.init(turned, jnp.zeros(18), {})), jnp.zeros(12))
    assert timestep.metrics["standing"] == 0 and timestep.metrics["upright"] < 0.01
