"""The backends against each other, what they check, and how one is chosen."""

import copy

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.envs.physics import Physics, make_physics, resolve_backend
from mjx_policies.envs.physics.base import field_template
from mjx_policies.envs.physics.cpu import CpuPhysics
from mjx_policies.envs.physics.mjx import MjxPhysics
from mjx_policies.envs.quadruped import scenes
from mjx_policies.randomization.constants import set_const

CHUNK = 10  # small enough for XLA to run each operation on one thread, and quick to compile


def visited_states(model, num, seed, settle=60):
    """States that random commands lead to, so that contacts are as deep as they are in a simulation; float32."""
    rng = np.random.default_rng(seed)
    data = mujoco.MjData(model)
    states = []
    for _ in range(num):
        mujoco.mj_resetData(model, data)
        if model.nkey:
            mujoco.mj_resetDataKeyframe(model, data, 0)
        data.qpos[3:7] += 0.2 * rng.normal(size=4)
        data.qpos[7:] += rng.uniform(-0.3, 0.3, model.nq - 7)
        data.qvel[:] = 0.5 * rng.normal(size=model.nv)
        middle = data.ctrl.copy()
        for step in range(rng.integers(settle // 2, settle)):
            if step % 10 == 0:
                data.ctrl[:] = middle + rng.uniform(-0.5, 0.5, model.nu)
            mujoco.mj_step(model, data)
        states.append((data.qpos.copy(), data.qvel.copy(), middle + rng.uniform(-0.5, 0.5, model.nu)))
    qpos, qvel, ctrl = (np.stack(x).astype(np.float32) for x in zip(*states, strict=True))
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    return qpos, qvel, ctrl


@pytest.fixture(scope="module", params=["walker", "go2"])
def parity(request, walker):
    """One substep of 200 states on both backends: what `init` and `step` return, and which states can be compared."""
    model = walker
    if request.param == "go2":
        model = scenes.flat(lean=True)
        # The task stops the solver after 3 iterations, where two implementations need not be equally far.
        model.opt.iterations = model.opt.ls_iterations = 50
    qpos, qvel, ctrl = visited_states(model, 200, seed=1)
    dynamics = {} if request.param == "go2" else changed_fields(model, 200)

    def one_substep(physics):
        @jax.jit
        @jax.vmap
        def run(qpos, qvel, ctrl, dynamics):
            first = physics.init(qpos, qvel, dynamics)
            after = physics.step(first, ctrl[None], dynamics)
            sensed = {"first": first.sensordata, "after": after.sensordata}
            return sensed | {"qpos": after.qpos, "qvel": after.qvel, "act": after.act, "force": after.actuator_force}

        def chunked(x):
            return x.reshape(-1, CHUNK, *x.shape[1:])

        result = jax.lax.map(lambda inputs: run(*inputs), jax.tree.map(chunked, (qpos, qvel, ctrl, dynamics)))
        return {name: np.asarray(x).reshape(len(qpos), -1) for name, x in result.items()}

    dt = model.opt.timestep
    cpu = one_substep(make_physics(model, dt, "cpu", ("sensordata", "actuator_force")))
    mjx = one_substep(make_physics(model, dt, "mjx"))
    return model, cpu, mjx, comparable(model, qpos, cpu["force"])


def changed_fields(model, num):
    """Another robot for every state, with the constants that MJX leaves to be recomputed."""
    rng = np.random.default_rng(2)
    fields = {}
    for name in ("body_mass", "body_ipos", "geom_friction", "actuator_gainprm", "dof_damping", "opt.gravity"):
        value = field_template(model, name)
        fields[name] = value * rng.uniform(0.7, 1.4, (num, *value.shape)).astype(np.float32)
    return fields | jax.device_get(jax.vmap(lambda fields: set_const(fields, model))(fields))


def comparable(model, qpos, force):
    """The states in which the two engines mean to compute the same thing."""
    wide, data = copy.copy(model), mujoco.MjData(model)
    wide.geom_margin[:] = 1e-3
    # A contact a hundred roundings of a metre from touching may be there in one precision and absent in the other, and
    # MJX turns the pyramid of friction by another angle where a capsule touches.
    clear = []
    for q in qpos:
        data.qpos[:] = q
        mujoco.mj_forward(wide, data)
        grazing = np.any(np.abs(data.contact.dist) < 1e-5)
        touching = data.contact.geom[data.contact.dist < 0]
        clear.append(not grazing and not np.any(model.geom_type[touching] == mujoco.mjtGeom.mjGEOM_CAPSULE))
    # The implicit integrator of MJX also damps a servo at its force limit, that of the C engine does not.
    limit = np.where(model.actuator_forcelimited, model.actuator_forcerange[:, 1], np.inf)
    return np.array(clear) & (np.abs(force) < 0.999 * limit).all(axis=1)


def test_one_substep_agrees_between_cpu_and_mjx(parity):
    model, cpu, mjx, clear = parity
    assert clear.sum() >= 150
    touching = cpu["after"][:, model.sensor_adr[model.sensor_type == mujoco.mjtSensor.mjSENS_CONTACT]].any(axis=1)
    assert touching.sum() >= 50, "the states should not all be in the air"
    # float32 has 1.2e-7; contacts are stiff and joints light, so accelerations carry it a hundredfold (perturbing the
    # C engine's own input by one rounding moves qvel by 2e-5 and forces by 4e-4), and positions gain it times dt.
    tolerances = {"qpos": 1e-6, "qvel": 5e-5, "act": 1e-6, "force": 1e-5, "first": 2e-3, "after": 2e-3}
    off = np.zeros(clear.sum())
    for name, atol in tolerances.items():
        expected = cpu[name][clear]
        error = np.abs(mjx[name][clear] - expected) / (atol + 2e-5 * np.abs(expected))
        off = np.maximum(off, error.max(axis=1, initial=0))
    # Where two solvers stop is a matter of one comparison: now and then one of them takes another iteration.
    assert (off > 1).mean() <= 0.02, f"beyond tolerance, times: {off[off > 1]}"
    assert off.max() < 50


@pytest.mark.parametrize("backend", ["cpu", "mjx"])
def test_sensors_lag_one_substep(parity, backend):
    model, cpu, mjx, _ = parity
    result = cpu if backend == "cpu" else mjx
    early = model.sensor_needstage < int(mujoco.mjtStage.mjSTAGE_ACC)  # those that do not depend on the command
    columns = np.concatenate(
        [np.arange(a, a + n) for a, n in zip(model.sensor_adr[early], model.sensor_dim[early], strict=True)]
    )
    # `init` sees the state itself, and so does the only substep that follows; XLA may round the two differently.
    np.testing.assert_allclose(
        result["after"][:, columns], result["first"][:, columns], rtol=0, atol=0 if backend == "cpu" else 1e-5
    )


@pytest.mark.parametrize("backend", ["cpu", "mjx"])
def test_inputs_are_checked_before_tracing(pendulum, backend):
    physics = make_physics(pendulum, 0.02, backend)
    assert isinstance(physics, Physics) and physics.substeps == 2
    start = jnp.zeros(1), jnp.zeros(1)
    data = jax.eval_shape(lambda: physics.init(*start, {}))
    cases = [
        ({"body_mas": jnp.zeros(2)}, jnp.zeros((2, 1)), r"no float field 'body_mas'; fields like it: .*body_mass"),
        ({"nbody": jnp.zeros(())}, jnp.zeros((2, 1)), r"no float field 'nbody'"),
        ({"opt.gravty": jnp.zeros(3)}, jnp.zeros((2, 1)), r"no float field 'opt.gravty'"),
        ({"body_mass": jnp.zeros(3)}, jnp.zeros((2, 1)), r"dynamics\['body_mass'\] has shape \(3,\), .* has \(2,\)"),
        ({}, jnp.zeros(1), r"ctrl has shape \(1,\), expected \(2, 1\): one row per substep, one column per actuator"),
        ({}, jnp.zeros((1, 1)), r"ctrl has shape \(1, 1\)"),
        ({}, jnp.zeros((2, 2)), r"ctrl has shape \(2, 2\)"),
    ]
    for dynamics, ctrl, message in cases:
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(physics.step, data, ctrl, dynamics)
        if dynamics:
            with pytest.raises(ValueError, match=message):
                jax.eval_shape(physics.init, *start, dynamics)


def test_auto_is_the_c_engine_without_an_accelerator(pendulum):
    assert resolve_backend("auto") == "cpu"
    assert isinstance(make_physics(pendulum, 0.02), CpuPhysics)
    assert isinstance(make_physics(pendulum, 0.02, "mjx"), MjxPhysics)


@pytest.mark.parametrize(
    ("device", "installed", "expected"),
    [("gpu", True, "warp"), ("gpu", False, "mjx"), ("tpu", True, "mjx"), ("cpu", True, "cpu")],
)
def test_auto_on_accelerators(monkeypatch, device, installed, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: device)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    assert resolve_backend("auto") == expected
    assert [resolve_backend(backend) for backend in ("cpu", "mjx", "warp")] == ["cpu", "mjx", "warp"]


def test_make_physics_explains_what_it_refuses(pendulum):
    with pytest.raises(ValueError, match=r"unknown physics backend 'gpu'; known: auto, cpu, mjx, warp"):
        make_physics(pendulum, 0.02, "gpu")
    for control_dt in (0.025, 0.004, 0.0):
        with pytest.raises(
            ValueError, match=rf"control_dt {control_dt} s is not a multiple of the physics step 0.01 s"
        ):
            make_physics(pendulum, control_dt)


HINGED = """
<mujoco>
  <option timestep="0.01" integrator="{integrator}"/>
  <worldbody><body pos="0 0 1"><joint name="hinge" axis="0 1 0"/><geom size=".1" pos=".3 0 0"/></body></worldbody>
  <actuator><motor joint="hinge" {actuator}/></actuator>
  <sensor><jointpos joint="hinge" {sensor}/></sensor>
</mujoco>
"""
DROPPED = """
<mujoco>
  <worldbody>
    <geom name="floor" type="{floor}" size="1 1 .1"/>
    <body name="ball" pos="0 0 1"><freejoint/><geom type="{geom}" size=".1 .1"/><site name="zone" size=".2"/></body>
  </worldbody>
  <sensor>{sensor}</sensor>
</mujoco>
"""
UNSUPPORTED = {
    "actuator delay": (
        HINGED.format(integrator="Euler", actuator='delay="0.02" nsample="3"', sensor=""),
        r"ignores the delay and history .* choose the backend cpu or warp, or .* randomization.ActionDelay",
    ),
    "sensor delay": (
        HINGED.format(integrator="Euler", actuator="", sensor='delay="0.02" nsample="3"'),
        r"ignores the delay and history .* choose the backend cpu or warp",
    ),
    "implicit": (
        HINGED.format(integrator="implicit", actuator="", sensor=""),
        "no integrator 'implicit': choose the backend cpu",
    ),
    "discrete": (
        HINGED.format(integrator="discrete", actuator="", sensor=""),
        "no integrator 'discrete': choose the backend cpu",
    ),
    "cylinder on box": (
        DROPPED.format(floor="box", geom="cylinder", sensor=""),
        r"cannot simulate this model \(.*CYLINDER.*BOX.*\): choose the backend cpu or warp",
    ),
    "contacts in a site": (
        DROPPED.format(floor="plane", geom="sphere", sensor='<contact site="zone"/>'),
        r"cannot simulate this model \(.*site.*\): choose the backend cpu or warp",
    ),
    "contacts of a subtree": (
        DROPPED.format(floor="plane", geom="sphere", sensor='<contact subtree1="ball"/>'),
        r"cannot simulate this model \(.*subtree.*\): choose the backend cpu or warp",
    ),
}


@pytest.mark.parametrize(("xml", "message"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_mjx_refuses_what_it_would_not_simulate(xml, message):
    model = mujoco.MjModel.from_xml_string(xml)
    with pytest.raises(ValueError, match=message):
        make_physics(model, model.opt.timestep, "mjx")
    physics = make_physics(model, model.opt.timestep, "cpu")  # what the message advises
    data = physics.init(jnp.asarray(model.qpos0, jnp.float32), jnp.zeros(model.nv), {})
    assert np.isfinite(physics.step(data, jnp.zeros((1, model.nu)), {}).qpos).all()
