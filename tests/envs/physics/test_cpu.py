"""The C engine behind the callback, against a plain loop of `mj_step`. Axes: T control periods, S substeps."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.envs.physics import make_physics
from mjx_policies.envs.physics.base import field_template
from mjx_policies.envs.physics.cpu import OUTPUT_FIELDS, STATE_FIELDS, CpuPhysics

FAILURE = (jax.errors.JaxRuntimeError, ValueError)  # which of them JAX makes of an error in a callback is up to JAX


def c_model(model, fields):
    """The model with these fields set, as float32, and the constants that follow from them."""
    model = copy.copy(model)
    for name, value in fields.items():
        owner, attribute = (model.opt, name[4:]) if name.startswith("opt.") else (model, name)
        nominal = getattr(owner, attribute).copy()
        # What was not changed keeps its float64 value.
        getattr(owner, attribute)[...] = np.where(value == nominal.astype(np.float32), nominal, value)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def c_loop(model, qpos, qvel, ctrl):  # [nq], [nv], [T, S, nu]
    """`mj_step` in a loop, the state rounded to float32 between control periods as the interface does."""
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(model, data)
    for rows in ctrl:
        for name in STATE_FIELDS:
            if name != "time":
                getattr(data, name)[...] = getattr(data, name).astype(np.float32)
        data.time = np.float32(data.time)
        for row in rows:
            data.ctrl[:] = row
            mujoco.mj_step(model, data)
    return {name: np.float32(getattr(data, name)) for name in (*STATE_FIELDS, *OUTPUT_FIELDS)}


def roll(physics, qpos, qvel, ctrl, dynamics):  # [nq], [nv], [T, S, nu]
    data = physics.init(qpos, qvel, dynamics)
    return jax.lax.scan(lambda data, rows: (physics.step(data, rows, dynamics), None), data, ctrl)[0]


def random_walk(model, num, periods, substeps, seed=0):
    """Inputs of `roll`: [num, ...] initial states on the ground and commands that change in every substep."""
    rng = np.random.default_rng(seed)
    qpos = np.tile(model.qpos0, (num, 1))
    qpos[:, 2] -= rng.uniform(0.02, 0.06, num)
    qpos[:, 7:] += rng.uniform(-0.5, 0.5, (num, model.nq - 7))
    qvel = rng.normal(size=(num, model.nv))
    ctrl = rng.uniform(-1, 1, (num, periods, substeps, model.nu))
    return tuple(x.astype(np.float32) for x in (qpos, qvel, ctrl))


def test_cpu_is_mj_step_in_a_loop(walker):
    physics = CpuPhysics(walker, 5, OUTPUT_FIELDS)
    inputs = random_walk(walker, 20, periods=4, substeps=5)
    result = jax.jit(jax.vmap(lambda *x: roll(physics, *x, {})))(*inputs)
    for i, start in enumerate(zip(*inputs, strict=True)):
        expected = c_loop(physics.model, *start)
        for name, value in expected.items():
            # Both are the same float64 numbers, rounded once.
            np.testing.assert_array_equal(np.asarray(getattr(result, name))[i], value, err_msg=f"{name} of row {i}")
    assert len({row.tobytes() for row in np.asarray(result.qpos)}) == 20


def test_each_row_of_controls_acts_during_its_substep(pendulum):
    physics = CpuPhysics(pendulum, 3)
    ctrl = jnp.eye(3)[:, :, None]  # a pulse in the first, second and third substep
    step = jax.vmap(lambda rows: roll(physics, jnp.zeros(1), jnp.zeros(1), rows[None], {}))
    first, second, third = (np.float64(x) for x in np.asarray(step(ctrl).qpos)[:, 0])
    free = np.float64(step(jnp.zeros((1, 3, 1))).qpos[0, 0])
    # A pulse adds nearly the same velocity whenever it comes, and displacement for each step from then on.
    np.testing.assert_allclose([(second - free) / (third - free), (first - free) / (third - free)], [2, 3], rtol=0.02)


def test_init_does_not_depend_on_what_the_engine_did_before(walker):
    physics = CpuPhysics(walker, 2, ("sensordata", "xpos", "actuator_force"))
    qpos, qvel, _ = random_walk(walker, 3, periods=1, substeps=2)
    init = jax.vmap(lambda q, v: physics.init(q, v, {}))
    fresh = jax.device_get(init(qpos, qvel))
    assert np.abs(fresh.xpos).max() > 0.1, "the very first call already reads derived fields"
    jax.block_until_ready(jax.vmap(lambda d: physics.step(d, jnp.ones((2, 2)), {}))(init(qpos, qvel)))
    chex.assert_trees_all_equal(jax.device_get(init(qpos, qvel)), fresh)
    model, data = walker, mujoco.MjData(walker)
    data.qpos[:], data.qvel[:] = qpos[1], qvel[1]
    mujoco.mj_forward(model, data)
    np.testing.assert_array_equal(fresh.sensordata[1], data.sensordata.astype(np.float32))


def test_mocap_bodies_start_where_the_model_puts_them(walker):
    physics = CpuPhysics(walker, 1)
    data = physics.init(jnp.asarray(walker.qpos0, jnp.float32), jnp.zeros(walker.nv), {})
    np.testing.assert_array_equal(data.mocap_pos, [[0, 0, 1]])
    np.testing.assert_array_equal(data.mocap_quat, [[1, 0, 0, 0]])


def test_nested_vmap_jit_and_scan_equal_a_loop(walker):
    physics = CpuPhysics(walker, 2)
    qpos, qvel, ctrl = random_walk(walker, 6, periods=3, substeps=2)

    def nested(x):
        return x.reshape(2, 3, *x.shape[1:])

    single = [roll(physics, q, v, u, {}) for q, v, u in zip(qpos, qvel, ctrl, strict=True)]
    looped = jax.tree.map(lambda *rows: np.stack(rows), *single)
    double = jax.jit(jax.vmap(jax.vmap(lambda *x: roll(physics, *x, {}))))(nested(qpos), nested(qvel), nested(ctrl))
    chex.assert_trees_all_equal(jax.tree.map(lambda x: np.asarray(x).reshape(6, *x.shape[2:]), double), looped)


def test_what_is_shared_by_a_batch_is_broadcast(walker):
    physics = CpuPhysics(walker, 2)
    qpos, qvel, ctrl = random_walk(walker, 3, periods=1, substeps=2)
    gravity = jnp.asarray([[0.0, 0.0, -1.0], [0.0, 1.0, -9.0]])

    def run(qpos, gravity):
        return roll(physics, qpos, qvel[0], ctrl[0], {"opt.gravity": gravity}).qpos

    result = jax.vmap(jax.vmap(run, in_axes=(None, 0)), in_axes=(0, None))(qpos, gravity)
    expected = [
        [c_loop(c_model(walker, {"opt.gravity": g}), q, qvel[0], ctrl[0])["qpos"] for g in gravity] for q in qpos
    ]
    np.testing.assert_array_equal(result, expected)


def test_a_mask_selects_whole_robots(walker):
    physics = CpuPhysics(walker, 1)
    qpos, qvel, _ = random_walk(walker, 4, periods=1, substeps=1)
    data = jax.vmap(lambda q, v: physics.init(q, v, {}))(qpos, qvel)
    other = jax.tree.map(lambda x: x + 1, data)
    mask = np.array([True, False, False, True])
    chosen = jax.vmap(physics.where)(mask, data, other)
    expected = jax.tree.map(lambda a, b: np.stack([a[i] if m else b[i] for i, m in enumerate(mask)]), data, other)
    chex.assert_trees_all_equal(chosen, expected)


def test_a_batch_size_has_one_engine_and_one_trace(walker):
    physics = CpuPhysics(walker, 2)
    step = jax.jit(chex.assert_max_traces(lambda d, u: jax.vmap(lambda d, u: physics.step(d, u, {}))(d, u), n=1))
    for num in (3, 5):
        qpos, qvel, ctrl = random_walk(walker, num, periods=6, substeps=2)
        data = jax.vmap(lambda q, v: physics.init(q, v, {}))(qpos, qvel)
        if num == 3:
            for t in range(6):
                data = jax.block_until_ready(step(data, ctrl[:, t]))
    assert {key: len(engines) for key, engines in physics._idle.items()} == {(3, ()): 1, (5, ()): 1}


def test_two_threads_never_share_an_engine(walker):
    physics = CpuPhysics(walker, 2)
    inputs = [random_walk(walker, 4, periods=60, substeps=2, seed=seed) for seed in (1, 2)]
    programs = [jax.jit(jax.vmap(lambda *x: roll(physics, *x, {}))).lower(*start).compile() for start in inputs]
    expected = [jax.device_get(run(*start)) for run, start in zip(programs, inputs, strict=True)]
    together = threading.Barrier(2)

    def work(run, start):
        results = []
        for _ in range(10):
            together.wait(timeout=300)
            results.append(jax.device_get(run(*start)))
        return results

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(work, run, start) for run, start in zip(programs, inputs, strict=True)]
        for future, wanted in zip(futures, expected, strict=True):
            for result in future.result(timeout=300):
                chex.assert_trees_all_equal(result, wanted)
    assert 1 <= len(physics._idle[4, ()]) <= 2
    # Whether they met above is up to the scheduler; taken by hand, three engines are three.
    engines = [physics._checkout(4, ()) for _ in range(3)]
    assert engines[0] is not engines[1] is not engines[2] is not engines[0]


def changed(model, field, seed=0):
    """The field with each number that is not zero scaled by a different factor."""
    value = field_template(model, field)
    return value * np.random.default_rng(seed).uniform(0.6, 1.6, value.shape).astype(np.float32)


FELT = (  # by a robot that falls, walks and lies
    *("body_mass", "body_inertia", "body_ipos", "body_pos", "geom_friction", "opt.gravity"),
    *("dof_damping", "dof_armature", "dof_frictionloss", "actuator_gainprm", "actuator_biasprm"),
)


@pytest.mark.parametrize("field", FELT)
def test_a_replaced_field_is_the_same_robot_in_c(walker, field):
    physics = CpuPhysics(walker, 4, ("sensordata",))
    qpos, qvel, ctrl = random_walk(walker, 2, periods=5, substeps=4, seed=3)
    value = changed(walker, field)
    rows = np.stack([field_template(walker, field), value])  # a nominal robot and a changed one in one batch
    result = jax.vmap(lambda q, v, u, x: roll(physics, q, v, u, {field: x}))(qpos, qvel, ctrl, rows)
    for i, fields in enumerate(({}, {field: value})):
        expected = c_loop(c_model(physics.model, fields), qpos[i], qvel[i], ctrl[i])
        for name in ("qpos", "qvel", "sensordata"):
            np.testing.assert_array_equal(getattr(result, name)[i], expected[name], err_msg=f"{name} of row {i}")
    nominal = c_loop(physics.model, qpos[1], qvel[1], ctrl[1])
    assert (nominal["qpos"] != np.asarray(result.qpos[1])).any(), "the change should be felt"


def test_zero_change_is_the_nominal_robot_bit_for_bit(walker):
    physics = CpuPhysics(walker, 3, OUTPUT_FIELDS)
    start = random_walk(walker, 2, periods=4, substeps=3)
    fields = ("body_mass", "body_inertia", "body_ipos", "geom_friction", "actuator_gainprm", "opt.gravity")
    zero = {name: jnp.asarray(field_template(walker, name)) for name in fields}
    run = jax.vmap(lambda q, v, u, dynamics: roll(physics, q, v, u, dynamics), in_axes=(0, 0, 0, None))
    nominal = jax.device_get(run(*start, {}))
    chex.assert_trees_all_equal(jax.device_get(run(*start, zero)), nominal)
    # The same engine, after it has been another robot.
    run(*start, {name: jnp.asarray(changed(walker, name)) for name in fields})
    chex.assert_trees_all_equal(jax.device_get(run(*start, zero)), nominal)


def test_only_the_redrawn_robot_changes(walker):
    physics = CpuPhysics(walker, 2)
    qpos, qvel, ctrl = random_walk(walker, 3, periods=2, substeps=2)
    mass = np.stack([changed(walker, "body_mass", seed) for seed in (1, 2, 3)])
    run = jax.jit(jax.vmap(lambda q, v, u, m: roll(physics, q, v, u, {"body_mass": m}).qpos))
    before = np.asarray(run(qpos, qvel, ctrl, mass))
    mass[1] = changed(walker, "body_mass", 4)
    after = np.asarray(run(qpos, qvel, ctrl, mass))
    assert [(a == b).all() for a, b in zip(before, after, strict=True)] == [True, False, True]
    expected = c_loop(c_model(walker, {"body_mass": mass[1]}), qpos[1], qvel[1], ctrl[1])
    np.testing.assert_array_equal(after[1], expected["qpos"])


def test_nan_stays_in_its_own_row(walker, elsewhere):
    physics = CpuPhysics(walker, 2)
    qpos, qvel, ctrl = random_walk(walker, 4, periods=3, substeps=2)
    run = jax.jit(jax.vmap(lambda *x: roll(physics, *x, {})))
    well = jax.device_get(run(qpos, qvel, ctrl))
    sick = qvel.copy()
    sick[2, 6] = np.nan
    for _ in range(2):  # also once the engine has seen it
        result = jax.device_get(run(qpos, sick, ctrl))
        assert np.isnan(result.qpos[2]).all()
        chex.assert_trees_all_equal(*(jax.tree.map(lambda x: np.delete(x, 2, axis=0), tree) for tree in (result, well)))
    chex.assert_trees_all_equal(jax.device_get(run(qpos, qvel, ctrl)), well)


def test_a_command_that_is_no_number_is_no_warning_of_the_engine(pendulum, elsewhere, capfd):
    """As of a run of a sweep that diverged, which would fill standard error with them; the next rollout is sound."""
    physics = CpuPhysics(pendulum, 2)
    data = jax.vmap(lambda q: physics.init(q, jnp.zeros(1), {}))(jnp.array([[0.1], [0.2], [0.3]]))
    step = jax.jit(jax.vmap(lambda data, ctrl: physics.step(data, ctrl, {})))
    for bad in (np.nan, np.inf, 1e11):
        found = step(data, jnp.zeros((3, 2, 1)).at[1, 1].set(bad))
        assert np.isnan(found.qpos[:, 0]).tolist() == [False, True, False]
    assert np.isfinite(step(data, jnp.zeros((3, 2, 1))).qpos).all()
    assert "WARNING" not in capfd.readouterr().err


def balls(memory):
    """Twenty balls on the ground, with so many bytes for their contacts."""
    bodies = "".join(f'<body pos="{0.3 * i} 0 .09"><freejoint/><geom size=".1"/></body>' for i in range(20))
    return mujoco.MjModel.from_xml_string(
        f'<mujoco><size memory="{memory}"/><worldbody><geom type="plane" size="9 9 .1"/>{bodies}</worldbody></mujoco>'
    )


def in_the_air(physics, num):
    """The states of `num` sets of balls without contacts, and their coordinates on the ground."""
    ground = np.tile(physics.model.qpos0, (num, 1)).astype(np.float32)
    air = ground.copy()
    air[:, 2::7] = 5.0
    data = jax.vmap(lambda q: physics.init(q, jnp.zeros(physics.model.nv), {}))(air)
    return data, air, ground


def step_balls(physics, data):
    return jax.vmap(lambda d: physics.step(d, jnp.zeros((physics.substeps, 0)), {}))(data)


def test_an_engine_out_of_contact_memory_reports_no_number(elsewhere):
    physics = CpuPhysics(balls("24K"), 2)  # holds some of the contacts: the engine would drop the others and go on
    data, air, ground = in_the_air(physics, 3)
    qpos = np.where([[False], [True], [False]], ground, air)
    for result in (
        step_balls(physics, data.replace(qpos=qpos)),
        jax.vmap(lambda q: physics.init(q, jnp.zeros(physics.model.nv), {}))(qpos),
    ):
        assert np.isnan(result.qpos).all(axis=1).tolist() == [False, True, False]
        assert np.isfinite(result.qpos[0]).all() and np.isfinite(result.qpos[2]).all()


def test_an_engine_that_fails_names_the_environment(elsewhere):
    physics = CpuPhysics(balls("16K"), 2)  # not enough to search for contacts
    data, air, ground = in_the_air(physics, 3)
    step = jax.jit(lambda data: step_balls(physics, data).qpos)
    well = np.asarray(step(data))
    with pytest.raises(FAILURE, match=r"the C engine failed in environment 1 of 3.*out of memory"):
        jax.block_until_ready(step(data.replace(qpos=np.where([[False], [True], [False]], ground, air))))
    np.testing.assert_array_equal(step(data), well)  # the physics can be used again


def test_fields_that_the_engine_refuses_are_refused_every_time():
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><body><joint type="slide"/><geom size=".1"/></body></worldbody></mujoco>'
    )
    physics = CpuPhysics(model, 2)

    @jax.jit
    @jax.vmap
    def run(mass, inertia):
        dynamics = {"body_mass": mass, "body_inertia": inertia}
        return roll(physics, jnp.zeros(1), jnp.ones(1), jnp.zeros((1, 2, 0)), dynamics).qpos

    mass, inertia = (np.stack([field_template(model, name)] * 4) for name in ("body_mass", "body_inertia"))
    well = np.asarray(run(mass, inertia))
    scale = np.array([1.0, 1.0, 0.0, 1.0], np.float32)[:, None]
    for _ in range(2):  # an engine that has seen the fields must not take them for done
        with pytest.raises(FAILURE, match=r"the C engine failed in environment 2 of 4.*has 0 mass"):
            jax.block_until_ready(run(mass * scale, inertia * scale[:, None]))
    np.testing.assert_array_equal(run(mass, inertia), well)


def test_the_c_engine_needs_jax_on_the_cpu(monkeypatch, pendulum):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ValueError, match=r"JAX runs on gpu: set JAX_PLATFORMS=cpu, or choose the backend mjx or warp"):
        make_physics(pendulum, 0.02, "cpu")


def test_cpu_lists_what_it_can_output(pendulum):
    with pytest.raises(ValueError, match=r"output efc_force, qacc; .*: sensordata, xpos"):
        CpuPhysics(pendulum, 1, ("qacc", "sensordata", "efc_force"))


def test_the_callers_model_is_left_as_it_was(pendulum):
    flags = pendulum.opt.disableflags
    physics = CpuPhysics(pendulum, 1)
    assert pendulum.opt.disableflags == flags != physics.model.opt.disableflags
