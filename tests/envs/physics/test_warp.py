"""MJX-Warp against the C engine, on Warp's own CPU device: slow to compile, and the same kernels as on a GPU."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.envs.physics import make_physics
from mjx_policies.envs.physics.base import field_template
from mjx_policies.envs.physics.warp import WarpPhysics
from mjx_policies.envs.registry import load
from mjx_policies.envs.vectorize import vectorize


def test_a_missing_package_is_named(monkeypatch, pendulum):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"the warp backend needs warp-lang: pip install 'mjx-policies\[warp\]'"):
        make_physics(pendulum, 0.02, "warp")


def test_nothing_else_is_said_of_a_missing_package():
    """`mujoco.mjx` prints lines where it is imported without it: one module does so, and silences it."""
    root = Path(__file__).parents[3]
    folders = ("agents", "envs", "experiments", "mjx_policies", "randomization")
    files = [path for folder in folders for path in (root / folder).rglob("*.py")]
    importing = [path.name for path in files if "from mujoco import mjx" in path.read_text()]
    assert importing == ["mjx.py"]


def test_what_else_goes_wrong_is_not_a_missing_package(monkeypatch, pendulum):
    def fail(*args, **kwargs):
        raise RuntimeError("no device")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("mujoco.mjx.put_model", fail)
    with pytest.raises(ValueError, match=r"MJX-Warp cannot start here \(no device\): check the versions .* or choose"):
        make_physics(pendulum, 0.02, "warp")


@pytest.fixture(scope="module")
def warp():
    module = pytest.importorskip("warp")
    module.config.quiet = True
    return module


def test_a_model_that_warp_lacks_is_refused(warp):
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><option integrator="implicit"/><worldbody><body><joint/><geom size=".1"/></body></worldbody></mujoco>'
    )
    with pytest.raises(
        ValueError, match=r"MJX-Warp cannot simulate this model \(.*IMPLICIT.*\): choose the backend cpu"
    ):
        make_physics(model, model.opt.timestep, "warp")


@pytest.fixture(scope="module")
def backends(warp, walker):
    """Both backends, three substeps a period."""
    cpu = make_physics(walker, 3 * walker.opt.timestep, "cpu")
    return WarpPhysics(walker, 3, max_contacts=96, max_constraints=64), cpu


@pytest.fixture(scope="module")
def start(walker):
    """Six states with contacts and commands for four periods: qpos, qvel, ctrl [6, T, S, nu]."""
    rng = np.random.default_rng(0)
    qpos = np.tile(walker.qpos0, (6, 1))
    qpos[:, 2] -= rng.uniform(0.02, 0.04, 6)
    qpos[:, 7:] += rng.uniform(-0.2, 0.2, (6, 2))
    qvel = 0.3 * rng.normal(size=(6, walker.nv))
    ctrl = rng.uniform(-0.5, 0.5, (6, 4, 3, walker.nu))
    return tuple(x.astype(np.float32) for x in (qpos, qvel, ctrl))


def roll(physics, qpos, qvel, ctrl, dynamics):  # -> [nq], [nv], [nsensordata]
    data = physics.init(qpos, qvel, dynamics)
    data = jax.lax.scan(lambda data, rows: (physics.step(data, rows, dynamics), None), data, ctrl)[0]
    return data.qpos, data.qvel, data.sensordata


def assert_close(got, expected):
    # A dozen substeps with stiff contacts carry the rounding of float32 (1.2e-7) this far; forces reach 300 N.
    for x, y, atol in zip(got, expected, (1e-5, 1e-3, 1e-2), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=atol)


def test_nested_batches_agree_with_the_c_engine(backends, start):
    inputs = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), start)
    warp, cpu = (jax.jit(jax.vmap(jax.vmap(lambda *x, p=p: roll(p, *x, {}))))(*inputs) for p in backends)
    assert_close(warp, cpu)


def test_replaced_fields_agree_with_the_c_engine(backends, start, walker):
    rng = np.random.default_rng(1)
    fields = {}
    for name in ("geom_friction", "actuator_gainprm", "dof_damping", "opt.gravity"):
        value = field_template(walker, name)
        fields[name] = value * rng.uniform(0.6, 1.6, (6, *value.shape)).astype(np.float32)
    warp, cpu = (jax.jit(jax.vmap(lambda *x, p=p: roll(p, *x)))(*start, fields) for p in backends)
    assert_close(warp, cpu)
    nominal = jax.jit(jax.vmap(lambda *x: roll(backends[1], *x, {})))(*start)
    assert (np.abs(nominal[0] - cpu[0]).max(axis=1) > 1e-4).all(), "the changes should be felt"


def test_a_mask_selects_whole_robots(backends, start):
    physics, _ = backends
    qpos, qvel, ctrl = start
    init = jax.jit(jax.vmap(lambda q, v: physics.init(q, v, {})))
    step = jax.jit(jax.vmap(lambda data, rows: physics.step(data, rows, {})))
    fresh = init(qpos, qvel)
    moved = step(fresh, ctrl[:, 0])
    mask = jnp.arange(6) % 2 == 0
    mixed = jax.jit(jax.vmap(physics.where))(mask, fresh, moved)
    for name in ("qpos", "qvel", "sensordata", "qacc_warmstart"):
        expected = np.where(mask[:, None], getattr(fresh, name), getattr(moved, name))
        np.testing.assert_array_equal(getattr(mixed, name), expected, err_msg=name)
    # Selected robots go on as if nothing had happened to their neighbours.
    again, further, after = (step(data, ctrl[:, 1]).qpos for data in (fresh, moved, mixed))
    np.testing.assert_array_equal(after, np.where(mask[:, None], again, further))


def test_vectorized_episodes_keep_the_shapes_of_their_state(warp):
    num_envs = 3
    envs = vectorize(load("Pendulum", "warp", num_envs), num_envs, episode_seconds=3 * 0.02, pool_size=4)
    init, refresh, step = jax.jit(envs.init), jax.jit(envs.refresh), jax.jit(envs.step)
    state, _ = init(jax.random.key(0))
    expected = state.replace(env=None)  # the task's own numbers are Python's until they go through jit
    state = refresh(state)
    pool, assigned = state.pool, 0
    for _ in range(4):
        chex.assert_trees_all_equal_shapes_and_dtypes(state.replace(env=None), expected)
        state, timestep = step(state, jnp.full((num_envs, 1), 0.5))
        ended = np.flatnonzero(timestep.truncated)
        rows = (assigned + np.arange(len(ended))) % 4
        np.testing.assert_array_equal(timestep.obs["state"][ended], pool[1]["state"][rows])
        np.testing.assert_array_equal(state.envs.data.qpos[ended], pool[0].data.qpos[rows])
        assigned += len(ended)
    assert assigned >= num_envs
